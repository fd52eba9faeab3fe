"""Unchanged stages are reused by content, and only then."""

import base64
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from command_line import GRADMILL
from prefect_api import eventually, post
from tasks.machine import devices
from tasks.parameters import Data, Device, RetrainParameters, Training
from tasks.records import Evaluation, GateVerdict, RawDataset
from tasks.stage import cache
from tasks.store import artifact_paths, atomic
from tasks.store.record import NOT_IN_KEY, FileRef, Record
from tasks.store.run_folder import RunFolder


def key(**inputs: object) -> str:
    return cache.make_key("train", inputs)


def raw(folder: str, digest: str, source: str = "cache") -> RawDataset:
    return RawDataset(name="data", source=source, files={"train": FileRef(path=Path(folder) / "x", sha256=digest)})


def test_the_same_content_elsewhere_is_the_same_and_other_content_is_not() -> None:
    assert key(raw=raw("/a", "1"), data=Data()) == key(raw=raw("/b", "1", source="mirror"), data=Data())
    assert key(raw=raw("/a", "1"), data=Data()) != key(raw=raw("/a", "2"), data=Data())
    assert key(raw=raw("/a", "1"), data=Data()) != key(raw=raw("/a", "1"), data=Data(resize=14))
    assert cache.make_key("evaluate", {"data": Data()}) != cache.make_key("train", {"data": Data()})


def test_every_training_parameter_counts() -> None:
    base = Training()
    others = [
        Training.model_validate(each) for each in ({"lr": 0.2}, {"seed": 1}, {"num_epochs": 9}, {"batch_size": 32})
    ]
    assert len({key(training=each) for each in (base, *others)}) == 5


def test_library_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(training=Training())
    with monkeypatch.context() as patch:
        patch.setattr(cache, "package_versions", lambda: {"torch": "other"})
        assert key(training=Training()) != before
    assert key(training=Training()) == before
    assert {"python", "torch", "numpy", "onnx"} <= set(cache.package_versions())


def test_a_wish_for_a_device_counts_as_the_kind_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, cpu, cuda = (Training(device=device) for device in Device)
    monkeypatch.setattr(devices, "cuda_fault", lambda: "no GPU")
    on_cpu = key(training=cpu)
    assert key(training=auto) == on_cpu
    monkeypatch.setattr(devices, "cuda_fault", lambda: None)
    assert key(training=auto) == key(training=cuda) != on_cpu
    assert key(training=cpu) == on_cpu


def test_only_what_is_marked_is_left_out_whatever_its_name() -> None:
    class Inner(Record):
        source: str
        device: str
        place: Annotated[str, NOT_IN_KEY]

    def of(source: str, device: str, place: str) -> str:
        return key(nested={"all": (Inner(source=source, device=device, place=place),)}, path="p", sha256="s")

    assert of("a", "b", "c") == of("a", "b", "other")
    assert len({of("a", "b", "c"), of("other", "b", "c"), of("a", "other", "c")}) == 3
    assert key(path="a", sha256="s") != key(path="b", sha256="s"), "a file is known by its type, not by two names"


def touch(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


def test_every_edit_of_our_code_changes_its_digest(tmp_path: Path) -> None:
    for folder in (cache.CODE, cache.CODE.with_name("gradmill")):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        return cache.code_digest.__wrapped__(tmp_path / "tasks")

    seen = [cache.code_digest()]
    assert digest() == seen[0], "wherever it lies"
    for name in ("train.py", "networks/training.py", "stage/cache.py", "store/page.html.jinja"):
        touch(tmp_path / "tasks", name, lambda content: content[:-1] + b" ")
        seen.append(digest())
    touch(tmp_path / "gradmill", "rows.py", lambda content: content[:-1] + b" ")
    seen.append(digest())
    (tmp_path / "tasks" / "train.py").rename(tmp_path / "tasks" / "trained.py")
    seen.append(digest())
    (tmp_path / "tasks" / "empty.py").touch()
    seen.append(digest())
    assert len(set(seen)) == 8
    (tmp_path / "tasks" / "notes.txt").touch()
    assert digest() == seen[-1]


# Records, kept and found


KEY = "0" * 64


def evaluation(picture: Path) -> Evaluation:
    verdict = GateVerdict(name="test_accuracy", value=0.8447, minimum=0.7, passed=True, detail="more than 0.7 required")
    file = atomic.write_bytes(picture, b"a picture")
    return Evaluation(metrics={"test_accuracy": 0.8447}, gates=(verdict,), pictures=(file,))


def test_no_flipped_bit_of_a_record_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluation(artifact_paths.runs() / "a.png")
    cache.keep_record(KEY, record)
    path = artifact_paths.stage_record(KEY)
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(content) * 8, size=300).tolist():
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        assert cache.find_record(KEY, Evaluation) in (None, record), "an indent may have become another white space"
    assert f"computed anew: {path}" in capsys.readouterr().out


def rewritten(change: Any) -> bytes:
    """The kept document after ``change``, its digest made right again."""
    document = json.loads(artifact_paths.stage_record(KEY).read_text())
    change(document)
    sealed = json.dumps([document[name] for name in ("key", "kind", "record")], sort_keys=True)
    document["sha256"] = hashlib.sha256(sealed.encode()).hexdigest()
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["record"]["metrics"].update(test_accuracy=0.9447),
        lambda document: document["record"].update(gates="passed"),
        lambda document: document["record"].update(more=1),
        lambda document: document["record"].pop("gates"),
        lambda document: document["record"].update(gates=[]),
        lambda document: document["record"]["gates"][0].update(passed=False),
        lambda document: document["record"]["gates"][0].update(minimum=0.9),
        lambda document: document["record"]["gates"][0].update(maximum=0.8),
        lambda document: document.update(kind="ChampionGates"),
        lambda document: document.update(key="1" * 64),
    ],
)
def test_a_record_of_another_shape_class_verdict_or_stage_is_none_even_with_a_right_digest(change: Any) -> None:
    cache.keep_record(KEY, evaluation(artifact_paths.runs() / "a.png"))
    artifact_paths.stage_record(KEY).write_bytes(rewritten(change))
    assert cache.find_record(KEY, Evaluation) is None


def test_a_record_whose_file_is_a_folder_a_fifo_or_cannot_be_written_costs_time_only() -> None:
    path, record = artifact_paths.stage_record(KEY), evaluation(artifact_paths.runs() / "a.png")
    path.mkdir(parents=True)
    assert cache.find_record(KEY, Evaluation) is None
    cache.keep_record(KEY, record)
    path.rmdir()
    os.mkfifo(path)
    assert cache.find_record(KEY, Evaluation) is None
    cache.keep_record(KEY, record)
    assert cache.find_record(KEY, Evaluation) == record


class Planted:
    """What runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.slow  # two real commands with servers of their own
def test_planted_and_damaged_stage_records_run_no_code_and_change_no_figure(tmp_path: Path, artifacts: Path) -> None:
    def gradmill() -> tuple[dict[str, Any], str]:
        command = [GRADMILL, "retrain", "linear-regression", "--no-predict", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return json.loads(done.stdout), done.stderr

    first, _ = gradmill()
    planted = base64.b64encode(pickle.dumps(Planted(tmp_path / "code ran"))).decode()
    document = {"metadata": {"storage_key": "x", "serializer": {"type": "pickle"}}, "result": planted}
    kinds = {}
    for path in (artifacts / ".stages").iterdir():
        kept = json.loads(path.read_text())
        kinds[kept["kind"]] = path
        if kept["kind"] == "Evaluation":
            kept["record"]["metrics"]["test_loss"] /= 10
            path.write_text(json.dumps(kept))
        else:
            path.write_text(json.dumps(document))
            path.with_suffix("").write_text(json.dumps(document))  # as Prefect names them
    assert set(kinds) == {"ValidatedDataset", "PreparedDataset", "TrainedModel", "Evaluation", "ExportedModel"}
    again, log = gradmill()
    assert not (tmp_path / "code ran").exists()
    assert (again["outcome"], again["metrics"]) == ("unchanged", first["metrics"])
    assert log.count("computed anew") == len(kinds)


# Whole runs


def retrain(**options: object) -> RunFolder:
    from flows.retrain import retrain as flow

    document = {"training": {"model": "linear-regression"}, **options}
    return RunFolder(path=Path(flow(RetrainParameters.model_validate(document)).run))


def trained_file(run: RunFolder) -> Path:
    return FileRef.model_validate(run.read().stages["train"]["weights"]).path


@pytest.mark.slow
def test_a_retrain_with_nothing_changed_reuses_its_stages_and_force_does_not(prefect_api: str) -> None:
    first = retrain()
    again = retrain()
    runs = post(prefect_api, "flow_runs/filter", {"sort": "START_TIME_DESC"})  # which tells of 200 at most
    (flow_run,) = [run["id"] for run in runs if run["id"].startswith(again.path.name[-8:])]
    cached = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"name": {"any_": ["Cached"]}}}}
    stages = {"validate", "preprocess", "train", "evaluate", "export"}
    eventually(lambda: stages == {run["name"] for run in post(prefect_api, "task_runs/filter", cached)}, 60)
    assert trained_file(again) == trained_file(first), "the record of the first run"
    shown_again = {"data-report.json", "data-report.md"}  # of a reused validation
    assert {path.name for path in again.path.iterdir()} == {".lock", "run.json"} | shown_again, "no stage has run"
    forced = retrain(force=True)
    assert trained_file(forced) == forced.file("weights.safetensors")


@pytest.mark.slow
def test_a_reused_stage_whose_file_is_not_whole_is_run_again(prefect_api: str) -> None:
    path = trained_file(retrain())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    second = retrain()
    assert trained_file(second) == second.file("weights.safetensors")
    trained_file(second).unlink()
    third = retrain()
    assert trained_file(third) == third.file("weights.safetensors")
    assert trained_file(retrain()) == trained_file(third), "the repaired record is the one that is kept"


@pytest.mark.slow
def test_another_folder_and_another_day_give_the_same_bytes(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.store.artifact_paths import ONNX

    first = retrain(name="one")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another" / "folder"))
    time.sleep(1.1)  # another second, at least, in every time stamp
    second = retrain(name="two")
    assert first.file(ONNX).read_bytes() == second.file(ONNX).read_bytes()
