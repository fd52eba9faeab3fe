"""A child that ends with its parent: ``python -m flows.server.supervisor COMMAND …``, with the parent's pipe as stdin.

The pipe closes when the parent closes it or dies in any way; then the command's whole process group is ended.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE_SECONDS = 4.0  # two children in turn fit into the ten seconds that gradmill up has
STOP_SECONDS = GRACE_SECONDS + 1


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes],
    cwd: Path | None = None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start ``command`` in its own group with these ``descriptors``; closing the returned process's stdin ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.server.supervisor", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=dict(environment),
        cwd=cwd,
        start_new_session=True,  # only the parent handles Ctrl-C
        pass_fds=descriptors,
    )


def stop(process: subprocess.Popen[bytes], wait: bool = True) -> None:
    """End a child, and ``wait`` until it has ended."""
    if process.stdin is not None:
        process.stdin.close()
    if not wait:
        threading.Thread(target=process.wait, daemon=True).start()  # reaps it, which frees its process id
        return
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def describe_end(code: int) -> str:
    """How a child has ended, in words; after a signal its exit code is 256 minus the signal's number."""
    killed_by = {256 - each: each.name for each in signal.Signals}.get(code % 256)
    return f"was ended by {killed_by}" if killed_by else f"exited with code {code}"


def main(command: list[str]) -> int:
    """Run the command until it ends by itself or the pipe on stdin closes; return its exit code."""
    # Inheritable descriptors here are meant for the command: close_fds would close them.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False)

    def end_with_the_parent() -> None:
        while os.read(0, 1):
            pass
        _end_group(child.pid)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    code = child.wait()
    _end_group(child.pid)  # children of the command, such as a worker's runs, end with it
    return code


def _end_group(group: int) -> None:
    """Ask every process of a group to end, and kill those that do not end in time."""
    deadline = time.monotonic() + GRACE_SECONDS
    with suppress(ProcessLookupError):  # no process is left
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
