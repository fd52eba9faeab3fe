"""Own tables against kept versions: the statistic against scipy, columns and codes, each by its own recipe."""

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.special
import scipy.stats

import image_folders
from candidate import plain
from own_tables import drawn_weights
from prepared_tables import prepare, trained
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Columns, SplitRule
from tasks.data.schema import ImageSchema, Schema
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.judging import baselines, champion
from tasks.judging.champion import ModelAnswers, RowsOfToday, score_by_session
from tasks.judging.metrics import Answers
from tasks.judging.objective import Objective
from tasks.parameters import Data, Device, Gates, Loss, RetrainParameters
from tasks.preprocess import preprocess
from tasks.publish import publish
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import onnx_graph, raw_units, runtime
from tasks.store.run_folder import RunFolder
from tasks.validate import validate
from written_tables import written

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
DISTRICTS = np.array([0.0, 40_000.0, -80_000.0])


# The statistic


def test_p_of_one_version_is_that_of_scipys_paired_permutation_test() -> None:
    kept = RNG.exponential(1.0, 60)
    ours = kept + RNG.normal(0.1, 0.6, 60)
    expected = scipy.stats.permutation_test(
        (ours, kept), lambda a, b: (a - b).sum(), permutation_type="samples", alternative="greater", n_resamples=20_000
    ).pvalue
    (rise,), _, (p,) = champion.compare((ours - kept)[:, None] / 60, np.zeros(1), draws=20_000)
    assert rise == pytest.approx((ours - kept).mean())
    assert p == pytest.approx(expected, abs=0.02)


def test_many_rows_have_the_p_of_students_paired_test() -> None:
    ours = RNG.exponential(size=20_000)
    kept = ours + RNG.normal(-0.02, 1, 20_000)
    _, _, (p,) = champion.compare((ours - kept)[:, None] / 20_000, np.zeros(1), draws=40_000)
    expected = scipy.stats.ttest_rel(ours, kept, alternative="greater").pvalue
    assert p == pytest.approx(expected, abs=0.01)


def test_equal_models_are_seldom_refused_however_many_versions_are_kept() -> None:
    refused = []
    for _ in range(200):
        losses = RNG.exponential(size=(11, 400)) / 400
        _, is_beyond, p = champion.compare((losses[0] - losses[1:]).T, np.full(10, 0.005), draws=400)
        refused.append((is_beyond & (p < 0.05)).any())
    assert np.mean(refused) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


# Verdicts


BY_HASH = SplitRule(rule="rows", test=0.2)


def model(version: int | None, losses: Array, is_new: Array | bool = True) -> ModelAnswers:
    """A model that loses so much on each row."""
    return ModelAnswers(version, Answers(TRUTH, TRUTH, losses, TRUTH[:0]), is_new)


def compare(ours: ModelAnswers, *versions: ModelAnswers, key: Array | None = None, rule: SplitRule = BY_HASH) -> Any:
    """By squared losses of each row; ``key`` is that of the split."""
    keys = (np.arange(len(ours.answers.truth)) if key is None else key).astype(np.uint64)
    return champion.compare_losses(ours, versions, keys, rule, Objective(Loss.SQUARED), Gates())


def verdict(*outputs: Array, truth: Array, groups: Array | None = None, loss: Loss = Loss.SQUARED) -> GateVerdict:
    """By what models, first the candidate, say of the rows."""
    objective = Objective(loss)
    scores = [each[:, None] if loss is Loss.SQUARED else np.log(each) for each in outputs]
    ours, *kept = (
        ModelAnswers(number or None, Answers.ask(lambda rows: rows, each.__getitem__, truth, objective))
        for number, each in enumerate(scores)
    )
    rule = BY_HASH if groups is None else SplitRule(rule="group", test=0.2, column="g")
    keys = (np.arange(len(truth)) if groups is None else groups).astype(np.uint64)
    (found,), _ = champion.compare_losses(ours, kept, keys, rule, objective, Gates())
    return found


TRUTH = RNG.normal(size=1000)
ERRORS = RNG.normal(0, 0.1, 1000)


def test_a_rise_within_one_percent_passes_and_a_real_larger_one_is_refused_with_the_loss_in_raw_units() -> None:
    kept = TRUTH + ERRORS
    equal, worse = verdict(TRUTH + ERRORS * 1.004, kept, truth=TRUTH), verdict(TRUTH + ERRORS * 1.02, kept, truth=TRUTH)
    assert (equal.passed, worse.passed) == (True, False)
    assert worse.value == pytest.approx(np.square(1.02 * ERRORS).mean() / 2)
    assert worse.maximum == pytest.approx(1.01 * np.square(ERRORS).mean() / 2 + 1e-3**2 / 2)


def test_models_of_a_target_without_noise_differ_by_rounding_which_refuses_none() -> None:
    kept, worse = TRUTH + 1e-6 * ERRORS, TRUTH + 0.02 * ERRORS
    assert verdict(TRUTH + 2e-6 * ERRORS, kept, truth=TRUTH).passed
    assert not verdict(worse, kept, truth=TRUTH).passed


def test_a_rise_that_chance_explains_passes_and_the_best_of_all_versions_counts() -> None:
    ours, kept = TRUTH + RNG.normal(0, 0.1, 1000), TRUTH + RNG.normal(0, 0.1, 1000)
    first, second = sorted([ours, kept], key=lambda each: -np.square(each - TRUTH).mean())
    assert verdict(first, second, truth=TRUTH).passed
    found = verdict(TRUTH + ERRORS * 1.3, TRUTH + ERRORS * 1.3, TRUTH + ERRORS, truth=TRUTH)
    assert not found.passed
    assert "of version 2" in found.detail


def test_fewer_than_five_blocks_of_time_decide_nothing_and_that_is_said() -> None:
    worse, kept = model(None, np.square(3 * ERRORS)), model(1, np.square(ERRORS))
    rule = SplitRule(rule="time", test=0.2, column="day")
    for days, passes in ((4, True), (5, False)):
        (found,), _ = compare(worse, kept, key=np.arange(1000) * days // 1000, rule=rule)
        assert (found.passed, "of 4 blocks, fewer than the 5 that decide" in found.detail) == (passes, passes)


def test_the_best_version_is_the_best_on_the_rows_that_all_have() -> None:
    """The second is worse than the first on every row; its own rows are those on which the candidate is worst."""
    ours = np.where(np.arange(1000) < 400, 10.0, 1.0)
    good, worse = model(1, ours * 0.5), model(2, ours * 0.6, np.arange(1000) < 600)
    assert compare(model(None, ours), good, worse).best == 1


def test_each_version_is_compared_on_the_rows_that_it_was_not_trained_on_and_the_others_are_counted() -> None:
    ours, good = np.square(1.2 * ERRORS), np.square(ERRORS)
    half, few = np.arange(1000) < 500, np.arange(1000) < 199
    by_heart = [model(1, np.where(known, 0, ours), ~known) for known in (half, ~few)]
    found = [compare(model(None, ours), each).gates[0] for each in by_heart]
    assert [(each.passed, each.verdict) for each in found] == [(True, "passed"), (True, "recorded")]
    assert found[0].value == pytest.approx(ours[500:].mean())
    assert "on 500 test rows (500 left out: it was trained on them)" in found[0].detail
    assert "on 199 test rows (801 left out: it was trained on them), fewer than the 200" in found[1].detail
    (worse,), best = compare(model(None, ours), *by_heart, model(3, good, half))
    assert (worse.passed, best) == (False, 3)
    assert (worse.value, worse.maximum) == pytest.approx((ours[:500].mean(), 1.01 * good[:500].mean() + 1e-3**2 / 2))
    assert "of version 3 on 500 test rows" in worse.detail
    assert found[1].detail.split("(", 1)[1][:-1] in worse.detail, "what decides nothing is said"


def test_versions_that_are_equal_and_a_candidate_that_is_one_of_them_cost_nothing() -> None:
    kept = RNG.exponential(size=400) / 400
    ours = kept + RNG.normal(0.0001, 0.0005, 400)
    _, _, alone = champion.compare((ours - kept)[:, None], np.zeros(1))
    _, _, many = champion.compare(np.stack([ours - kept] * 50 + [ours - ours] * 50, axis=1), np.zeros(100))
    assert many.tolist() == [alone[0]] * 50 + [1.0] * 50


def test_rows_of_one_group_are_no_evidence_of_their_own() -> None:
    """25 groups of 40 equal rows, in which the candidate is worse by chance in a few."""
    groups = np.repeat(np.arange(25), 40)
    worse = 0.1 + 0.03 * np.random.default_rng(1).standard_t(3, 25)
    ours, kept = TRUTH + worse[groups], TRUTH + 0.095
    assert not verdict(ours, kept, truth=TRUTH).passed
    assert verdict(ours, kept, truth=TRUTH, groups=groups).passed


def test_log_loss_is_compared_by_probabilities() -> None:
    labels = RNG.integers(0, 2, 1000)
    sure, wrong = np.where(np.eye(2)[labels] > 0, 0.9, 0.1), np.where(np.eye(2)[labels] > 0, 0.8, 0.2)
    found = verdict(wrong, sure, truth=labels, loss=Loss.CROSS_ENTROPY)
    assert not found.passed
    assert found.value == pytest.approx(-np.log(0.8))
    assert found.maximum == pytest.approx(0.005 - np.log(0.9))


def test_probabilities_of_many_classes_become_losses_before_memory_holds_them_all(artifacts: Path) -> None:
    names = tuple(map(str, range(20)))
    labels = np.arange(800_000) % len(names)
    prepared = prepare(RNG.normal(size=(len(labels), 1)), labels, class_names=names)
    assert isinstance(prepared.recipe, Columns)
    weights = drawn_weights(prepared.recipe, len(names))
    content = onnx_graph.write_model(weights, prepared.recipe, prepared.signature, {})
    rows = read_split(prepared.test, prepared)
    objective, session = Objective(Loss.CROSS_ENTROPY), runtime.open_session(content, Device.CPU)
    tracemalloc.start()
    try:
        score = partial(score_by_session, session)
        found = Answers.ask(score, rows.inputs.__getitem__, rows.y_true, objective).losses
        assert tracemalloc.get_traced_memory()[1] < 4 * len(rows.y_true) * len(names), "the probabilities alone"
    finally:
        tracemalloc.stop()
    scores = raw_units.score_rows(
        raw_units.fold_weights(weights, prepared.recipe, np.float64), prepared.recipe, rows.inputs
    )
    expected = scipy.special.logsumexp(scores, axis=1) - scores[np.arange(len(scores)), rows.y_true]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# Through the store


def houses(levels: tuple[str, ...], num_rows: int = 2000) -> PreparedDataset:
    """Prices by area and district; of the third district there are rows only where it is a level."""
    rng = np.random.default_rng(len(levels))
    area, district = rng.normal(120, 30, num_rows), rng.integers(0, len(levels), num_rows)
    price = 3000 * area + DISTRICTS[district] + rng.normal(0, 20_000, num_rows)
    return prepare(np.stack([area, district], axis=1), price, levels={1: levels})


def publish_as(name: str, prepared: PreparedDataset) -> tuple[GateVerdict, ...]:
    asked = RetrainParameters.model_validate(
        {
            "name": name,
            "training": {"model": "linear-regression", "defaults": "data"},
            "data": {"source": "houses.csv", "target": "y"},
        }
    )
    run = RunFolder.open(f"{name}-{prepared.digest[:8]}", {})
    rows, objective = read_split(prepared.train, prepared), Objective.choose(asked.training, prepared)
    assert isinstance(prepared.recipe, Columns)
    weights = baselines.fit_table(rows.inputs, rows.y_true, prepared.recipe, 1, objective).weights
    model = trained(run, prepared, weights)
    evaluated = plain(evaluate)(run, prepared, model, asked.training, asked.gates)
    exported = plain(export)(run, prepared, model, asked.training, asked.gates)
    gates: tuple[GateVerdict, ...] = plain(publish)(run, asked, prepared, model, evaluated, exported).gates
    return gates


@pytest.mark.slow
def test_a_level_that_came_later_is_unknown_to_the_older_version_which_is_measured_all_the_same() -> None:
    old, new = houses(("east", "west")), houses(("east", "west", "north"))
    assert publish_as("houses", old) == ()
    same, loss = publish_as("houses", new)
    assert (same.name, same.passed, loss.name, loss.passed) == ("champion_signature", True, "champion_loss", True)
    rows, train = read_split(new.test, new), read_split(old.train, old)
    assert isinstance(old.recipe, Columns)
    weights = baselines.fit_table(train.inputs, train.y_true, old.recipe, 1, Objective(Loss.SQUARED)).weights
    predicted = raw_units.score_rows(raw_units.fold_weights(weights, old.recipe, np.float64), old.recipe, rows.inputs)[
        :, 0
    ]
    north = rows.inputs[:, 1] == 2
    assert np.square(predicted - rows.y_true)[north].mean() > 10 * np.square(predicted - rows.y_true)[~north].mean()
    told = float(loss.detail.split("against ")[1].split(" of version 1")[0].replace(",", ""))
    assert told == pytest.approx(np.square(predicted - rows.y_true).mean() / 2, rel=1e-3)


# Which test rows of tonight a kept version was trained on: by row digests, against the rows of its training part


SHARE: dict[str, Any] = {"test": 0.2}
NEW: dict[str, Any] = {"new_recipe": True}
TIME: dict[str, Any] = {"time_column": "day"}
GROUP: dict[str, Any] = {"split_by": "shop"}
COLUMN: dict[str, Any] = {"split_column": "part"}


def sales(rows: int, first: int = 0, distinct: bool = True) -> pa.Table:
    """Rows by the day, oldest first, of which a fifth is for the test; few are ``distinct`` but for the day."""
    at = np.arange(first, first + rows)
    rng = np.random.default_rng(0)
    size = rng.normal(size=10_000)[at] if distinct else at % 4
    part = np.where(at % 5 == 0, "test", "Train")
    price = np.round(3 * size + rng.normal(size=10_000)[at] * distinct)
    columns = {"size": size, "kind": [f"kind {n % 3}" for n in at], "day": at // 10, "shop": at % 40, "part": part}
    return pa.table({**columns, "price": price})


def prepared(table: pa.Table, path: Path, before: PreparedDataset | None = None, **options: Any) -> PreparedDataset:
    run, ignored = RunFolder(path=path / "run", name="sales"), {"day", "shop", "part"} - set(options.values())
    asked = {"source": str(written(path / "sales.parquet", table)), "target": "price", "ignore": sorted(ignored)}
    data = Data.model_validate(asked | options)
    kept = Schema.from_manifest(before, before.recipe) if before else None
    validated = plain(validate)(run, plain(download)(run, "sales", data), data, "regression", kept)
    made: PreparedDataset = plain(preprocess)(run, validated, data, 0)
    return made


def known(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    """Which test rows are among those of a training part, value by value."""
    values = [read_split(file, before) for file in (before.train, tonight.test)]
    old, new = ([(*row.tolist(), y) for row, y in zip(each.inputs, each.y_true, strict=True)] for each in values)
    return [row in set(old) for row in new]


def find_known(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    unseen = RowsOfToday(tonight).find_new_rows(before)
    assert not isinstance(unseen, str), unseen
    return [False] * tonight.num_test if unseen is True else (~unseen).tolist()


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (SHARE, {"test": 0.5, **NEW}),
        (GROUP, {"test": 0.5, **GROUP, **NEW}),
        (SHARE, TIME | NEW),
        (TIME, GROUP | NEW),
        (GROUP, COLUMN | NEW),
    ],
)
def test_rows_are_known_that_were_in_the_training_part_whatever_rule_split_them_then_and_now(
    then: dict[str, Any], now: dict[str, Any], tmp_path: Path
) -> None:
    before = prepared(sales(900), tmp_path, **then)
    tonight = prepared(sales(1000), tmp_path, before, **now)
    assert find_known(before, tonight) == known(before, tonight)
    assert any(find_known(before, tonight))


@pytest.mark.parametrize("rule", [TIME, COLUMN, SHARE, GROUP])
def test_of_a_table_that_grows_no_test_row_is_known(rule: dict[str, Any], tmp_path: Path) -> None:
    before = prepared(sales(900, distinct=False), tmp_path, **rule)
    tonight = prepared(sales(1000, distinct=False), tmp_path, before, **rule)
    assert not any(find_known(before, tonight))
    assert any(known(before, tonight)), "others are equal to rows for training, day or copy apart"


def test_copies_of_equal_rows_are_told_apart_by_their_number_while_they_are_split_by_it(tmp_path: Path) -> None:
    before = prepared(sales(900, distinct=False), tmp_path, **SHARE)
    assert before.split is not None
    assert before.split.rule == "copies"
    tonight = prepared(sales(1000, distinct=False), tmp_path, before, test=0.5, **NEW)
    keys = [read_split(file, before).key for file in (before.train, tonight.test)]
    assert find_known(before, tonight) == np.isin(keys[1], keys[0]).tolist()
    in_time = prepared(sales(1000, distinct=False), tmp_path, before, **TIME, **NEW)
    assert "by the number of the copy" in str(RowsOfToday(in_time).find_new_rows(before))


def test_of_folders_the_test_images_that_a_version_was_trained_on_are_known(tmp_path: Path) -> None:
    source = tmp_path / "pets"
    for part, count, first in (("train", 30, 0), ("test", 20, 100)):
        image_folders.write(source / part, {"cat": count, "dog": count}, first=first)
    before = image_folders.prepared(source)
    assert not any(find_known(before, before))
    moved = {source / "test" / "cat" / f"moved-{number}.png" for number in range(7)}
    for number, path in enumerate(sorted(moved)):
        (source / "train" / "cat" / f"{number:04d}.png").rename(path)
    image_folders.write(source / "test", {"cat": 3, "dog": 5}, first=200)
    tonight = image_folders.prepared(source, ImageSchema.from_manifest(before, before.recipe))
    assert (tonight.num_test, sum(find_known(before, tonight))) == (40 + 7 + 8, 7)
    trained_on = {each.tobytes() for each in read_split(before.train, before).inputs}
    rows = read_split(tonight.test, tonight).inputs
    assert [each.tobytes() in trained_on for each in rows] == find_known(before, tonight)
