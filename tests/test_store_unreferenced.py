"""Which prepared splits and row digests maintenance removes, and which versions of scheduled names."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from candidate import Candidate, job_document
from store_state import age_demotions
from tasks.errors import DataError
from tasks.records import RawDataset
from tasks.stage import cache
from tasks.store import artifact_paths, atomic, history, housekeeping, locks, predictions, reading, schedules
from tasks.store.housekeeping import prune_datasets
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
OLD = "houses"  # a data set
DAYS = 2 * 24 * 3600


def aged(path: Path, seconds: float = DAYS) -> Path:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))
    return path


def prepared(number: int, kind: str = "train") -> FileRef:
    """A file of a data set that nobody has touched for two days."""
    sha256 = f"{number:064x}"[::-1]
    path = artifact_paths.row_digests(OLD, sha256) if kind == "rows" else artifact_paths.split_file(OLD, kind, sha256)
    atomic.write_bytes(path, b"rows")
    return FileRef(path=aged(path), sha256=atomic.file_digest(path))


def left() -> set[str]:
    return {path.name for path in artifact_paths.dataset(OLD).iterdir()} - {".lock"}


def test_what_a_search_has_learned_goes_when_nobody_has_gone_on_with_it_for_long() -> None:
    long_ago, held, lately = (artifact_paths.study(OLD, f"{number:016x}") for number in range(3))
    for path in (long_ago, held, lately):
        atomic.write_bytes(path, b"{}")
        aged(path, 100 * 24 * 3600 if path != lately else 80 * 24 * 3600)
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
    with locks.locked(artifact_paths.dataset_lock(OLD), "busy"):
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
