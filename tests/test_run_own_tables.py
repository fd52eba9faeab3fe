"""Own data from their file to a version: published, told, trained again where something changed, and only there."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import safetensors.numpy
from PIL import Image
from sklearn.linear_model import LogisticRegression

import own_images
import table_files
from command_line import gradmill
from documents import inspect
from flows.pages.report import RetrainReport
from flows.pages.run_pages import retrain_page
from flows.retrain import retrain
from prefect_api import wait_for
from tasks.errors import DataError, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, model_folder, own_data, state
from tasks.store.page_rendering import render_markdown

READ = {"download", "validate", "preprocess"}
NAME = "houses"


def houses(rows: int, seed: int = 0) -> pd.DataFrame:
    return table_files.houses(rows, seed).to_pandas()


def trained(source: Path, target: str = "price", name: str = NAME, **options: Any) -> RetrainReport:
    training = {"model": "linear-regression"} | options.pop("training", {})
    data = {"source": str(source), "target": target} | options
    document = {"name": name, "training": training, "data": data, "predict": False}
    return retrain(RetrainParameters.model_validate(document))


def again(name: str = NAME, **given: Any) -> RetrainReport:
    return retrain(RetrainParameters.model_validate(own_data.repeat_parameters(name, {"predict": False} | given)))


@pytest.fixture
def table(artifacts: Path, prefect_api: str, tmp_path: Path) -> Path:
    path = tmp_path / "houses.csv"
    houses(600).to_csv(path, index=False)
    return path


@pytest.fixture
def folder(artifacts: Path, prefect_api: str, tmp_path: Path) -> Path:
    """A folder of days, of which a model was made."""
    path = tmp_path / "days"
    path.mkdir()
    houses(300).to_csv(path / "day-1.csv", index=False)
    assert trained(path, training={"seed": "auto"}).outcome == "published"
    return path


@pytest.mark.slow  # three commands that train
def test_digits_and_hues_are_learned_on_the_command_line_and_grey_tells_no_hues_apart(
    artifacts: Path, on_server: None, tmp_path: Path
) -> None:
    def learned(name: str, source: str, *options: str) -> Any:
        data = ("--name", name, "--data", str(tmp_path / source))
        done = gradmill("retrain", "softmax-regression", *data, "--json", *options)
        return json.loads(done.stdout) | {"exit_code": done.returncode, "said": done.stderr}

    for name, (images, labels) in {"digits": own_images.digits(), "hues": own_images.hues(600)}.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (tmp_path / name / f"class-{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / name / f"class-{label}" / f"{number}.png")
    found = learned("digits", "digits")
    dataset = model_folder.find_manifest("digits", 1).dataset
    train, test = (safetensors.numpy.load_file(each.path) for each in (dataset.train, dataset.test))
    X, T = (each["images"].reshape(-1, 64) / 255 for each in (train, test))
    converged = LogisticRegression(max_iter=2000).fit(X, train["labels"])
    assert found["metrics"]["test_accuracy"] > converged.score(T, test["labels"]) - 0.02
    assert learned("digits", "digits")["outcome"] == "unchanged"
    assert learned("rgb", "hues", "--channels", "rgb")["metrics"]["test_accuracy"] > 0.95
    refused = learned("grey", "hues", "--channels", "grey")
    assert (refused["outcome"], refused["exit_code"]) == ("refused", 3)
    assert "--weight-decay" in refused["said"]
    assert refused["metrics"]["test_accuracy"] < 0.5, "of three classes, chance"


# Data that come again


@pytest.mark.slow  # ten runs of the flow, one of which trains
def test_the_same_rows_are_unchanged_without_training(folder: Path, tmp_path: Path) -> None:
    """Touched, copied, cut, in another order and format, with row names, and where what was prepared is damaged."""
    first, file = model_folder.find_manifest(NAME, 1), folder / "day-1.csv"
    untouched = again()
    assert (untouched.outcome, untouched.version, set(untouched.seconds)) == ("unchanged", 1, {"download"})
    assert (untouched.metrics, tuple(untouched.gates)) == (first.metrics.model_dump(mode="json"), first.gates)
    assert "Nothing was trained" in render_markdown(retrain_page(untouched))
    os.utime(file)
    shutil.copytree(folder, tmp_path / "copied")
    cut, frame = tmp_path / "cut", pd.read_csv(file).sample(frac=1, random_state=1)
    cut.mkdir()
    for number in range(3):
        frame[number::3].to_csv(cut / f"{number}.csv", index=False, sep=";")
    frame.to_csv(tmp_path / "names.csv", index=True)
    frame[["price", "garden", "city", "area"]].to_parquet(tmp_path / "rows.parquet", index=False)
    for source in (folder, *(tmp_path / name for name in ("copied", "names.csv", "rows.parquet", "cut"))):
        same = again(data={"source": str(source)})
        assert (same.outcome, same.version, set(same.seconds)) == ("unchanged", 1, READ), source.name
    assert set(again().seconds) == {"download"}, "they are remembered as they look now"
    assert state.read_name(NAME).files[1] == (str(file),), "of which it was made, and no copy"
    split = first.dataset.test.path
    content = split.read_bytes()
    split.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert set(again().seconds) == READ
    assert split.read_bytes() == content
    artifact_paths.look(NAME).write_text("{")
    assert set(again().seconds) == READ


@pytest.mark.slow  # eight runs of the flow, four of which train
def test_a_row_more_another_option_or_force_is_trained_on(folder: Path) -> None:
    houses(1, seed=1).to_csv(folder / "day-2.csv", index=False)
    appended = again()
    assert (appended.outcome, appended.version) == ("published", 2)
    assert "train" in again(training={"weight_decay": 0.25}).seconds
    assert "train" in again(force=True).seconds
    with pytest.raises(UsageError, match="customer"):
        again(data={"split_by": "customer"})
    for given in ({"gates": {"min_gain": 0.1}}, {"training": {"device": "cpu"}}, {"data": {"min_new_rows": 5}}):
        assert "train" not in again(**given).seconds, given


@pytest.mark.slow  # five runs of the flow, two of which train
def test_few_new_rows_wait_for_others_night_after_night(folder: Path) -> None:
    houses(30, seed=1).to_csv(folder / "day-2.csv", index=False)
    waiting = again(data={"min_new_rows": 50})
    assert (waiting.outcome, waiting.version, set(waiting.seconds)) == ("unchanged", 1, READ)
    assert all(words in waiting.detail for words in ("30 new rows", "--min-new-rows 50"))
    later = again()
    assert later.detail == waiting.detail, "it is kept with the name, though no version knows of it"
    assert set(later.seconds) == {"download"}
    houses(20, seed=2).to_csv(folder / "day-3.csv", index=False)
    assert (again().outcome, own_data.repeat_parameters(NAME, {})["data"]["min_new_rows"]) == ("published", 50)


@pytest.mark.slow  # three runs of the flow
def test_a_shape_is_kept_until_the_training_rows_have_doubled_or_a_new_recipe_is_asked_for(
    artifacts: Path, prefect_api: str, tmp_path: Path
) -> None:
    """Rows of a line, followed by rows of a curve."""

    def write(num_curved: int) -> None:
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, 300 + num_curved)
        y = np.where(np.arange(len(x)) < 300, x, 2 * np.abs(x)) + 0.1 * rng.normal(size=len(x))
        pd.DataFrame({"x": x, "y": y}).to_csv(path, index=False)

    def inspected() -> tuple[str, bool]:
        document = inspect(path, "--name", NAME)
        return document["shape"], document["is_kept"]

    path = tmp_path / "points.csv"
    write(0)
    first = trained(path, "y")
    assert (first.outcome, first.shape) == ("published", "linear")
    write(400)
    assert inspected() == ("curves", False)
    write(200)
    assert inspected() == ("linear", True)
    assert again().shape == "linear"
    anew = again(data={"new_recipe": True})
    assert (anew.outcome, anew.shape) == ("published", "curves"), "though the rows are the same"
    assert inspected() == ("curves", True)


def day(path: Path, number: int, unit: float = 1.0, city: str = "Rom") -> None:
    """Trips of a day, one a microsecond."""
    rng, rows = np.random.default_rng(number), 600
    distance, where = rng.lognormal(6, 0.5, rows), rng.choice(["Bonn", city], rows)
    at = np.datetime64("2024-01-01", "us") + number * np.timedelta64(1, "D") + np.arange(rows)
    y = distance / 8 + 20 * (where == "Bonn") + rng.normal(0, 8, rows)
    frame = pd.DataFrame({"at": at, "distance": distance * unit, "where": where, "y": y})
    frame.to_parquet(path / f"day-{number}.parquet", index=False)


@pytest.mark.slow
def test_nights_are_stopped_accepted_and_told_and_a_window_is_repeated(
    artifacts: Path, prefect_api: str, tmp_path: Path
) -> None:
    folder = tmp_path / "nights"
    folder.mkdir()
    for number in range(2):
        day(folder, number)
    trained(folder, "y", "trips", time_column="at")
    day(folder, 2, unit=1000, city="Oslo")
    with pytest.raises(DataError, match=r"1000 times what it was.*600 new rows of day-2\.parquet"):
        again("trips")
    assert again("trips", data={"accept_data": True, "window": "2d"}).version == 2
    version = artifact_paths.version("trips", 2)
    assert not [file.name for file in version.iterdir() if str(tmp_path).encode() in file.read_bytes()]
    repeated = own_data.repeat_parameters("trips", {})["data"]
    assert (repeated["time_column"], repeated["window"], repeated.get("accept_data")) == ("at", "2d", None)
    by_groups = RetrainParameters.model_validate(own_data.repeat_parameters("trips", {"data": {"split_by": "where"}}))
    assert (by_groups.data.split_by, by_groups.data.time_column) == ("where", None), "another rule takes its place"
    wanted: dict[str, Any] = {"filter": {"event": {"name": ["gradmill.data"]}}}
    for is_stopped, severity in ((True, "error"), (False, "warning")):

        def is_that_night(event: dict[str, Any], is_stopped: bool = is_stopped) -> bool:
            rules = {each["rule"] for each in event["payload"]["findings"]}
            return bool(event["payload"]["stopped"]) is is_stopped and "other-scale" in rules

        told = wait_for(prefect_api, "events/filter", wanted, is_that_night)
        assert told["resource"]["prefect.resource.id"] == "gradmill.model.trips"
        findings = {each["rule"]: each["severity"] for each in told["payload"]["findings"]}
        assert findings == {"new-levels": "warning", "drift": "warning", "other-scale": severity}
    verdicts = {"artifacts": {"key": {"any_": ["trips-verdict"]}}, "sort": "CREATED_DESC"}
    page = wait_for(prefect_api, "artifacts/filter", verdicts, lambda each: "version 2" in each["data"][:40])["data"]
    assert all(words in page for words in ("where has new levels: Oslo", "; accepted"))
