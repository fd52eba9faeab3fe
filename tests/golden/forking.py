"""Commands as processes of their own, forked from one that has imported everything, and one Prefect server for all.

Nothing here names a module of the tree but its packages and its entry point, so that any tree can be run.
"""

import atexit
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LIMIT = 120.0  # seconds that a command may take
START_LIMIT = 600.0  # that the server may take on a machine that does much else
ENDED = -9  # the exit code of one that took longer
LIBRARIES = (
    "fsspec", "jinja2", "matplotlib.figure", "onnx", "onnxruntime", "optuna", "PIL.Image", "prefect.flows",
    "prefect.settings", "pyarrow.csv", "pyarrow.dataset", "pyarrow.json", "pyarrow.parquet", "safetensors.numpy",
    "scipy.optimize", "scipy.special", "torch", "torch._dynamo", "torchmetrics", "typer",
)  # fmt: skip


class Done(NamedTuple):
    """What a command came to."""

    code: int
    stdout: str
    stderr: str


class PrefectServer:
    """A server on a port and in a home of its own; it starts on construction."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {"PREFECT_HOME": str(home), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1"}
        own = {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
        }
        command = [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--no-services",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        home.mkdir()
        self._process = subprocess.Popen(
            command, env=os.environ | self.environment | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        """Block until it answers."""
        until = time.monotonic() + START_LIMIT
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310
                return
            time.sleep(0.1)
        raise SystemExit("Prefect's server does not answer")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Forks:
    """A process that forks one command after another; it ends with this one."""

    def __init__(self, tree: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__]
        environment = environment | {"PYTHONPATH": str(tree)}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, arguments: list[str], folder: Path, environment: dict[str, str], outputs: Path) -> Done:
        """Run ``gradmill`` with arguments in a folder."""
        asked = {
            "arguments": arguments, "directory": str(folder), "environment": environment, "outputs": str(outputs),
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        if not (code := self._process.stdout.readline()):
            raise SystemExit("the process that forks commands was ended")
        return Done(int(code), *((outputs / name).read_text(errors="replace") for name in ("stdout", "stderr")))

    def stop(self) -> None:
        """End it."""
        self._process.communicate()


def _import_all() -> None:
    """Libraries, and every module of the tree; what cannot be imported is for the command to tell."""
    devnull, kept = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    os.dup2(devnull, 2)
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    for package in ("tasks", "flows", "gradmill"):
        with suppress(ImportError):
            path = importlib.import_module(package).__path__
            for module in pkgutil.walk_packages(path, f"{package}."):
                with suppress(Exception):
                    importlib.import_module(module.name)
    os.dup2(kept, 2)


def _serve() -> None:
    """Answer every line with an exit code; returns in a fork, which then is the command."""
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if (child := os.fork()) == 0:
            _become(asked)
            return
        print(_code(child), flush=True)
    os._exit(0)


def _code(child: int) -> int:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            with suppress(OSError):
                os.killpg(child, signal.SIGKILL)  # what it has left behind
            return code
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return ENDED


def _become(asked: dict[str, Any]) -> None:
    """Take on what the command was given: arguments, environment, working folder, streams."""
    os.setsid()
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [
        (os.devnull, os.O_RDONLY),
        (f"{asked['outputs']}/stdout", writing),
        (f"{asked['outputs']}/stderr", writing),
    ]
    for number, (path, flags) in enumerate(streams):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (the one before holds other commands' lines)
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.argv = ["gradmill", *asked["arguments"]]


def _end(code: int) -> NoReturn:
    """End as Python does, but for what libraries in C++ would then do: they wait for threads that no fork has."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    del sys.path[0]  # where this file lies
    _import_all()
    _serve()
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.__main__ import main

    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # to join its thread takes a second
            main()
    except SystemExit as ended:
        _end(ended.code if isinstance(ended.code, int) else int(bool(ended.code)))
    except BaseException:
        traceback.print_exc()
        _end(1)
