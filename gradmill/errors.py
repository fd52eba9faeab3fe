"""What may go wrong for a user: what was found, what was expected, what to do."""

import re
from typing import Any

# What a terminal obeys, and what turns the order of letters around; lines and tabs are harmless.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CREDENTIALS = re.compile(r"(?<=://)\S*@")  # user:password@ in an address, whatever stands in the password


def escape_control_characters(text: str) -> str:
    """``text`` with its control characters spelt out: a column's name may hold orders to a terminal."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def without_credentials(text: str) -> str:
    """``text`` with no user name and no password in any address in it."""
    return CREDENTIALS.sub("", text)


class GradmillError(Exception):
    """Base of all errors that the command line prints without a traceback."""

    exit_code = 1

    def __init__(self, found: str, expected: str, action: str) -> None:
        lines = (without_credentials(" ".join(text.split())) for text in (found, expected, action))
        self.found, self.expected, self.action = lines  # a line each, whatever a library wrote
        super().__init__(self.found, self.expected, self.action)

    def __str__(self) -> str:
        return escape_control_characters(f"{self.found}\nexpected: {self.expected}\nto do: {self.action}")


class DataError(GradmillError):
    """The data cannot be had or is broken, or a stored version is missing or not as it was published."""

    exit_code = 4


class Refused(GradmillError):
    """A gate refused the model; ``gates`` has every verdict."""

    exit_code = 3
    gates: tuple[Any, ...] = ()
