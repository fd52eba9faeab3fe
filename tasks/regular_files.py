"""Files that a user names, opened so that nothing waits for a FIFO, a socket or a device."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from tasks.errors import DataError


def descriptor(path: Path) -> int:
    """Open a regular file to read from; the caller closes it.

    Raises:
        DataError: it cannot be opened, or is something else than a regular file.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "a readable file", "see its permissions") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise irregular(path)
    return opened


def opened(path: Path) -> BinaryIO:
    """The same as a stream of bytes.

    Raises:
        DataError: as for ``descriptor``.
    """
    return os.fdopen(descriptor(path), "rb")


def irregular(path: Path | str) -> DataError:
    """The error of a folder, a FIFO, a socket or a device where a file is wanted."""
    return DataError(f"{path} is no regular file", "a file on disk", "write what it gives to a file, and name that")
