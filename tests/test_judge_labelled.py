"""Kept versions on rows whose labels came later: figures by hand, what is left out, periods, and what is refused."""

import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import accuracy_score, log_loss, r2_score, recall_score, root_mean_squared_error

import image_folders
from candidate import plain
from tasks.data.recipe import Columns
from tasks.download import download
from tasks.errors import DataError, UsageError
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.judge import judge
from tasks.judging import measures, periods
from tasks.judging.judged import Judged
from tasks.judging.measures import Answers
from tasks.judging.periods import Moments
from tasks.parameters import EvaluateParameters, RetrainParameters
from tasks.preprocess import preprocess
from tasks.publish import publish
from tasks.store import artifact_paths, reading
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate

Row = dict[str, Any]
START = datetime.date(2024, 1, 1)


def sales(count: int, seed: int, start: datetime.date = START) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        area, city, sold = rng.normal(120, 30), rng.choice(["Ulm", "Köln"]), int(rng.integers(300))
        price = 2000 * area + 30_000 * (city == "Köln") + rng.normal(0, 20_000)
        day = start + datetime.timedelta(days=sold)
        kind = "dear" if price > 250_000 else "cheap"
        rows.append(
            {"sold": day.isoformat(), "area": round(area, 2), "city": city, "price": round(price), "kind": kind}
        )
    return rows


def write(path: Path, rows: list[Row]) -> str:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def published(source: str, **data: Any) -> None:
    """Version 1 of ``own``, by the stages of a retrain."""
    task = "regression" if data.get("target") == "price" else "classification"
    model = "linear-regression" if task == "regression" else "softmax-regression"
    training = {"model": model, "defaults": "data"}
    asked = RetrainParameters.model_validate({"name": "own", "training": training, "data": {"source": source, **data}})
    run = RunFolder.open("run", {})
    raw = plain(download)(run, "own", asked.data)
    prepared = plain(preprocess)(run, plain(validate)(run, raw, asked.data, task), asked.data, 0)
    trained = plain(train)(run, prepared, asked.training)
    evaluated = plain(evaluate)(run, prepared, trained, asked.training, asked.gates)
    exported = plain(export)(run, prepared, trained, asked.training, asked.gates)
    plain(publish)(run, asked, prepared, trained, evaluated, exported)


def judged(data: str | None, **asked: Any) -> Judged:
    parameters = EvaluateParameters.model_validate({"name": "own", "data": data, **asked})
    found: Judged = plain(judge)(RunFolder.open("evaluate", {}), parameters)
    return found


def answers(rows: list[Row]) -> list[Any]:
    """What the file says of rows that are encoded here."""
    recipe = reading.manifest("own", 1).recipe
    assert isinstance(recipe, Columns)
    levels = {column.name: column.levels for column in recipe.columns}
    encoded = [
        [float(levels[name].index(row[name]) if levels[name] else row[name]) for name in recipe.names] for row in rows
    ]
    session = onnxruntime.InferenceSession(reading.model("own", 1), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"features": np.array(encoded, np.float32)}))


@pytest.mark.slow  # a version is trained, exported and published
def test_a_regression_is_judged_by_rows_that_have_a_target_and_by_period(tmp_path: Path) -> None:
    old = write(tmp_path / "old.csv", sales(1000, seed=0))
    published(old, target="price", ignore=["kind"], time_column="sold")
    new = sales(300, seed=1, start=datetime.date(2025, 1, 1))
    late = [row | {"price": ""} for row in sales(20, seed=2, start=datetime.date(2025, 1, 1))]
    found = judged(write(tmp_path / "new.csv", [*late, *new]), version=1)
    truth, (predicted,) = np.array([row["price"] for row in new]), answers(new)
    assert (found.rows, found.unlabelled, found.trained_on) == (300, 20, 0)
    assert found.metrics["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted), rel=1e-6)
    assert found.metrics["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-6)
    low, high = found.intervals["rmse"]
    assert low < found.metrics["rmse"] < high
    in_march = np.array([row["sold"].startswith("2025-03") for row in new])
    assert "rmse" not in found.worse
    (march,) = [each for each in found.periods if each.period == "2025-03"]
    expected = root_mean_squared_error(truth[in_march], predicted[in_march])
    assert march.rows == in_march.sum()
    assert march.metrics["rmse"] == pytest.approx(expected, rel=1e-6)
    assert sum(each.rows for each in found.periods) == 300

    again, manifest = judged(old), reading.manifest("own", 1)
    assert (again.rows, again.trained_on) == (1000, manifest.dataset.num_train)
    unseen, own_split = judged(old, unseen=True), judged(None)
    assert unseen.rows == own_split.rows == manifest.dataset.num_test
    for each in (unseen, own_split):
        assert each.metrics == pytest.approx(each.published, rel=1e-6), "as at publication"
        assert not each.worse
    for measured, kept in zip(own_split.periods, manifest.metrics.model_dump()["periods"], strict=True):
        assert (measured.period, measured.rows) == (kept["period"], kept["rows"])
        assert measured.metrics == pytest.approx(kept["metrics"], rel=1e-5)
        assert (
            f"| {measured.period} | {measured.rows} | " in (artifact_paths.version("own", 1) / "README.md").read_text()
        )
    for ours, theirs in zip(own_split.periods, unseen.periods, strict=True):  # rows lie in another order
        assert (ours.period, ours.rows) == (theirs.period, theirs.rows)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-5)
    assert (artifact_paths.version("own", 1) / artifact_paths.BY_PERIOD).is_file()
    dearer = [row | {"price": row["price"] + 20_000} for row in new]
    far = judged(write(tmp_path / "dearer.csv", dearer))
    assert set(far.worse) == {"rmse", "loss"}
    assert not far.model_copy(update={"groups": 19}).worse, "too few to tell"
    assert not judged(write(tmp_path / "one.csv", dearer[:1])).worse, "too few to tell"
    larger = [row | {"area": 2 * row["area"]} for row in new * 4]
    assert judged(write(tmp_path / "larger.csv", larger)).has_drifted
    assert not found.has_drifted
    without = [{name: value for name, value in row.items() if name != "sold"} for row in new]
    assert judged(write(tmp_path / "no-time.csv", without)).trained_on is None
    with pytest.raises(DataError, match="no row has a price"):
        judged(write(tmp_path / "unlabelled.csv", late))
    with pytest.raises(DataError, match=r"many.*bad\.csv"):
        judged(write(tmp_path / "bad.csv", [row | {"area": "many"} if at == 7 else row for at, row in enumerate(new)]))
    with pytest.raises(DataError, match="column city is missing"):
        judged(write(tmp_path / "few.csv", [{"area": 1, "price": 2, "sold": "2025-01-01"}]))
    with pytest.raises(DataError, match="no column when"):
        judged(old, time_column="when")


@pytest.mark.slow  # a version is trained, exported and published
def test_a_classifier_is_judged_on_a_handful_of_rows_of_one_class(tmp_path: Path) -> None:
    published(write(tmp_path / "old.csv", sales(600, seed=0)), target="kind", ignore=["price", "sold"])
    new = [row | {"city": "Bonn"} if at == 0 else row for at, row in enumerate(sales(200, seed=1))]
    source, known = write(tmp_path / "new.csv", new), new[1:]
    truth, (probabilities, labels) = [row["kind"] for row in known], answers(known)
    found = judged(write(tmp_path / "known.csv", known), time_column="sold")
    predicted = np.array(["cheap", "dear"])[labels]
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found.metrics["loss"] == pytest.approx(log_loss(truth, probabilities, labels=["cheap", "dear"]), rel=1e-6)
    recalls = recall_score(truth, predicted, average=None, labels=["cheap", "dear"])
    assert [*found.recall.values()] == pytest.approx(recalls.tolist())
    assert len(found.periods) == 10
    assert judged(source).rows == 200, "an unknown level has the average effect"
    dear = [row for row in known if row["kind"] == "dear"][:5]
    assert set(judged(write(tmp_path / "dear.csv", dear)).recall) == {"dear"}
    with pytest.raises(DataError, match="new class"):
        judged(write(tmp_path / "other.csv", [row | {"kind": "free"} for row in dear]))


@pytest.mark.slow  # a version is trained, exported and published
def test_images_are_judged_by_their_folders(tmp_path: Path) -> None:
    counts = {"cat": 60, "dog": 60, "owl": 60}
    source = image_folders.write(tmp_path / "pets", counts)
    published(str(source))
    new = image_folders.write(tmp_path / "new", {"cat": 20, "dog": 30}, first=1000)
    (new / "cat" / "broken.png").write_bytes(b"no picture")
    found = judged(str(new), max_rejects=0.1)
    assert (found.rows, found.broken, found.trained_on) == (50, 1, 0)
    images = np.stack([image_folders.drawn(1, seed) for seed in range(1000, 1030)])
    session = onnxruntime.InferenceSession(reading.model("own", 1), providers=["CPUExecutionProvider"])
    assert found.recall["dog"] == pytest.approx(np.mean(session.run(["label"], {"images": images})[0] == 1))
    assert judged(str(source)).trained_on == reading.manifest("own", 1).dataset.num_train
    with pytest.raises(DataError, match="1 image of 51"):
        judged(str(new))
    with pytest.raises(UsageError, match="--time-column"):
        judged(str(new), time_column="sold")


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        ("2025-01-01T05:10", "2025-01-01T06:20", ["2025-01-01 05:00", "2025-01-01 06:00"]),
        ("2025-01-01", "2025-01-02", ["2025-01-01", "2025-01-02"]),
        ("2024-12-30", "2025-01-13", ["week of 2024-12-30", "week of 2025-01-13"]),
        ("1969-12-01", "1970-06-30", ["1969-12", "1970-06"]),
        ("2023-05-05", "2025-05-05", ["2023 Q2", "2025 Q2"]),
        ("2015-05-05", "2025-05-05", ["2015", "2025"]),
        ("1950-01-01", "2025-05-05", ["1950 to 1959", "2020 to 2029"]),
    ],
)
def test_periods_are_as_long_as_the_span_asks_for(first: str, last: str, names: list[str]) -> None:
    ends = np.array([first, last], "M8[us]").astype(np.int64).astype(float)
    cut = periods.cut(Moments(np.append(ends, np.nan), are_dates=True))
    assert cut.names == (*names, "no time")
    assert cut.of.tolist() == [0, 1, 2]
    within = periods.cut(Moments(np.linspace(ends[0], ends[1], 5000), are_dates=True))
    assert len(within.names) <= periods.MOST
    assert (np.diff(within.of) >= 0).all()


def test_periods_of_numbers_have_round_ends() -> None:
    assert periods.cut(Moments(np.array([2015.0, 2018, 2015]), are_dates=False)).names == ("2015", "2018")
    assert periods.cut(Moments(np.array([0.0, 99]), are_dates=False)).names == ("0 to 9", "90 to 99")
    assert periods.cut(Moments(np.array([0.25, 1]), are_dates=False)).names == ("0.2 to 0.3", "1 to 1.1")


def test_intervals_are_as_wide_as_the_chance_of_the_rows() -> None:
    rng, count = np.random.default_rng(0), 10_000
    truth, is_right = rng.integers(0, 3, count), rng.random(count) < 0.8
    found = measures.measure(Answers(truth, np.where(is_right, truth, 3), np.zeros(count), ("a", "b", "c")))
    for share, size, (low, high) in (
        (is_right.mean(), count, found.intervals["accuracy"]),
        (is_right[truth == 1].mean(), (truth == 1).sum(), found.recall_intervals["b"]),
    ):
        half = 1.96 * np.sqrt(share * (1 - share) / size)
        assert (low, high) == pytest.approx((share - half, share + half), abs=half / 8)
    copies = np.repeat(np.arange(count // 100), 100)
    same = Answers(truth[copies], np.where(is_right, truth, 3)[copies], np.zeros(count))
    wide, narrow = (np.ptp(measures.measure(same, each).intervals["accuracy"]) for each in (copies, None))
    assert wide > 5 * narrow, "a hundred copies of a row are one"
