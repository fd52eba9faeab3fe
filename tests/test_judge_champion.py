"""The gate against what is published: statistics against scipy and simulation, verdicts by construction."""

from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import scipy.stats

from candidate import Candidate
from tasks.data.book_datasets import synthetic_data
from tasks.data.prepared_splits import Examples, read_split, write_splits
from tasks.data.recipe import Column, Columns
from tasks.judging import champion
from tasks.judging.champion import Comparison, ModelAnswers
from tasks.judging.metrics import Answers
from tasks.parameters import Gates
from tasks.store import artifact_paths, housekeeping, pointer, reading
from tasks.store.run_folder import RunFolder

CLASSES = tuple("abcd")
TRUTH = np.repeat(np.arange(4), 250)


def wrong_on(*rows: range, base: np.ndarray = TRUTH) -> np.ndarray:
    """Predictions that are right but on the given rows."""
    label = base.copy()
    for each in rows:
        label[list(each)] = (TRUTH[list(each)] + 1) % 4
    return label


def compare(candidate: np.ndarray, *kept: np.ndarray, truth: np.ndarray = TRUTH, names: Any = CLASSES) -> Comparison:
    ours, *versions = (Answers(truth, label, truth, truth) for label in (candidate, *kept))
    numbered = [ModelAnswers(number, each) for number, each in enumerate(versions, start=1)]
    return champion.compare_labels(ModelAnswers(None, ours), numbered, names, Gates())


def judge(candidate: np.ndarray, *kept: np.ndarray) -> dict[str, bool]:
    return {verdict.name: verdict.passed for verdict in compare(candidate, *kept).gates}


class Drops(NamedTuple):
    """By test, of accuracy and of the recall of each class, and by version."""

    drop: np.ndarray
    is_beyond: np.ndarray
    p: np.ndarray


def drops(
    ours: np.ndarray, kept: np.ndarray, classes: list[np.ndarray], margins: tuple[float, float], draws: int = 9_999
) -> Drops:
    """``ours`` and ``kept`` say where each is right."""
    is_in = np.column_stack([np.ones(len(ours), bool), *(np.isin(np.arange(len(ours)), rows) for rows in classes)])
    parts = is_in[:, :, None] * (kept.astype(np.int8) - ours).T[:, None]
    of_each = [np.repeat(each, len(kept)) for each in ([margins[0], *[margins[1]] * len(classes)], is_in.sum(axis=0))]
    found = champion.compare(parts.reshape(len(ours), -1), of_each[0], of_each[1], draws)
    return Drops(*(each.reshape(-1, len(kept)) for each in found))


# The statistic


def one_class(lost: int, won: int, both: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """A candidate and one version: ``lost`` rows that only the version has right, ``won`` ones, ``both`` right."""
    ours, kept = np.repeat([False, True, True], [lost, won, both]), np.repeat([True, False, True], [lost, won, both])
    return ours, kept[None], [np.arange(lost + won + both)]


@pytest.mark.parametrize(("lost", "won"), [(12, 3), (5, 0), (40, 25), (12, 8), (200, 150)])
def test_p_of_one_comparison_is_that_of_mcnemars_one_sided_exact_test(lost: int, won: int) -> None:
    """With no margin, so that nothing but the p counts; the normal approximation is never below it.

    That is for many rows that differ, of many.
    """
    exact = scipy.stats.binomtest(lost, lost + won, alternative="greater").pvalue
    error = 4 * np.sqrt(exact / 40_000)
    normal = exact if lost + won <= 100 else scipy.stats.norm.sf((lost - won - 2) / np.sqrt(lost + won))
    for rows, expected in (2_000, exact), (20_000, normal):
        ours, kept, classes = one_class(lost, won, rows - lost - won)
        p = drops(ours, kept, classes, (0.0, 1.0), draws=40_000).p[0, 0]
        assert p == pytest.approx(expected, abs=error)
        assert p >= exact - error


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


def test_versions_that_are_equal_count_once_and_classes_that_cannot_exceed_their_margin_cost_nothing() -> None:
    ours, kept, _ = one_class(60, 40, 1900)
    alone = drops(ours, kept, [np.arange(2000)], (0.005, 1.0)).p[0, 0]
    classes = [np.arange(2000)[start::10] for start in range(10)]
    many = drops(ours, np.repeat(kept, 50, axis=0), classes, (0.005, 0.10)).p[0]
    np.testing.assert_allclose(many, alone, atol=0.01)


def test_p_of_classes_some_of_which_cannot_exceed_their_margin_is_that_of_signs_drawn_one_by_one() -> None:
    """Of the first class 150 rows of 500 move, of which 100 would exceed the margin; of the second 40."""
    sides = np.array([1] * 103 + [-1] * 47 + [1] * 29 + [-1] * 11)
    ours, kept, _ = one_class(132, 58, 810)
    order = np.r_[0:103, 132:179, 190:540, 103:132, 179:190, 540:1000]
    found = drops(ours[order], kept[:, order], [np.arange(500), np.arange(500, 1000)], (0.07, 0.1))
    drawn = np.random.default_rng(1).choice([-1, 1], (20_000, 190))
    of_class, total = drawn[:, :150].sum(axis=1), drawn.sum(axis=1)
    largest = np.maximum(
        np.where(of_class > 50, of_class / np.sqrt(150), -np.inf), np.where(total > 70, total / np.sqrt(190), -np.inf)
    )
    for at, net, rows in ((0, sides.sum(), 190), (1, sides[:150].sum(), 150)):
        expected = np.mean(largest >= (net - 1) / np.sqrt(rows) - 1e-6)
        assert found.p[at, 0] == pytest.approx(expected, abs=4 * np.sqrt(expected / 10_000) + 2e-4)
    assert found.p[2, 0] == 1, "a class within its margin"


def equal_models(rng: np.random.Generator, k: int) -> np.ndarray:
    """Where a candidate and ``k`` versions are right, which differ by chance alone: in 530 of 10,000 rows, any two."""
    right = np.ones((k + 1, 10_000), bool)
    right[:, :1060] = rng.random((k + 1, 1060)) < 0.5
    return right


CLASS_ROWS = [np.arange(10_000)[start::10] for start in range(10)]
MARGINS = (Gates().max_accuracy_drop, Gates().max_recall_drop)


def is_refused(right: np.ndarray, draws: int = 400) -> bool:
    found = drops(right[0], right[1:], CLASS_ROWS, MARGINS, draws)
    return bool((found.is_beyond & (found.p < Gates().max_drop_p)).any())


@pytest.mark.parametrize(("k", "times"), [(1, 400), (10, 300), (100, 100)])
def test_equal_models_are_seldom_refused_however_many_versions_are_kept(k: int, times: int) -> None:
    """By the best version alone and McNemar's two-sided test it would be 1, 9 and 28 percent."""
    rng = np.random.default_rng(k)
    refused = [is_refused(equal_models(rng, k)) for _ in range(times)]
    assert np.mean(refused) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / times)


@pytest.mark.parametrize("discordant", [200, 500, 1000])
def test_a_model_that_is_one_point_worse_is_refused_in_four_of_five_cases(discordant: int) -> None:
    """Of 10,000 rows; each of the rows on which the two differ is lost with a chance that makes it one point."""
    rng, refused = np.random.default_rng(discordant), 0
    for _ in range(200):
        right = np.ones((2, 10_000), bool)
        rows = rng.choice(10_000, discordant, replace=False)
        lost = rng.random(discordant) < 0.5 + 50 / discordant
        right[0, rows[lost]] = right[1, rows[~lost]] = False
        refused += is_refused(right)
    assert refused >= 160


# Verdicts


FIRST, SECOND = wrong_on(range(4)), wrong_on(range(4), range(250, 254))
LARGE = wrong_on(range(5), range(250, 255), range(500, 505), range(750, 755))
# The candidate, the kept versions, and whether accuracy and recall pass.
VERDICTS: dict[str, tuple[np.ndarray, list[np.ndarray], bool, bool]] = {
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
    candidate, kept, accuracy, recall = VERDICTS[case]
    assert judge(candidate, *kept) == {"champion_accuracy": accuracy, "champion_recall": recall}


def test_a_drop_that_chance_explains_passes() -> None:
    """112 rows lost and 100 won: p is about 0.2. It is recorded, and no verdict passes above its bound."""
    kept = wrong_on(range(25), range(250, 275), range(500, 525), range(750, 775))
    candidate = wrong_on(range(100, 128), range(350, 378), range(600, 627), range(850, 877))
    worse = wrong_on(range(40), range(250, 290), range(500, 540), range(750, 790))
    assert scipy.stats.binomtest(112, 212, alternative="greater").pvalue > 0.05
    (accuracy, recall), best = compare(candidate, worse, kept)
    assert (accuracy.passed, accuracy.verdict, accuracy.maximum, best) == (True, "recorded", None, 2)
    assert accuracy.value == pytest.approx(0.01)
    assert (recall.verdict, recall.maximum) == ("passed", 0.10)


def test_a_recall_drop_of_a_tiny_class_that_chance_explains_passes() -> None:
    truth = np.array([0] * 990 + [1] * 10)
    kept, candidate = truth.copy(), truth.copy()
    candidate[-3:] = 0  # recall drops by 0.3, on three rows
    verdicts, _ = compare(candidate, kept, truth=truth, names=("often", "rare"))
    assert verdicts[1].value == pytest.approx(0.3)
    assert verdicts[1].passed


@pytest.mark.parametrize(("scale", "passes"), [(1.0, True), (1.02, True), (1.03, False), (0.5, True)])
def test_linear_regression_may_lose_5_percent_to_the_best_kept_version(scale: float, passes: bool) -> None:
    """Errors scaled by 1.02 are a loss 1.0404 times as large, by 1.03 one 1.0609 times."""
    errors = np.random.default_rng(0).normal(0, 0.01, 1000)
    truth = np.zeros(1000)
    answers = [Answers(truth, errors * times, truth, truth[:0]) for times in (scale, 2, 1)]
    ours, *kept = (ModelAnswers(at or None, each) for at, each in enumerate(answers))
    (verdict,), best = champion.compare_squared_errors(ours, kept, (), Gates())
    assert (verdict.passed, best) == (passes, 2)


# Bounds that are met exactly


def passed(kept: np.ndarray, candidate: np.ndarray, truth: np.ndarray, names: tuple[str, ...]) -> list[bool]:
    return [verdict.passed for verdict in compare(candidate, kept, truth=truth, names=names).gates]


def right_on(count: int) -> np.ndarray:
    """Predictions of 10 000 rows, all of class 0, that are right on the first ``count``."""
    return np.repeat([0, 1], [count, 10_000 - count])


@pytest.mark.parametrize("right", [10_000, 9_000, 8_437, 8_213, 7_777, 7_001, 51])
def test_a_drop_of_accuracy_by_exactly_the_bound_passes_and_one_row_more_does_not(right: int) -> None:
    """50 of 10 000 rows are 0.005, and no chance (p is tiny); as floats 0.8437 - 0.8387 is a little more."""
    truth, kept = right_on(10_000), right_on(right)
    assert passed(kept, right_on(right - 50), truth, ("only",))[0]
    assert not passed(kept, right_on(right - 51), truth, ("only",))[0]


def test_a_drop_of_recall_by_exactly_a_tenth_passes_for_any_counts() -> None:
    """A class of ``10 k`` rows loses ``k``; with ``k`` at 30 or more, chance explains it no longer."""
    for k in range(30, 200, 17):
        rows = 10 * k
        for right in range(k + 1, rows + 1, max(1, rows // 9)):
            truth = np.r_[np.zeros(rows, int), np.ones(100 * k, int)]
            kept, exact, more = truth.copy(), truth.copy(), truth.copy()
            kept[right:rows], exact[right - k : rows], more[right - k - 1 : rows] = 1, 1, 1
            assert passed(kept, exact, truth, ("small", "large"))[1], (rows, right)
            assert not passed(kept, more, truth, ("small", "large"))[1], (rows, right)


# Through the store


def test_a_held_version_is_compared_with_nothing(candidates: list[Candidate]) -> None:
    """Not even when it is damaged; another that is damaged stops everything."""
    for candidate in candidates[:2]:
        candidate.publish()
    pointer.rollback("linear-regression")
    held = artifact_paths.version("linear-regression", 2) / "model.onnx"
    held.chmod(0o644)
    held.write_bytes(b"damaged")
    candidate = candidates[2]
    asked = candidate.parameters
    verdicts, _ = champion.compare_with_published(
        "linear-regression", candidate.exported.onnx, candidate.prepared, asked.gates, asked.training
    )
    assert "of version 1" in verdicts[-1].detail


def test_pruning_keeps_the_best_of_the_last_comparison_so_that_small_losses_cannot_add_up(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of the newest version names it."""
    monkeypatch.setattr(housekeeping, "GRACE", -housekeeping.GRACE)  # demoted long ago
    for candidate in candidates:
        candidate.publish()
    name, losses = "linear-regression", {}
    for number in (1, 2):
        session = onnxruntime.InferenceSession(artifact_paths.version(name, number) / "model.onnx")
        rows = read_split(candidates[2].prepared.test, candidates[2].prepared)
        losses[number] = np.square(session.run(None, {"features": rows.inputs})[0] - rows.y_true).mean()
    best = min(losses, key=lambda number: losses[number])
    assert [reading.manifest(name, number).best_version for number in (1, 2, 3)] == [None, 1, best]
    pointer.promote(name, 3 - best)
    pointer.promote(name, 3)  # whose previous version is now the worse one
    pruned, kept = housekeeping.prune(name, 1)
    assert (pruned, best in kept, best in reading.versions(name)) == ([], True, True)
    assert "the best in the last comparison" in kept[best]


def test_nothing_is_pruned_while_the_manifest_that_names_the_best_is_damaged(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "GRACE", -housekeeping.GRACE)  # demoted long ago
    for candidate in candidates:
        candidate.publish()
    manifest = artifact_paths.version("linear-regression", 3) / "manifest.json"
    pointer.promote("linear-regression", 1)
    manifest.chmod(0o644)
    whole = manifest.read_bytes()
    manifest.write_text("{}")
    pruned, kept = housekeeping.prune("linear-regression", 1)
    assert pruned == []
    assert "of which version 3 tells, and it is damaged" in kept[2]
    manifest.write_bytes(whole)
    assert housekeeping.prune("linear-regression", 1)[1][2].startswith("the best in the last comparison")


# A kept version whose recipe cannot read today's rows


def by_the_recipe(scale: float, w: tuple[float, ...], of: tuple[Examples, Examples], seed: int) -> Candidate:
    """A candidate that takes so many times the first column, for which ``w`` are the true weights."""
    recipe = Columns(columns=(Column(name="x1", scale=scale), Column(name="x2")))
    prepared = write_splits("synthetic-linear", *of, recipe, "regression", true_parameters=(*w, 4.2))
    return Candidate(RunFolder.open(f"run-{seed}", {}), prepared, seed)


@pytest.mark.slow
def test_a_kept_version_whose_recipe_cannot_read_the_rows_of_today_is_not_compared_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of yesterday's two columns it would take both; today there are three."""

    def encode(recipe: Columns, rows: np.ndarray, *_: object) -> np.ndarray:
        """A stand-in for a recipe that multiplies the first columns of the raw rows by their scales."""
        scales = np.array([column.scale for column in recipe.columns], np.float32)
        return np.ascontiguousarray(rows[:, : len(scales)] * scales)

    monkeypatch.setattr(Columns, "encode", encode)
    rng = np.random.default_rng(0)
    train, test = (Examples(*synthetic_data(np.array([2, -3.4]), 4.2, 1000, rng)) for _ in range(2))
    by_the_recipe(2, (1.0, -3.4), (train, test), 0).publish()
    wider = np.zeros((1000, 1), np.float32)
    train, test = (rows._replace(inputs=np.hstack([rows.inputs, wider])) for rows in (train, test))
    verdicts = by_the_recipe(1, (2.0, -3.4), (train, test), 1).publish().gates
    assert [verdict.name for verdict in verdicts] == ["champion_signature", "champion_not_compared"]
    assert (verdicts[-1].value, verdicts[-1].verdict) == (1, "recorded")
    assert verdicts[-1].detail.endswith("the recipe of version 1 cannot read the rows of today)")
