"""The gate against what is published: statistics against scipy and simulation, verdicts by construction."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats

import image_folders
from candidate import Contender, prepare_own
from small_models import prepare_houses
from store_state import damage
from table_files import written
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import SplitRule
from tasks.data.schema import ImageSchema, Schema
from tasks.errors import GateFailed
from tasks.fitting.objective import Objective
from tasks.judging import champion
from tasks.judging.champion import Comparison, ModelAnswers, find_new_rows
from tasks.judging.metrics import Answers
from tasks.parameters import Data, Gates, Loss
from tasks.records import PreparedDataset
from tasks.store import artifact_paths, housekeeping, model_folder, pointer
from tasks.store.run_folder import RunFolder

Array = np.ndarray[Any, Any]
NAME = "linear-regression"
RNG = np.random.default_rng(0)


# The statistic


@pytest.mark.parametrize(("lost", "won"), [(12, 3), (5, 0), (40, 25), (12, 8), (200, 150)])
def test_p_of_one_comparison_is_that_of_mcnemars_one_sided_exact_test(lost: int, won: int) -> None:
    """With no margin, so that nothing but the p counts."""
    exact = scipy.stats.binomtest(lost, lost + won, alternative="greater").pvalue
    parts = np.repeat([1, -1, 0], [lost, won, 2_000 - lost - won])[:, None]
    _, _, (p,) = champion.compare(parts, np.zeros(1), 2_000, draws=40_000)
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))


def test_p_of_one_version_is_that_of_scipys_paired_permutation_test() -> None:
    kept = RNG.exponential(1.0, 60)
    ours = kept + RNG.normal(0.1, 0.6, 60)
    expected = scipy.stats.permutation_test(
        (ours, kept), lambda a, b: (a - b).sum(), permutation_type="samples", alternative="greater", n_resamples=20_000
    ).pvalue
    (rise,), _, (p,) = champion.compare((ours - kept)[:, None] / 60, np.zeros(1), draws=20_000)
    assert rise == pytest.approx((ours - kept).mean())
    assert p == pytest.approx(expected, abs=0.02)


def test_comparisons_that_agree_or_cannot_exceed_their_margin_cost_the_others_nothing() -> None:
    change = np.repeat([1, -1, 0], [60, 40, 1900])[:, None]
    of_classes = change * (np.arange(2000)[:, None] % 10 == np.arange(10))
    margins, sizes = np.repeat([0.005, 0.1], [2, 10]), np.repeat([2000, 200], [2, 10])
    _, _, alone = champion.compare(change, margins[:1], 2000)
    _, _, p = champion.compare(np.hstack([change, change, of_classes]), margins, sizes)
    assert p == pytest.approx(np.append(np.repeat(alone, 2), np.ones(10)), abs=0.01)


def test_equal_models_are_seldom_refused_though_ten_classes_are_compared_with_two_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They differ by chance in 530 of 10,000 rows."""
    monkeypatch.setattr(champion, "compare", partial(champion.compare, draws=400))
    rng, refused, truth = np.random.default_rng(2), 0, np.arange(10_000) % 10
    for _ in range(400):
        labels = np.tile(truth, (3, 1))
        labels[:, :1060] -= rng.random((3, 1060)) >= 0.5
        refused += not all(each.passed for each in compare_labels(*labels, truth=truth, names="0123456789").gates)
    assert refused / 400 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


# Verdicts on classes


TRUTH = np.repeat(np.arange(4), 250)


def wrong_on(*rows: range) -> Array:
    """Predictions that are right but on the given rows."""
    label = TRUTH.copy()
    for each in rows:
        label[list(each)] = (TRUTH[list(each)] + 1) % 4
    return label


def number_versions(versions: Iterable[Answers]) -> list[ModelAnswers]:
    return [ModelAnswers(number, each) for number, each in enumerate(versions, start=1)]


def compare_labels(candidate: Array, *kept: Array, truth: Array = TRUTH, names: Any = "abcd") -> Comparison:
    ours, *versions = (Answers(truth, label, truth, truth) for label in (candidate, *kept))
    return champion.compare_labels(ours, number_versions(versions), names, Gates())


FIRST, SECOND = wrong_on(range(4)), wrong_on(range(4), range(250, 254))
LARGE = wrong_on(range(5), range(250, 255), range(500, 505), range(750, 755))
# The candidate, the kept versions, the verdicts on accuracy and recall, and the best version.
VERDICTS: dict[str, tuple[Array, list[Array], str, str, int]] = {
    "an equal candidate": (wrong_on(range(40)), [wrong_on(range(40))], "passed", "passed", 1),
    "a better one": (TRUTH, [wrong_on(range(40))], "passed", "passed", 1),
    "20 of 1000 rows lost, none won, p = 2 / 2**20": (LARGE, [TRUTH], "refused", "passed", 1),
    "a class that is forgotten, at equal accuracy": (
        wrong_on(range(40)), [wrong_on(range(250, 290))], "passed", "refused", 1
    ),
    "4 of 1000 rows lost": (FIRST, [TRUTH], "passed", "passed", 1),
    "4 rows more, against the one before": (SECOND, [FIRST], "passed", "passed", 1),
    "small drops cannot add up, for the best counts": (SECOND, [FIRST, TRUTH], "refused", "passed", 2),
    "112 rows lost and 100 won, which chance explains, p = 0.2": (
        wrong_on(*(range(at + 100, at + 128) for at in range(0, 1000, 250))),
        [
            wrong_on(*(range(at, at + 40) for at in range(0, 1000, 250))),
            wrong_on(*(range(at, at + 25) for at in range(0, 1000, 250))),
        ],
        "recorded", "passed", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_real_drops_are_refused_and_no_others(case: str) -> None:
    candidate, kept, *verdicts, expected = VERDICTS[case]
    gates, best = compare_labels(candidate, *kept)
    assert [gate.name for gate in gates] == ["champion_accuracy", "champion_recall"]
    assert ([gate.verdict for gate in gates], best) == (verdicts, expected)


@pytest.mark.parametrize(("scale", "passes"), [(1.0, True), (1.02, True), (1.03, False), (0.5, True)])
def test_linear_regression_may_lose_5_percent_to_the_best_kept_version(scale: float, passes: bool) -> None:
    """Errors scaled by 1.02 are a loss 1.0404 times as large, by 1.03 one 1.0609 times."""
    errors, truth = np.random.default_rng(0).normal(0, 0.01, 1000), np.zeros(1000)
    ours, *kept = (Answers(truth, errors * times, truth, truth[:0]) for times in (scale, 2, 1))
    (verdict,), best = champion.compare_squared_errors(ours, number_versions(kept), Gates())
    assert (verdict.passed, best) == (passes, 2)


# The gate by its place, rows, those of the first class, how many of these are right, and how many fewer may be.
EXACT_DROPS = [
    *((0, 10_000, 10_000, right, 50) for right in (10_000, 9_000, 8_437, 8_213, 7_777, 7_001, 51)),
    *((1, 110 * k, 10 * k, right, k) for k in (30, 47, 81, 183) for right in (k + 1, 7 * k, 10 * k)),
]


@pytest.mark.parametrize(("gate", "rows", "first", "right", "drop"), EXACT_DROPS)
def test_a_drop_by_exactly_the_bound_passes_and_one_row_more_does_not(
    gate: int, rows: int, first: int, right: int, drop: int
) -> None:
    """No chance explains it, for drops of 30 or more; as floats 0.8437 - 0.8387 is a little more than 0.005."""
    counts = first, right, right - drop, right - drop - 1
    truth, kept, *candidates = (np.repeat([0, 1], [count, rows - count]) for count in counts)
    passed = [compare_labels(each, kept, truth=truth).gates[gate].passed for each in candidates]
    assert passed == [True, False]


# Verdicts on losses of own data


BY_HASH = SplitRule(rule="rows", test=0.2)
TARGET, ERRORS = RNG.normal(size=1000), RNG.normal(0, 0.1, 1000)


def answers(losses: Array) -> Answers:
    """Of a model that loses so much on each row."""
    return Answers(TARGET, TARGET, losses, TARGET[:0])


def model(version: int, losses: Array, is_new: Array | bool = True) -> ModelAnswers:
    return ModelAnswers(version, answers(losses), is_new)


def compare(
    ours: Answers,
    *versions: ModelAnswers,
    key: Array | None = None,
    rule: SplitRule = BY_HASH,
    objective: Objective = Objective(Loss.SQUARED),  # noqa: B008  (nobody changes it)
) -> Any:
    """By the losses of each row; ``key`` is that of the split."""
    keys = (np.arange(len(ours.y_true)) if key is None else key).astype(np.uint64)
    return champion.compare_losses(ours, versions, keys, rule, objective, Gates())


CHANCE = sorted(RNG.normal(0, 0.1, (2, 1000)), key=lambda each: -np.square(each).mean())
# Errors of a regression's candidate and of kept versions, and whether it passes.
RISES: dict[str, tuple[list[Array], bool]] = {
    "within one percent": ([1.004 * ERRORS, ERRORS], True),
    "beyond": ([1.02 * ERRORS, ERRORS], False),
    "rounding, of a target without noise": ([2e-6 * ERRORS, 1e-6 * ERRORS], True),
    "more than rounding": ([0.02 * ERRORS, 1e-6 * ERRORS], False),
    "what chance explains": (CHANCE, True),
    "against the best of all": ([1.3 * ERRORS, 1.3 * ERRORS, ERRORS], False),
}


@pytest.mark.parametrize("case", RISES)
def test_a_rise_within_one_percent_passes_and_a_real_larger_one_is_refused_with_the_loss_in_raw_units(
    case: str,
) -> None:
    errors, passes = RISES[case]
    ours, *kept = (np.square(each) / 2 for each in errors)
    (found,), _ = compare(answers(ours), *(model(at, each) for at, each in enumerate(kept, 1)))
    assert (found.passed, found.value) == (passes, pytest.approx(ours.mean()))
    if not passes:
        assert found.maximum == pytest.approx(1.01 * kept[-1].mean() + 1e-3**2 / 2)
        assert f"of version {len(kept)}" in found.detail


@pytest.mark.parametrize(("split", "fewest", "unit"), [("time", 5, "block"), ("group", 20, "group")])
def test_few_blocks_of_time_or_groups_decide_nothing_and_that_is_said(split: Any, fewest: int, unit: str) -> None:
    worse, kept = answers(np.square(3 * ERRORS)), model(1, np.square(ERRORS))
    rule = SplitRule(rule=split, test=0.2, column="c")
    for count, passes in ((fewest - 1, True), (fewest, False)):
        (found,), _ = compare(worse, kept, key=np.arange(1000) * count // 1000, rule=rule)
        said = f"of {fewest - 1} {unit}s, fewer than the {fewest} that decide" in found.detail
        assert (found.passed, said) == (passes, passes)


def test_the_best_version_is_the_best_on_the_rows_that_all_have() -> None:
    """The second is worse than the first on every row; its own rows are those on which the candidate is worst."""
    ours = np.where(np.arange(1000) < 400, 10.0, 1.0)
    good, worse = model(1, ours * 0.5), model(2, ours * 0.6, np.arange(1000) < 600)
    assert compare(answers(ours), good, worse).best == 1


def test_each_version_is_compared_on_the_rows_that_it_was_not_trained_on_and_the_others_are_counted() -> None:
    ours, good = np.square(1.2 * ERRORS), np.square(ERRORS)
    at = np.arange(1000)
    for known, verdict, words in (
        (at < 500, "passed", "on 500 test rows (500 left out: it was trained on them), a rise"),
        (at >= 200, "passed", "on 200 test rows (800 left out: it was trained on them), a rise"),
        (at >= 199, "recorded", "on 199 test rows (801 left out: it was trained on them), fewer than the 200"),
        (at >= 0, "recorded", "version 1 was trained on all 1000 test rows"),
    ):
        by_heart = model(1, np.where(known, 0, ours), ~known)
        (found,), _ = compare(answers(ours), by_heart)
        assert (found.verdict, words in found.detail) == (verdict, True)
    (worse,), best = compare(answers(ours), by_heart, model(3, good, at < 500))
    assert (worse.passed, best) == (False, 3)
    assert worse.value == pytest.approx(ours[:500].mean())
    assert words in worse.detail, "what decides nothing is said"


def test_rows_of_one_group_are_no_evidence_of_their_own() -> None:
    """25 groups of 40 rows, in which the candidate is worse by chance in a few."""
    groups = np.repeat(np.arange(25), 40)
    worse = 0.1 + 0.03 * np.random.default_rng(1).standard_t(3, 25)
    models = answers(np.square(worse[groups]) / 2), model(1, np.full(1000, 0.095**2 / 2))
    assert not compare(*models).gates[0].passed
    assert compare(*models, key=groups, rule=SplitRule(rule="group", test=0.2, column="g")).gates[0].passed


def test_a_log_loss_may_rise_by_five_thousandths() -> None:
    ours, sure = -np.log([np.full(1000, 0.8), np.full(1000, 0.9)])
    (found,), _ = compare(answers(ours), model(1, sure), objective=Objective(Loss.CROSS_ENTROPY))
    assert not found.passed
    assert (found.value, found.maximum) == pytest.approx((ours[0], 0.005 + sure[0]))


# Through the store


def find_best(versions: list[Contender]) -> int:
    losses = [each.evaluated.metrics["test_loss"] for each in versions]
    return 1 + losses.index(min(losses))


def test_a_held_version_is_compared_with_nothing_though_it_is_damaged(
    two_versions: None, candidates: list[Contender]
) -> None:
    pointer.rollback(NAME)
    damage(artifact_paths.version(NAME, 2) / "model.onnx", 100)
    assert "of version 1" in candidates[2].publish().gates[-1].detail


def test_a_candidate_meets_the_champion_and_the_best_of_the_last_comparison_and_no_other(
    two_versions: None, candidates: list[Contender]
) -> None:
    """What a held version says of the best does not count: then the second version does, which met the first alone."""
    candidates[2].publish()
    best = find_best(candidates[:2])
    assert champion.list_opponents(NAME) == [3, best]
    pointer.promote(NAME, best)
    assert champion.list_opponents(NAME) == [best]
    pointer.promote(NAME, 3)
    pointer.promote(NAME, 2)
    pointer.promote(NAME, 3)
    pointer.rollback(NAME)
    assert champion.list_opponents(NAME) == [2, 1]


def test_pruning_keeps_the_best_of_the_last_comparison_so_that_small_losses_cannot_add_up(
    two_versions: None, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of the newest version names it; while that one is damaged nothing is pruned."""
    monkeypatch.setattr(housekeeping, "GRACE", -housekeeping.GRACE)  # demoted long ago
    candidates[2].publish()
    best = find_best(candidates[:2])
    assert [model_folder.find_manifest(NAME, number).best_version for number in (1, 2, 3)] == [None, 1, best]
    for number in (3 - best, 3, 3 - best):  # the previous version is then never the best
        pointer.promote(NAME, number)
    pruned, kept = housekeeping.prune(NAME, 1)
    assert (pruned, "the best in the last comparison" in kept[best]) == ([], True)
    damage(artifact_paths.version(NAME, 3) / "manifest.json", 100)
    pruned, kept = housekeeping.prune(NAME, 1)
    assert (pruned, "may be the best in the last comparison" in kept[best]) == ([], True)


def test_a_kept_version_whose_recipe_cannot_read_the_rows_of_today_is_not_compared_and_that_is_said(
    two_versions: None, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion, "list_differences", lambda manifest, _: ["a column"] * (manifest.version == 1))
    _, loss, left_out = candidates[2].publish().gates
    assert "of version 2" in loss.detail
    assert (left_out.name, left_out.value, left_out.verdict) == ("champion_not_compared", 1, "recorded")
    assert "the recipe of version 1 cannot read today's rows" in left_out.detail


def test_of_newcomers_at_once_the_later_are_refused_where_columns_kinds_levels_or_classes_are_others() -> None:
    """Each has passed all other gates before the first of them is a version."""
    houses = prepare_houses("ab")

    def make(class_names: str = "ab", **changes: dict[str, Any]) -> Contender:
        columns = (each.model_copy(update=changes.get(each.name, {})) for each in houses.recipe.columns)
        recipe = houses.recipe.model_copy(update={"columns": tuple(columns)})
        prepared = houses.model_copy(update={"recipe": recipe, "class_names": tuple(class_names)})
        run = RunFolder.open("-".join(["run", *changes]), {})
        return Contender(run, prepared, 0, "own", "houses.csv", model="softmax-regression")

    newcomers = {
        make(area={"name": "size"}): ["column 1 is 'size', and was 'area'"],
        make("az", city={"levels": tuple("edcba")}, garden={"kind": "number"}): [
            "classes are 'a', 'z', and were 'a', 'b'",
            "levels of 'city' are 'e', 'd', 'c', 'b', 'a', and were 'Berlin'",
            "column 'garden' is a number, and was a boolean",
        ],
    }
    make().publish()
    for candidate, words in newcomers.items():
        with pytest.raises(GateFailed) as caught:
            candidate.publish()
        (found,) = caught.value.record.gates
        assert (found.name, found.value) == ("champion_signature", len(words))
        assert all(each in found.detail for each in words)
    assert model_folder.list_versions("own") == [1]


# Which test rows of tonight a kept version was trained on: by row digests, against the rows of its training part


def prepared(rows: int, path: Path, before: PreparedDataset | None = None, **options: Any) -> PreparedDataset:
    """Rows by the day, oldest first; few are distinct but for the day."""
    at = np.arange(rows)
    columns = {"size": at % 4, "kind": [f"kind {n % 3}" for n in at], "day": at // 10, "price": 3.0 * (at % 4)}
    source = written(path / "sales.parquet", columns)
    data = Data.model_validate({"source": str(source), "target": "price", "new_recipe": True, **options})
    kept = Schema.from_manifest(before, before.recipe) if before else None
    return prepare_own(RunFolder.open("run", {}), data, "regression", kept)


def find_known(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    unseen: Any = find_new_rows(before, tonight)
    return np.invert(unseen).tolist()  # type: ignore[no-any-return]


def test_copies_of_equal_rows_are_told_apart_by_their_number_while_they_are_split_by_it(tmp_path: Path) -> None:
    before = prepared(900, tmp_path, ignore=["day"])
    tonight = prepared(1000, tmp_path, before, ignore=["day"], test=0.5)
    trained, tests = (read_split(file, before).key for file in (before.train, tonight.test))
    assert find_known(before, tonight) == np.isin(tests, trained).tolist()
    in_time = prepared(1000, tmp_path, before, time_column="day")
    assert "by the number of the copy" in str(find_new_rows(before, in_time))
    assert "has no row digests without day" in str(find_new_rows(in_time, tonight))


def test_of_folders_the_test_images_that_a_version_was_trained_on_are_known(tmp_path: Path) -> None:
    for part, count, first in (("train", 30, 0), ("test", 20, 100)):
        image_folders.write(tmp_path / "pets" / part, {"cat": count, "dog": count}, first=first)
    before = image_folders.prepared(tmp_path / "pets")
    assert not any(find_known(before, before))
    for number in range(7):
        (tmp_path / f"pets/train/cat/{number:04d}.png").rename(tmp_path / f"pets/test/cat/moved-{number}.png")
    tonight = image_folders.prepared(tmp_path / "pets", ImageSchema.from_manifest(before, before.recipe))
    known, of_today = (
        [*map(bytes, read_split(*each).inputs)] for each in ((before.train, before), (tonight.test, tonight))
    )
    assert find_known(before, tonight) == [image in known for image in of_today]
    assert sum(find_known(before, tonight)) == 7
