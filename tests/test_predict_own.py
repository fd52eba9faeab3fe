"""Batch prediction with versions of own tables, from a CSV to Parquet parts, compared with their weights by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from sklearn.metrics import accuracy_score, r2_score, root_mean_squared_error

from candidate import plain
from flows.story.predicted import page
from own_tables import Array, by_hand
from prediction_jobs import predict_rows, stop_after, table
from tasks.batch.results import describe_first_reject
from tasks.data.recipe import Columns
from tasks.download import download
from tasks.errors import DataError, UsageError
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.parameters import RetrainParameters
from tasks.preprocess import preprocess
from tasks.publish import publish
from tasks.records import Prediction, PreparedDataset
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate

HEADER = ["id", "area", "city", "garden", "zone", "price", "kind"]


def houses(num_rows: int, seed: int) -> list[list[Any]]:
    """Rows of which ``area`` and ``city`` may be missing, ``zone`` is a number that names a level."""
    rng = np.random.default_rng(seed)
    rows: list[list[Any]] = []
    for number in range(num_rows):
        area, city, garden = rng.normal(120, 30), rng.choice(["Ulm", "Köln", "Bonn"]), bool(rng.random() < 0.5)
        price = 2000 * area + 30_000 * (city == "Köln") + 10_000 * garden + rng.normal(0, 5000)
        gaps = rng.random(2) < 0.1
        known = ["" if gaps[0] else round(area, 2), "" if gaps[1] else city]
        zone = rng.integers(1, 4)
        rows.append(
            [f"h{number}", *known, str(garden).lower(), zone, round(price), "dear" if price > 260_000 else "cheap"]
        )
    return rows


def write(path: Path, rows: list[list[Any]]) -> str:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return str(path)


class Version:
    """A published version of a table."""

    def __init__(self, folder: Path, target: str) -> None:
        source = write(folder / "houses.csv", houses(600, seed=0))
        ignored = ["id", *({"price", "kind"} - {target})]
        asked = RetrainParameters.model_validate(
            {
                "name": "houses",
                "training": {
                    "model": "linear-regression" if target == "price" else "softmax-regression",
                    "defaults": "data",
                },
                "data": {"source": source, "target": target, "ignore": ignored, "category": ["zone"]},
            }
        )
        task = "regression" if target == "price" else "classification"
        run = RunFolder.open("run", {})
        raw = plain(download)(run, "houses", asked.data)
        self.prepared: PreparedDataset = plain(preprocess)(
            run, plain(validate)(run, raw, asked.data, task), asked.data, 0
        )
        trained = plain(train)(run, self.prepared, asked.training)
        evaluated = plain(evaluate)(run, self.prepared, trained, asked.training, asked.gates)
        exported = plain(export)(run, self.prepared, trained, asked.training, asked.gates)
        plain(publish)(run, asked, self.prepared, trained, evaluated, exported)
        self.weights: dict[str, Array] = safetensors.numpy.load_file(trained.weights.path)

    def by_hand(self, rows: list[list[Any]]) -> Array:
        """What the model must say ``(n, outputs)``, from the rows as they are written."""
        assert isinstance(self.prepared.recipe, Columns)
        encoded = [
            [_encoded(column.levels, row[HEADER.index(column.name)]) for column in self.prepared.recipe.columns]
            for row in rows
        ]
        return by_hand(self.weights, self.prepared.recipe, np.array(encoded))


def _encoded(levels: tuple[str, ...], value: Any) -> float:
    if value == "":
        return float("nan")
    if levels:
        return float(levels.index(str(value))) if str(value) in levels else -1.0
    return {"true": 1.0, "false": 0.0}[value] if isinstance(value, str) else float(value)


@pytest.fixture
def regression(prefect_api: str, tmp_path: Path) -> Version:
    return Version(tmp_path, "price")


def rejects(done: Prediction) -> list[str]:
    reasons: list[str] = pq.read_table(done.path / "_rejects.parquet")["reason"].to_pylist()
    return reasons


def test_a_table_is_predicted_by_name_with_ids_and_metrics(regression: Version, tmp_path: Path) -> None:
    rows = houses(500, seed=1)
    done = predict_rows(name="houses", input=write(tmp_path / "rows.csv", rows), id_columns=["id"], shard_rows=90)
    found = table(done)
    assert (done.rows, done.rejects, done.parts) == (500, 0, 6)
    assert found.column_names == ["row", "source", "prediction", "id_id"]
    assert found["id_id"].to_pylist() == [row[0] for row in rows]
    np.testing.assert_allclose(found["prediction"], regression.by_hand(rows)[:, 0], rtol=1e-5)
    truth = [row[5] for row in rows]
    assert done.metrics["rmse"] == pytest.approx(root_mean_squared_error(truth, found["prediction"]))
    assert done.metrics["r2"] == pytest.approx(r2_score(truth, found["prediction"]))
    assert done.accuracy is None
    assert json.loads((done.path / "_job.json").read_text())["metrics"] == done.metrics

    # what no row had: rejects, or averages that the same weights give by hand
    odd = [["a", 100, "Paris", "true", 2, "", ""], ["b", 90.5, "Ulm", "", 1, "", ""], ["c", "", "", "false", 9, 1, ""]]
    source = write(tmp_path / "odd.csv", [*odd, *rows[:7]])
    with pytest.raises(DataError, match="city is 'Paris'") as refused:
        predict_rows(name="houses", input=source)
    assert "--unknown average" in refused.value.action
    text = write(tmp_path / "text.csv", [["a", "big", "Ulm", "true", 2, "", ""]])
    for unknown in ("reject", "average"):
        with pytest.raises(DataError, match="area is 'big'") as refused:
            predict_rows(name="houses", input=text, unknown=unknown)
        assert "--unknown" not in refused.value.action, "it would be of no use"
    rejected = predict_rows(name="houses", input=source, max_rejects=3)
    assert rejects(rejected) == [
        "city is 'Paris', a level that the model has not seen", "garden is missing",
        "zone is '9', a level that the model has not seen",
    ]  # fmt: skip
    named = predict_rows(name="houses", input=source, max_rejects=3, id_columns=["id", "zone"], shard_rows=2)
    assert pq.read_table(named.path / "_rejects.parquet").select(["row", "id_id", "id_zone"]).to_pylist() == [
        {"row": row, "id_id": each[0], "id_zone": each[4] and str(each[4])} for row, each in enumerate(odd)
    ]
    assert describe_first_reject(named.path)[0].startswith(f"row 0 (id a, zone 2) of {source}: city is 'Paris'")
    averaged = predict_rows(name="houses", input=source, unknown="average", id_columns=["zone", "id"])
    assert averaged.rejects == 0
    assert averaged.job != rejected.job
    np.testing.assert_allclose(table(averaged)["prediction"], regression.by_hand([*odd, *rows[:7]])[:, 0], rtol=1e-5)
    assert table(averaged)["id_zone"].to_pylist()[:3] == ["2", "1", "9"]


@pytest.mark.usefixtures("regression")
def test_a_target_is_compared_in_float64(tmp_path: Path) -> None:
    rows = houses(50, seed=4)
    answers = table(predict_rows(name="houses", input=write(tmp_path / "rows.csv", rows)))["prediction"].to_pylist()
    for row, answer in zip(rows, answers, strict=True):
        row[5] = repr(answer + 0.004)  # float32 has steps of 0.016 and more there
    done = predict_rows(name="houses", input=write(tmp_path / "near.csv", rows))
    assert done.metrics["rmse"] == pytest.approx(0.004, rel=1e-4)


def test_a_killed_job_of_a_table_is_taken_up_and_the_test_split_has_no_rejects(
    regression: Version, tmp_path: Path
) -> None:
    rows = houses(300, seed=2)
    rows[7][2] = "Paris"
    options = {"name": "houses", "input": write(tmp_path / "rows.csv", rows), "shard_rows": 100, "max_rejects": 1}
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(RuntimeError, match="killed"):
            predict_rows(**options)
    done = predict_rows(**options)
    assert (done.rows, done.rejects) == (299, 1)
    good = rows[:7] + rows[8:]
    np.testing.assert_allclose(table(done)["prediction"], regression.by_hand(good)[:, 0], rtol=1e-5)
    own = predict_rows(name="houses")
    assert (own.rows, own.rejects) == (regression.prepared.num_test, 0)
    assert own.metrics["r2"] > 0.5
    with pytest.raises(UsageError, match="--id-column"):
        predict_rows(name="houses", id_columns=["id"])


@pytest.mark.slow
def test_classes_by_name_give_the_accuracy_of_the_job(prefect_api: str, tmp_path: Path) -> None:
    version, rows = Version(tmp_path, "kind"), houses(400, seed=3)
    rows[5][6] = ""  # nobody knows it yet
    done = predict_rows(name="houses", input=write(tmp_path / "rows.csv", rows))
    found = table(done)
    classes = version.prepared.class_names
    assert found.column_names[2:] == ["label", "label_name", *(f"probability_{each}" for each in classes)]
    expected = [classes[at] for at in version.by_hand(rows).argmax(axis=1)]
    assert found["label_name"].to_pylist() == expected
    known = [at for at in range(400) if at != 5]
    accuracy = accuracy_score([rows[at][6] for at in known], [expected[at] for at in known])
    assert done.metrics == {"accuracy": pytest.approx(accuracy)}
    assert done.accuracy == pytest.approx(accuracy)


@pytest.mark.slow
def test_rows_of_a_class_that_the_model_does_not_know_are_counted_as_wrong_and_said(
    prefect_api: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Version(tmp_path, "kind")
    rows = houses(50, seed=5)
    for row in rows[:7]:
        row[-1] = "ruin"
    rows[7][-1] = ""
    result = predict_rows(input=write(tmp_path / "new.csv", rows), name="houses")
    known = predict_rows(input=write(tmp_path / "known.csv", rows[7:]), name="houses")
    sentence = "7 of 50 rows of a class that the model does not know, counted as wrong"
    assert result.metrics["accuracy"] == pytest.approx(known.metrics["accuracy"] * 42 / 49)
    assert caplog.messages.count(sentence) == 1
    assert (result.unknown_class, known.unknown_class) == (7, 0)
    again = predict_rows(input=str(tmp_path / "new.csv"), name="houses")
    assert (again.job, again.unknown_class, caplog.messages.count(sentence)) == (result.job, 7, 2), "reused, and said"
    assert sentence in page(result)
    assert "does not know" not in page(known)
