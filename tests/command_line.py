"""The command line as a child process or in this one, and what its answers must look like."""

import contextlib
import io
import json
import os
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

import forked_command

GRADMILL = forked_command.SCRIPT


def gradmill(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own; see forked_command.py for what it shares with the others."""
    return forked_command.forks().run(list(arguments), timeout)


def run(*words: object) -> Any:
    """The document of a command that succeeds, as a process of its own."""
    done = gradmill(*map(str, words), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def typed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in this process, for tables of many short ones; what runs a flow needs the fixture ``prefect_api``."""
    import flows.cli.app

    command = list(map(str, arguments))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = flows.cli.app.run(command)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def assert_clear(done: subprocess.CompletedProcess[str], exit_code: int, *words: object) -> None:
    """One to three lines that say what was found, what was expected and what to do; never a traceback."""
    message = done.stderr[done.stderr.index("gradmill: ") :].strip().splitlines()
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(message) == 3
    assert message[1].startswith("expected: ")
    assert message[2].startswith("to do: ")
    assert not [word for word in words if str(word) not in done.stderr], done.stderr


def refused(exit_code: int, command: str, *words: object) -> None:
    """A command, typed in this process, fails with this exit code and says these words."""
    assert_clear(typed(*shlex.split(command)), exit_code, *words)


def output(command: str) -> str:
    """What a command prints that succeeds, typed in this process."""
    done = typed(*shlex.split(command))
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(*command: str | Path, code: int = 0) -> Any:
    """The document of a command; a failure's has the error too, in three parts, unless it is a refusal by a gate."""
    done = typed(*command, "--json")
    assert done.returncode == code, done.stderr or done.stdout
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    if code and found.get("outcome") != "refused":
        assert all(found["error"][part] for part in ("found", "expected", "action"))
    else:
        assert "error" not in found
    return found


def answer(command: str, exit_code: int = 0) -> Any:
    """The same of a command in one line."""
    return ask(*shlex.split(command), code=exit_code)


def in_own_mounts(mounting: str) -> list[str]:
    """What stands before a command that is to see a mount of its own."""
    command = ["unshare", "--mount", "sh", "-c", f'{mounting} && "$@"', ""]
    if os.geteuid() != 0 or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here: that needs root")
    return command


def plant(path: Path, kind: str) -> Path:
    """Something that is no regular file, in the place of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        here = os.open(path.parent, os.O_RDONLY)  # a socket's own path may have 107 bytes
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
    return path


def plant_strangers(folder: Path) -> list[Path]:
    """A FIFO, a folder and a socket named like our temporary files, and two files of others that are nearly so."""
    kinds = {"ef": "fifo", "ee": "folder", "ed": "socket"}
    found = [plant(folder / f".gradmill-0123456789abcd{end}.partial", kind) for end, kind in kinds.items()]
    (folder / "their.partial").touch()
    return [*found, plant(folder / "x.partial", "fifo"), folder / "their.partial"]


def servers() -> set[int]:
    """Temporary servers of these tests that are there now."""
    home = os.environ["PREFECT_HOME"]
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        try:
            is_server = "flows.server.prefect_server" in (process.info["cmdline"] or [])
            if is_server and process.environ().get("PREFECT_HOME") == home:
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
