"""The ridge path in closed form, against scikit-learn's RidgeCV and against weights that training finds."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from tasks.fitting.tuning import parts, ridge

from candidate import synthetic
from prepared_tables import Array, prepare
from tasks.data.prepared_splits import hold_out
from tasks.data.recipe import SplitRule
from tasks.fitting import tables
from tasks.parameters import LinearTraining, Training
from tasks.records import PreparedDataset
from tasks.store.run_folder import RunFolder

CPU = torch.device("cpu")
DECAYS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
LEVELS = 4


def training(**options: Any) -> LinearTraining:
    return LinearTraining.model_validate({"defaults": "data", "device": "cpu", "seed": 0, **options})


def best(prepared: PreparedDataset, training: Training, decays: tuple[float, ...] = ridge.DECAYS) -> ridge.Path | None:
    return ridge.best(parts.of(prepared, training, CPU), prepared, training, decays)


def table(rng: np.random.Generator, num_rows: int = 400) -> tuple[PreparedDataset, Array, Array]:
    """Six correlated numbers and a category, of which the target has little; and the training rows as they are."""
    numbers = rng.normal(size=(num_rows, 6)) @ rng.normal(size=(6, 6))
    codes = rng.integers(0, LEVELS, num_rows)
    y = numbers @ rng.normal(size=6) * 0.1 + codes + rng.normal(size=num_rows) * 3
    is_test = np.arange(num_rows) % 5 == 0
    features = np.column_stack([numbers, codes]).astype(np.float32)
    kinds = ["number"] * 6 + ["category"]
    return prepare(features, y, is_test, kinds), features[~is_test], y[~is_test]


def inputs(features: Array) -> Array:
    """Standardised numbers, and a category's indicators, float64."""
    numbers, codes = features[:, :-1].astype(np.float64), features[:, -1].astype(int)
    standardised = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    return np.hstack([standardised, np.eye(LEVELS)[codes]])


def test_leaving_each_row_out_says_what_scikit_learn_says() -> None:
    prepared, features, y = table(np.random.default_rng(0))
    prepared.test.path.unlink()
    path = best(prepared, training(), DECAYS)
    assert path is not None
    theirs = RidgeCV(alphas=np.array(DECAYS) * len(y), store_cv_results=True).fit(inputs(features), y)
    np.testing.assert_allclose(path.losses, theirs.cv_results_.mean(axis=0) / 2, rtol=1e-6)
    assert path.decay * len(y) == pytest.approx(theirs.alpha_)
    assert (path.unseen, path.num_unseen) == ("each row left out", len(y))


def test_rows_that_go_together_are_judged_on_the_validation_part() -> None:
    prepared, features, y = table(np.random.default_rng(1))
    prepared = prepared.model_copy(update={"split": SplitRule(rule="group", column="g", test=0.2)})
    path = best(prepared, training(), DECAYS)
    assert path is not None
    held_out = hold_out(tables.split_keys(prepared), 0.2)
    theirs = [Ridge(alpha=decay * (~held_out).sum()).fit(inputs(features)[~held_out], y[~held_out]) for decay in DECAYS]
    errors = [np.mean((y[held_out] - each.predict(inputs(features)[held_out])) ** 2) / 2 for each in theirs]
    np.testing.assert_allclose(path.losses, errors, rtol=1e-6)
    assert path.unseen == "validation part"


def test_with_no_more_rows_than_inputs_no_penalty_is_no_answer() -> None:
    rng = np.random.default_rng(2)
    prepared = prepare(rng.normal(size=(80, 70)), rng.normal(size=80), np.arange(80) % 4 == 0)
    path = best(prepared, training())
    assert path is not None
    assert path.losses[0] == np.inf
    assert path.decay > 0


def test_the_books_data_need_next_to_no_penalty_whatever_the_implementation() -> None:
    prepared = synthetic(RunFolder.open("ridge", {}))
    paths = [
        best(prepared, LinearTraining(implementation=each, device="cpu", seed=0)) for each in ("scratch", "concise")
    ]
    assert all(path is not None and path.decay < 1e-3 for path in paths)


def test_another_loss_has_no_such_path() -> None:
    prepared, _, _ = table(np.random.default_rng(3))
    assert best(prepared, training(loss="huber")) is None
