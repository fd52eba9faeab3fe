"""SIGKILL at random moments of a retrain: nothing published before is harmed, and the next retrain just works."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from candidate import Candidate
from conftest import REPOSITORY
from tasks import artifact_paths
from tasks.model_store import reading, verification
from test_cli import GRADMILL, gradmill, servers

NAME = "linear-regression"
KILLS = int(os.environ.get("GRADMILL_TEST_KILLS", "6"))


ARGUMENTS = ["retrain", NAME, "--force"]  # nothing to reuse, so that every stage does its work


def run_silently(arguments: list[str]) -> None:
    """The body of a forked victim: the whole command line, its output thrown away."""
    from flows import cli

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os._exit(cli.run(arguments))


def kill_at(process: BaseProcess, stage: str | None, delay: float, runs_before: set[Path]) -> None:
    """Kill ``delay`` seconds after the start, or after the new run has finished ``stage``."""
    deadline = time.monotonic() + 40
    while stage is not None and process.is_alive() and time.monotonic() < deadline:
        new = set(artifact_paths.runs().glob("*/run.json")) - runs_before
        if any(stage in json.loads(path.read_text())["seconds"] for path in new):
            break
        time.sleep(0.002)
    if stage is not None:
        assert process.is_alive() or process.exitcode == 0, "the victim reached the stage"
    time.sleep(delay)
    process.kill()
    process.join()


def whole_store() -> dict[int, str]:
    """The model digest of each version, all of them verified, the pointer too."""
    numbers = reading.versions(NAME)
    for number in numbers:
        verification.verify_version(NAME, number)
    pointer = reading.champion(NAME)
    assert pointer is not None
    assert pointer["version"] in numbers
    return {row["version"]: row["model_sha256"] for row in reading.table(NAME)}


@pytest.mark.slow
def test_killed_retrains_harm_nothing(
    candidates: list[Candidate], server: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the kills fall anywhere in a run, half around the export and the publication."""
    monkeypatch.setenv("PREFECT_API_URL", server)
    candidates[0].publish()
    # Forked from a process that has imported everything: the kills fall into the run's work, not into its imports.
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["flows.cli", "flows.display", "flows.engine", "flows.retrain"])
    rng = np.random.default_rng(20261124)
    before = whole_store()
    for number in range(KILLS):
        runs_before = set(artifact_paths.runs().glob("*/run.json"))
        process = forks.Process(target=run_silently, args=([*ARGUMENTS, "--seed", str(100 + number)],))
        process.start()
        if number % 2:
            kill_at(process, None, rng.uniform(0.1, 5.0), runs_before)
        else:
            kill_at(
                process, str(rng.choice(["evaluate", "export", "export", "publish"])), rng.uniform(0, 0.08), runs_before
            )
        after = whole_store()
        assert before.items() <= after.items(), "what was published before is there and unchanged"
        before = after
    listed = json.loads(gradmill("models", NAME, "--json").stdout)["models"][NAME]
    assert {row["version"] for row in listed} == set(before)
    final = gradmill("retrain", NAME, "--json")
    assert final.returncode == 0, final.stderr
    verified = gradmill("verify", NAME, "--json")
    assert verified.returncode == 0, verified.stderr
    leftovers = [path for path in artifacts.rglob(".*") if path.name.startswith((".staging", ".pruned", ".scratch"))]
    assert leftovers == []
    assert not list(artifacts.rglob("*.partial"))


@pytest.mark.slow
def test_a_killed_retrain_takes_its_temporary_server_with_it() -> None:
    before = servers()
    process = subprocess.Popen([GRADMILL, *ARGUMENTS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(artifact_paths.runs().glob("*/run.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers() - before, "the run has a server of its own"
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 8
    while servers() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers() <= before


AS_NOBODY = """
import os, shutil, sys, time
from pathlib import Path
from tasks import model_store
from tasks.model_store import publishing, verification

os.setgid(65534)
os.setuid(65534)
name = sys.argv[1]


def fill(folder, number):
    (folder / "model.onnx").write_bytes(b"half")
    print("filling", flush=True)
    time.sleep(60)


with model_store.lock(name):
    if sys.argv[2] == "publish":
        publishing.publish(name, fill)
    publishing.sweep(name)
verification.verify_version(name, 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_kill_in_a_non_root_users_folder_harms_nothing(candidates: list[Candidate], tmp_path: Path) -> None:
    """As the user nobody, to whom read-only folders refuse changes, as they do not to root."""
    candidates[0].publish()
    for path in (artifact_paths.root(), *artifact_paths.root().rglob("*")):
        os.chown(path, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o011)

    def as_nobody(action: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", AS_NOBODY, NAME, action], stdout=subprocess.PIPE, cwd=REPOSITORY)

    with as_nobody("publish") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"filling\n"
        holder.kill()
    assert list(artifact_paths.model(NAME).glob(".staging-*"))
    with as_nobody("sweep") as sweeper:
        assert sweeper.wait() == 0
    assert not list(artifact_paths.model(NAME).glob(".staging-*"))
    assert reading.versions(NAME) == [1]
