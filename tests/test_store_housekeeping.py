"""What maintenance removes, and what it never does."""

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from candidate import Contender, job_document, seal
from command_line import answer, plant, typed
from store_state import age_demotions, seal_all
from tasks.errors import DataError
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.store import artifact_paths, atomic, history, housekeeping, locks, model_folder, predictions
from tasks.store.housekeeping import prune_datasets, prune_predictions, prune_runs
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
OLD = "houses"  # a data set


def aged(path: Path, days: float = 2) -> Path:
    moment = time.time() - days * 24 * 3600
    os.utime(path, (moment, moment))
    return path


def run_folder(number: int, model: str = NAME, days: float = 2) -> str:
    """The name of a run."""
    run = RunFolder.open(f"202611{number:02}T030000-{model}-0000000{number % 10}", {"name": model})
    aged(run.file("run.json"), days)
    return run.path.name


def opened(run: str) -> RunFolder:
    return RunFolder(path=artifact_paths.runs() / run)


def prediction(number: int, status: Literal["running", "done"] = "done", days: float = 2, **changes: Any) -> str:
    folder = artifact_paths.predictions(f"{number:016x}")
    job = job_document(NAME, status=status) | {"finished_at": f"2026-11-{number:02}T06:00:00+00:00"} | changes
    aged(atomic.write_json(folder / "_job.json", job).path, days)
    return folder.name


def prepared(number: int, kind: str = "train", days: float = 2) -> FileRef:
    """A file of a data set that nobody has touched for two days."""
    sha256 = f"{number:064x}"[::-1]
    path = artifact_paths.row_digests(OLD, sha256) if kind == "rows" else artifact_paths.split_file(OLD, kind, sha256)
    file = atomic.write_bytes(path, b"rows")
    aged(path, days)
    return file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


# Runs


def test_the_newest_runs_of_each_model_and_those_of_today_stay() -> None:
    softmax = [run_folder(number, "softmax-regression") for number in range(1, 6)]
    today = run_folder(1, days=0.9)
    others = [run_folder(number, days=1.1) for number in range(2, 5)]
    leftover = artifact_paths.runs() / ".pruned-20261101T030000-x-00000000-0123abcd"
    atomic.write_bytes(leftover / "run.json", b"")  # of a removal that was killed
    assert prune_runs(2) == sorted([*softmax[:3], others[0]])
    assert names(artifact_paths.runs()) == {*softmax[3:], today, *others[1:]}
    RunFolder.open(others[1], {})
    assert prune_runs(1) == [softmax[3]], "one that is taken up again is young again"


def test_evidence_of_kept_versions_and_runs_that_go_on_stay(candidates: list[Contender]) -> None:
    candidates[0].publish()
    other, evidence, going, newest = (run_folder(number) for number in range(1, 5))
    seal_all(artifact_paths.version(NAME, 1), run=evidence)
    with opened(going).in_use():
        assert prune_runs(1) == [other], "however old it looks"
    assert prune_runs(1) == [going]
    assert names(artifact_paths.runs()) == {evidence, newest}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")  # without it Prefect would start a server of its own, for the page of a failure
@pytest.mark.parametrize(
    ("flow", "stage", "parameters"),
    [("retrain", "download", RetrainParameters()), ("predict", "predict_stage", PredictParameters())],
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


def test_a_damaged_manifest_is_exit_4_and_keeps_runs_and_data_but_no_prediction(candidates: list[Contender]) -> None:
    candidates[0].publish()
    old, _, stays = prediction(1), prediction(2), {run_folder(1), run_folder(2)}
    prepared(1)
    seal(artifact_paths.version(NAME, 1), "{")
    document = answer("maintain --keep 1", 4)
    assert (document["runs"], document["datasets"], document["predictions"]) == ([], [], [old])
    assert document["error"]["exit_code"] == 4
    assert "manifest.json is not JSON" in document["error"]["found"]
    assert names(artifact_paths.runs()) == stays


# Not ours to judge


DAMAGED = [b"", b"[" * 100_000, b"\xff", b'{"status": "done", "model": 3}']


def test_damaged_and_foreign_documents_and_what_lies_behind_a_link_stop_neither_maintenance_nor_pruning(
    candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    runs, old = [run_folder(1), run_folder(2)], [prediction(1), prediction(2)]
    moved = [artifact_paths.runs() / run_folder(3, "other"), artifact_paths.predictions(prediction(3))]
    run_folder(4, "other")
    for number, content in enumerate(DAMAGED):
        atomic.write_bytes(artifact_paths.predictions(f"foreign-{number}") / "_job.json", content)
    plant(artifact_paths.predictions("fifo") / "_job.json", "fifo")
    for folder in moved:
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
    artifact_paths.predictions("unplugged").symlink_to(tmp_path / "unplugged")
    done = typed("maintain", "--keep", "1", "--json")
    removed = {"runs": runs[:1], "predictions": old[:1], "versions": [], "datasets": []}
    assert json.loads(done.stdout) == {"schema_version": 1} | removed
    assert f"left alone: {moved[1]} (it leads to another place)" in done.stderr
    assert all(any((tmp_path / folder.name).iterdir()) for folder in moved)
    for command in ("maintain", f"prune {NAME} --keep 1"):
        told = typed(*command.split()).stderr
        assert not [name for name in ("foreign-0", "foreign-3", "fifo") if f"{name} (" not in told], command
    assert names(artifact_paths.all_predictions()) >= {f"foreign-{number}" for number in range(len(DAMAGED))}


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
    of_version = aged(artifact_paths.dataset("synthetic-linear") / candidates[0].prepared.train.path.name)
    kinds = ["train", "test", "test", "test", "rows"]
    of_run, of_look, of_job, gone, rows = (prepared(number, kind) for number, kind in enumerate(kinds))
    young = prepared(6, days=0.9)
    opened(run := run_folder(1)).note(stages={"preprocess": {"train": of_run.model_dump(mode="json")}})
    aged(opened(run).file("run.json"))
    look = artifact_paths.dataset(OLD) / "look.json"
    atomic.write_json(look, {"files": [of_look.model_dump(mode="json")]})
    (artifact_paths.runs() / "gone" / "run.json").parent.mkdir()
    (artifact_paths.runs() / "gone" / "run.json").symlink_to("gone")  # as one that goes while the others are read
    prediction(1, "running", input=job_document(NAME)["input"] | {"path": str(of_job.path)})
    others = artifact_paths.raw_file(OLD, "raw.csv", "0" * 64), look.with_name("train.mine.safetensors")
    for path in others:
        aged(atomic.write_bytes(path, b"").path)
    assert prune_datasets() == [f"{OLD}/{path.name}" for path in sorted((gone.path, rows.path))]
    stay = {each.path.name for each in (of_run, of_look, of_job, young)}
    assert left() == stay | {"look.json", "raw", others[1].name}
    assert of_version.is_file()
    prediction(1)
    assert prune_datasets() == [f"{OLD}/{of_job.path.name}"]


def test_nothing_goes_while_an_unfinished_job_cannot_be_read_or_somebody_prepares_the_data() -> None:
    file, folder = prepared(1), artifact_paths.predictions("0123456789abcdef")
    predictions.make_scratch(folder)
    (folder / "_job.json").write_text("{")
    with pytest.raises(DataError, match="unfinished job"):
        prune_datasets()
    predictions.remove_scratch(folder)
    with locks.hold_lock(artifact_paths.dataset_lock(OLD), "busy"):
        assert prune_datasets() == []
    assert file.path.is_file()


def test_what_a_kill_has_left_out_of_sight_comes_back_only_where_it_is_needed() -> None:
    needed, not_needed = prepared(1), prepared(2)
    opened(run_folder(1)).note(stages={"preprocess": {"train": str(needed.path)}})
    for file in (needed, not_needed):
        file.path.rename(file.path.with_name(f".pruned-{file.path.name}-0123abcd"))
    assert prune_datasets() == [f"{OLD}/{not_needed.path.name}"]
    assert left() == {needed.path.name}


# Versions of scheduled names


def test_maintenance_prunes_scheduled_names_to_what_schedule_was_told_and_no_others(
    candidates: list[Contender], two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[2].publish()
    age_demotions()
    assert housekeeping.prune_scheduled() == []
    housekeeping.Retention(keep=1).write(artifact_paths.retention(NAME))
    assert housekeeping.prune_scheduled() == [f"{NAME}/1"]
    assert model_folder.list_versions(NAME) == [2, 3]
    assert history.list_changes(NAME)[-1].reason == "gradmill schedule --keep 1"
    artifact_paths.retention(NAME).write_text("{")
    assert housekeeping.prune_scheduled() == []
    assert "retention.json is not JSON" in capsys.readouterr().err
    assert prune_runs(1) == []
