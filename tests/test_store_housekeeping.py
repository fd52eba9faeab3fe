"""What maintenance removes, and what it never does."""

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from candidate import Candidate, job_document, seal
from command_line import gradmill
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.records import RawDataset
from tasks.stage import cache
from tasks.store import artifact_paths, atomic, housekeeping, locks
from tasks.store.run_folder import RunFolder

DAY = 24 * 3600
NAME = "linear-regression"
NOTHING = {"schema_version": 1, "runs": [], "predictions": [], "versions": [], "datasets": []}


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
    seal(folder, manifest | {"run": evidence})
    elsewhere = f"/artifacts/runs/{reused}/weights.safetensors"  # as a container has it
    weights = {"weights": {"path": elsewhere, "sha256": "0"}}
    RunFolder(path=artifact_paths.runs() / evidence).note(stages={"train": weights})
    aged(artifact_paths.runs() / evidence / "run.json")
    assert housekeeping.prune_runs(1) == [other]
    assert names(artifact_paths.runs()) == {evidence, reused, newest}


def prediction(number: int, status: Literal["running", "done"] = "done", days: float = 2) -> str:
    folder = artifact_paths.predictions(f"{number:016x}")
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_bytes(b"rows")
    job = job_document(NAME, status=status) | {"finished_at": f"2026-11-{number:02}T06:00:00+00:00"}
    (folder / "_job.json").write_text(json.dumps(job))
    aged(folder / "_job.json", days)
    return folder.name


def test_old_predictions_go_but_unfinished_and_new_ones_stay() -> None:
    old = [prediction(number) for number in range(1, 4)]
    stay = [prediction(4, days=0.5), prediction(5, "running"), prediction(6)]
    assert housekeeping.prune_predictions(1) == old
    assert names(artifact_paths.all_predictions()) == set(stay)


def test_a_damaged_manifest_is_exit_4_and_keeps_no_prediction(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    old, _, stays = prediction(1), prediction(2), {run_folder(1), run_folder(2)}
    seal(artifact_paths.version(NAME, 1), "{")
    done = gradmill("maintain", "--keep", "1", "--json")
    document = json.loads(done.stdout)
    assert (document["runs"], document["predictions"]) == ([], [old])
    assert done.returncode == document["error"]["exit_code"] == 4
    assert "manifest.json is not JSON" in document["error"]["found"]
    assert names(artifact_paths.runs()) == stays


def test_what_a_killed_removal_left_is_swept() -> None:
    run_folder(1)
    leftover = artifact_paths.runs() / ".pruned-20261101T030000-x-00000000-0123abcd"
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
    assert json.loads(done.stdout) == NOTHING | {"runs": [old]}
    assert gradmill("maintain").stdout == "removed 0 run folders, 0 predictions, 0 versions, 0 prepared files\n"
    assert len(names(artifact_paths.runs())) == 1


# In use


def test_a_run_that_goes_on_stays_however_old_it_looks() -> None:
    run, _ = run_folder(1), run_folder(2)
    with RunFolder(path=artifact_paths.runs() / run).in_use():
        assert housekeeping.prune_runs(1) == []
    assert housekeeping.prune_runs(1) == [run]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "stage", "parameters"),
    [
        ("flows.retrain", "download", RetrainParameters.model_validate({"training": {"device": "cpu"}})),
        ("flows.predict", "predict_stage", PredictParameters.model_validate({"device": "cpu"})),
    ],
)
def test_a_flow_holds_its_run(module: str, stage: str, parameters: object, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = importlib.import_module(module)
    seen = []

    def look(run: RunFolder, *_: Any) -> None:
        aged(run.file("run.json"))
        newer = run_folder(1, run.path.name.partition("-")[2].rpartition("-")[0])
        seen.append((housekeeping.prune_runs(1), newer, run.path))
        raise InterruptedError

    monkeypatch.setattr(flow, stage, look)
    monkeypatch.setattr("flows.pages.run_artifacts.show_prediction", print)
    with pytest.raises(InterruptedError):
        getattr(flow, module.removeprefix("flows.")).fn(parameters)
    (removed, _, path) = seen[0]
    assert path.is_dir()
    assert path.name not in removed


def test_what_a_run_that_goes_on_has_reused_stays() -> None:
    reused, other, running, newest = (run_folder(number) for number in range(1, 5))
    run = RunFolder(path=artifact_paths.runs() / running)
    run.note(stages={"train": {"weights": {"path": f"/elsewhere/runs/{reused}/weights.safetensors", "sha256": "0"}}})
    assert housekeeping.prune_runs(1) == [other], "it is young"
    aged(run.file("run.json"))
    with run.in_use():
        assert housekeeping.prune_runs(1) == []
    assert housekeeping.prune_runs(1) == [reused, running]
    assert names(artifact_paths.runs()) == {newest}


def test_a_run_that_is_taken_up_again_is_young_again() -> None:
    run, _ = run_folder(1), run_folder(2)
    RunFolder.open(run, {})
    assert housekeeping.prune_runs(1) == []


def test_a_prediction_that_a_job_holds_stays() -> None:
    old, _ = prediction(1), prediction(2)
    lock = locks.of_job(artifact_paths.predictions(old))
    with locks.locked(lock, "busy"):
        assert housekeeping.prune_predictions(1) == []
    assert housekeeping.prune_predictions(1) == [old]
    assert not lock.exists()


# Not ours to judge


DAMAGED = [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"status": "done"}', b'{"status": "done", "model": 3}',
           b'{"status": "done", "model": {"name": "x", "version": "1"}, "finished_at": 3}']  # fmt: skip


def test_damaged_and_foreign_documents_stop_neither_maintenance_nor_pruning(
    candidates: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[0].publish()
    old, _ = prediction(1), prediction(2)
    for number, content in enumerate(DAMAGED):
        path = artifact_paths.predictions(f"foreign-{number}") / "_job.json"
        path.parent.mkdir()
        path.write_bytes(content)
    fifo = artifact_paths.predictions("fifo") / "_job.json"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    assert housekeeping.prune_predictions(1) == [old]
    told = capsys.readouterr().err
    assert all(f"foreign-{number} (" in told for number in range(len(DAMAGED)))
    housekeeping.prune(NAME, 1)
    assert "fifo (" in capsys.readouterr().err
    assert len(names(artifact_paths.all_predictions())) == len(DAMAGED) + 2


def test_an_unfinished_job_protects_its_version_where_the_history_is_lost(candidates: list[Candidate]) -> None:
    for candidate in candidates[:2]:
        candidate.publish()
    running = artifact_paths.predictions(prediction(3, "running"))
    assert housekeeping.protected(NAME)[1] == "the version that a rollback goes to"
    artifact_paths.history(NAME).unlink()
    pointer = json.loads(artifact_paths.champion(NAME).read_text())
    artifact_paths.champion(NAME).write_text(json.dumps(pointer | {"previous": None}))
    assert housekeeping.protected(NAME)[1] == f"named by the unfinished job in {running}"


def test_what_lies_behind_a_link_on_another_disk_stays_and_stops_nobody(tmp_path: Path) -> None:
    old_run, _ = run_folder(1), run_folder(2)
    old, _ = prediction(1), prediction(2)
    moved_run, moved = run_folder(3, "softmax-regression"), prediction(3)
    run_folder(4, "softmax-regression")
    for folder in (artifact_paths.runs() / moved_run, artifact_paths.predictions(moved)):
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
    artifact_paths.predictions("unplugged").symlink_to(tmp_path / "unplugged")
    done = gradmill("maintain", "--keep", "1", "--json")
    assert json.loads(done.stdout) == NOTHING | {"runs": [old_run], "predictions": [old]}
    assert f"left alone: {artifact_paths.predictions(moved)} (it leads to another place)" in done.stderr
    for name in (moved_run, moved):
        assert any((tmp_path / name).iterdir())


def test_a_folder_that_cannot_be_renamed_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As below an overlay file system, where a folder of a lower layer is renamed across devices."""
    old, other, _ = prediction(1), prediction(2), prediction(3)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == old:
            raise OSError(18, "Invalid cross-device link", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert housekeeping.prune_predictions(1) == [other]
    assert artifact_paths.predictions(old).is_dir()


# What stages returned


def test_what_stages_returned_goes_when_a_file_of_it_is_gone_or_nobody_has_used_it_for_long() -> None:
    kept = {name: f"{number}" * 64 for number, name in enumerate(("used", "forgotten", "without its file"))}
    for name, key in kept.items():
        file = atomic.write_bytes(artifact_paths.runs() / f"{name}.bin", b"weights")
        cache.keep_record(key, RawDataset(name=name, source="generated", files={"train": file}))
        aged(artifact_paths.stage_record(key), days=91)
    assert cache.find_record(kept["used"], RawDataset) is not None
    aged(artifact_paths.stage_record(kept["without its file"]), days=0)
    (artifact_paths.runs() / "without its file.bin").unlink()
    assert housekeeping.prune_runs(1) == []
    assert names(artifact_paths.stage_records()) == {f"{kept['used']}.json"}


def test_a_record_of_a_stage_that_cannot_be_judged_stays_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    stay = [artifact_paths.stage_record(each * 64) for each in "ab"]
    stay[0].parent.mkdir(parents=True)
    stay[0].write_text("{")
    os.mkfifo(stay[1])
    foreign = stay[0].with_name("notes.json")
    foreign.write_text("[]")
    aged(foreign, days=100)
    housekeeping.prune_runs(1)
    assert names(artifact_paths.stage_records()) == {path.name for path in (*stay, foreign)}
    told = capsys.readouterr().err
    assert all(f"left alone: {path} (" in told for path in stay)
