"""The errors that a user may meet: what was found, what was expected, what to do."""

import re
from typing import Any

# Characters that a terminal obeys, and those that reverse the writing direction; line breaks and tabs are harmless.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CREDENTIALS = re.compile(r"(?<=://)\S*@")  # user:password@ in an address, whatever the password contains


def escape_control_characters(text: str) -> str:
    """``text`` with its control characters spelt out: the name of a column may contain terminal commands."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def without_credentials(text: str) -> str:
    """``text`` without user names and passwords in addresses."""
    return CREDENTIALS.sub("", text)


class GradmillError(Exception):
    """The base of all errors that the command line prints without a traceback."""

    exit_code = 1

    def __init__(self, found: str, expected: str, action: str) -> None:
        lines = (without_credentials(" ".join(text.split())) for text in (found, expected, action))
        self.found, self.expected, self.action = lines  # one line each, whatever a library wrote
        super().__init__(self.found, self.expected, self.action)

    def __str__(self) -> str:
        return escape_control_characters(f"{self.found}\nexpected: {self.expected}\nto do: {self.action}")


class DataError(GradmillError):
    """The data are unavailable or broken, or a stored version is missing or not as it was published."""

    exit_code = 4


class Refused(GradmillError):
    """A gate refused the model; ``gates`` has every verdict."""

    exit_code = 3
    gates: tuple[Any, ...] = ()
