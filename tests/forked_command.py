"""Commands as processes of their own, forked from one that has imported the libraries they need.

Imports are most of what a short command takes, and the same for every one. Neither Gradmill nor Prefect is imported
before the fork: both heed the environment at import. How the installed script starts, and what it imports, is seen
where tests start ``GRADMILL`` itself, and in test_imports.py.
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
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "fastapi", "httpx", "jinja2", "jsonschema", "matplotlib.backends.backend_agg", "matplotlib.figure", "onnx",
    "onnxruntime", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet", "pydantic_settings", "rich.console",
    "rich.progress", "scipy.optimize", "scipy.special", "sqlalchemy", "torch", "torchmetrics.classification", "typer",
    "websockets", "yaml",
)  # fmt: skip
SCRIPT = str(Path(sys.executable).with_name("gradmill"))


class Forks:
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
def forks() -> Forks:
    """The one of this test process, started when it is first needed."""
    return Forks()


def _serve() -> None:
    """Answer every line with an exit code; returns in a fork, which then is the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for pytest
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # or the first collection in every fork would copy all of it
    for line in sys.stdin.buffer:
        child = os.fork()
        if not child:
            _become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


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
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.argv, sys.path[0] = asked["arguments"], str(Path(SCRIPT).parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.dump_traceback_later(asked["timeout"], exit=True)


def _end(code: int) -> NoReturn:
    """End as Python does, but for what libraries in C++ would then do: they wait for threads that no fork has."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
    from flows.__main__ import main

    try:
        main()
    except SystemExit as ended:
        _end(int(ended.code or 0))
    except BaseException:
        traceback.print_exc()
        _end(1)
