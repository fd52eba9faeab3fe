"""How well a table can be learned, told before training: on a part of the training rows, in memory that is bounded."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import image_folders
from tasks.data import image_dataset
from tasks.data.own_rows import Examined, TableRows
from tasks.data.split import TRAINING, Split, hold_out_validation
from tasks.data.target import Truth
from tasks.judging import baselines
from tasks.parameters import InspectParameters
from written_tables import examined, recipe, rows, written

RNG = np.random.default_rng(0)


def expected(found: Examined[TableRows | None], scratch: Path, **asked: Any) -> dict[str, float]:
    """What ``inspect`` shows of a table."""
    made = rows(found)
    split = hold_out_validation(made.split)
    assert split is not None
    divided = replace(made, split=split)
    train, validation = (divided.map_side(side, recipe(found), scratch) for side in ("train", "validation"))
    num_train = made.split.count(TRAINING)
    return baselines.expected_losses(recipe(found), train, validation, num_train, made.has_missing, **asked)


def test_no_test_row_takes_part_and_every_training_row_does(artifacts: Path, tmp_path: Path) -> None:
    """Whoever chooses columns by these figures has chosen none by the rows that judge the model."""
    x = RNG.normal(size=1000)
    columns = {"x": x, "y": x + RNG.normal(size=1000), "part": np.where(np.arange(1000) % 4, "train", "test")}
    told = []
    for name in ("one", "other"):
        path = written(tmp_path / f"{name}.csv", columns)
        told.append(expected(examined(path, split_column="part"), tmp_path))
        columns["y"] = np.where(columns["part"] == "test", 1e6, columns["y"])
    assert told[0] == told[1]
    columns["y"] = np.where(np.arange(1000) % 4 == 1, 1e3, columns["y"])
    again = expected(examined(written(tmp_path / "third.csv", columns), split_column="part"), tmp_path)
    assert again["baseline_loss"] > 100 * told[0]["baseline_loss"]


def test_the_losses_are_those_of_numpy_and_scikit_learn_on_the_latest_fifth_of_the_training_rows(
    artifacts: Path, tmp_path: Path
) -> None:
    x, at = RNG.normal(size=1000), RNG.permutation(1000)
    y = 2 * x + 0.001 * at + RNG.normal(size=1000)
    found = expected(examined(written(tmp_path / "t.csv", {"x": x, "at": at, "y": y}), time_column="at"), tmp_path)
    fitted, measured = at < 640, (at >= 640) & (at < 800)
    assert found["baseline_loss"] == pytest.approx(np.mean((y[measured] - y[fitted].mean()) ** 2) / 2, rel=1e-2)
    inputs = x[:, None]
    fit = LinearRegression().fit(inputs[fitted], y[fitted])
    error = y[measured] - fit.predict(inputs[measured])
    assert found["reference_loss"] == pytest.approx(np.mean(error**2) / 2, rel=1e-2)


def test_they_heed_the_weights_of_classes_and_the_penalty_that_are_asked_for(artifacts: Path, tmp_path: Path) -> None:
    x = RNG.normal(size=600)
    columns = {"x": x, "y": np.where(x + RNG.normal(size=600) > 1.5, "yes", "no")}
    found = examined(written(tmp_path / "t.csv", columns))
    balanced = expected(found, tmp_path, class_weight="balanced")
    assert balanced["baseline_loss"] == pytest.approx(np.log(2), rel=1e-6), "of two classes that count alike"
    strict, lax = (expected(found, tmp_path, weight_decay=each)["reference_loss"] for each in (10.0, 1e-3))
    assert strict > lax


def test_a_class_that_only_the_latest_rows_have_ends_nothing_and_has_no_losses(artifacts: Path, tmp_path: Path) -> None:
    at = np.arange(400)
    columns = {"x": RNG.normal(size=400), "at": at, "y": np.where(at >= 256, "late", np.where(at % 2, "a", "b"))}
    found = examined(written(tmp_path / "t.csv", columns), time_column="at")
    assert found.schema is not None
    assert expected(found, tmp_path, class_weight="balanced") == expected(found, tmp_path) == {}


def test_of_images_too_they_are_measured_on_a_part_of_the_training_images(artifacts: Path, tmp_path: Path) -> None:
    folder, data = image_folders.write(tmp_path / "pets", {"cat": 50, "dog": 20}), InspectParameters(source="pets")
    _, fixed, kept = image_dataset.inspect_images(image_dataset.find_images(str(folder)), "pets", data, None, tmp_path)
    split = hold_out_validation(kept.split)
    assert fixed is not None
    assert split is not None
    divided = replace(kept, split=split)
    train, validation = (divided.map_side(side, fixed, tmp_path) for side in ("train", "validation"))
    told = baselines.expected_losses(fixed, train, validation, kept.split.count(TRAINING))
    shares = np.bincount(train["labels"]) / len(train["labels"])
    assert told["baseline_loss"] == pytest.approx(-np.log(shares)[validation["labels"]].mean(), rel=1e-6)
    assert told["reference_loss"] < told["baseline_loss"]


def test_splits_that_it_is_computed_of_are_not_held_in_memory(tmp_path: Path) -> None:
    small, num_rows = (
        examined(written(tmp_path / "t.csv", {"x": RNG.normal(size=300), "y": RNG.normal(size=300)})),
        2**20,
    )
    keys = np.arange(num_rows, dtype=np.uint64)
    features = np.zeros((1, num_rows), np.float32)
    truth = Truth(np.zeros(num_rows), np.ones(num_rows, bool), (), ())
    split = Split(np.ones(num_rows, np.uint8), keys)
    many = replace(rows(small), features=features, truth=truth, split=split, digests=keys)
    tracemalloc.start()
    try:
        made = many.map_side("train", recipe(small), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert made["target"].nbytes == 8 * 2**20
