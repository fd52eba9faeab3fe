"""How well a table can be learned, told before training: the figures of the gates, in memory that is bounded."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.judging.standards import Standards

import image_folders
from tasks.data import image_dataset
from tasks.data.prepared_splits import ValidatedDataset
from tasks.data.split import Split
from tasks.data.statistics import Encoded
from tasks.data.table_dataset import TableDataset
from tasks.data.table_rows import map_split
from tasks.data.target import Truth
from tasks.judging import outlook
from tasks.judging.objective import Objective
from tasks.parameters import Data, InspectParameters, SoftmaxTraining
from written_tables import examined, recipe, rows, written

RNG = np.random.default_rng(0)


def test_they_heed_the_weights_of_classes_and_the_penalty_that_are_asked_for(artifacts: Path, tmp_path: Path) -> None:
    x = RNG.normal(size=600)
    columns = {"x": x, "y": np.where(x + RNG.normal(size=600) > 1.5, "yes", "no")}
    path, asked = written(tmp_path / "t.csv", columns), {"class_weight": "balanced", "weight_decay": 0.01}
    found = examined(path)
    told = outlook.losses(recipe(found), rows(found), tmp_path, "balanced", 0.01)
    data, table = Data(source=str(path), target="y"), TableDataset("own", str(path))
    raw = table.fetch()
    validated = ValidatedDataset(raw=raw, table=table.validate(raw, data, "classification", None, None).table)
    prepared = table.prepare(validated, data, 0)
    objective = Objective.of(SoftmaxTraining.model_validate({"defaults": "data", **asked}), prepared)
    assert told == pytest.approx(Standards.of(prepared, objective).metrics, rel=1e-9)
    assert told["baseline_loss"] == pytest.approx(np.log(2), rel=1e-6), "of two classes that count alike"


@pytest.mark.parametrize("asked", [{}, {"class_weight": "balanced", "weight_decay": 0.1}])
def test_of_images_too_they_are_those_that_a_retrain_is_held_against(
    asked: dict[str, Any], artifacts: Path, tmp_path: Path
) -> None:
    folder, data = image_folders.write(tmp_path / "pets", {"cat": 50, "dog": 20}), InspectParameters(source="pets")
    prepared = image_folders.prepared(folder)
    _, fixed, kept = image_dataset.inspect_images(image_dataset.find_images(str(folder)), "pets", data, None, tmp_path)
    assert fixed is not None
    told = outlook.of_images(fixed, kept, tmp_path, **asked)
    objective = Objective.of(SoftmaxTraining.model_validate({"defaults": "data", **asked}), prepared)
    assert told == pytest.approx(Standards.of(prepared, objective).metrics, rel=1e-9)


def test_splits_that_it_is_computed_of_are_not_held_in_memory(tmp_path: Path) -> None:
    small, num_rows = (
        examined(written(tmp_path / "t.csv", {"x": RNG.normal(size=300), "y": RNG.normal(size=300)})),
        2**20,
    )
    keys = np.arange(num_rows, dtype=np.uint64)
    features = Encoded((np.zeros(num_rows, np.float32),), (None,))
    truth = Truth(np.zeros(num_rows), np.ones(num_rows, bool), (), ())
    many = rows(small)._replace(
        features=features, truth=truth, split=Split(np.ones(num_rows, np.uint8), keys), digests=keys
    )
    tracemalloc.start()
    try:
        made = map_split(many, recipe(small), "train", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert made["target"].nbytes == 8 * 2**20
