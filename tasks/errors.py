"""The errors that a user may meet: what was found, what was expected, what to do.

The exit codes are a contract (README, "Command line").
"""

from typing import Any

from gradmill.errors import DataError as DataError
from gradmill.errors import GradmillError as GradmillError
from gradmill.errors import without_credentials as without_credentials


class UsageError(GradmillError):
    """A wrong command or parameter, or a model or version that does not exist."""

    exit_code = 2


class TrainingDiverged(GradmillError):
    """The training loss is no longer a finite number."""

    exit_code = 3


class GateFailed(GradmillError, AssertionError):
    """A gate refused the candidate.

    ``record`` is the result that the stage would have returned: its metrics and every verdict.
    """

    exit_code = 3
    record: Any = None


class DeviceMissing(GradmillError):
    """The requested device does not exist."""

    exit_code = 5


class EnvironmentProblem(GradmillError):
    """This machine prevents the work: disk full, folder not writable, server not reachable."""

    exit_code = 1
