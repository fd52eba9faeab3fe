"""``gradmill up`` as the person on duty has it: started as a child process, watched through Prefect's API."""

import json
import os
import random
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from command_line import GRADMILL
from prefect_api import api_client, eventually
from prefect_ui import Server


def free_port() -> int:
    """One that nothing is given by chance: below the range of those that the kernel gives away."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


class Duty(Server):
    """A running ``gradmill up``, its API, and its command line."""

    def __init__(self, artifacts: Path, settings: dict[str, str], *options: str) -> None:
        self.artifacts, self.port = artifacts, free_port()
        self.ui = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | settings | {"GRADMILL_ARTIFACTS": str(artifacts)}
        for variable in ("DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY"):  # gradmill sets them itself
            del self.environment[variable]
        self.lines: list[str] = []
        self.up(*options)
        kept = artifacts / ".prefect" / "credential"
        self.credential = os.environ.get("PREFECT_SERVER_API_AUTH_STRING") or kept.read_text().strip()
        self.api = api_client(f"{self.ui}/api", self.credential)

    def up(self, *options: str) -> None:
        """Start it, and wait until it says that it is up."""
        command = [GRADMILL, "up", "--port", str(self.port), *options]
        with (self.artifacts.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("Ctrl-C"):
                return
        raise AssertionError((self.artifacts.parent / "up.log").read_text())

    def gradmill(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Another command on these artifacts: it finds the server by itself."""
        here = self.environment | environment
        return subprocess.run([GRADMILL, *arguments], env=here, capture_output=True, text=True, timeout=600)

    def does(self, *arguments: str, **environment: str) -> str:
        """What it answers, as it is to succeed."""
        done = self.gradmill(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answers(self) -> bool:
        """Whether the server is there."""
        try:
            return self.api.get("/health").is_success
        except httpx.TransportError:
            return False

    def post(self, path: str, document: Any) -> Any:
        """The server's answer."""
        return self.api.post(path, json=document).raise_for_status().json()

    def trigger(self, deployment: str, at: str | None = None, **parameters: Any) -> str:
        """Start a run, now or at a moment; return its id."""
        body: dict[str, Any] = {"parameters": {"parameters": parameters}}
        if at is not None:
            body["state"] = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
        run = self.post(f"/deployments/{self.deployment(deployment)['id']}/create_flow_run", body)
        return str(run["id"])

    def triggered(self) -> set[str]:
        """The runs that somebody has started: those of schedules the server plans ahead, whenever it comes to it."""
        return {str(run["id"]) for run in self.list("flow_runs") if not run["auto_scheduled"]}

    def run(self, run: str) -> dict[str, Any]:
        return dict(self.api.get(f"/flow_runs/{run}").raise_for_status().json())

    def state_of(self, run: str) -> str:
        return str(self.run(run)["state_type"])

    def ended(self, run: str) -> dict[str, Any]:
        """The run once it has ended."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        eventually(lambda: self.state_of(run) in final, 240, f"{self.run(run)['name']} ends")
        return self.run(run)

    def stages(self, run: str) -> dict[str, float]:
        """The stages that a run has finished so far, with their seconds."""
        noted = list((self.artifacts / "runs").glob(f"*-{run[:8]}/run.json"))
        return dict(json.loads(noted[0].read_text())["seconds"]) if noted else {}

    def live_version(self, name: str) -> int | None:
        """The champion's version; None if there is none."""
        pointer = self.artifacts / "models" / name / "champion.json"
        return int(json.loads(pointer.read_bytes())["version"]) if pointer.exists() else None

    def published(self, name: str) -> None:
        """See that there is a champion, whichever tests have run before."""
        if self.live_version(name) is None:
            run = self.trigger("linear-weekly", name=name, training={"model": name})
            assert self.ended(run)["state_type"] == "COMPLETED"

    def family(self) -> dict[int, tuple[str, dict[str, str]]]:
        """Every process that works in this artifacts folder, but ``up`` itself: pid, command and environment."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                command, environment = " ".join(process.cmdline()), process.environ()
                if environment.get("PREFECT_HOME") == str(self.artifacts / ".prefect"):
                    found[process.pid] = command, environment
        return found

    def processes_of(self, words: str = "", run: str | None = None) -> list[int]:
        """The processes of the family whose command has these words in it, or that execute a run."""
        family = self.family().items()
        wanted = [pid for pid, (_, environment) in family if run in (None, environment.get("PREFECT__FLOW_RUN_ID"))]
        return [pid for pid, (command, _) in family if words in command and pid in wanted]

    def kill(self) -> None:
        """End it as a crash would; nothing may be left."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        eventually(lambda: not self.family(), 60, "nothing is left")
