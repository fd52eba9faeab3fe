"""A candidate against what is published, all measured on the same test rows in the same run.

Each version is fed these rows through its own recipe, and compared on those that it was not trained on. Versions that
were rolled back from are held for being bad, whatever their figures say: nothing is compared with them.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tasks.data import row_hash
from tasks.data.image_dataset import SPLIT_NAMES
from tasks.data.own_rows import CONTENTS
from tasks.data.prepared_splits import read_arrays, read_split
from tasks.data.recipe import Column, Columns, Recipe, SplitRule
from tasks.data.row_hash import Hashes, is_in
from tasks.data.split import TRAINING
from tasks.data.target import Truth
from tasks.judging import gates
from tasks.judging.baselines import read_rows
from tasks.judging.objective import Objective
from tasks.judging.resampling import FEWEST_BLOCKS, join_units, number_units
from tasks.machine.arrays import Array
from tasks.machine.words import beside, counted, readable
from tasks.parameters import Device, Gates, Training
from tasks.records import GateVerdict, PreparedDataset, Splits
from tasks.serving import contract, runtime
from tasks.serving.contract import PROBABILITIES
from tasks.serving.task import TASKS
from tasks.store import reading, verification, verified
from tasks.store.record import FileRef
from tasks.store.verified import RESTORE
from tasks.store.versions import Manifest

PIECE = 2**13  # rows of own data whose probabilities are in memory at a time
MIN_ROWS = 200  # fewer, or fewer groups, decide nothing
FEWEST_UNITS = {"group": (20, "group"), "time": (FEWEST_BLOCKS, "block")}  # of each rule of the split
MOST_UNITS = 100_000  # that are compared; where there are more, neighbours are taken together: their sums vary alike
SMALLEST = np.finfo(np.float32).tiny  # a probability that is 0 in float32 has a finite loss
DRAWS = 9_999  # so that every p is a whole number of ten thousandths
NORMAL_FROM = 10_000  # units; from there a sum of signs is replaced by a normal variable of its variance
NO_RISE = 0.4  # of its margin: so little more loss is none; else a version that had luck refuses too many
CHUNK = 500  # draws at a time: bounds memory
FIXED = ("rows", "copies", "group")  # rules by which a row stays on its side


class ModelOutput(NamedTuple):
    """An exported model's answers on the test split ``(n,)``, or of own data its losses.

    ``version`` is None for the candidate; ``is_new`` ``(n,)`` says on which rows a version was not trained, where it
    may have been on some.
    """

    version: int | None
    values: Array
    is_new: Array | None = None


class Comparison(NamedTuple):
    """The verdicts on a candidate, and the version that did best beside it; None where none was compared."""

    gates: tuple[GateVerdict, ...] = ()
    best: int | None = None


def compare_with_published(
    name: str, candidate: FileRef, prepared: PreparedDataset, bounds: Gates, training: Training
) -> Comparison:
    """Judge a candidate by all kept versions; the first version of a model has no verdicts. The caller holds the lock.

    Raises:
        DataError: a version to compare it with is damaged; nothing is measured against it.
    """
    pointer = reading.champion(name)
    held = pointer.held if pointer else ()
    numbers = [number for number in reading.versions(name) if number not in held]
    if not numbers:
        return Comparison()
    for number in numbers:
        verification.verify_version(name, number)
    number = pointer.version if pointer else numbers[-1]  # without one a kill came before the first
    model = verified.read(candidate)
    signature = contract.read_signature(runtime.open_session(model, Device.CPU))
    same = _judge_signature(name, number, signature, prepared)
    if not same.passed:
        return Comparison((same,))
    measure, left_out = measuring(prepared, training), list[str]()
    kept = _measure_kept(name, numbers, signature, prepared, training, measure, left_out)
    ours = ModelOutput(None, measure(model, read_split(prepared.test, prepared).inputs))
    verdicts, best = _compare(kept, ours, prepared, bounds, training)
    if left_out:
        verdicts = (*verdicts, gates.judge("champion_not_compared", len(left_out), detail="; ".join(left_out)))
    return Comparison((same, *verdicts), best)


def _compare(
    kept: Iterator[ModelOutput], ours: ModelOutput, prepared: PreparedDataset, bounds: Gates, training: Training
) -> Comparison:
    """By losses on own data, where one version at a time is in memory; else by answers."""
    if prepared.is_own:
        rows, rule = read_rows(prepared.test, prepared), prepared.split
        compared = ComparedRows(rows.truth, number_units(rows.key, rule), rule.rule if rule else "rows")
        return compare_losses(ours, kept, compared, Objective.of(training, prepared), bounds)
    truth = read_split(prepared.test, prepared).y_true
    if not (versions := list(kept)):
        return Comparison()
    if prepared.class_names:
        return compare_labels(ours, versions, truth, prepared.class_names, bounds)
    return compare_squared_errors(ours, versions, truth, bounds)


def measuring(prepared: PreparedDataset, training: Training) -> Callable[[bytes, Array], Array]:
    """What asks an ONNX file of rows ``(n, …)``: for answers ``(n,)``, of own data for losses ``(n,)``."""
    answer = TASKS[prepared.task].answer
    if not prepared.is_own:
        return lambda model, rows: runtime.run_model(runtime.open_session(model, Device.CPU), rows)[answer]
    truth, objective = read_rows(prepared.test, prepared).truth, Objective.of(training, prepared)
    asked = PROBABILITIES if prepared.task == "classification" else answer

    def measure(model: bytes, rows: Array) -> Array:
        session = runtime.open_session(model, Device.CPU)
        pieces = [slice(start, start + PIECE) for start in range(0, len(truth), PIECE)]
        answers = (runtime.run_model(session, rows[piece])[asked] for piece in pieces)
        return np.concatenate(
            [losses(each, truth[piece], objective) for each, piece in zip(answers, pieces, strict=True)]
        )

    return measure


def losses(output: Array, truth: Array, objective: Objective) -> Array:
    """What a version is compared by ``(n,)``, of its probabilities ``(n, classes)`` or predictions ``(n,)``."""
    if objective.is_of_classes:
        return objective.losses(np.log(np.maximum(output, SMALLEST)), truth)
    return objective.losses(output[:, None], truth)


def _measure_kept(
    name: str,
    numbers: list[int],
    signature: contract.Signature,
    prepared: PreparedDataset,
    training: Training,
    measure: Callable[[bytes, Array], Array],
    left_out: list[str],
) -> Iterator[ModelOutput]:
    """Every kept version as it is compared, fed by its own recipe; ``left_out`` gets why one is not."""
    inputs, today = functools.cache(functools.partial(_encode, prepared)), RowsOfToday(prepared)
    for number in numbers:
        content, manifest = reading.model(name, number), reading.manifest(name, number)
        if contract.read_signature(runtime.open_session(content, Device.CPU)) != signature:
            left_out.append(f"version {number} has other inputs or outputs")
        elif (rows := inputs(manifest.recipe)) is None or schema_differences(
            manifest.recipe, manifest.dataset.class_names, prepared
        ):
            left_out.append(f"the recipe of version {number} cannot read the rows of today")
        elif prepared.is_own and (why := _trained_otherwise(manifest, training)):
            left_out.append(f"version {number} was trained with {why}")
        elif isinstance(is_new := today.not_trained_on(manifest.dataset), str):
            left_out.append(f"version {number} {is_new}")
        else:
            yield ModelOutput(number, measure(content, rows), is_new)


def _trained_otherwise(manifest: Manifest, training: Training) -> str:
    """Why a version's losses on own data say nothing about this candidate; empty where they do."""
    asked = manifest.parameters.training.model_dump()
    others = [name for name in ("loss", "class_weight") if asked.get(name) != getattr(training, name)]
    return " and ".join(f"{name.replace('_', ' ')} {asked.get(name)}" for name in others)


def _encode(prepared: PreparedDataset, recipe: Recipe) -> Array | None:
    """The test rows as a recipe makes them ``(n, …)``; None where it cannot read them.

    Rows of own tables are raw for any recipe: a code that came later is unknown to an older version's graph.
    """
    if recipe == prepared.recipe or (prepared.is_own and isinstance(recipe, Columns)):
        return read_split(prepared.test, prepared).inputs
    raw = read_split(prepared.raw_test, prepared).inputs
    return recipe.encode(raw) if recipe.accepts(raw.dtype, raw.shape[1:]) else None


# Whether consumers of a version can take the candidate


def _judge_signature(name: str, number: int, signature: contract.Signature, prepared: PreparedDataset) -> GateVerdict:
    """Tensors, columns, codes and classes of the candidate and the champion."""
    champion = contract.read_signature(runtime.open_session(reading.model(name, number), Device.CPU))
    found = [*(["inputs or outputs differ"] if signature != champion else [])]
    manifest = reading.manifest(name, number)
    found += schema_differences(manifest.recipe, manifest.dataset.class_names, prepared)
    advice = "inputs, outputs, columns and classes as the champion's; give another shape of model another --name"
    return gates.judge("champion_signature", len(found), maximum=0, detail="; ".join([*found, advice]))


def schema_differences(recipe: Recipe, class_names: tuple[str, ...], prepared: PreparedDataset) -> tuple[str, ...]:
    """What of columns, codes and classes is not as a version had it; new levels may stand behind the old ones."""
    found = []
    if class_names != prepared.class_names:
        found.append(f"classes are {_some(prepared.class_names)}, and were {_some(class_names)}")
    if isinstance(recipe, Columns) and isinstance(prepared.recipe, Columns):
        found += _column_differences(recipe.columns, prepared.recipe.columns)
    elif recipe.kind != prepared.recipe.kind:
        found.append(f"inputs are {prepared.recipe.kind}, and were {recipe.kind}")
    return tuple(found)


def _column_differences(old: tuple[Column, ...], new: tuple[Column, ...]) -> Iterator[str]:
    for at, (was, now) in enumerate(itertools.zip_longest(old, new), start=1):
        if was is None or now is None or was.name != now.name:
            names = ("no column" if each is None else repr(each.name) for each in (now, was))
            yield "column {} is {}, and was {}".format(at, *names)
            return  # the others have only moved
        if was.kind != now.kind:
            yield f"column {now.name!r} is a {now.kind}, and was a {was.kind}"
        elif was.levels != now.levels[: len(was.levels)]:
            yield f"levels of {now.name!r} are {_some(now.levels)}, and were {_some(was.levels)}"


def _some(names: tuple[str, ...], count: int = 5) -> str:
    return ", ".join(map(repr, names[:count])) + (f", … ({len(names)})" if len(names) > count else "") or "none"


# Verdicts: a rise of the loss refuses only when it is both large (beyond its margin) and real (``compare``)


class ComparedRows(NamedTuple):
    """The rows that losses are of."""

    truth: Array
    units: Array | None  # (n,) rows of one number vary together
    rule: str = "rows"  # of the split


def compare_losses(
    ours: ModelOutput, kept: Iterable[ModelOutput], rows: ComparedRows, objective: Objective, bounds: Gates
) -> Comparison:
    """The mean loss against that of every kept version, if there is one; all by ``losses`` of rows.

    A regression's margin has the tolerance of the gate ``reference`` in it: of a target without noise all losses are
    those of rounding.
    """
    weights = objective.row_weights(rows.truth)
    units, _ = join_units(rows.units, len(weights), MOST_UNITS)
    if rows.rule == "time" and rows.units is None:
        units = np.zeros(len(weights), np.int64)
    everyone, some = [], dict[int | None, tuple[Array, Array]]()  # of each version: losses, and whether rows are new
    step = -(-len(weights) // MOST_UNITS)
    for each in kept:
        everyone.append(_pair(ours.values, each, weights, units, rows.rule))
        is_new = np.ones(len(weights), bool) if each.is_new is None else each.is_new
        some[each.version] = each.values[::step], is_new[::step]
    few = [f"{each.said(len(weights))}, {each.too_few}" for each in everyone if each.too_few]
    if not (pairs := [each for each in everyone if not each.too_few]):
        why, mean = "; ".join(few), float(np.average(ours.values, weights=weights))
        return Comparison((gates.judge("champion_loss", mean, detail=why),) if everyone else ())
    margins = np.full(len(pairs), bounds.max_nats_rise)
    if not objective.is_of_classes:
        theirs = np.array([each.theirs for each in pairs])
        margins = (bounds.max_error_rise - 1) * theirs + objective.loss_of(bounds.max_standardised_error)
    rises = compare(np.stack([each.rise for each in pairs]), margins)
    worst = rises.worst(range(len(pairs)), bounds.max_drop_p)
    pair, margin = pairs[worst], margins[worst]
    detail = "; ".join([f"{pair.said(len(weights))}, {rises.reason(worst, 'rise', margin, bounds.max_drop_p)}", *few])
    verdict = rises.verdict("champion_loss", pair.ours, pair.theirs + margin, worst, bounds.max_drop_p, detail)
    losses = {pair.version: some[pair.version] for pair in pairs}
    is_common = np.logical_and.reduce([is_new for _, is_new in losses.values()]) & (weights[::step] > 0)
    if np.count_nonzero(is_common) < MIN_ROWS:  # then each is beside the candidate on rows of its own
        return Comparison((verdict,), pairs[int(rises.rise.argmax())].version)
    means = {
        version: np.average(each[is_common], weights=weights[::step][is_common])
        for version, (each, _) in losses.items()
    }
    return Comparison((verdict,), min(means, key=lambda version: means[version]))


def compare_labels(
    ours: ModelOutput, kept: list[ModelOutput], truth: Array, class_names: tuple[str, ...], bounds: Gates
) -> Comparison:
    """Accuracy over all rows and recall of each class, which are losses of 0 and 1, against every kept version."""
    classes = {name: rows for index, name in enumerate(class_names) if (rows := np.flatnonzero(truth == index)).size}
    right, kept_right = ours.values == truth, np.stack([each.values == truth for each in kept])
    margins = np.array([[bounds.max_accuracy_drop], *([bounds.max_recall_drop] for _ in classes)])
    drops = compare(kept_right.astype(np.int8) - right, margins, list(classes.values()))
    compared: list[tuple[str, Any]] = [("", slice(None)), *((f"{name} ", rows) for name, rows in classes.items())]

    def judge_worst(gate: str, tests: range, margin: float) -> GateVerdict:
        at = drops.worst(itertools.product(tests, range(len(kept))), bounds.max_drop_p)
        (name, rows), version = compared[at[0]], at[1]
        detail = (
            f"{name}{right[rows].mean():.4f} against {kept_right[version, rows].mean():.4f} of version "
            f"{kept[version].version}, {drops.reason(at, 'drop', margin, bounds.max_drop_p)}"
        )
        return drops.verdict(gate, drops.rise[at], margin, at, bounds.max_drop_p, detail)

    verdicts = (
        judge_worst("champion_accuracy", range(1), bounds.max_accuracy_drop),
        judge_worst("champion_recall", range(1, len(compared)), bounds.max_recall_drop),
    )
    return Comparison(verdicts, kept[int(drops.rise[0].argmax())].version)


def compare_squared_errors(ours: ModelOutput, kept: list[ModelOutput], truth: Array, bounds: Gates) -> Comparison:
    """Test loss (half the mean squared error) against that of the kept version with the smallest."""
    of_kept = {each.version: float(np.square(each.values - truth).mean()) / 2 for each in kept}
    best = min(of_kept, key=lambda number: of_kept[number])
    verdict = gates.judge(
        "champion_loss",
        float(np.square(ours.values - truth).mean()) / 2,
        maximum=bounds.max_loss_rise * of_kept[best],
        detail=f"{bounds.max_loss_rise:g} times the {readable(of_kept[best])} of version {best}",
    )
    return Comparison((verdict,), best)


class _Pair(NamedTuple):
    """The candidate and a version on the rows that neither was trained on."""

    version: int | None
    ours: float  # mean losses
    theirs: float
    rise: Array  # (units,) parts of the difference of both, one of every unit
    num_rows: int
    too_few: str  # why they decide nothing; empty where they do

    def said(self, of: int) -> str:
        """Both losses, and on which of so many test rows."""
        known = f" ({of - self.num_rows} left out: it was trained on them)" if self.num_rows < of else ""
        ours, theirs = beside(self.ours, self.theirs), beside(self.theirs, self.ours)
        return f"{ours} against {theirs} of version {self.version} on {self.num_rows} test rows{known}"


def _pair(ours: Array, version: ModelOutput, weights: Array, units: Array, rule: str) -> _Pair:
    """``units`` ``(n,)`` number what is compared as one each."""
    weights = weights if version.is_new is None else weights * version.is_new
    shares, count = weights / (weights.sum() or 1), int(np.count_nonzero(weights))
    too_few = f"fewer than the {MIN_ROWS} that decide" if count < MIN_ROWS else ""
    fewest, unit = FEWEST_UNITS.get(rule, (0, ""))
    if (num_units := int(np.count_nonzero(np.bincount(units, weights=weights)))) < fewest:
        too_few = too_few or f"of {counted(num_units, unit)}, fewer than the {fewest} that decide"
    rise = np.bincount(units, weights=shares * (ours - version.values))
    return _Pair(version.version, float(shares @ ours), float(shares @ version.values), rise, count, too_few)


# Is a rise real? One p-value for each kept version and each class, corrected for how many are looked at


class Rises(NamedTuple):
    """By kept version ``(versions,)``; with classes ``(1 + classes, versions)``, whose first row is of all rows."""

    rise: Array  # of the mean loss; of counts, so that one as large as its margin is equal to it
    beyond: Array  # it exceeds its margin
    p: Array  # one-sided, corrected; 1 where the rise is within its margin

    def worst(self, places: Iterable[Any], max_p: float) -> Any:
        """The place of the largest rise, or if any is refused, of the largest of these."""
        return max(places, key=lambda at: (self.beyond[at] and self.p[at] < max_p, self.rise[at]))

    def verdict(self, name: str, value: float, maximum: float, at: Any, max_p: float, detail: str) -> GateVerdict:
        """By the rise at a place. One that chance may explain has no bound to keep: it is recorded."""
        passed = not (self.beyond[at] and self.p[at] < max_p)
        bound = None if self.beyond[at] and passed else float(maximum)
        return GateVerdict(name=name, value=float(value), maximum=bound, passed=passed, detail=detail)

    def reason(self, at: Any, change: str, margin: float, max_p: float) -> str:
        """Why one of them is refused or not; ``change`` is what it is: a drop or a rise."""
        if not self.beyond[at]:
            return f"a {change} of at most {readable(margin)} is allowed"
        more, corrected = f"a {change} of more than {readable(margin)}", f"corrected p {readable(self.p[at])}"
        if self.p[at] < max_p:
            return f"{more} that chance does not explain ({corrected}, below {max_p:g})"
        return f"{more}, but one that chance may explain ({corrected}, not below {max_p:g})"


def compare(
    differences: Array, margins: Array, classes: list[Array] | None = None, draws: int = DRAWS, seed: int = 0
) -> Rises:
    """Ask of every rise of a candidate's loss over a kept version's whether chance explains it.

    ``differences`` ``(versions, units)`` are paired: the parts of the rise of each mean, whose ``margins`` are
    ``(versions,)``. With ``classes``, the rows of each (disjoint, together all), they are -1, 0 or 1, their means are
    taken over all rows and over each class, and ``margins`` are ``(1 + classes, 1)``.

    Among so many comparisons some rise is large by chance, so what is asked is how large the *largest* statistic gets
    when the candidate is as good as the versions (Westfall and Young 1993). A unit's difference is then as likely to
    have the other sign, so signs are drawn at random, all comparisons together: versions that agree with each other
    count as one, and a comparison that cannot exceed its margin costs the others nothing. The statistic is McNemar's,
    a sum over the root of its squares. The p of a comparison is the share of draws in which any comparison exceeds its
    margin with a statistic as large.
    """
    num_units, unit = differences.shape[1], 1.0
    normal, is_by_class = num_units >= NORMAL_FROM, classes is not None
    if classes is not None:
        sizes = np.array([[num_units], *([rows.size] for rows in classes)])
        # Sums of signs are two apart. One, half a step, is the candidate's: so equal models are refused less often than
        # the bound says, never more. Another makes the normal tail that of the sum.
        none = np.array(2.0 if normal else 1.0)
    else:  # all are one class, which nobody asks for
        classes, sizes = [np.arange(num_units)], np.ones((2, 1))
        margins = np.stack([margins, np.full(len(margins), np.inf)])
        unit = float(np.abs(differences).max()) or 1.0  # so that float32 holds them and their squares
        none = NO_RISE * margins / unit
    rise = _with_total([differences[:, rows].sum(axis=1) for rows in classes]) / sizes
    beyond, p = rise > margins, np.ones(rise.shape)
    if beyond.any():
        is_moved = np.asarray(differences.any(axis=0))
        moved = [(differences[:, rows[is_moved[rows]]] / unit).T.astype(np.float32) for rows in classes]
        p[beyond] = _correct(moved, sizes, margins / unit, draws, seed, normal, none)[beyond]
    return Rises(rise, beyond, p) if is_by_class else Rises(rise[0], beyond[0], p[0])


def _correct(
    moved: list[Array], sizes: Array, margins: Array, draws: int, seed: int, normal: bool, none: Array
) -> Array:
    """The p of every comparison; ``moved`` ``(units, versions)``: of each class those on which some version differs.

    ``none`` is what of a rise counts as none.
    """
    net, most, squares = (
        _with_total([each.sum(axis=0, dtype=float) for each in parts])
        for parts in (moved, map(np.abs, moved), map(np.square, moved))
    )
    possible, scale = most / sizes > margins, np.sqrt(np.where(squares > 0, squares, 1))
    moved, tests = _merge_others(moved, np.asarray(possible[1:].any(axis=1)))
    if normal:
        moved = [_with_few_rows(each) for each in moved]
    asked, largest = possible[tests], list[Array]()  # of each draw
    of_asked = (np.broadcast_to(each, possible.shape)[tests][asked] for each in (sizes, margins, scale))
    asked_sizes, asked_margins, scales = of_asked
    for parts in _draw_by_chance(moved, normal, draws, seed):
        sums = _with_total(parts)[:, : len(tests)][:, asked]
        is_larger = sums / asked_sizes > asked_margins
        largest.append(np.where(is_larger, sums / scales, -np.inf).max(axis=1, initial=-np.inf))
    found = (net - none) / scale
    found -= 1e-6  # rounding must not tell equal sums apart
    at_least = draws - np.searchsorted(np.sort(np.concatenate(largest)), found)
    return np.asarray((1 + at_least) / (1 + draws))


def _merge_others(moved: list[Array], is_asked: Array) -> tuple[list[Array], Array]:
    """The classes that are asked for, and the others as one, which only the total has; and which tests remain."""
    others = [rows for rows, asked in zip(moved, is_asked, strict=True) if not asked]
    asked = [rows for rows, asked in zip(moved, is_asked, strict=True) if asked]
    return [*asked, *([np.concatenate(others)] if others else [])], np.flatnonzero([True, *is_asked])


def _with_few_rows(moved: Array) -> Array:
    """As many rows as versions with the same covariance; a QR decomposition is slow where other work has the cores."""
    values, vectors = np.linalg.eigh((moved.T @ moved).astype(float))
    return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T, moved.dtype)


def _with_total(parts: list[Array]) -> Array:
    return np.stack([np.sum(parts, axis=0), *parts], axis=-2).astype(float)


def _draw_by_chance(moved: list[Array], normal: bool, draws: int, seed: int) -> Iterator[list[Array]]:
    """The sums of each class ``(draws, versions)`` in chunks, when every unit's sign is drawn at random."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        shapes = [(min(CHUNK, draws - start), len(each)) for each in moved]
        signs = [rng.standard_normal(shape, np.float32) if normal else _draw_signs(rng, shape) for shape in shapes]
        yield [sign @ each for sign, each in zip(signs, moved, strict=True)]


def _draw_signs(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """-1 or 1, either as likely; eight of a random byte, which is several times as fast as one by one."""
    count = shape[0] * shape[1]
    bits = np.unpackbits(rng.integers(256, size=-(-count // 8), dtype=np.uint8), count=count)
    return (2 * bits.view(np.int8) - 1).astype(np.float32).reshape(shape)


# Which of today's test rows a version was not trained on, by the row digests that it was kept with (design 4.5)


class RowsOfToday:
    """The test rows ``(n,)`` that versions are compared on, by their digests; each kind of digest is made once.

    Where the rule that split a version's rows is today's and goes by a hash of the row, it was trained on none. Where
    its digests take in a column that is not beside the test rows of today, such as that of another rule, or what a
    split column said when a row was still one for training, rows are told by features and target: a test row may be
    known that equals a row which the version was trained on and today's training part no longer has.
    """

    def __init__(self, prepared: PreparedDataset) -> None:
        self.prepared = prepared
        self._digests = functools.cache(self._as_trained_on)

    def not_trained_on(self, old: Splits) -> Array | str | None:
        """Where rows are that a version was not trained on ``(n,)`` bool, None: all are, or why nobody can tell.

        Raises:
            DataError: the file of its digests has changed.
        """
        then, now = old.split, self.prepared.split
        if then is None or now is None or (then == now and then.rule in FIXED):
            return None
        if old.rows is None or not old.rows.path.is_file():
            return "has no row digests: nobody knows which test rows of today it was trained on"
        kept = read_arrays(old.rows, RESTORE)
        if then.rule == "copies" and now.rule != "copies":
            return "was split by the number of the copy among equal rows, which the test rows of today do not have"
        if then.column is None or (then.rule == "time" and (then.rule, then.column) == (now.rule, now.column)):
            return ~_among(*self._digests(then), kept["train"])
        if CONTENTS not in kept:
            return f"has no row digests without {then.column}, which the test rows of today do not have"
        return ~_among(*self._contents, _gone(kept[CONTENTS], self._in_training))

    @functools.cached_property
    def _in_training(self) -> Hashes:
        """Features and target of today's training rows, sorted; of a rule without a column none is like a test row."""
        rows = self.prepared.rows
        found = read_arrays(rows, RESTORE) if rows else {}
        return found.get(CONTENTS, np.empty(0, np.uint64))

    @functools.cached_property
    def _contents(self) -> tuple[Hashes, Array]:
        rows, recipe = read_rows(self.prepared.test, self.prepared), self.prepared.recipe
        words = row_hash.hash_rows(recipe.columns, list(rows.features.T)) if isinstance(recipe, Columns) else rows.key
        truth = Truth(rows.truth, np.empty(0, bool), self.prepared.class_names, ())
        return _sort(row_hash.update_hashes(words, truth.words()))

    def _as_trained_on(self, rule: SplitRule) -> tuple[Hashes, Array]:
        """The digests that rows have where a version under a rule was trained on them, as first copies."""
        key = read_rows(self.prepared.test, self.prepared).key
        if rule.rule == "copies":
            return _sort(key)
        words, order = self._contents
        if rule.rule == "folders":
            words = row_hash.update_hashes(words, row_hash.hash_levels(SPLIT_NAMES)[TRAINING])
        if rule.rule == "time":
            words = row_hash.update_hashes(words, key[order])
        words = row_hash.update_hashes(words, row_hash.FIRST_COPY)
        again = np.argsort(words)
        return words[again], order[again]


def _sort(words: Hashes) -> tuple[Hashes, Array]:
    """Hashes in order, and where each was."""
    order = np.argsort(words)
    return words[order], order


def _among(words: Hashes, order: Array, known: Hashes) -> Array:
    """Which rows ``(n,)`` have a word that is known; ``words`` are in order, and those of rows ``order``."""
    result = np.zeros(len(words), bool)
    result[order] = is_in(known, words)
    return result


def _gone(before: Hashes, now: Hashes) -> Hashes:
    """The words, sorted and each once, of which there were more before; both are sorted."""
    words, counts = np.unique(before, return_counts=True)
    return words[counts > np.searchsorted(now, words, "right") - np.searchsorted(now, words)]
