"""The standard streams, so that none of them ends in a traceback. Imports nothing that takes time."""

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
_output: TextIO | None = None  # standard output, while only the document goes there


class _Output(io.FileIO):
    """Standard output: its faults carry its name, and so differ from those of files and connections."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Courtesy(io.FileIO):
    """Standard error: what cannot be shown there is dropped, for it must not end the work that it tells of."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def guard() -> None:
    """Take charge of the standard streams of this process."""
    global _closed
    closed = [descriptor for descriptor in range(3) if not _is_open(descriptor)]
    for _ in closed:  # or the next files that are opened would take these numbers, and whatever is printed
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Courtesy(2, "w", closefd=False), sys.stderr)
    _closed = 1 in closed


def require_output() -> None:
    """Fail before any work whose result could not be told.

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
    """A text stream like the one before; a character that its encoding lacks is escaped.

    Where Python was told not to buffer (PYTHONUNBUFFERED), each line is shown when it ends, standard error's always.
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
    """Keep standard output for ``print_json``: whatever else is printed goes to standard error."""
    global _output
    _output = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _output = None


def print_json(document: Any) -> None:
    """The one document on stdout; JSON has no word for NaN and infinity, which are null."""
    from pydantic_core import to_jsonable_python

    print_document(to_jsonable_python(document, inf_nan_mode="null"))


def print_document(plain: Any) -> None:
    """The same of what JSON has words for, by the standard library alone."""
    global document_written
    document_written = True
    print(json.dumps(plain, indent=2, allow_nan=False), file=_output, flush=True)


def owes_json(arguments: list[str]) -> bool:
    """Whether a document is asked for that has not been written."""
    return "--json" in arguments and not document_written


def is_lost_output(error: BaseException | None) -> bool:
    """Whether it was standard output that could not be written."""
    return isinstance(error, OSError) and error.filename == STDOUT


def drop_output() -> None:
    """Forget what standard output did not take, or the interpreter would try, and fail, once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
