"""A Prefect server for one run, for those who have none.

Prefect starts such a server by itself, but it outlives a run that is killed. This one is tethered to the run.
"""

import os
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from flows.server import guarded, tethered
from tasks.errors import EnvironmentProblem
from tasks.store import locks

SAID_AFTER_SECONDS = 3.0
ENVIRONMENT = guarded.ENVIRONMENT | {"PREFECT__SERVER_EPHEMERAL": "1"}  # without the UI and most services


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
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._process = guarded.start(listener, credential, ENVIRONMENT | dict(os.environ), self._log)
            self.api_url = f"{guarded.address(listener)}/api"
        self._deadline = time.monotonic() + guarded.START_SECONDS

    def _acquire_turn(self, lock: Path) -> None:
        # By then that one has started or is ended.
        within = SAID_AFTER_SECONDS + guarded.START_SECONDS + tethered.STOP_SECONDS
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

    def wait(self) -> str:
        """Block until the server answers; return the address of its API.

        Raises:
            EnvironmentProblem: it ended, or did not answer in time.
        """
        with self._starting:
            if guarded.answers(self.api_url, lambda: self._process.poll() is not None, self._deadline):
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
        self._log.close()
        self._starting.close()
