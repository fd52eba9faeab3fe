"""The errors of a user's file that is damaged, is not what its name says, or changes while it is read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import DataError, GradmillError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Take whatever is raised for the file's fault: what parsers and decompressors raise has no end of kinds.

    Raises:
        DataError: something was raised.
    """
    try:
        yield
    except GradmillError:
        raise
    except Exception as error:
        raise broken(path, error) from error


def broken(path: Path, reason: object) -> DataError:
    """The error of a file that is not what its name says."""
    return DataError(f"{path} cannot be read: {reason}", f"a whole {path.suffix or 'IDX'} file", "write it again")


def changed(path: str) -> DataError:
    """The error of an input file that is no longer what the job was planned for."""
    return DataError(
        f"{path} is gone or was written to while the job was running",
        "an input that stays as it is until the job is done",
        "run the command again: it makes a new job (into the same --output: with --restart)",
    )
