"""The gate against what is published: statistics against scipy and simulation, verdicts by construction."""

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import scipy.special
import scipy.stats

import image_folders
from candidate import Contender, prepare_own
from own_tables import drawn_weights
from prepared_tables import prepare
from table_files import written
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Columns, SplitRule
from tasks.data.schema import ImageSchema, Schema
from tasks.judging import champion
from tasks.judging.champion import Comparison, ModelAnswers, RowsOfToday, score_by_session
from tasks.judging.metrics import Answers
from tasks.judging.objective import Objective
from tasks.parameters import Data, Device, Gates, Loss
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import onnx_graph, raw_units, runtime
from tasks.store import artifact_paths, housekeeping, model_folder, pointer

Array = np.ndarray[Any, Any]
NAME = "linear-regression"
RNG = np.random.default_rng(0)


# The statistic


@pytest.mark.parametrize(("lost", "won"), [(12, 3), (5, 0), (40, 25), (12, 8), (200, 150)])
def test_p_of_one_comparison_is_that_of_mcnemars_one_sided_exact_test(lost: int, won: int) -> None:
    """With no margin, so that nothing but the p counts; the normal approximation is never below it.

    That is for many rows that differ, of many.
    """
    exact = scipy.stats.binomtest(lost, lost + won, alternative="greater").pvalue
    error = 4 * np.sqrt(exact / 40_000)
    normal = exact if lost + won <= 100 else scipy.stats.norm.sf((lost - won - 2) / np.sqrt(lost + won))
    for rows, expected in (2_000, exact), (20_000, normal):
        parts = np.repeat([1, -1, 0], [lost, won, rows - lost - won])[:, None]
        p = champion.compare(parts, np.zeros(1), rows, draws=40_000)[2][0]
        assert p == pytest.approx(expected, abs=error)
        assert p >= exact - error


def test_p_of_one_version_is_that_of_scipys_paired_permutation_test() -> None:
    kept = RNG.exponential(1.0, 60)
    ours = kept + RNG.normal(0.1, 0.6, 60)
    expected = scipy.stats.permutation_test(
        (ours, kept), lambda a, b: (a - b).sum(), permutation_type="samples", alternative="greater", n_resamples=20_000
    ).pvalue
    (rise,), _, (p,) = champion.compare((ours - kept)[:, None] / 60, np.zeros(1), draws=20_000)
    assert rise == pytest.approx((ours - kept).mean())
    assert p == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rows", [9_999, 10_000])
@pytest.mark.parametrize(("others", "chance"), [(0.0, 1 / 8), (1e-3, 1 / 16)])
def test_few_rows_that_differ_much_are_no_normal_variable(rows: int, others: float, chance: float) -> None:
    """All of three signs are positive in one of eight cases; the sum of the other rows, 0, is exceeded in half."""
    parts = others * np.random.default_rng(0).standard_normal((rows, 1))
    parts -= parts[3:].mean()
    parts[:3] = 1.0
    _, is_beyond, p = champion.compare(parts, np.array([0.01]), 100.0)
    assert is_beyond[0]
    assert p[0] == pytest.approx(chance, abs=0.015)


def test_versions_that_are_equal_and_a_candidate_that_is_one_of_them_cost_nothing() -> None:
    kept = RNG.exponential(size=400) / 400
    ours = kept + RNG.normal(0.0001, 0.0005, 400)
    _, _, alone = champion.compare((ours - kept)[:, None], np.zeros(1))
    _, _, many = champion.compare(np.stack([ours - kept] * 50 + [ours - ours] * 50, axis=1), np.zeros(100))
    assert many.tolist() == [alone[0]] * 50 + [1.0] * 50


def drops(
    ours: Array, kept: Array, classes: list[Array], margins: tuple[float, float], draws: int = 9_999
) -> tuple[Array, Array]:
    """Which drops are beyond their margin, and their p, of accuracy and each class's recall, by version.

    ``ours`` and ``kept`` say where each is right.
    """
    is_in = np.column_stack([np.ones(len(ours), bool), *(np.isin(np.arange(len(ours)), rows) for rows in classes)])
    parts = is_in[:, :, None] * (kept.astype(np.int8) - ours).T[:, None]
    of_each = [np.repeat(each, len(kept)) for each in ([margins[0], *[margins[1]] * len(classes)], is_in.sum(axis=0))]
    _, is_beyond, p = champion.compare(parts.reshape(len(ours), -1), of_each[0], of_each[1], draws)
    return is_beyond, p.reshape(-1, len(kept))


def test_classes_that_cannot_exceed_their_margin_cost_nothing() -> None:
    ours, kept = np.repeat([False, True, True], [60, 40, 1900]), np.repeat([True, False, True], [60, 40, 1900])
    classes = [np.arange(2000)[start::10] for start in range(10)]
    alone, among = (drops(ours, kept[None], each, (0.005, 0.1))[1] for each in ([], classes))
    assert among[0, 0] == pytest.approx(alone[0, 0], abs=0.01)
    assert among[1:].min() == 1, "within their margin"


def is_refused(right: Array) -> bool:
    """Whether a candidate is, where it and versions are right on 10,000 rows of ten classes."""
    classes = [np.arange(10_000)[start::10] for start in range(10)]
    margins = (Gates().max_accuracy_drop, Gates().max_recall_drop)
    is_beyond, p = drops(right[0], right[1:], classes, margins, draws=400)
    return bool((is_beyond & (p.ravel() < Gates().max_drop_p)).any())


@pytest.mark.parametrize(("k", "times"), [(1, 400), (10, 300), (100, 100)])
def test_equal_models_are_seldom_refused_however_many_versions_are_kept(k: int, times: int) -> None:
    """They differ by chance in 530 of 10,000 rows.

    By the best version alone and McNemar's two-sided test it would be 1, 9 and 28 percent.
    """
    rng, refused = np.random.default_rng(k), 0
    for _ in range(times):
        right = np.ones((k + 1, 10_000), bool)
        right[:, :1060] = rng.random((k + 1, 1060)) < 0.5
        refused += is_refused(right)
    assert refused / times < 0.05 + 2 * np.sqrt(0.05 * 0.95 / times)


# Verdicts on classes


TRUTH = np.repeat(np.arange(4), 250)


def wrong_on(*rows: range) -> Array:
    """Predictions that are right but on the given rows."""
    label = TRUTH.copy()
    for each in rows:
        label[list(each)] = (TRUTH[list(each)] + 1) % 4
    return label


def compare_labels(candidate: Array, *kept: Array, truth: Array = TRUTH, names: Any = tuple("abcd")) -> Comparison:
    ours, *versions = (Answers(truth, label, truth, truth) for label in (candidate, *kept))
    numbered = [ModelAnswers(number, each) for number, each in enumerate(versions, start=1)]
    return champion.compare_labels(ModelAnswers(None, ours), numbered, names, Gates())


FIRST, SECOND = wrong_on(range(4)), wrong_on(range(4), range(250, 254))
LARGE = wrong_on(range(5), range(250, 255), range(500, 505), range(750, 755))
# The candidate, the kept versions, and whether accuracy and recall pass.
VERDICTS: dict[str, tuple[Array, list[Array], bool, bool]] = {
    "an equal candidate": (wrong_on(range(40)), [wrong_on(range(40))], True, True),
    "a better one": (TRUTH, [wrong_on(range(40))], True, True),
    "20 of 1000 rows lost, none won, p = 2 / 2**20": (LARGE, [TRUTH], False, True),
    "a class that is forgotten, at equal accuracy": (wrong_on(range(40)), [wrong_on(range(250, 290))], True, False),
    "4 of 1000 rows lost": (FIRST, [TRUTH], True, True),
    "4 rows more, against the one before": (SECOND, [FIRST], True, True),
    "small drops cannot add up, for the best counts": (SECOND, [FIRST, TRUTH], False, True),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_real_drops_are_refused_and_no_others(case: str) -> None:
    candidate, kept, *passed = VERDICTS[case]
    found = [(each.name, each.passed) for each in compare_labels(candidate, *kept).gates]
    assert found == list(zip(("champion_accuracy", "champion_recall"), passed, strict=True))


def test_a_drop_that_chance_explains_passes() -> None:
    """112 rows lost and 100 won: p is about 0.2. It is recorded, and no verdict passes above its bound."""
    kept = wrong_on(range(25), range(250, 275), range(500, 525), range(750, 775))
    candidate = wrong_on(range(100, 128), range(350, 378), range(600, 627), range(850, 877))
    worse = wrong_on(range(40), range(250, 290), range(500, 540), range(750, 790))
    assert scipy.stats.binomtest(112, 212, alternative="greater").pvalue > 0.05
    (accuracy, recall), best = compare_labels(candidate, worse, kept)
    assert (accuracy.passed, accuracy.verdict, accuracy.maximum, best) == (True, "recorded", None, 2)
    assert accuracy.value == pytest.approx(0.01)
    assert (recall.verdict, recall.maximum) == ("passed", 0.10)
    truth = np.array([0] * 990 + [1] * 10)
    candidate = truth.copy()
    candidate[-3:] = 0
    of_class = compare_labels(candidate, truth, truth=truth, names=("often", "rare")).gates[1]
    assert of_class.passed, "of three rows of a tiny class"
    assert of_class.value == pytest.approx(0.3)


@pytest.mark.parametrize(("scale", "passes"), [(1.0, True), (1.02, True), (1.03, False), (0.5, True)])
def test_linear_regression_may_lose_5_percent_to_the_best_kept_version(scale: float, passes: bool) -> None:
    """Errors scaled by 1.02 are a loss 1.0404 times as large, by 1.03 one 1.0609 times."""
    errors, truth = np.random.default_rng(0).normal(0, 0.01, 1000), np.zeros(1000)
    answers = [Answers(truth, errors * times, truth, truth[:0]) for times in (scale, 2, 1)]
    ours, *kept = (ModelAnswers(at or None, each) for at, each in enumerate(answers))
    (verdict,), best = champion.compare_squared_errors(ours, kept, (), Gates())
    assert (verdict.passed, best) == (passes, 2)


@pytest.mark.parametrize("right", [10_000, 9_000, 8_437, 8_213, 7_777, 7_001, 51])
def test_a_drop_of_accuracy_by_exactly_the_bound_passes_and_one_row_more_does_not(right: int) -> None:
    """50 of 10 000 rows are 0.005, and no chance (p is tiny); as floats 0.8437 - 0.8387 is a little more."""
    truth, kept, exact, more = (np.repeat([0, 1], [at, 10_000 - at]) for at in (10_000, right, right - 50, right - 51))
    for candidate, passes in ((exact, True), (more, False)):
        assert compare_labels(candidate, kept, truth=truth, names=("only",)).gates[0].passed == passes


def test_a_drop_of_recall_by_exactly_a_tenth_passes_for_any_counts() -> None:
    """A class of ``10 k`` rows loses ``k``; with ``k`` at 30 or more, chance explains it no longer."""
    for k in range(30, 200, 17):
        rows = 10 * k
        truth = np.r_[np.zeros(rows, int), np.ones(100 * k, int)]
        for right in range(k + 1, rows + 1, max(1, rows // 9)):
            kept, exact, more = (np.where(np.arange(len(truth)) < at, 0, 1) for at in (right, right - k, right - k - 1))
            for candidate, passes in ((exact, True), (more, False)):
                found = compare_labels(candidate, kept, truth=truth, names=("small", "large"))
                assert found.gates[1].passed == passes, (rows, right)


# Verdicts on losses of own data


BY_HASH = SplitRule(rule="rows", test=0.2)
TARGET, ERRORS = RNG.normal(size=1000), RNG.normal(0, 0.1, 1000)


def model(version: int | None, losses: Array, is_new: Array | bool = True) -> ModelAnswers:
    """A model that loses so much on each row."""
    return ModelAnswers(version, Answers(TARGET, TARGET, losses, TARGET[:0]), is_new)


def compare(ours: ModelAnswers, *versions: ModelAnswers, key: Array | None = None, rule: SplitRule = BY_HASH) -> Any:
    """By squared losses of each row; ``key`` is that of the split."""
    keys = (np.arange(len(ours.answers.truth)) if key is None else key).astype(np.uint64)
    return champion.compare_losses(ours, versions, keys, rule, Objective(Loss.SQUARED), Gates())


def judge(*errors: Array) -> GateVerdict:
    """By the errors of models of a regression, first the candidate's."""
    ours, *kept = (model(number or None, np.square(each) / 2) for number, each in enumerate(errors))
    verdict: GateVerdict = compare(ours, *kept).gates[0]
    return verdict


def test_a_rise_within_one_percent_passes_and_a_real_larger_one_is_refused_with_the_loss_in_raw_units() -> None:
    """Models of a target without noise differ by rounding, which refuses none."""
    worse = judge(ERRORS * 1.02, ERRORS)
    assert worse.value == pytest.approx(np.square(1.02 * ERRORS).mean() / 2)
    assert worse.maximum == pytest.approx(1.01 * np.square(ERRORS).mean() / 2 + 1e-3**2 / 2)
    for times, kept, passes in ((1.004, 1, True), (1.02, 1, False), (2e-6, 1e-6, True), (0.02, 1e-6, False)):
        assert judge(times * ERRORS, kept * ERRORS).passed is passes


def test_a_rise_that_chance_explains_passes_and_the_best_of_all_versions_counts() -> None:
    pair = sorted(RNG.normal(0, 0.1, (2, 1000)), key=lambda each: -np.square(each).mean())
    assert judge(*pair).passed
    found = judge(ERRORS * 1.3, ERRORS * 1.3, ERRORS)
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


def test_rows_of_one_group_are_no_evidence_of_their_own() -> None:
    """25 groups of 40 rows, in which the candidate is worse by chance in a few."""
    groups = np.repeat(np.arange(25), 40)
    worse = 0.1 + 0.03 * np.random.default_rng(1).standard_t(3, 25)
    ours, kept = model(None, np.square(worse[groups]) / 2), model(1, np.full(1000, 0.095**2 / 2))
    by_group = SplitRule(rule="group", test=0.2, column="g")
    assert not compare(ours, kept).gates[0].passed
    assert compare(ours, kept, key=groups, rule=by_group).gates[0].passed


def test_log_loss_is_compared_by_probabilities() -> None:
    labels, objective = RNG.integers(0, 2, 1000), Objective(Loss.CROSS_ENTROPY)
    probabilities = (np.where(np.eye(2)[labels] > 0, p, 1 - p) for p in (0.8, 0.9))
    ours, sure = (
        ModelAnswers(version or None, Answers.ask(np.log, each.__getitem__, labels, objective))
        for version, each in enumerate(probabilities)
    )
    (found,), _ = champion.compare_losses(ours, [sure], np.arange(1000).astype(np.uint64), BY_HASH, objective, Gates())
    assert not found.passed
    assert (found.value, found.maximum) == pytest.approx((-np.log(0.8), 0.005 - np.log(0.9)))


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
    folded = raw_units.fold_weights(weights, prepared.recipe, np.float64)
    scores = raw_units.score_rows(folded, prepared.recipe, rows.inputs)
    expected = scipy.special.logsumexp(scores, axis=1) - scores[np.arange(len(scores)), rows.y_true]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# Through the store


def test_a_held_version_is_compared_with_nothing_though_it_is_damaged(candidates: list[Contender]) -> None:
    for candidate in candidates[:2]:
        candidate.publish()
    pointer.rollback(NAME)
    held = artifact_paths.version(NAME, 2) / "model.onnx"
    held.chmod(0o644)
    held.write_bytes(b"damaged")
    asked, prepared = candidates[2].parameters, candidates[2].prepared
    onnx = candidates[2].exported.onnx
    verdicts, _ = champion.compare_with_published(NAME, onnx, prepared, asked.gates, asked.training)
    assert "of version 1" in verdicts[-1].detail


def test_pruning_keeps_the_best_of_the_last_comparison_so_that_small_losses_cannot_add_up(
    candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of the newest version names it; while that one is damaged nothing is pruned."""
    monkeypatch.setattr(housekeeping, "GRACE", -housekeeping.GRACE)  # demoted long ago
    for candidate in candidates:
        candidate.publish()
    losses, rows = {}, read_split(candidates[2].prepared.test, candidates[2].prepared)
    for number in (1, 2):
        session = onnxruntime.InferenceSession(artifact_paths.version(NAME, number) / "model.onnx")
        losses[number] = np.square(session.run(None, {"features": rows.inputs})[0] - rows.y_true).mean()
    best = min(losses, key=lambda number: losses[number])
    assert [model_folder.find_manifest(NAME, number).best_version for number in (1, 2, 3)] == [None, 1, best]
    pointer.promote(NAME, 3 - best)
    pointer.promote(NAME, 3)  # whose previous version is now the worse one
    pruned, kept = housekeeping.prune(NAME, 1)
    assert (pruned, best in model_folder.list_versions(NAME)) == ([], True)
    assert "the best in the last comparison" in kept[best]
    pointer.promote(NAME, 3 - best)
    manifest = artifact_paths.version(NAME, 3) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{}")
    pruned, kept = housekeeping.prune(NAME, 1)
    assert pruned == []
    assert "which version 3 recorded, and it is damaged" in kept[best]


def test_a_kept_version_whose_recipe_cannot_read_the_rows_of_today_is_not_compared_and_that_is_said(
    candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    for candidate in candidates[:2]:
        candidate.publish()
    monkeypatch.setattr(champion, "list_differences", lambda manifest, _: ["a column"] * (manifest.version == 1))
    _, loss, left_out = candidates[2].publish().gates
    assert "of version 2" in loss.detail
    assert (left_out.name, left_out.value, left_out.verdict) == ("champion_not_compared", 1, "recorded")
    assert "the recipe of version 1 cannot read the rows of today" in left_out.detail


# Which test rows of tonight a kept version was trained on: by row digests, against the rows of its training part


SHARE: dict[str, Any] = {"test": 0.2}
TIME: dict[str, Any] = {"time_column": "day"}
GROUP: dict[str, Any] = {"split_by": "shop"}
COLUMN: dict[str, Any] = {"split_column": "part"}


def prepared(rows: int, path: Path, before: PreparedDataset | None = None, **options: Any) -> PreparedDataset:
    """Rows by the day, oldest first, of which a fifth is for the test; few are distinct but for the day."""
    at = np.arange(rows)
    columns = {"size": at % 4, "kind": [f"kind {n % 3}" for n in at], "day": at // 10, "shop": at % 40}
    columns |= {"part": np.where(at % 5 == 0, "test", "Train"), "price": 3.0 * (at % 4)}
    source, ignored = written(path / "sales.parquet", columns), {"day", "shop", "part"} - set(options.values())
    asked = {"source": str(source), "target": "price", "ignore": sorted(ignored)} | options
    kept = Schema.from_manifest(before, before.recipe) if before else None
    return prepare_own(Data.model_validate(asked), "regression", kept)


def trained_on(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    """Which test rows are among those of a training part, value by value."""
    old, new = (
        [(row.tobytes(), y) for row, y in zip(each.inputs, each.y_true.tolist(), strict=True)]
        for each in (read_split(file, before) for file in (before.train, tonight.test))
    )
    return [row in set(old) for row in new]


def find_known(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    unseen = RowsOfToday(tonight).find_new_rows(before)
    assert not isinstance(unseen, str), unseen
    return [False] * tonight.num_test if unseen is True else (~unseen).tolist()


@pytest.mark.parametrize("rule", [TIME, COLUMN, SHARE, GROUP])
def test_of_a_table_that_grows_no_test_row_is_known(rule: dict[str, Any], tmp_path: Path) -> None:
    before = prepared(900, tmp_path, **rule)
    tonight = prepared(1000, tmp_path, before, **rule)
    assert not any(find_known(before, tonight))
    assert any(trained_on(before, tonight)), "others are equal to rows for training, day or copy apart"


def test_copies_of_equal_rows_are_told_apart_by_their_number_while_they_are_split_by_it(tmp_path: Path) -> None:
    before = prepared(900, tmp_path, **SHARE)
    assert before.split is not None
    assert before.split.rule == "copies"
    tonight = prepared(1000, tmp_path, before, test=0.5, new_recipe=True)
    keys = [read_split(file, before).key for file in (before.train, tonight.test)]
    assert find_known(before, tonight) == np.isin(keys[1], keys[0]).tolist()
    in_time = prepared(1000, tmp_path, before, **TIME, new_recipe=True)
    assert "by the number of the copy" in str(RowsOfToday(in_time).find_new_rows(before))


def test_of_folders_the_test_images_that_a_version_was_trained_on_are_known(tmp_path: Path) -> None:
    source = tmp_path / "pets"
    for part, count, first in (("train", 30, 0), ("test", 20, 100)):
        image_folders.write(source / part, {"cat": count, "dog": count}, first=first)
    before = image_folders.prepared(source)
    assert not any(find_known(before, before))
    for number in range(7):
        (source / "train/cat" / f"{number:04d}.png").rename(source / "test/cat" / f"moved-{number}.png")
    tonight = image_folders.prepared(source, ImageSchema.from_manifest(before, before.recipe))
    assert (tonight.num_test, sum(find_known(before, tonight))) == (40 + 7, 7)
    assert trained_on(before, tonight) == find_known(before, tonight)
