"""SIGKILL at random moments of a retrain: nothing published before is harmed, and the next retrain just works."""

import json
import os
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from candidate import Contender
from conftest import REPOSITORY
from tasks.store import artifact_paths, atomic, model_folder, state, verification
from victims import KILLS, fork, run_silently

NAME = "linear-regression"


REFUSED = 3  # the exit code of a whole run whose model a gate has refused
ARGUMENTS = ["retrain", NAME, "--force"]  # nothing to reuse, so that every stage does its work


def kill_at(process: BaseProcess, stage: str | None, delay: float, runs_before: set[Path]) -> None:
    """Kill ``delay`` seconds after the start, or after the new run has finished ``stage``."""
    deadline = time.monotonic() + 180
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


def digests() -> dict[str, str]:
    """Every file of every version."""
    return {
        f"{number}/{path.name}": atomic.file_digest(path)
        for number in model_folder.list_versions(NAME)
        for path in artifact_paths.version(NAME, number).iterdir()
    }


def assert_nothing_is_half_there() -> None:
    """Right after a kill: every version is whole, and the pointer names one of them.

    ``config.pbtxt`` may still be that of the champion before, until the next start.
    """
    for number in model_folder.list_versions(NAME):
        verification.verify_version(NAME, number)
    champion = model_folder.find_champion(NAME)
    assert champion is not None
    verification.verify_pointer(NAME, champion)
    assert [row["version"] for row in state.read_name(NAME).rows] == model_folder.list_versions(NAME)


def assert_all_is_sound(artifacts: Path) -> None:
    """After a complete retrain: every version runs and answers, the configuration fits, nothing is left over."""
    for number in model_folder.list_versions(NAME):
        verification.verify(NAME, number)
    table = state.read_name(NAME).rows
    assert [row["version"] for row in table] == model_folder.list_versions(NAME)
    assert [row["champion"] for row in table].count(True) == 1
    leftovers = [path for path in artifacts.rglob(".*") if path.name.startswith((".staging", ".pruned", ".scratch"))]
    assert [*leftovers, *artifacts.rglob("*.partial")] == []


def retrain(arguments: list[str], artifacts: Path) -> BaseProcess:
    """A retrain in a fork; it names its artifacts, since a fork server keeps its first environment."""
    return fork(run_silently, [*arguments, "--artifacts", str(artifacts)])


@pytest.mark.slow
def test_killed_retrains_harm_nothing(
    candidates: list[Contender], server: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the kills fall anywhere in a run, half around the export and the publication.

    After each, the same retrain is run to its end.
    """
    monkeypatch.setenv("PREFECT_API_URL", server)
    candidates[0].publish()
    rng = np.random.default_rng(20261124)
    refused = 0
    for number in range(KILLS):
        before, runs_before = digests(), set(artifact_paths.runs().glob("*/run.json"))
        victim = retrain([*ARGUMENTS, "--seed", str(100 + number)], artifacts)
        if number % 2:
            kill_at(victim, None, rng.uniform(0.1, 5.0), runs_before)
        else:
            stage = str(rng.choice(["evaluate", "export", "export", "publish"]))
            kill_at(victim, stage, rng.uniform(0, 0.08), runs_before)
        assert_nothing_is_half_there()
        assert before.items() <= digests().items(), "what was published before is there and unchanged"
        complete = retrain(["retrain", NAME, "--seed", str(100 + number)], artifacts)
        complete.join()
        assert complete.exitcode in (0, REFUSED)
        refused += complete.exitcode == REFUSED
        assert_all_is_sound(artifacts)
        assert before.items() <= digests().items()
    assert refused <= KILLS / 10, "few seeds give a model worse than the best so far"


# A non-root user's folder

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def give_to_nobody(*folders: Path) -> None:
    """Let nobody own the folders and everything in them, and reach them."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        for parent in folder.parents:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)


AS_NOBODY = """
import os, shutil, sys, time
from pathlib import Path
from tasks.store import locks, model_folder
from tasks.store import pointer, publication, verification

os.setgid(65534)
os.setuid(65534)
name = sys.argv[1]


def fill(folder, number):
    (folder / "model.onnx").write_bytes(b"half")
    print("filling", flush=True)
    time.sleep(60)


with locks.hold_model(name):
    if sys.argv[2] == "publish":
        publication.publish(model_folder.find_manifest(name, 1), fill)
    pointer.sweep(name)
verification.verify_version(name, 1)
"""


@AS_ROOT
def test_a_kill_in_a_non_root_users_folder_harms_nothing(candidates: list[Contender]) -> None:
    """Killed for certain while the staging folder is half filled."""
    candidates[0].publish()
    give_to_nobody(artifact_paths.root())

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
    assert model_folder.list_versions(NAME) == [1]
