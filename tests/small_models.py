"""Small models of own tables, brought through the stages to their publication without Prefect."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from candidate import Contender
from prepared_tables import prepare
from tasks.records import PreparedDataset, PublishedModel
from tasks.store.run_folder import RunFolder

COLUMNS = ("area", "city", "garden", "rooms")
KINDS = ("number", "number", "boolean", "number")  # those that have levels are categories
CITIES = ("Berlin", "Köln", "naïve\u0301 東京", "true", "2.5")
ROOMS = ("1", "2", "3", "4")
NUM_ROWS = 500
# A regression, and classifiers of three classes and of two.
MODELS: dict[str, tuple[str, ...]] = {"houses": (), "segments": ("cheap", "fair", "dear"), "gardens": ("no", "yes")}


def prepare_houses(class_names: Sequence[str]) -> PreparedDataset:
    """Houses with values that are missing: their price, or which of ``class_names`` they are."""
    rng = np.random.default_rng(0)
    areas, gardens = rng.uniform(40, 200, NUM_ROWS), rng.random(NUM_ROWS) < 0.3
    cities, rooms = rng.integers(0, len(CITIES), NUM_ROWS), rng.integers(0, len(ROOMS), NUM_ROWS)
    features = np.column_stack([areas, cities, gardens, rooms]).astype(float)
    truth: Any = 3000 * areas + 40_000 * cities + 25_000 * gardens + rng.normal(0, 9000, NUM_ROWS)
    features[rng.random(features.shape) < 0.1] = np.nan
    if class_names:
        ranks = np.quantile(truth, np.linspace(0, 1, len(class_names) + 1)[1:-1])
        truth = np.digitize(truth, ranks)
    levels = {1: CITIES, 3: ROOMS}
    return prepare(features, truth, kinds=KINDS, class_names=class_names, names=COLUMNS, levels=levels)


def publish(name: str, class_names: Sequence[str] = ()) -> PublishedModel:
    """A model of houses in the artifacts folder."""
    prepared, run = prepare_houses(class_names), RunFolder.open(f"run-of-{name}", {})
    model = "softmax-regression" if class_names else "linear-regression"
    return Contender(run, prepared, 0, name, "houses.csv", model=model, shape="linear").publish()
