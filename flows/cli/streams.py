"""The standard streams, made safe against tracebacks. Imports nothing that takes time."""

import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

STDOUT = "standard output"

document_written = False  # by this command
_closed = False
_output: TextIO | None = None  # standard output, while it is reserved for the document


class _Output(io.FileIO):
    """Standard output: its errors carry its name, which distinguishes them from those of files and connections."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _ForgivingStream(io.FileIO):
    """Standard error: failed writes are dropped, because they must not end the work that is reported."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def guard() -> None:
    """Replace the standard streams of this process."""
    global _closed
    closed = [descriptor for descriptor in range(3) if not _is_open(descriptor)]
    for _ in closed:  # or the next opened files would get these numbers, and the output
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_ForgivingStream(2, "w", closefd=False), sys.stderr)
    _closed = 1 in closed


def require_output() -> None:
    """Fail before any work if its result could not be printed.

    Raises:
        OSError: standard output was closed from the start.
    """
    if _closed:
        raise OSError(errno.EBADF, "closed", STDOUT)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:
    """A text stream like ``before``; characters that its encoding lacks are escaped.

    Lines are flushed if Python is unbuffered (PYTHONUNBUFFERED), on standard error always.
    """
    buffered: Any = io.BufferedWriter(raw)
    unbuffered = raw.fileno() == 2 or getattr(before, "write_through", False)
    return io.TextIOWrapper(
        buffered,
        encoding=getattr(before, "encoding", None),
        errors="backslashreplace",
        line_buffering=unbuffered or getattr(before, "line_buffering", False),
    )


@contextmanager
def document_alone() -> Iterator[None]:
    """Reserve standard output for ``print_json``: other output goes to standard error."""
    global _output
    _output = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _output = None


def print_json(document: Any) -> None:
    """Print the one document on stdout; NaN and infinity, which JSON lacks, become null."""
    from pydantic_core import to_jsonable_python

    print_document(to_jsonable_python(document, inf_nan_mode="null"))


def print_document(document: Any) -> None:
    """Print a document of plain JSON values, using only the standard library."""
    global document_written
    document_written = True
    print(json.dumps(document, indent=2, allow_nan=False), file=_output, flush=True)


def asks_for_json(arguments: list[str]) -> bool:
    """Whether a requested document has not been written yet."""
    return "--json" in arguments and not document_written


def is_lost_output(error: BaseException | None) -> bool:
    """Whether standard output could not be written."""
    return isinstance(error, OSError) and error.filename == STDOUT


def drop_output() -> None:
    """Discard unwritten output, or the interpreter would fail again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
