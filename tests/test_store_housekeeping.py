"""What maintenance removes, and what it never does."""

import importlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from candidate import Candidate, job_document, seal
from command_line import gradmill
from store_state import age_demotions
from tasks.errors import DataError
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.records import RawDataset
from tasks.stage import cache
from tasks.store import artifact_paths, atomic, history, housekeeping, locks, predictions, reading, schedules
from tasks.store.housekeeping import prune_datasets
from tasks.store.record import FileRef
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
    with locks.hold_lock(lock, "busy"):
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


# Prepared splits, row digests, searches, and versions of scheduled names


OLD = "houses"  # a data set


def prepared(number: int, kind: str = "train") -> FileRef:
    """A file of a data set that nobody has touched for two days."""
    sha256 = f"{number:064x}"[::-1]
    path = artifact_paths.row_digests(OLD, sha256) if kind == "rows" else artifact_paths.split_file(OLD, kind, sha256)
    atomic.write_bytes(path, b"rows")
    aged(path)
    return FileRef(path=path, sha256=atomic.file_digest(path))


def left() -> set[str]:
    return {path.name for path in artifact_paths.dataset(OLD).iterdir()} - {".lock"}


def test_what_a_search_has_learned_goes_when_nobody_has_gone_on_with_it_for_long() -> None:
    long_ago, held, lately = (artifact_paths.study(OLD, f"{number:016x}") for number in range(3))
    for path in (long_ago, held, lately):
        atomic.write_bytes(path, b"{}")
        aged(path, 100 if path != lately else 80)
    lock = artifact_paths.lock_of_study(held)
    lock.parent.mkdir(exist_ok=True)
    with locks.locked_if_free(lock) as ours:
        assert ours
        assert prune_datasets() == [f"{OLD}/{long_ago.name}"]
    assert left() == {held.name, lately.name}


def test_what_nothing_refers_to_goes_and_what_is_named_by_anything_stays(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    of_version = candidates[0].prepared.train.path.name
    aged(artifact_paths.dataset("synthetic-linear") / of_version)
    of_run, of_look, of_record, of_job, gone, rows = (
        prepared(number, kind) for number, kind in enumerate(["train", "test", "validation", "test", "test", "rows"])
    )
    young = prepared(9)
    os.utime(young.path)
    run = RunFolder.open("20260101T030000-x-00000000", {})
    run.note(stages={"preprocess": {"train": of_run.model_dump(mode="json")}})
    aged(run.file("run.json"))
    look = artifact_paths.dataset(OLD) / "look.json"
    look.write_text(json.dumps({"files": [of_look.model_dump(mode="json")]}))
    cache.keep_record("0" * 64, RawDataset(name=OLD, source="", files={"validation": of_record}))
    artifact_paths.stage_record("1" * 64).symlink_to("gone")  # as one that goes while the others are read
    job = artifact_paths.predictions("0123456789abcdef") / "_job.json"
    job.parent.mkdir(parents=True)
    document = job_document(NAME)
    job.write_text(json.dumps(document | {"input": document["input"] | {"path": str(of_job.path)}}))
    raw = artifact_paths.raw_file(OLD, "raw.csv", "0" * 64)
    foreign = artifact_paths.dataset(OLD) / "train.mine.safetensors"
    for path in (raw, foreign):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        aged(path)
    assert prune_datasets() == [f"{OLD}/{path.name}" for path in sorted((gone.path, rows.path))]
    stay = {each.path.name for each in (of_run, of_look, of_record, of_job, young)}
    assert left() == stay | {"look.json", "raw", foreign.name}
    assert (artifact_paths.dataset("synthetic-linear") / of_version).is_file()
    aged(artifact_paths.stage_record("0" * 64))
    job.write_text(json.dumps(job_document(NAME, status="done")))
    assert prune_datasets() == [f"{OLD}/{each.path.name}" for each in (of_job, of_record)]


def test_nothing_goes_while_an_unfinished_job_or_a_version_cannot_be_read(candidates: list[Candidate]) -> None:
    file, folder = prepared(1), artifact_paths.predictions("0123456789abcdef")
    predictions.make_scratch(folder)
    (folder / "_job.json").write_text("{")
    with pytest.raises(DataError, match="unfinished job"):
        prune_datasets()
    predictions.remove_scratch(folder)
    candidates[0].publish()
    manifest = artifact_paths.version(NAME, 1) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    with pytest.raises(DataError, match="manifest"):
        prune_datasets()
    assert file.path.is_file()


def test_a_data_set_that_somebody_prepares_is_left_alone() -> None:
    file = prepared(1)
    with locks.hold_lock(artifact_paths.dataset_lock(OLD), "busy"):
        assert prune_datasets() == []
    assert prune_datasets() == [f"{OLD}/{file.path.name}"]


def test_what_a_kill_has_left_out_of_sight_comes_back_only_where_it_is_needed() -> None:
    needed, not_needed = prepared(1), prepared(2)
    RunFolder.open("20260101T030000-x-00000000", {}).note(stages={"preprocess": {"train": str(needed.path)}})
    for file in (needed, not_needed):
        file.path.rename(file.path.with_name(f".pruned-{file.path.name}-0123abcd"))
    assert prune_datasets() == [f"{OLD}/{not_needed.path.name}"]
    assert left() == {needed.path.name}


@pytest.mark.slow  # many races
def test_what_a_run_takes_up_again_while_maintenance_is_at_work_is_there_afterwards() -> None:
    """However the two fall together, a record that is found again has all its files."""
    found_again = 0
    for number in range(150):
        file = prepared(number)
        key = f"{number:064x}"
        cache.keep_record(key, RawDataset(name=OLD, source="", files={"train": file}))
        aged(artifact_paths.stage_record(key))
        found: list[RawDataset | None] = []

        def find(key: str = key, found: list[RawDataset | None] = found, wait: float = number % 15 / 3000) -> None:
            time.sleep(wait)
            found.append(cache.find_record(key, RawDataset))

        run = threading.Thread(target=find)
        run.start()
        prune_datasets()
        run.join()
        assert found[0] is None or file.path.is_file()
        found_again += found[0] is not None
        artifact_paths.stage_record(key).unlink()
    assert 0 < found_again < 150, "both happened"


# Versions of scheduled names


def test_maintenance_prunes_scheduled_names_to_what_schedule_was_told_and_no_others(
    candidates: list[Candidate], two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[2].publish()
    age_demotions()
    assert housekeeping.prune_scheduled() == []
    told = schedules.Schedules()
    for name in ("never-trained", NAME):
        told = told.having(schedules.Schedule(flow="retrain", name=name, cron="0 3 * * *", keep=1, parameters={}))
    schedules.write(told)
    assert housekeeping.prune_scheduled() == [f"{NAME}/1"]
    assert reading.versions(NAME) == [2, 3]
    assert history.changes(NAME)[-1].reason == "gradmill schedule --keep 1"
    artifact_paths.schedules().write_text("{")
    assert housekeeping.prune_scheduled() == []
    assert "_schedules.json is not JSON" in capsys.readouterr().err
    assert housekeeping.prune_runs(1) == []
