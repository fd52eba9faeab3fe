"""Podman with a storage, networks and settings of its own: nothing of the user's is seen or changed.

No registry is needed: ``stand_ins`` makes images of the names that docker/ uses. What ``Engine.close`` leaves is the
cached images, for the next time.
"""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

REPOSITORY = Path(__file__).parents[1]
COMMANDS = ("podman", "runc", "nft", "debootstrap", "docker-compose", "/usr/lib/podman/netavark")
NFT_TABLE = ("inet", "netavark")
NETWORK_NOTES = "/run/containers/networks"  # of all root's containers, whatever the storage
# runc, since crun refuses a hybrid cgroup layout; no systemd and no journal, since CI has none.
SETTINGS = """
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{run}/libpod"
[network]
network_config_dir = "{root}/networks"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{root}/storage"
runroot = "{run}/storage"
"""


def what_is_missing() -> str | None:
    """Why containers cannot be run here, or None."""
    if not os.environ.get("GRADMILL_TEST_CONTAINERS"):
        return "GRADMILL_TEST_CONTAINERS is not set (make containers sets it)"
    missing = [command for command in COMMANDS if not shutil.which(command)]
    assert os.geteuid() == 0, "these tests need root"
    assert not missing, f"these tests need {', '.join(missing)}"
    return None


class Engine:
    """Podman as a command and, for docker-compose, as a service."""

    def __init__(self) -> None:
        self.root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradmill-test-containers"
        run = self.run_folder = self.root / "run"  # always the same: podman's database remembers it
        self.socket = run / "podman.sock"
        for folder in (self.root / "networks", self.root / "tmp", run):
            folder.mkdir(parents=True, exist_ok=True)
        self._one_at_a_time = FileLock(self.root / "lock")
        self._one_at_a_time.acquire()
        (run / "containers.conf").write_text(SETTINGS.format(root=self.root, run=run))
        (run / "storage.conf").write_text(STORAGE.format(root=self.root, run=run))
        self.environment = dict(os.environ) | {
            "CONTAINERS_CONF_OVERRIDE": str(run / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(run / "storage.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "TMPDIR": str(self.root / "tmp"),  # build caches
            "DOCKER_HOST": f"unix://{self.socket}",
        }
        self._had_nft_table = self._nft("list").returncode == 0
        if not self._find_monitors():  # the machine or all its processes ended: podman's notes of what runs are wrong
            for notes in (run / "libpod", run / "storage"):
                shutil.rmtree(notes, ignore_errors=True)
        processes = {process.info["name"]: process for process in psutil.process_iter(["name"])}
        if "conmon" not in processes:  # no container of anybody's: names of dead ones would hide those of new ones
            shutil.rmtree(NETWORK_NOTES, ignore_errors=True)
            if name_server := processes.get("aardvark-dns"):
                name_server.kill()
        self._remove_containers()  # of a test that was killed
        serve = ["podman", "system", "service", "--time=0", f"unix://{self.socket}"]
        with (run / "service.log").open("wb") as log:
            self._service = subprocess.Popen(serve, env=self.environment, stdout=log, stderr=log)
        self._closing = threading.Event()
        self._health = threading.Thread(target=self._check_health, daemon=True)
        self._health.start()

    def podman(self, *arguments: str, timeout: float = 300, stdin: str | None = None) -> str:
        """Run podman to its end; return its stdout.

        Raises:
            AssertionError: it failed; says all that it printed.
        """
        return self.command(["podman", *arguments], timeout=timeout, stdin=stdin)

    def command(self, command: Sequence[str], timeout: float, stdin: str | None = None, cwd: Path | None = None) -> str:
        """The same for any command that reaches this engine through its environment."""
        piped: dict[str, Any] = {"capture_output": True, "text": True, "input": stdin}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=self.environment, timeout=timeout, cwd=cwd, **piped
        )
        said = f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{said}"
        return done.stdout

    def logs(self, container: str) -> str:
        """All that a container has printed."""
        return self.command(["sh", "-c", f"podman logs {container} 2>&1"], timeout=60)

    def _check_health(self) -> None:
        # Podman leaves this to systemd timers, which CI lacks.
        while not self._closing.wait(3):
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                names = self.podman("ps", "--filter", "status=running", "--format", "{{.Names}}\t{{.Status}}")
                for name in (line.split("\t")[0] for line in names.splitlines() if "(" in line):
                    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                        self.podman("healthcheck", "run", name)

    def _nft(self, verb: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["nft", verb, "table", *NFT_TABLE], capture_output=True)

    def _find_monitors(self) -> list[psutil.Process]:
        """Podman's own process beside every container of this engine that runs."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "conmon"
            and any(str(self.run_folder) in word for word in process.info["cmdline"] or [])
        ]

    def _remove_containers(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "2", "--volumes")
        for left in self.podman("ps", "--all", "--external", "--quiet").split():  # of a build that failed
            self.podman("rm", "--force", left)
        self.podman("volume", "rm", "--all", "--force")
        self.podman("network", "prune", "--force")

    def close(self) -> None:
        """Remove containers, volumes and networks, and end every process that they left."""
        self._closing.set()
        self._health.join()
        self._remove_containers()
        self._service.terminate()
        self._service.wait(30)
        self.podman("image", "prune", "--force")
        for monitor in self._find_monitors():
            with contextlib.suppress(psutil.NoSuchProcess):
                monitor.kill()
        if not self._had_nft_table and self._nft("list").returncode == 0:
            self._nft("delete")
        self._one_at_a_time.release()
