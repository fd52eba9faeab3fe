"""Errors as one to three lines (or one JSON document) with an exit code."""

import errno
import os
import re
import socket
import ssl
import sys
import urllib.error
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import typer
from pydantic_core import to_jsonable_python

from flows.cli import streams
from flows.cli.display import fit, print_line, print_page
from tasks.errors import DataError, EnvironmentProblem, GradmillError, UsageError
from tasks.machine import progress
from tasks.machine.run_messages import print_message
from tasks.store import artifact_paths
from tasks.store.page_rendering import Page
from tasks.store.state import Fault, Kind

CommandLineFault: type[Exception] = typer.BadParameter.__bases__[0]  # base of command-line errors in old and new typer

NO_COMMAND = re.compile(r"No such command '(.*?)'\..*")  # with proposals, perhaps
WHERE = "run again with --debug, which shows where it happened"

# For each error of the system: what is expected, and what to do.
ELSEWHERE = "or choose another folder, with --output or --artifacts"
SPACE = ("free space there", f"free some, {ELSEWHERE}; files are written whole or not at all")
PERMISSION = ("permission to read and write there", f"fix its permissions, {ELSEWHERE}")
OPEN_FILES = ("a free file descriptor", "raise the limit (ulimit -n), or give fewer --workers")
NO_FOLDER = ("a folder of that name, and not a file", f"move what has that name, {ELSEWHERE}")
DISK = ("a working disk", "see the system's log (dmesg): the disk or its connection fails")
REFUSALS = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: ("room in your quota", f"free some of it, {ELSEWHERE}; files are written whole or not at all"),
    errno.EFBIG: ("a file system that takes files of this size", "raise the limit (ulimit -f), " + ELSEWHERE),
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: ("a file system that can be written", f"mount it writable, {ELSEWHERE}"),
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
    errno.ENAMETOOLONG: ("a path that the file system takes", "choose shorter names and a shorter path"),
    errno.ENOENT: ("a file or folder that exists", "see what removes or moves it, and run again"),
    errno.ENOTDIR: NO_FOLDER,
    errno.EEXIST: NO_FOLDER,
    errno.EISDIR: ("a file of that name, and not a folder", f"move the folder away, {ELSEWHERE}"),
    errno.ELOOP: ("a path whose symbolic links come to an end", "remove the link that leads back to itself"),
    errno.ENOLCK: ("a file system with locks, such as a local disk or NFSv4", f"use one, {ELSEWHERE}"),
    errno.EIO: DISK,
    errno.ESTALE: DISK,
    errno.ENOMEM: ("enough memory", "end other programs, or give fewer --workers and a smaller --batch-size"),
}
NETWORK = (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror, urllib.error.URLError)
UNREACHABLE = {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}


class Answer(NamedTuple):
    """The result of a command: a document, a text or page for people, an error to raise, and what to do last."""

    document: Any
    text: str | Callable[[], Page] | None = None
    failure: Exception | None = None
    then: Callable[[], object] | None = None


def as_gradmill_error(error: BaseException) -> GradmillError:
    """Convert an error into one that explains it to the user."""
    if isinstance(error, GradmillError):
        return error
    if isinstance(error, CommandLineFault):
        return _explain_command_line(error)
    name = type(error).__name__
    if name == "FlowRunTimeoutError":  # Prefect's error, which is an OSError
        limit = f"GRADMILL_TIME_LIMIT={os.environ.get('GRADMILL_TIME_LIMIT')}"
        return EnvironmentProblem("the run took longer than its time limit", limit, "raise it, or unset it")
    if isinstance(error, OSError):
        return _refused_by_the_system(error)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":  # torch's error, for GPU memory
        return EnvironmentProblem(f"{name}: {error}", *REFUSALS[errno.ENOMEM])
    if isinstance(error, ImportError):
        return EnvironmentProblem(
            f"{name}: {error}", "the packages that gradmill needs", "run gradmill doctor, which says what to install"
        )
    return EnvironmentProblem(f"{name}: {error}", "no such error", "run again with --debug and report the traceback")


def _explain_command_line(error: Exception) -> UsageError:
    """Explain what was typed: what was removed is named with what to use instead."""
    from flows.cli import removed
    from tasks.parameters.form import in_words, removed_error

    command = str(getattr(getattr(error, "ctx", None), "info_name", ""))
    option = getattr(error, "option_name", "")
    message = str(getattr(error, "format_message", error.__str__)()).replace("Value error, ", "")
    if no_command := NO_COMMAND.fullmatch(message):
        word, action = no_command[1], removed.COMMANDS.get(no_command[1])
    else:
        word, action = option, removed.list_options().get((command, option))
    if action:
        return removed_error(word, action)
    found, of_value, expected = message.partition(": Input should be ")
    expected = in_words(expected) if of_value else "a command as gradmill --help describes it"
    return UsageError(found, expected, "run it again with --help")


def _refused_by_the_system(error: OSError) -> GradmillError:
    """Explain an error of the system, with its file: not every one is a full disk."""
    reason = error.strerror or str(error) or type(error).__name__
    if streams.is_lost_output(error):
        return EnvironmentProblem(
            f"{streams.STDOUT}: {reason}", "somewhere to write the result", "redirect it to a file, or to /dev/null"
        )
    if isinstance(error, NETWORK) or error.errno in UNREACHABLE:
        return EnvironmentProblem(
            f"a connection failed: {reason}",
            "an answer over the network",
            "see that the other side runs, and try again",
        )
    files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, str | bytes)]
    place = " -> ".join(artifact_paths.TEMPORARY.sub("", file) for file in files)  # not the name of a half-written file
    if error.errno is None:  # raised by a library
        found = f"{type(error).__name__}: {reason}{place and f': {place}'}"
        return EnvironmentProblem(found, "a file that the library does not refuse", WHERE)
    expected, action = REFUSALS.get(error.errno, ("a system that does not refuse this", WHERE))
    return EnvironmentProblem(f"{reason}: {place or f'in {artifact_paths.root()}'}", expected, action)


def in_json(error: GradmillError) -> dict[str, Any]:
    """The error as it appears in a document."""
    return {"exit_code": error.exit_code, "found": error.found, "expected": error.expected, "action": error.action}


def report_error(error: GradmillError, as_json: bool) -> int:
    """Print an error on stderr, or as a JSON document on stdout; return its exit code."""
    if as_json:
        streams.print_json({"error": in_json(error)})
    else:
        for line in f"gradmill: {error}".split("\n"):
            print(fit(line, progress.CONSOLE, indent=2), file=sys.stderr)
    return error.exit_code


def conclude(answer: Answer, as_json: bool, quiet: bool = False) -> None:
    """Print the result of a command, as one document or, unless ``quiet``, as text; then call ``then``.

    ``failure`` is raised afterwards. A refusal is an outcome in its document, so it adds no error there.
    """
    document, text, failure, then = answer
    try:
        if as_json:
            document = {"schema_version": 1} | to_jsonable_python(document)
            if failure and not isinstance(failure, typer.Exit) and document.get("outcome") != "refused":
                document["error"] = in_json(as_gradmill_error(failure))
            streams.print_json(document)
        elif isinstance(text, str):
            print_line(text)
        elif text and not quiet:
            print_page(text())
    finally:
        if then:
            then()
    if failure:
        raise failure


def report_faults(faults: Sequence[Fault], *kinds: Kind) -> DataError | None:
    """Report unreadable documents on stderr, but return the first of these ``kinds`` as an error instead.

    Without such a document the answer is incomplete.
    """
    first = next((fault for fault in faults if fault.kind in kinds), None)
    for fault in faults:
        if fault is not first:
            print_message(f"left out: {fault.found}", file=sys.stderr)
    return DataError(first.found, first.expected, first.action) if first else None
