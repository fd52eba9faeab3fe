"""SIGKILL at random moments of a retrain: nothing published before is harmed, and the next retrain just works.

Kills at every write of a publication, promotion or pruning are in test_store_freezing.py, and those at chosen moments
of a night in test_run_month.py.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from candidate import Contender
from command_line import run
from conftest import REPOSITORY
from store_state import leftovers, whole_files
from table_files import houses, written
from tasks.store import artifact_paths, model_folder, verification
from victims import KILLS, fork, run_silently, run_until

NAME = "linear-regression"
REFUSED = 3  # the exit code of a whole run whose model a gate has refused


@pytest.mark.slow
def test_killed_retrains_harm_nothing(
    candidates: list[Contender], server: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each kill, the same retrain is run to its end."""
    monkeypatch.setenv("PREFECT_API_URL", server)
    candidates[0].publish()
    rng = np.random.default_rng(20261124)
    refused, killed, seconds = 0, 0, 2.0
    for number in range(KILLS):
        before, retrain = whole_files(), ["retrain", NAME, "--seed", str(100 + number)]
        retrain += ["--artifacts", str(artifacts)]  # since a fork server keeps its first environment
        victim = fork(run_silently, [*retrain, "--force"])  # nothing to reuse, so that every stage does its work
        victim.join(rng.uniform(0, 1.2) * seconds)
        victim.kill()
        victim.join()
        killed += victim.exitcode == -signal.SIGKILL
        assert before.items() <= whole_files().items(), "what was published before is there and unchanged"
        began, complete = time.monotonic(), fork(run_silently, retrain)
        complete.join()
        seconds = time.monotonic() - began  # that a whole one takes here and now
        assert complete.exitcode in (0, REFUSED)
        refused += complete.exitcode == REFUSED
        for version in model_folder.list_versions(NAME):
            verification.verify(NAME, version)
        assert leftovers() == []
        assert before.items() <= whole_files().items()
    assert killed > KILLS / 2, "the others had ended before"
    assert refused <= KILLS / 5, "few seeds give a model worse than the best so far"


@pytest.mark.slow
def test_a_first_version_knows_where_its_data_are_though_its_run_was_killed_at_once(
    server: str, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    rows = written(tmp_path / "houses.csv", houses())
    options = ["--name", "houses", "--data", str(rows), "--target", "price", "--artifacts", str(artifacts)]
    victim = fork(run_until, "tasks.publish:_report_outcome", ["retrain", NAME, *options])
    victim.join()
    assert (victim.exitcode, model_folder.list_versions("houses")) == (-signal.SIGKILL, [1])
    assert run("retrain", "houses")["outcome"] == "unchanged"


# A non-root user's folder

NOBODY = 65534
AS_NOBODY = f"""
import os, sys, time
from unittest import mock

from tasks.store import housekeeping, locks, model_folder, pointer, publication, verification

os.setgid({NOBODY})
os.setuid({NOBODY})


def fill(folder, *_):
    (folder / "model.onnx").write_bytes(b"half")
    print("filling", flush=True)
    time.sleep(60)


if sys.argv[1] == "remove":
    housekeeping.remove_name("{NAME}")
    sys.exit()
with locks.hold_model("{NAME}"):
    if sys.argv[1] == "publish":
        with mock.patch.object(publication, "write_version_files", fill):
            publication.publish(model_folder.find_manifest("{NAME}", 1), None, ())
    pointer.sweep("{NAME}")
verification.verify_version("{NAME}", 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_kill_in_a_non_root_users_folder_harms_nothing_and_its_user_can_remove_the_name(
    candidates: list[Contender],
) -> None:
    """Killed for certain while the staging folder is half filled; the folders of versions are read-only."""
    candidates[0].publish()
    root = artifact_paths.root()
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for parent in root.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)

    def as_nobody(action: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", AS_NOBODY, action], stdout=subprocess.PIPE, cwd=REPOSITORY)

    with as_nobody("publish") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"filling\n"
        holder.kill()
    assert leftovers()
    with as_nobody("sweep") as sweeper:
        assert sweeper.wait() == 0
    assert leftovers() == []
    assert model_folder.list_versions(NAME) == [1]
    with as_nobody("remove") as remover:
        assert remover.wait() == 0
    assert [path.name for path in artifact_paths.models().iterdir() if NAME in path.name] == []
