"""Unchanged stages are reused by content, and only then."""

import time
from pathlib import Path

import pytest

from tasks import reuse
from tasks.parameters import Data, RetrainParameters, Training
from tasks.records import FileRef, RawDataset
from tasks.run_folder import RunFolder


def key(**inputs: object) -> str:
    return reuse.key("train", inputs)


def raw(folder: str, digest: str, source: str = "cache") -> RawDataset:
    return RawDataset(name="data", source=source, files={"train": FileRef(path=Path(folder) / "x", sha256=digest)})


def test_the_same_content_elsewhere_is_the_same_and_other_content_is_not() -> None:
    assert key(raw=raw("/a", "1"), data=Data()) == key(raw=raw("/b", "1", source="mirror"), data=Data())
    assert key(raw=raw("/a", "1"), data=Data()) != key(raw=raw("/a", "2"), data=Data())
    assert key(raw=raw("/a", "1"), data=Data()) != key(raw=raw("/a", "1"), data=Data(resize=14))
    assert reuse.key("evaluate", {"data": Data()}) != reuse.key("train", {"data": Data()})


def test_every_training_parameter_counts() -> None:
    base = Training()
    others = [
        Training.model_validate(each) for each in ({"lr": 0.2}, {"seed": 1}, {"num_epochs": 9}, {"batch_size": 32})
    ]
    assert len({key(training=each) for each in (base, *others)}) == 5


def test_code_and_library_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(training=Training())
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "code_digest", lambda: "other code")
        assert key(training=Training()) != before
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "package_versions", lambda: {"torch": "other"})
        assert key(training=Training()) != before
    assert key(training=Training()) == before
    assert {"python", "torch", "numpy", "onnx"} <= set(reuse.package_versions())


def retrain(**options: object) -> tuple[RunFolder, float]:
    from flows.retrain import retrain as flow

    document = {"training": {"model": "linear-regression"}, **options}
    report = flow(RetrainParameters.model_validate(document))
    run = RunFolder(path=Path(report.run))
    return run, sum(report.seconds.values())


def trained_file(run: RunFolder) -> Path:
    return FileRef.model_validate(run.read()["stages"]["train"]["weights"]).path


def test_a_retrain_with_nothing_changed_reuses_its_stages_and_force_does_not(prefect_api: str) -> None:
    first, _ = retrain()
    again, seconds = retrain()
    assert trained_file(again) == trained_file(first), "the record of the first run"
    assert not again.file("weights.safetensors").exists()
    assert seconds < 2, "the stages' own work; this is a bound, not a measurement"
    forced, _ = retrain(force=True)
    assert trained_file(forced) == forced.file("weights.safetensors")


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_a_reused_stage_whose_file_is_not_whole_is_run_again(damage: str, prefect_api: str) -> None:
    first, _ = retrain()
    path = trained_file(first)
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    second, _ = retrain()
    assert trained_file(second) == second.file("weights.safetensors")
    third, _ = retrain()
    assert trained_file(third) == trained_file(second), "the repaired record is the one that is kept"


def test_another_folder_and_another_day_give_the_same_bytes(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.artifact_paths import ONNX

    first, _ = retrain(name="one")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another" / "folder"))
    time.sleep(1.1)  # another second, at least, in every time stamp
    second, _ = retrain(name="two")
    assert first.file(ONNX).read_bytes() == second.file(ONNX).read_bytes()
