"""The errors of a user's file that is damaged, is not what its name says, or changes while it is read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import DataError, GradmillError


@contextlib.contextmanager
def reading(path: object, expected: str = "") -> Iterator[None]:
    """Take whatever is raised for the file's fault: what parsers and decompressors raise has no end of kinds.

    Raises:
        DataError: something was raised.
    """
    try:
        yield
    except GradmillError:
        raise
    except Exception as error:
        raise broken(path, next(iter(str(error).splitlines()), type(error).__name__), expected) from error


def broken(path: object, reason: object, expected: str = "", action: str = "") -> DataError:
    """The error of a file, by path or URL, that is not what was ``expected``, or else what its name says."""
    action = action or ("mend it, or leave it out" if expected else "write it again")
    expected = expected or f"a whole {Path(str(path)).suffix or 'IDX'} file"
    return DataError(f"{path} cannot be read: {reason}", expected, action)


def changed(path: str) -> DataError:
    """The error of an input file that is no longer what the job was planned for."""
    return DataError(
        f"{path} is gone or was written to while the job was running",
        "an input that stays as it is until the job is done",
        "run the command again: it makes a new job (into the same --output: with --restart)",
    )
