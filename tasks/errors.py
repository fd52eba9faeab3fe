"""Everything that may go wrong for a user: what was found, what was expected, what to do.

The exit codes are a contract (README, "Command line").
"""

import re
from typing import Any

from tasks.machine.words import printable

CREDENTIALS = re.compile(r"(?<=://)\S*@")  # user:password@ in an address, whatever stands in the password


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
        return printable(f"{self.found}\nexpected: {self.expected}\nto do: {self.action}")


class UsageError(GradmillError):
    """The command, a parameter, or a model or version that does not exist."""

    exit_code = 2


class TrainingDiverged(GradmillError):
    """The training loss is no longer a finite number."""

    exit_code = 3


class GateFailed(GradmillError, AssertionError):
    """A gate refused the candidate.

    ``record`` is what the stage would have returned: its metrics and every verdict.
    """

    exit_code = 3
    record: Any = None


class DataError(GradmillError):
    """The data cannot be had or is broken, or a stored version fails verification."""

    exit_code = 4


class DeviceMissing(GradmillError):
    """The asked-for device is not there."""

    exit_code = 5


class EnvironmentProblem(GradmillError):
    """This machine does not let us work: disk full, folder not writable, server not reachable."""

    exit_code = 1
