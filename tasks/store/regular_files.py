"""Paths that a user names, and files opened without waiting for a FIFO, a socket or a device."""

import errno
import os
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from tasks.errors import DataError, UsageError

LONGEST_PATH = 4096  # the limit of Linux
SHOWN = 60  # characters that are shown of a longer one


def make_absolute(text: str) -> Path:
    """The absolute path of a path or glob that a user typed, with ``~`` expanded; it need not exist.

    Raises:
        UsageError: the text cannot be a path.
    """
    try:
        path = Path(text).expanduser()
        folder = Path() if path.is_absolute() else Path.cwd()
        while path.parts[:1] == ("..",):  # only leading ones: behind a link .. is another folder
            path, folder = Path(*path.parts[1:]), folder.parent
        path = folder / path
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # a glob, or a missing file that is reported later
    except (OSError, ValueError, RuntimeError) as error:  # the last two for a NUL, and for a user who does not exist
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(
            f"the input {format_path(text)}: {reason}", "a file, a folder or a glob", "check it"
        ) from error
    return path


def format_path(path: Path | str) -> str:
    """A path in printable form: names are bytes, need not be UTF-8, and may be far too long."""
    text = os.fsencode(path).decode(errors="replace")
    return text if len(text) <= LONGEST_PATH else f"{text[:SHOWN]}… ({len(text)} characters)"


def is_true(question: Callable[[], bool]) -> bool:
    """The answer of a method such as ``entry.is_dir``; False for a link that leads in a circle."""
    try:
        return question()
    except OSError:
        return False


def open_descriptor(path: Path | str) -> int:
    """Open a regular file for reading; the caller closes it.

    Raises:
        DataError: it cannot be opened, or is not a regular file.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise irregular_file(path) from error
        missing = isinstance(error, FileNotFoundError)
        found = f"{path} is missing" if missing else f"{path} cannot be read: {error.strerror}"
        raise DataError(found, "a readable file", "see the path" if missing else "see its permissions") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise irregular_file(path)
    return opened


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file as a stream of bytes.

    Raises:
        DataError: as for ``open_descriptor``.
    """
    return os.fdopen(open_descriptor(path), "rb")


def irregular_file(path: Path | str) -> DataError:
    """The error for a folder, a FIFO, a socket or a device where a file is required."""
    return DataError(
        f"{path} is not a regular file", "a file on disk", "write its output to a file, and give that file"
    )
