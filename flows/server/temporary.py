"""A Prefect server for one run, for those who have none.

Prefect starts such a server by itself, but it outlives a run that is killed. This one is tethered to the run.
"""

import os
import select
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import IO

from flows.server import guarded, tethered
from tasks.errors import EnvironmentProblem
from tasks.store import locks

SAID_AFTER_SECONDS = 3.0
ENVIRONMENT = guarded.ENVIRONMENT | {
    "PREFECT__SERVER_EPHEMERAL": "1",  # without the UI and most services
    # Runs of ours use no blocks; to see which there are, every collection that is installed would be imported.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}


def prefect_home() -> Path:
    """Where Prefect keeps its database, unless a profile or a file of settings says otherwise."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


class TemporaryServer:
    """Start on construction, ``wait`` until it answers, ``leave`` when done; it asks for ``credential``, if given.

    Imports nothing of Prefect's, so that it starts beside that import.

    Raises:
        EnvironmentProblem: another run's server has been starting for longer than ``within`` seconds.
    """

    def __init__(self, credential: str | None = None, within: float | None = None, home: Path | None = None) -> None:
        self.credential, self.has_answered = credential, False
        home = home or prefect_home()
        home.mkdir(parents=True, exist_ok=True)
        # Servers share the database below PREFECT_HOME, and two that migrate a fresh one at once break each other.
        self._starting = ExitStack()
        self._acquire_turn(home / "gradmill-server-start.lock", within)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the server runs)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._process = guarded.start(listener, credential, ENVIRONMENT | dict(os.environ), self._log)
            self.api_url = f"{guarded.address(listener)}/api"
            self._asked = HTTPConnection(*listener.getsockname())
            self._asked.request("GET", "/api/health")  # which waits in the listener's queue
        self._deadline = time.monotonic() + guarded.START_SECONDS

    def _acquire_turn(self, lock: Path, within: float | None) -> None:
        # By default so long that the other one has started or is ended.
        within = SAID_AFTER_SECONDS + guarded.START_SECONDS + tethered.STOP_SECONDS if within is None else within
        said = "waiting for another run's Prefect server to start"
        try:
            self._starting.enter_context(locks.locked(lock, said, SAID_AFTER_SECONDS, within))
        except TimeoutError as error:
            holder = locks.holder(lock)
            raise EnvironmentProblem(
                f"another run has been starting a Prefect server for over {guarded.START_SECONDS:.0f} s"
                + (f": {holder}" if holder else ""),
                f"that it lets go of {lock}",
                "end that run, or set PREFECT_API_URL to a running server",
            ) from error

    def is_up(self) -> bool:
        """Whether it has answered by now, or has ended."""
        return bool(select.select([self._asked.sock], [], [], 0)[0])

    def wait(self) -> str:
        """Block until the server answers; return the address of its API.

        Raises:
            EnvironmentProblem: it ended, or did not answer in time.
        """
        with self._starting:
            if guarded.answers(self.api_url, lambda: self._process.poll() is not None, self._deadline):
                self.has_answered = True
                return self.api_url
            reason = self._last_words()
            self.stop()
        raise EnvironmentProblem(
            f"Prefect's temporary server did not start: {reason}",
            f"an answer within {guarded.START_SECONDS:.0f} s",
            "see that PREFECT_HOME is writable, or set PREFECT_API_URL to a running server",
        )

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """Let go of it and wait for its end."""
        tethered.stop(self._process)
        self._asked.close()
        self._log.close()
        self._starting.close()

    def leave(self) -> None:
        """Let go of it, and do not wait: its tether ends it, with this process or without."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            threading.Thread(target=self.stop, daemon=True).start()
