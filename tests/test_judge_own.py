"""Gates, figures and metrics of own tables: what a sound model passes and one that has learned nothing does not."""

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.stats

from candidate import plain
from own_tables import drawn_weights
from prepared_tables import prepare, trained
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Columns
from tasks.errors import GateFailed
from tasks.evaluate import evaluate
from tasks.judging import baselines, metrics, task
from tasks.judging.baselines import Baselines
from tasks.judging.metrics import Answers, measure
from tasks.judging.objective import Objective
from tasks.parameters import Gates, Training
from tasks.records import Evaluation, PreparedDataset
from tasks.store import atomic
from tasks.store.run_folder import RunFolder

Array = np.ndarray[Any, Any]


@pytest.fixture
def run() -> RunFolder:
    return RunFolder.open("own", {})


def find_model(task: str) -> str:
    return "linear-regression" if task == "regression" else "softmax-regression"


def training(task: str, **options: Any) -> Training:
    return Training.model_validate({"model": find_model(task), "defaults": "data", **options})


def converged(prepared: PreparedDataset, asked: Training) -> dict[str, Array]:
    """Weights that are fitted as well as can be, on all training rows."""
    rows = read_split(prepared.train, prepared)
    assert isinstance(prepared.recipe, Columns)
    outputs = len(prepared.class_names) or 1
    return baselines.fit_table(*rows[:2], prepared.recipe, outputs, Objective.choose(asked, prepared)).weights


def judged(
    run: RunFolder, prepared: PreparedDataset, asked: Training, weights: dict[str, Array] | None = None
) -> Evaluation:
    weights = converged(prepared, asked) if weights is None else weights
    found: Evaluation = plain(evaluate)(run, prepared, trained(run, prepared, weights), asked, Gates())
    return found


def refusal(*judging: Any) -> dict[str, bool]:
    with pytest.raises(GateFailed) as caught:
        judged(*judging)
    assert isinstance(caught.value.record, Evaluation)
    return {gate.name: gate.passed for gate in caught.value.record.gates}


def houses(num_rows: int = 1000, seed: int = 0, **options: Any) -> PreparedDataset:
    """Prices in hundreds of thousands, by area, age and one of three districts."""
    rng = np.random.default_rng(seed)
    area, age, district = rng.normal(120, 30, num_rows), rng.uniform(0, 80, num_rows), rng.integers(0, 3, num_rows)
    price = 3000 * area - 1000 * age + np.array([0, 50_000, -20_000])[district] + rng.normal(0, 20_000, num_rows)
    features = np.stack([area, age, district], axis=1)
    return prepare(features, options.pop("truth", price), levels={2: ("east", "west", "north")}, **options)


def rare(num_rows: int = 5000, share: float = 0.03) -> PreparedDataset:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(num_rows, 4))
    score = features @ [1.5, -1.0, 0.5, 0.0] + rng.logistic(size=num_rows)
    return prepare(features, score > np.quantile(score, 1 - share), class_names=("often", "rare"))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_model_of_a_shuffled_target_is_refused_by_the_baseline(task: str, run: RunFolder) -> None:
    rng = np.random.default_rng(9)
    if task == "regression":
        prepared = houses(truth=rng.normal(300_000, 60_000, 1000))
    else:
        prepared = prepare(rng.normal(size=(1000, 4)), rng.integers(0, 3, 1000), class_names=("a", "b", "c"))
    assert refusal(run, prepared, training(task)) == {"baseline": False, "reference": True}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_model_with_half_of_a_small_attainable_gain_is_refused_by_the_reference(task: str, run: RunFolder) -> None:
    """Of an R² of 0.03, where 1.05 times the converged fit's loss is more than that of the best constant."""
    rng = np.random.default_rng(5)
    x, noise = rng.normal(size=(20_000, 1)), rng.normal(size=20_000)
    signal = np.sqrt(0.03 / 0.97) * x[:, 0]
    if task == "regression":
        prepared = prepare(x, signal + noise)
    else:
        prepared = prepare(x, (2 * signal + rng.logistic(size=20_000) > 0).astype(int), class_names=("no", "yes"))
    asked = training(task)
    whole = converged(prepared, asked)
    found = judged(run, prepared, asked, whole)
    best, trivial = found.metrics["reference_loss"], found.metrics["baseline_loss"]
    gate = found.gates[1]
    assert 1.05 * best > trivial
    assert (gate.name, gate.verdict) == ("reference", "passed")
    assert gate.value == pytest.approx(best, rel=1e-6)
    tolerance = 0.002 if task == "classification" else 1e-6 / 2 * np.var(read_split(prepared.train, prepared).y_true)
    assert gate.maximum == pytest.approx(trivial - 0.95 * (trivial - best) + tolerance, abs=1e-9)
    assert "less 95% of what the" in gate.detail
    half = {name: each * (0.293 if name == "W" else 1) for name, each in whole.items()}
    assert refusal(run, prepared, asked, half) == {"baseline": True, "reference": False}


def test_where_the_converged_fit_gains_nothing_the_reference_is_recorded_only(run: RunFolder) -> None:
    prepared = houses(truth=np.random.default_rng(9).normal(300_000, 60_000, 1000))
    with pytest.raises(GateFailed) as caught:
        judged(run, prepared, training("regression"))
    baseline, reference = caught.value.record.gates
    assert (baseline.verdict, reference.verdict, reference.maximum) == ("refused", "recorded", None)
    assert "gains nothing over" in reference.detail


def test_a_huber_fit_of_a_skewed_target_passes_though_its_squared_error_is_worse_than_the_means(run: RunFolder) -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(8000, 2))
    truth = np.exp(1.5 * rng.normal(size=8000)) + 0.5 * features[:, 0]
    prepared = prepare(features, truth)
    found = judged(run, prepared, training("regression", loss="huber"))
    assert all(gate.passed for gate in found.gates)
    assert found.metrics["r2"] < 0


def test_the_reference_takes_the_first_rows_by_their_hash_and_in_time_a_sample_of_all_times() -> None:
    keys = np.random.default_rng(0).permutation(1000).astype(np.uint64)
    assert (baselines.choose_rows(keys, 100, in_time=False) == np.flatnonzero(keys < 100)).all()
    spread = baselines.choose_rows(keys, 100, in_time=True)
    assert (len(np.unique(spread)), spread.min(), spread.max()) == (100, 0, 999)
    assert (baselines.choose_rows(keys, 1000, in_time=False) == np.arange(1000)).all()


def test_a_reference_that_did_not_converge_is_not_called_converged(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, asked = rare(), training("classification")
    weights = converged(prepared, asked)
    monkeypatch.setattr(baselines, "MAX_ITERATIONS", 1)
    monkeypatch.setitem(baselines.FIT_RULES, "columns", baselines.FIT_RULES["columns"]._replace(most=500))
    gate = judged(run, prepared, asked, weights).gates[-1]
    assert "of the fit to 500 rows that has not converged" in gate.detail


def test_the_reference_learns_from_no_row_that_a_candidate_held_out() -> None:
    prepared = houses()
    objective = Objective.choose(training("regression"), prepared)
    fits = [Baselines.of_dataset(prepared, objective, share).fit for share in (0.0, 0.2)]
    rows = [int(fit.words.removeprefix("converged fit to ").removesuffix(" rows")) for fit in fits if fit]
    assert rows[0] == prepared.num_train
    assert rows[1] == pytest.approx(0.8 * rows[0], abs=2)


def test_the_rows_of_a_group_count_as_one(run: RunFolder) -> None:
    """100 copies of 15 rows prove no more than the 15 do."""
    gains = np.random.default_rng(0).normal(0.5, 1, 15)
    alone = metrics.find_lower_bound(gains, np.ones(15))
    copied, groups = np.repeat(gains, 100), np.repeat(np.arange(15), 100)
    assert metrics.find_lower_bound(copied, np.ones(1500), groups) == pytest.approx(alone)
    assert metrics.find_lower_bound(copied, np.ones(1500)) > alone


def test_a_single_test_group_says_nothing_and_is_refused_with_a_verdict_that_is_kept(run: RunFolder) -> None:
    prepared = houses()
    rows = read_split(prepared.test, prepared)
    asked = training("regression")
    held = Baselines.of_dataset(prepared, Objective.choose(asked, prepared))
    held = dataclasses.replace(held, units=np.zeros(len(rows.y_true), np.uint64))
    assert held.fitted is not None
    verdict = next(held.judge(held.fitted, Gates()))
    assert not verdict.passed
    assert verdict.value == pytest.approx(held.metrics["baseline_loss"] - held.metrics["reference_loss"])
    assert "one test row or group says nothing" in verdict.detail
    atomic.write_json(run.file("verdict.json"), verdict.model_dump(mode="json"))


def test_scores_of_many_classes_become_losses_before_memory_holds_them_all(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two million test rows of a hundred classes would be 1.6 GB a copy."""
    monkeypatch.setitem(baselines.FIT_RULES, "columns", baselines.FIT_RULES["columns"]._replace(most=1000))
    monkeypatch.setattr(baselines, "MAX_ITERATIONS", 3)
    names = tuple(map(str, range(100)))
    labels = np.arange(1_000_000) % 100
    features = np.stack([labels, -labels], axis=1) + np.random.default_rng(0).normal(size=(1_000_000, 2))
    prepared = prepare(features, labels, class_names=names)
    assert isinstance(prepared.recipe, Columns)
    model = trained(run, prepared, drawn_weights(prepared.recipe, len(names)))
    tracemalloc.start()
    try:
        candidate = task.Candidate.read(prepared, model, training("classification"))
        measured = candidate.metrics
        assert tracemalloc.get_traced_memory()[1] < 8 * prepared.num_test * 100 / 2, "half of the scores in float64"
    finally:
        tracemalloc.stop()
    assert measured["test_accuracy"] == pytest.approx(np.mean(candidate.answers.answer == candidate.test.y_true))


def test_the_lower_bound_is_students_and_holds_in_19_of_20_samples() -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(1, 2, 30)
    low = scipy.stats.ttest_1samp(gains, 0, alternative="greater").confidence_interval(0.95).low
    assert metrics.find_lower_bound(gains, np.ones(30)) == pytest.approx(low)
    weights = rng.integers(1, 10, 200).astype(float)
    bounds = [metrics.find_lower_bound(rng.normal(1, 2, 200), weights) for _ in range(1000)]
    assert np.mean(np.array(bounds) < 1) == pytest.approx(0.95, abs=0.025)


def test_the_intervals_are_those_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=300)

    def interval(losses: Array) -> tuple[float, float]:
        labels = np.zeros(len(losses), int)
        return measure(Answers(labels, labels, losses, np.ones(len(losses)))).intervals["loss"]

    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert interval(values) == pytest.approx((expected.low, expected.high), rel=0.02)
    assert np.ptp(interval(rng.exponential(size=50_000))) == pytest.approx(2 * 1.96 / np.sqrt(50_000), rel=0.1)
