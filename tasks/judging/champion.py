"""A candidate compared with the champion and the best version, all measured on the same test rows in the same run.

Each version is fed these rows through its own recipe, and compared on those that it was not trained on. Of a version
that was refit on all rows, the model of its training part is compared, and so is that of a candidate. The champion
takes the place of the best version only if it is better by more than the margin, and than chance explains. So small
losses cannot add up, and no version is the best because it was lucky with a few rows. Versions that were rolled back
from are held for being bad, whatever their figures say: nothing is compared with them.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import ValidationError

from tasks.data import row_hash
from tasks.data.image_dataset import SPLIT_NAMES
from tasks.data.prepared_splits import read_arrays, read_split
from tasks.data.recipe import SplitRule
from tasks.data.row_hash import Hashes, is_in
from tasks.data.split import TRAINING
from tasks.errors import DataError
from tasks.fitting.objective import Objective
from tasks.judging import gates
from tasks.judging.evaluation_result import FEWEST, FEWEST_BLOCKS
from tasks.judging.metrics import MOST_UNITS, Answers, join_units, number_units
from tasks.machine.arrays import Array
from tasks.machine.words import format_names, format_number, pluralize, tell_apart
from tasks.parameters import Device, Gates, Training
from tasks.records import GateVerdict, PreparedDataset, Splits
from tasks.serving import contract, runtime
from tasks.store import artifact_paths, model_folder, verification, verified_files
from tasks.store.model_folder import Manifest
from tasks.store.record_base import FileRef
from tasks.store.verified_files import RESTORE

SMALLEST = np.finfo(np.float32).tiny  # a probability that is 0 in float32 then has a finite loss
MIN_ROWS = 200  # fewer rows, or fewer groups, decide nothing
FEWEST_UNITS = {"group": (FEWEST, "group"), "time": (FEWEST_BLOCKS, "block")}  # by the rule of the split
OF_SIGNATURE = "inputs, outputs, columns and classes as the champion's; give another shape of model another --name"
SHOWN = 5  # levels or classes that are listed
SETTINGS = "loss", "class_weight"  # of training on own data: where they differ, losses cannot be compared
DRAWS = 9_999  # so that every p is a whole number of ten thousandths
NO_RISE = 0.4  # share of its margin: a smaller rise counts as none; otherwise a lucky version refuses too many
CHUNK = 500  # draws at a time: bounds memory
FIXED = ("rows", "copies", "group", "column")  # rules under which a row stays on its side of the split


class ModelAnswers(NamedTuple):
    """The answers of a kept version on the test split ``(n,)``.

    ``is_new`` ``(n,)`` says on which rows it was not trained, if it may have been trained on some.
    """

    version: int
    answers: Answers
    is_new: Array | bool = True


class Comparison(NamedTuple):
    """The verdicts on a candidate, and the best version from now on; None where none was compared."""

    gates: tuple[GateVerdict, ...] = ()
    best: int | None = None


def compare_with_published(
    name: str,
    candidate: FileRef,
    prepared: PreparedDataset,
    bounds: Gates,
    training: Training,
    only: int | None = None,
) -> Comparison:
    """Judge a candidate against the champion and the best version, or ``only`` one; a first version has no verdicts.

    The caller must hold the lock.

    Raises:
        DataError: a version to compare it with is damaged; nothing is measured against it.
    """
    numbers = [only] if only else list_opponents(name)
    if not numbers:
        return Comparison()
    for number in numbers:
        verification.verify_version(name, number)
        verification.verify_rows(name, number)
    number = numbers[0]
    session = runtime.open_session(verified_files.read(candidate), Device.CPU)
    found = list(list_differences(model_folder.find_manifest(name, number), prepared))
    if contract.read_signature(session) != contract.read_signature(_open_version(name, number)):
        found.insert(0, "inputs or outputs differ")
    same = gates.judge("champion_signature", len(found), maximum=0, detail="; ".join([*found, OF_SIGNATURE]))
    if found:
        return Comparison((same,))
    objective, test, left_out = Objective.choose(training, prepared), read_split(prepared.test, prepared), list[str]()
    score = functools.partial(score_by_session, session)
    ours = Answers.ask(score, test.inputs.__getitem__, test.y_true, objective)
    kept = _ask_versions(name, numbers, prepared, training, left_out)
    if prepared.split:
        verdicts, best = compare_losses(ours, kept, test.key, prepared.split, objective, bounds)
    elif prepared.class_names:
        verdicts, best = compare_labels(ours, kept, prepared.class_names, bounds)
    else:
        verdicts, best = compare_squared_errors(ours, kept, bounds)
    if left_out:
        verdicts = (*verdicts, gates.judge("champion_not_compared", len(left_out), detail="; ".join(left_out)))
    return Comparison((same, *verdicts), best)


def list_opponents(name: str) -> list[int]:
    """The champion, and the best version if that is another; empty before the first version.

    Raises:
        DataError: the manifest that names the best version is damaged.
    """
    champion = model_folder.find_champion(name)
    if champion is None:
        return model_folder.list_versions(name)[-1:]  # a kill came between the first version and its pointer
    best = model_folder.find_best_version(name)
    return [champion.version] if best in (None, champion.version) else [champion.version, best]


def judge_beside(first: Manifest, second: Manifest) -> tuple[GateVerdict, ...]:
    """Judge the second of two kept versions as if it were a candidate beside the first, on test rows new to both.

    Raises:
        DataError: a version is damaged, the second's prepared test rows are gone, or this release does not take its
            settings.
    """
    path = artifact_paths.version(second.name, second.version) / second.evaluated_file
    asked = second.parameters.model_dump(exclude_none=True)
    prepared = PreparedDataset(**dict(second.dataset), recipe=second.recipe, raw_test=second.dataset.test)
    model = FileRef(path=path, sha256=second.files[second.evaluated_file])
    settings = Training.drop_removed(asked["training"]) | {"defaults": second.dataset.defaults}
    try:
        bounds, training = Gates.model_validate(asked.get("gates", {})), Training.model_validate(settings)
    except ValidationError as error:
        found = f"version {second.version} was trained or judged with settings that this release does not have"
        raise DataError(found, "settings as in gradmill retrain --help", "retrain it") from error
    return compare_with_published(second.name, model, prepared, bounds, training, first.version).gates


def _ask_versions(
    name: str, numbers: list[int], prepared: PreparedDataset, training: Training, left_out: list[str]
) -> Iterator[ModelAnswers]:
    """Every version that can be compared, fed by its own recipe; ``left_out`` gets why another cannot."""
    objective = Objective.choose(training, prepared)
    # Rows of own data are raw in either file; the test split's file has them in the candidate's order. The book's
    # versions are compared by the book's measures, whatever they were trained for.
    file, settings = (prepared.test, SETTINGS) if prepared.split else (prepared.raw_test, ())
    raw = read_split(file, prepared)
    for number in numbers:
        manifest = model_folder.find_manifest(name, number)
        recipe, asked = manifest.recipe, manifest.parameters.training.model_dump()
        others = [each for each in settings if asked.get(each) != getattr(training, each)]
        if not recipe.accepts(raw.inputs.dtype, raw.inputs.shape[1:]) or any(list_differences(manifest, prepared)):
            left_out.append(f"the recipe of version {number} cannot read today's rows")
        elif others:
            said = " and ".join(f"{each.replace('_', ' ')} {asked.get(each)}" for each in others)
            left_out.append(f"version {number} was trained with {said}")
        elif isinstance(is_new := find_new_rows(manifest.dataset, prepared), str):
            left_out.append(f"version {number} {is_new}")
        else:
            score, inputs = functools.partial(score_by_session, _open_version(name, number)), recipe.encode(raw.inputs)
            yield ModelAnswers(number, Answers.ask(score, inputs.__getitem__, raw.y_true, objective), is_new)


def _open_version(name: str, number: int) -> Any:
    path = artifact_paths.version(name, number)
    return runtime.open_session(model_folder.read_evaluated_model(name, number), Device.CPU, path)


def score_by_session(session: Any, rows: Array) -> Array:
    """The scores ``(n, outputs)`` behind an exported model's outputs; for classes they are log probabilities."""
    outputs = runtime.run_model(session, rows)
    if contract.PREDICTION in outputs:
        return outputs[contract.PREDICTION][:, None]
    return np.asarray(np.log(np.maximum(outputs[contract.PROBABILITIES], SMALLEST)))


def list_differences(manifest: Manifest, prepared: PreparedDataset) -> Iterator[str]:
    """How columns, codes and classes differ from a version's; new levels may be added after the old ones."""
    classes, of_today = manifest.dataset.class_names, prepared.class_names
    if classes != of_today:
        yield f"classes are {_quote(of_today)}, and were {_quote(classes)}"
    both = itertools.zip_longest(manifest.recipe.columns, prepared.recipe.columns)
    for at, (was, now) in enumerate(both, start=1):
        if was is None or now is None or was.name != now.name:
            names = ("no column" if each is None else repr(each.name) for each in (now, was))
            yield "column {} is {}, and was {}".format(at, *names)
            return  # the others have only changed places
        if was.kind != now.kind:
            yield f"column {now.name!r} is a {now.kind}, and was a {was.kind}"
        elif was.levels != now.levels[: len(was.levels)]:
            yield f"levels of {now.name!r} are {_quote(now.levels)}, and were {_quote(was.levels)}"


def _quote(names: tuple[str, ...]) -> str:
    return format_names([*map(repr, names)], SHOWN) or "none"


# Verdicts: a rise of the loss refuses only when it is both large (beyond its margin) and real (``compare``)


class Rise(NamedTuple):
    """How much worse a figure of the candidate is than a version's: the sum of ``parts`` divided by ``size``."""

    gate: str
    version: int
    words: str  # both figures
    value: float  # that the gate judges
    maximum: float
    margin: float  # how large a rise may be
    parts: Array  # (units,)
    size: float = 1.0


def compare_losses(
    ours: Answers,
    versions: Iterable[ModelAnswers],
    key: Array,
    rule: SplitRule,
    objective: Objective,
    bounds: Gates,
) -> Comparison:
    """The mean loss against that of each version, if there is one; ``key`` ``(n,)`` is that of the split.

    A regression's margin includes the tolerance of the gate ``reference``: for a target without noise, all losses are
    rounding errors.
    """
    losses, weights, units = ours.losses, objective.row_weights(ours.y_true), number_units(key, rule)
    units = np.zeros(len(weights), np.int64) if units is None else join_units(units, len(weights), MOST_UNITS)[0]
    fewest, unit = FEWEST_UNITS.get(rule.rule, (0, ""))
    rises, compared, few = list[Rise](), list[tuple[Array, Array]](), list[str]()
    for version, answers, is_new in versions:
        counts = weights * is_new
        shares, num_rows = counts / (counts.sum() or 1), int(np.count_nonzero(counts))
        mine, theirs = float(shares @ losses), float(shares @ answers.losses)
        num_units = int(np.count_nonzero(np.bincount(units, weights=counts)))
        words = f"{tell_apart(mine, theirs)} against {tell_apart(theirs, mine)} of version {version}"
        words += f" on {num_rows} test rows"
        if num_rows < len(weights):
            words += f" ({len(weights) - num_rows} left out: it was trained on them)"
        if not num_rows:
            few.append(f"version {version} was trained on all {len(weights)} test rows")
        elif num_rows < MIN_ROWS:
            few.append(f"{words}, fewer than the {MIN_ROWS} that decide")
        elif num_units < fewest:
            few.append(f"{words}, of {pluralize(num_units, unit)}, fewer than the {fewest} that decide")
        else:
            margin = bounds.max_nats_rise
            if not objective.is_of_classes:
                margin = (bounds.max_error_rise - 1) * theirs + objective.loss_of(bounds.max_standardised_error)
            parts = np.bincount(units, weights=shares * (losses - answers.losses))
            rises.append(Rise("champion_loss", version, words, mine, theirs + margin, margin, parts))
            compared.append((counts > 0, answers.losses))
    if not rises:
        mean, detail = float(np.average(losses, weights=weights)), "; ".join(few)
        return Comparison((gates.judge("champion_loss", mean, detail=detail),) if few else ())
    best = rises[-1].version
    if len(rises) == 2:
        (are_new, of_champion), (are_new_to_best, of_best) = compared
        counts = weights * (are_new & are_new_to_best)
        parts = np.bincount(units, weights=counts / (counts.sum() or 1) * (of_best - of_champion))
        if np.count_nonzero(counts) >= MIN_ROWS and is_real(parts, rises[0].margin, bounds.max_drop_p):
            best = rises[0].version
    return Comparison(judge_rises(rises, "rise", bounds.max_drop_p, few), best)


def compare_labels(
    ours: Answers, versions: Iterable[ModelAnswers], class_names: tuple[str, ...], bounds: Gates
) -> Comparison:
    """Accuracy over all rows and recall of each class, as losses of 0 and 1, compared with each version."""
    all_versions, y_true, is_right = list(versions), ours.y_true, ours.is_right
    tests = [("champion_accuracy", "", np.ones(len(y_true), bool), bounds.max_accuracy_drop)]
    of_classes = ((f"{class_names[code]} ", y_true == code) for code in np.unique(y_true))
    tests += [("champion_recall", name, rows, bounds.max_recall_drop) for name, rows in of_classes]
    rises = []
    for (gate, name, rows, margin), (version, answers, _) in itertools.product(tests, all_versions):
        mine, theirs = (np.count_nonzero(each & rows) for each in (is_right, answers.is_right))
        size, parts = int(np.count_nonzero(rows)), rows * (answers.is_right.astype(np.int8) - is_right)
        words = f"{name}{mine / size:.4f} against {theirs / size:.4f} of version {version}"
        rises.append(Rise(gate, version, words, (theirs - mine) / size, margin, margin, parts, size))
    if not rises:
        return Comparison()
    first, last = rises[0], rises[len(all_versions) - 1]
    is_better = is_real(first.parts - last.parts, first.margin, bounds.max_drop_p, first.size)
    best = first.version if is_better else last.version
    return Comparison(judge_rises(rises, "drop", bounds.max_drop_p), best)


def is_real(parts: Array, margin: float, max_p: float, size: float = 1.0) -> bool:
    """Whether a single rise, the sum of ``parts`` ``(units,)`` over ``size``, is refused: beyond margin and chance."""
    _, is_beyond, p = compare(parts[:, np.newaxis], np.array([margin]), size)
    return bool(is_beyond[0] and p[0] < max_p)


def judge_rises(rises: Sequence[Rise], change: str, max_p: float, notes: Sequence[str] = ()) -> tuple[GateVerdict, ...]:
    """The verdict of each gate, by its largest rise, or if any rise is refused, by the largest refused one.

    One that chance may explain has no bound to keep: it is recorded. ``change`` is what a rise is called.
    """
    margins, sizes = np.array([(each.margin, each.size) for each in rises]).T
    rise, is_beyond, p = compare(np.stack([each.parts for each in rises], axis=1), margins, sizes)
    is_refused, verdicts = is_beyond & (p < max_p), []
    by_gate = [list(each) for _, each in itertools.groupby(range(len(rises)), lambda at: rises[at].gate)]
    for places in by_gate:
        at = max(places, key=lambda at: (is_refused[at], rise[at]))
        gate, _, words, value, maximum, margin, *_ = rises[at]
        reason = f"a {change} of at most {format_number(margin)} is allowed"
        chance = f"corrected p {format_number(p[at])}"
        if is_beyond[at]:
            reason = f"a {change} of more than {format_number(margin)}"
            reason += f", but one that chance may explain ({chance}, not below {max_p:g})"
        if is_refused[at]:
            reason = f"a {change} of more than {format_number(margin)} that chance does not explain"
            reason += f" ({chance}, below {max_p:g})"
        verdicts.append(
            GateVerdict(
                name=gate,
                value=value,
                maximum=maximum if is_refused[at] or not is_beyond[at] else None,
                passed=not is_refused[at],
                detail="; ".join([f"{words}, {reason}", *notes]),
            )
        )
    return tuple(verdicts)


def compare_squared_errors(ours: Answers, versions: Iterable[ModelAnswers], bounds: Gates) -> Comparison:
    """Test loss (half the mean squared error) against that of the version with the smallest."""
    losses = [(find_squared_loss(answers), number) for number, answers, _ in versions]
    if not losses:
        return Comparison()
    smallest, best = min(losses)
    maximum, words = bounds.max_loss_rise * smallest, f"{format_number(smallest)} of version {best}"
    detail = f"{bounds.max_loss_rise:g} times the {words}"
    return Comparison((gates.judge("champion_loss", find_squared_loss(ours), maximum=maximum, detail=detail),), best)


def find_squared_loss(answers: Answers) -> float:
    """Half the mean squared error, whatever a model was trained for."""
    return float(np.square(answers.answer - answers.y_true).mean()) / 2


# Is a rise real? One p-value for each version and each class, corrected for how many are looked at


def compare(parts: Array, margins: Array, sizes: Array | float = 1.0, draws: int = DRAWS) -> tuple[Array, Array, Array]:
    """Test for each rise of a candidate's mean loss over a version's whether chance explains it.

    ``parts`` ``(units, comparisons)`` are paired differences: the sum of each column, divided by its size, is the rise.
    Whole numbers are counts of rows that only one of two models gets right. Returns three arrays ``(comparisons,)``:
    the rise, whether it exceeds its margin, and its p, which is one-sided and corrected, and 1 where the rise does not
    exceed its margin.

    Among so many comparisons some rise is large by chance, so the question is how large the *largest* statistic gets
    when the candidate is as good as the versions (Westfall and Young 1993). A unit's difference is then as likely to
    have the other sign, so signs are drawn at random, for all comparisons together: versions that agree with each other
    count as one, and a comparison that cannot exceed its margin costs the others nothing. The statistic is McNemar's, a
    sum over the root of its squares. The p of a comparison is the share of draws in which any comparison exceeds its
    margin with a statistic at least as large.
    """
    parts = parts[parts.any(axis=1)]
    net, most, squares = (each.sum(axis=0, dtype=float) for each in (parts, np.abs(parts), np.square(parts)))
    sizes = np.broadcast_to(sizes, net.shape)
    rise, is_beyond, p = net / sizes, net / sizes > margins, np.ones(len(net))
    if not is_beyond.any():
        return rise, is_beyond, p
    is_possible, least = most / sizes > margins, NO_RISE * margins
    scale = np.sqrt(np.where(squares > 0, squares, 1))
    drawn = parts[:, is_possible].astype(float)
    if parts.dtype.kind == "i":
        # Sums of signs are two apart. One half step is subtracted in the candidate's favour, so that equal models are
        # refused less often than the bound says, never more.
        least = np.ones(len(net))
    rng, largest = np.random.default_rng(0), list[Array]()  # of each draw
    for start in range(0, draws, CHUNK):
        sums = rng.choice([-1.0, 1.0], (min(CHUNK, draws - start), len(drawn))) @ drawn
        is_larger = sums / sizes[is_possible] > margins[is_possible]
        largest.append(np.where(is_larger, sums / scale[is_possible], -np.inf).max(axis=1))
    found = (net - least) / scale - 1e-6  # so that rounding does not tell equal sums apart
    at_least = draws - np.searchsorted(np.sort(np.concatenate(largest)), found)
    p[is_beyond] = ((1 + at_least) / (1 + draws))[is_beyond]
    return rise, is_beyond, p


# Which of today's test rows a version was not trained on, by the row digests that it was kept with


def find_new_rows(old: Splits, prepared: PreparedDataset) -> Array | Literal[True] | str:
    """Where test rows are that a version was not trained on ``(n,)`` bool, True if all are, or why this is not known.

    If the rule that split a version's rows is today's, and goes by a hash of the row or by what a column says about it,
    the version was trained on none of them.

    Raises:
        DataError: the file of its digests has changed.
    """
    then, now = old.split, prepared.split
    if then is None or now is None or (then == now and then.rule in FIXED):
        return True
    if old.rows is None or not old.rows.path.is_file():
        return "has no row digests, so it is unknown which of today's test rows it was trained on"
    if then.rule == "copies" and now.rule != "copies":
        return "was split by the number of the copy among equal rows, which today's test rows do not have"
    if then.column and not (then.is_by_time and now.is_by_time and then.column == now.column):
        return f"has no row digests without {then.column}, which today's test rows do not have"
    known = read_arrays(old.rows, RESTORE)["train"]
    return ~is_in(known, _hash_test_rows(prepared, then.rule))


def _hash_test_rows(prepared: PreparedDataset, rule: str) -> Hashes:
    """The digests ``(n,)`` that test rows would have as training rows and first copies under a rule."""
    rows, recipe = read_split(prepared.test, prepared), prepared.recipe
    if rule == "copies":
        return rows.key
    words = row_hash.hash_rows(recipe.columns, list(rows.inputs.T)) if recipe.columns else rows.key
    truth = row_hash.hash_inputs(rows.y_true, prepared.class_names)
    of_rule = {"folders": [row_hash.hash_levels(SPLIT_NAMES)[TRAINING]], "time": [rows.key]}.get(rule, [])
    return row_hash.update_hashes(words, truth, *of_rule, row_hash.FIRST_COPY)
