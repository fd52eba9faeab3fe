"""A Prefect server for one run, for those who have none.

Prefect starts such a server by itself, but it outlives a run that is killed. This one holds a pipe to the run and
ends when the pipe closes, however the run ended.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import httpx

from tasks.errors import EnvironmentProblem
from tasks.store import locks

START_SECONDS = 180.0  # a first start migrates the database: over a minute on a slow disk
STOP_SECONDS = 5.0
SAID_AFTER_SECONDS = 3.0

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # its service is what meets "database is locked" at a first start
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # Without these, SQLite answers 503 in bursts and the client waits for seconds. (The recorder's FLUSH_INTERVAL would
    # help too, but below 1 it makes Prefect 3.9.1 spin on a whole core.)
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
}


class TemporaryServer:
    """Start on construction, ``wait`` until it answers, ``stop`` when done; it asks for ``credential``, if given.

    Raises:
        EnvironmentProblem: another run's server has been starting for too long.
    """

    def __init__(self, credential: str | None = None) -> None:
        from prefect.settings import PREFECT_HOME

        home = PREFECT_HOME.value()
        home.mkdir(parents=True, exist_ok=True)
        # Servers share the database below PREFECT_HOME, and two that migrate a fresh one at once break each other.
        self._starting = ExitStack()
        self._acquire_turn(home / "gradmill-server-start.lock")
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the server runs)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.server.temporary"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=ENVIRONMENT | dict(os.environ) | ({"PREFECT_SERVER_API_AUTH_STRING": credential} if credential else {}),
            start_new_session=True,  # Ctrl-C is for the run; the server follows through the pipe
        )
        self._deadline = time.monotonic() + START_SECONDS
        self.api_url = ""

    def _acquire_turn(self, lock: Path) -> None:
        within = SAID_AFTER_SECONDS + START_SECONDS + STOP_SECONDS  # by then that one has started or is ended
        said = "waiting for another run's Prefect server to start"
        try:
            self._starting.enter_context(locks.locked(lock, said, SAID_AFTER_SECONDS, within))
        except TimeoutError as error:
            holder = locks.holder(lock)
            raise EnvironmentProblem(
                f"another run has been starting a Prefect server for over {START_SECONDS:.0f} s"
                + (f": {holder}" if holder else ""),
                f"that it lets go of {lock}",
                "end that run, or set PREFECT_API_URL to a running server",
            ) from error

    def wait(self) -> str:
        """Block until the server answers; return the address of its API.

        Raises:
            EnvironmentProblem: it ended, or did not answer in time.
        """
        try:
            return self._wait()
        finally:
            self._starting.close()

    def _wait(self) -> str:
        port = self._first_line()
        self.api_url = f"http://127.0.0.1:{port}/api"
        while port and time.monotonic() < self._deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.api_url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                    return self.api_url
            except httpx.TransportError:
                time.sleep(0.1)
        reason = self._last_words()
        self.stop()
        raise EnvironmentProblem(
            f"Prefect's temporary server did not start: {reason}",
            f"an answer within {START_SECONDS:.0f} s",
            "see that PREFECT_HOME is writable, or set PREFECT_API_URL to a running server",
        )

    def _first_line(self) -> str:
        """The port, or nothing where the process ends or hangs before it says so."""
        assert self._process.stdout is not None, "opened as a pipe"  # noqa: S101  (narrows the type)
        read, output = b"", self._process.stdout.fileno()
        while not read.endswith(b"\n"):
            if not select.select([output], [], [], max(0, self._deadline - time.monotonic()))[0]:
                break
            if not (more := os.read(output, 64)):
                break
            read += more
        return read.decode().strip()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """Close the pipe and wait for the end."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._starting.close()


def _end_with_the_run() -> None:
    # Ends when the run has closed its end of the pipe. Not sys.stdin: its lock would be held at the interpreter's end.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS / 2)
    os._exit(1)


def main() -> None:
    """Serve on a free port of 127.0.0.1, which is printed as the first line."""
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    from flows.server.permanent import Guard

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(Guard(create_app(ephemeral=True, final=True)), log_level="error", lifespan="on")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
