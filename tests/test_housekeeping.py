"""What maintenance removes, and what it never does."""

import json
import os
import time
from pathlib import Path

import pytest

from candidate import Candidate
from tasks import artifact_paths, housekeeping
from tasks.errors import DataError
from tasks.run_folder import RunFolder
from test_cli import gradmill

DAY = 24 * 3600
NAME = "linear-regression"


def aged(path: Path, days: float = 2) -> None:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def run_folder(number: int, model: str = NAME, days: float = 2) -> str:
    run = RunFolder.open(f"202611{number:02}T030000-{model}-0000000{number % 10}", {"name": model})
    aged(run.file("run.json"), days)
    return run.path.name


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newest_runs_of_each_model_stay() -> None:
    softmax = [run_folder(number, "softmax-regression") for number in range(1, 6)]
    linear = [run_folder(number) for number in range(1, 3)]
    assert housekeeping.prune_runs(2) == softmax[:3]
    assert names(artifact_paths.runs()) == {*softmax[3:], *linear}


def test_a_run_of_today_stays_however_many_follow() -> None:
    today = run_folder(1, days=0.5)
    others = [run_folder(number) for number in range(2, 5)]
    assert housekeeping.prune_runs(1) == others[:2]
    assert today in names(artifact_paths.runs())


def test_the_evidence_of_kept_versions_stays_and_so_do_the_runs_that_it_reused(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    evidence, reused, other = run_folder(1), run_folder(2), run_folder(3)
    newest = run_folder(9)
    folder = artifact_paths.version(NAME, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    for path in (folder, folder / "manifest.json"):
        path.chmod(0o755)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"run": evidence}))
    elsewhere = f"/artifacts/runs/{reused}/weights.safetensors"  # as a container has it
    weights = {"weights": {"path": elsewhere, "sha256": "0"}}
    RunFolder(path=artifact_paths.runs() / evidence).note("stages", "train", weights)
    aged(artifact_paths.runs() / evidence / "run.json")
    assert housekeeping.prune_runs(1) == [other]
    assert names(artifact_paths.runs()) == {evidence, reused, newest}


def prediction(number: int, status: str = "done", days: float = 2) -> str:
    folder = artifact_paths.predictions(f"{number:016x}")
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_bytes(b"rows")
    job = {"status": status, "model": {"name": NAME, "version": 1}, "finished_at": f"2026-11-{number:02}T06:00:00"}
    (folder / "job.json").write_text(json.dumps(job))
    aged(folder / "job.json", days)
    return folder.name


def test_old_predictions_go_but_unfinished_and_new_ones_stay() -> None:
    old = [prediction(number) for number in range(1, 4)]
    stay = [prediction(4, days=0.5), prediction(5, "running"), prediction(6)]
    assert housekeeping.prune_predictions(1) == old
    assert names(artifact_paths.all_predictions()) == set(stay)


def test_a_damaged_job_stops_no_maintenance() -> None:
    old, _ = prediction(1), prediction(2)
    damaged = artifact_paths.predictions(prediction(3)) / "job.json"
    damaged.write_text("{")
    assert housekeeping.prune_predictions(1) == [old]
    assert damaged.exists()


def test_nothing_is_removed_while_a_kept_version_s_evidence_is_unknown(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    stays = {run_folder(1), run_folder(2)}
    folder = artifact_paths.version(NAME, 1)
    for path in (folder, folder / "manifest.json"):
        path.chmod(0o755)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        housekeeping.prune_runs(1)
    assert names(artifact_paths.runs()) == stays


def test_what_a_killed_removal_left_is_swept() -> None:
    run_folder(1)
    leftover = artifact_paths.runs() / ".pruned-20261101T030000-x-00000000-abcd"
    leftover.mkdir()
    (leftover / "run.json").touch()
    assert housekeeping.prune_runs(5) == []
    assert not leftover.exists()


@pytest.mark.parametrize("keep", ["0", "-1", "x"])
def test_keep_below_one_is_exit_2(keep: str) -> None:
    assert gradmill("maintain", "--keep", keep).returncode == 2


def test_the_command_tells_what_it_has_removed() -> None:
    old, _ = run_folder(1), run_folder(2)
    done = gradmill("maintain", "--keep", "1", "--json")
    assert json.loads(done.stdout) == {"schema_version": 1, "runs": [old], "predictions": []}
    assert gradmill("maintain").stdout == "removed 0 run folders and 0 predictions\n"
    assert len(names(artifact_paths.runs())) == 1
