"""Commands as processes of their own, forked from one that has imported the libraries they need.

Imports are most of what a short command takes, and the same for every one. Prefect heeds the environment and the
working folder at import. So it is imported, and our flows with it, in a process for each environment that is asked for
twice, from which all further commands with that environment are forked; the first, and those with an environment of
their own, import them themselves. How the installed script starts, and what it imports, is seen where tests start
``GRADMILL`` itself, and in test_imports.py.
"""

import atexit
import faulthandler
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

LIBRARIES = (
    "fastapi", "httpx", "jinja2", "jsonschema", "matplotlib.backends.backend_agg", "matplotlib.figure", "onnx",
    "onnxruntime", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet", "pydantic_settings", "rich.console",
    "rich.progress", "scipy.optimize", "scipy.special", "sqlalchemy", "torch",
    "typer", "websockets", "yaml",
)  # fmt: skip
OURS = ("flows.cli.app", "flows.cli.display", "flows.server.connection", "flows.retrain", "flows.predict")
SCRIPT = str(Path(sys.executable).with_name("gradmill"))


class CommandForker:
    """A process that forks one command after another; it ends with this one."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self._process.communicate)

    def run(self, arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a command here and now, with this environment; one that takes too long ends with exit code 1."""
        with tempfile.TemporaryDirectory(prefix="gradmill-tests-") as folder, self._turn:
            command = [SCRIPT, *arguments]
            asked = {
                "arguments": command, "environment": dict(os.environ), "directory": str(Path.cwd()),
                "outputs": folder, "timeout": timeout,
            }  # fmt: skip
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
            code = self._process.stdout.readline()
            assert code, "the process that forks commands has ended; what it said stands on standard error"
            stdout, stderr = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
            return subprocess.CompletedProcess(command, int(code), stdout, stderr)


@cache
def forks() -> CommandForker:
    """The one of this test process, started when it is first needed."""
    return CommandForker()


def _serve(lines: IO[bytes], ours: bool = False) -> None:
    """Answer every line with an exit code; returns in a fork, which then is the command."""
    gc.freeze()  # or the first collection in every fork would copy all that has been imported
    seen: Counter[str] = Counter()
    importers: dict[str, int] = {}
    for line in lines:
        asked = json.loads(line)
        key = "" if ours else _heeded_at_import(asked)
        seen[key] += 1
        if seen[key] == 2 and not ours:
            reader, importers[key] = os.pipe()
            if not os.fork():
                os.close(importers[key])
                _import_ours(asked)
                _serve(os.fdopen(reader, "rb"), ours=True)
                return
            os.close(reader)
        if key in importers:
            os.write(importers[key], line)  # it answers by itself
        elif child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        else:
            _become(asked)
            return
    os._exit(0)  # the importers end with it


def _heeded_at_import(asked: dict[str, Any]) -> str:
    """All but what pytest changes with every test, and our own settings, which are read anew at each use."""
    ours = ("GRADMILL_", "PYTEST_")
    heeded = {name: value for name, value in asked["environment"].items() if not name.startswith(ours)}
    return json.dumps([asked["directory"], heeded], sort_keys=True)


def _import_ours(asked: dict[str, Any]) -> None:
    """What that cannot be imported in is for the command to tell."""
    _, heeded = json.loads(_heeded_at_import(asked))
    _settle(heeded, asked["directory"])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no terminal, as in the commands, which get streams of their own
    with suppress(Exception):
        for name in OURS:
            importlib.import_module(name)


def _settle(environment: dict[str, str], directory: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.path[0] = str(Path(SCRIPT).parent)


def _become(asked: dict[str, Any]) -> None:
    """Take on what the command was given: arguments, environment, working folder, streams."""
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (f"{asked['outputs']}/stdout", writing), (f"{asked['outputs']}/stderr", writing)]
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (the one before holds other commands' lines)
    _settle(asked["environment"], asked["directory"])
    sys.argv = asked["arguments"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.dump_traceback_later(asked["timeout"], exit=True)


def _end(code: int) -> NoReturn:
    """End as Python does, but for what libraries in C++ would then do: they wait for threads that no fork has."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for pytest
    for name in LIBRARIES:
        importlib.import_module(name)
    _serve(sys.stdin.buffer)
    from flows.__main__ import main

    try:
        main()
    except SystemExit as ended:
        _end(int(ended.code or 0))
    except BaseException:
        traceback.print_exc()
        _end(1)
