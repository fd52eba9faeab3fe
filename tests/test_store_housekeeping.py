"""What maintenance removes, and what it never does."""

import importlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from candidate import Contender, job_document, seal
from command_line import answer, plant, typed
from store_state import age_demotions
from tasks.errors import DataError
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.records import RawDataset
from tasks.stage import cache
from tasks.store import artifact_paths, atomic, history, housekeeping, locks, model_folder, predictions, schedules
from tasks.store.housekeeping import prune_datasets, prune_predictions, prune_runs
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
SOFTMAX = "softmax-regression"
OLD = "houses"  # a data set


def aged(path: Path, days: float = 2) -> None:
    moment = time.time() - days * 24 * 3600
    os.utime(path, (moment, moment))


def run_folder(number: int, model: str = NAME, days: float = 2) -> str:
    run = RunFolder.open(f"202611{number:02}T030000-{model}-0000000{number % 10}", {"name": model})
    aged(run.file("run.json"), days)
    return run.path.name


def opened(run: str) -> RunFolder:
    return RunFolder(path=artifact_paths.runs() / run)


def reuse(run: str, of: str) -> None:
    """Note that a run has used what another one left, which a container calls otherwise."""
    weights = {"path": f"/elsewhere/runs/{of}/weights.safetensors", "sha256": "0"}
    opened(run).note(stages={"train": {"weights": weights}})


def prediction(number: int, status: Literal["running", "done"] = "done", days: float = 2, **changes: Any) -> str:
    folder = artifact_paths.predictions(f"{number:016x}")
    job = job_document(NAME, status=status) | {"finished_at": f"2026-11-{number:02}T06:00:00+00:00"} | changes
    atomic.write_bytes(folder / "_job.json", json.dumps(job).encode())
    aged(folder / "_job.json", days)
    return folder.name


def prepared(number: int, kind: str = "train") -> FileRef:
    """A file of a data set that nobody has touched for two days."""
    sha256 = f"{number:064x}"[::-1]
    path = artifact_paths.row_digests(OLD, sha256) if kind == "rows" else artifact_paths.split_file(OLD, kind, sha256)
    atomic.write_bytes(path, b"rows")
    aged(path)
    return FileRef(path=path, sha256=atomic.file_digest(path))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def damage_manifest() -> None:
    seal(artifact_paths.version(NAME, 1), "{")


# Runs


def test_the_newest_runs_of_each_model_and_those_of_today_stay() -> None:
    softmax = [run_folder(number, SOFTMAX) for number in range(1, 6)]
    today = run_folder(1, days=0.5)
    others = [run_folder(number) for number in range(2, 5)]
    leftover = artifact_paths.runs() / ".pruned-20261101T030000-x-00000000-0123abcd"
    atomic.write_bytes(leftover / "run.json", b"")  # of a removal that was killed
    assert prune_runs(2) == sorted([*softmax[:3], others[0]])
    assert names(artifact_paths.runs()) == {*softmax[3:], today, *others[1:]}
    RunFolder.open(others[1], {})
    assert prune_runs(1) == [softmax[3]], "one that is taken up again is young again"


def test_the_evidence_of_kept_versions_stays_and_so_do_the_runs_that_it_reused(candidates: list[Contender]) -> None:
    candidates[0].publish()
    evidence, reused, other, newest = (run_folder(number) for number in range(1, 5))
    folder = artifact_paths.version(NAME, 1)
    seal(folder, json.loads((folder / "manifest.json").read_text()) | {"run": evidence})
    reuse(evidence, of=reused)
    aged(opened(evidence).file("run.json"))
    assert prune_runs(1) == [other]
    assert names(artifact_paths.runs()) == {evidence, reused, newest}


def test_a_run_that_goes_on_stays_however_old_it_looks_and_so_does_what_it_has_reused() -> None:
    reused, other, running, newest = (run_folder(number) for number in range(1, 5))
    reuse(running, of=reused)
    assert prune_runs(1) == [other], "it is young"
    aged(opened(running).file("run.json"))
    with opened(running).in_use():
        assert prune_runs(1) == []
    assert prune_runs(1) == [reused, running]
    assert names(artifact_paths.runs()) == {newest}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "stage", "parameters"),
    [
        ("retrain", "download", RetrainParameters.model_validate({"training": {"device": "cpu"}})),
        ("predict", "predict_stage", PredictParameters.model_validate({"device": "cpu"})),
    ],
)
def test_a_flow_holds_its_run(flow: str, stage: str, parameters: object, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def look(run: RunFolder, *_: Any) -> None:
        held.append(locks.is_held(artifact_paths.lock(run.path)))
        raise InterruptedError

    module = importlib.import_module(f"flows.{flow}")
    monkeypatch.setattr(module, stage, look)
    monkeypatch.setattr("flows.pages.run_artifacts.show_prediction", print)
    with pytest.raises(InterruptedError):
        getattr(module, flow).fn(parameters)
    assert held == [True]


# Predictions


def test_old_predictions_go_but_unfinished_new_and_held_ones_stay() -> None:
    old, held = [prediction(number) for number in range(1, 3)], prediction(3)
    stay = {prediction(4, days=0.5), prediction(5, "running"), prediction(6)}
    lock = locks.of_job(artifact_paths.predictions(held))
    with locks.hold_lock(lock, "busy"):
        assert prune_predictions(1) == old
    assert prune_predictions(1) == [held]
    assert names(artifact_paths.all_predictions()) == stay
    assert not lock.exists()


def test_a_damaged_manifest_is_exit_4_and_keeps_no_prediction(candidates: list[Contender]) -> None:
    candidates[0].publish()
    old, _, stays = prediction(1), prediction(2), {run_folder(1), run_folder(2)}
    damage_manifest()
    document = answer("maintain --keep 1", 4)
    assert (document["runs"], document["predictions"]) == ([], [old])
    assert document["error"]["exit_code"] == 4
    assert "manifest.json is not JSON" in document["error"]["found"]
    assert names(artifact_paths.runs()) == stays


# Not ours to judge


DAMAGED = [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"status": "done"}', b'{"status": "done", "model": 3}',
           b'{"status": "done", "model": {"name": "x", "version": "1"}, "finished_at": 3}']  # fmt: skip


def test_damaged_and_foreign_documents_stop_neither_maintenance_nor_pruning(
    candidates: list[Contender], capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[0].publish()
    old, _ = prediction(1), prediction(2)
    for number, content in enumerate(DAMAGED):
        atomic.write_bytes(artifact_paths.predictions(f"foreign-{number}") / "_job.json", content)
    plant(artifact_paths.predictions("fifo") / "_job.json", "fifo")
    assert prune_predictions(1) == [old]
    told = capsys.readouterr().err
    assert all(f"foreign-{number} (" in told for number in range(len(DAMAGED)))
    housekeeping.prune(NAME, 1)
    assert "fifo (" in capsys.readouterr().err
    assert len(names(artifact_paths.all_predictions())) == len(DAMAGED) + 2


def test_what_lies_behind_a_link_on_another_disk_stays_and_stops_nobody(tmp_path: Path) -> None:
    runs, old = [run_folder(1), run_folder(2)], [prediction(1), prediction(2)]
    moved = [run_folder(3, SOFTMAX), prediction(3)]
    run_folder(4, SOFTMAX)
    places = artifact_paths.runs() / moved[0], artifact_paths.predictions(moved[1])
    for folder in places:
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
    artifact_paths.predictions("unplugged").symlink_to(tmp_path / "unplugged")
    done = typed("maintain", "--keep", "1", "--json")
    removed = {"runs": runs[:1], "predictions": old[:1], "versions": [], "datasets": []}
    assert json.loads(done.stdout) == {"schema_version": 1} | removed
    assert f"left alone: {places[1]} (it leads to another place)" in done.stderr
    assert all(any((tmp_path / name).iterdir()) for name in moved)


def test_a_folder_that_cannot_be_renamed_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As below an overlay file system, where a folder of a lower layer is renamed across devices."""
    old, other, _ = prediction(1), prediction(2), prediction(3)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == old:
            raise OSError(18, "Invalid cross-device link", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert prune_predictions(1) == [other]
    assert artifact_paths.predictions(old).is_dir()


# What stages returned


def test_what_stages_returned_goes_when_a_file_of_it_is_gone_or_nobody_has_used_it_for_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for key, days in {"a": 91, "b": 91, "c": 0, "d": 89}.items():
        file = atomic.write_bytes(artifact_paths.runs() / f"{key}.bin", b"weights")
        cache.keep_record(key * 64, RawDataset(name=key, source="generated", files={"train": file}))
        aged(artifact_paths.stage_record(key * 64), days)
    assert cache.find_record("a" * 64, RawDataset) is not None, "it was used"
    (artifact_paths.runs() / "c.bin").unlink()
    stay = [artifact_paths.stage_record(each * 64) for each in "ef"]
    stay[0].write_text("{")
    plant(stay[1], "fifo")
    foreign = stay[0].with_name("notes.json")
    foreign.write_text("[]")
    aged(foreign, days=100)
    assert prune_runs(1) == []
    assert names(artifact_paths.stage_records()) == {
        *(f"{key * 64}.json" for key in "ad"), *(path.name for path in (*stay, foreign)),
    }  # fmt: skip
    told = capsys.readouterr().err
    assert all(f"left alone: {path} (" in told for path in stay)


# Prepared splits, row digests and searches


def left() -> set[str]:
    return names(artifact_paths.dataset(OLD))


def test_what_a_search_has_learned_goes_when_nobody_has_gone_on_with_it_for_long() -> None:
    long_ago, held, lately = (artifact_paths.study(OLD, f"{number:016x}") for number in range(3))
    for path in (long_ago, held, lately):
        atomic.write_bytes(path, b"{}")
        aged(path, 80 if path == lately else 100)
    with locks.hold_lock(artifact_paths.lock_of_study(held), "busy"):
        assert prune_datasets() == [f"{OLD}/{long_ago.name}"]
    assert left() == {held.name, lately.name}


def test_what_nothing_refers_to_goes_and_what_is_named_by_anything_stays(candidates: list[Contender]) -> None:
    candidates[0].publish()
    of_version = artifact_paths.dataset("synthetic-linear") / candidates[0].prepared.train.path.name
    aged(of_version)
    of_run, of_look, of_record, of_job, gone, rows, young = (
        prepared(number, kind)
        for number, kind in enumerate(["train", "test", "validation", "test", "test", "rows", "train"])
    )
    os.utime(young.path)
    run = opened(run_folder(1))
    run.note(stages={"preprocess": {"train": of_run.model_dump(mode="json")}})
    aged(run.file("run.json"))
    look = artifact_paths.dataset(OLD) / "look.json"
    look.write_text(json.dumps({"files": [of_look.model_dump(mode="json")]}))
    cache.keep_record("0" * 64, RawDataset(name=OLD, source="", files={"validation": of_record}))
    artifact_paths.stage_record("1" * 64).symlink_to("gone")  # as one that goes while the others are read
    prediction(1, "running", input=job_document(NAME)["input"] | {"path": str(of_job.path)})
    raw, foreign = artifact_paths.raw_file(OLD, "raw.csv", "0" * 64), look.with_name("train.mine.safetensors")
    for path in (raw, foreign):
        atomic.write_bytes(path, b"")
        aged(path)
    assert prune_datasets() == [f"{OLD}/{path.name}" for path in sorted((gone.path, rows.path))]
    stay = {each.path.name for each in (of_run, of_look, of_record, of_job, young)}
    assert left() == stay | {"look.json", "raw", foreign.name}
    assert of_version.is_file()
    aged(artifact_paths.stage_record("0" * 64))
    prediction(1)
    assert prune_datasets() == [f"{OLD}/{each.path.name}" for each in (of_job, of_record)]


def test_nothing_goes_while_an_unfinished_job_or_a_version_cannot_be_read_or_somebody_prepares_the_data(
    candidates: list[Contender],
) -> None:
    file, folder = prepared(1), artifact_paths.predictions("0123456789abcdef")
    predictions.make_scratch(folder)
    (folder / "_job.json").write_text("{")
    with pytest.raises(DataError, match="unfinished job"):
        prune_datasets()
    predictions.remove_scratch(folder)
    with locks.hold_lock(artifact_paths.dataset_lock(OLD), "busy"):
        assert prune_datasets() == []
    candidates[0].publish()
    damage_manifest()
    with pytest.raises(DataError, match="manifest"):
        prune_datasets()
    assert file.path.is_file()


def test_what_a_kill_has_left_out_of_sight_comes_back_only_where_it_is_needed() -> None:
    needed, not_needed = prepared(1), prepared(2)
    opened(run_folder(1)).note(stages={"preprocess": {"train": str(needed.path)}})
    for file in (needed, not_needed):
        file.path.rename(file.path.with_name(f".pruned-{file.path.name}-0123abcd"))
    assert prune_datasets() == [f"{OLD}/{not_needed.path.name}"]
    assert left() == {needed.path.name}


@pytest.mark.slow  # many races
def test_what_a_run_takes_up_again_while_maintenance_is_at_work_is_there_afterwards() -> None:
    """However the two fall together, a record that is found again has all its files."""
    found_again = 0
    for number in range(150):
        file, key = prepared(number), f"{number:064x}"
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
    candidates: list[Contender], two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[2].publish()
    age_demotions()
    assert housekeeping.prune_scheduled() == []
    told = schedules.Schedules()
    for name in ("never-trained", NAME):
        told = told.with_schedule(
            schedules.Schedule(flow="retrain", name=name, cron="0 3 * * *", keep=1, parameters={})
        )
    schedules.write(told)
    assert housekeeping.prune_scheduled() == [f"{NAME}/1"]
    assert model_folder.list_versions(NAME) == [2, 3]
    assert history.list_changes(NAME)[-1].reason == "gradmill schedule --keep 1"
    artifact_paths.schedules().write_text("{")
    assert housekeeping.prune_scheduled() == []
    assert "_schedules.json is not JSON" in capsys.readouterr().err
    assert prune_runs(1) == []
