"""A candidate against what is published, all measured on the same test rows in the same run.

Each is fed these rows through its own recipe. Versions that were rolled back from are held for being bad, whatever
their figures say: nothing is compared with them.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data import mapped, splits
from tasks.data.images import examining
from tasks.data.recipe import Columns, Recipe
from tasks.judging import champion_loss, gates
from tasks.judging.candidate import Measured
from tasks.judging.champion_loss import ComparedRows
from tasks.judging.judges import JUDGES
from tasks.judging.objective import Objective
from tasks.judging.signature import differences
from tasks.judging.standards import KeyedRows, clusters, read_rows
from tasks.parameters import Device, Gates, Training
from tasks.records import GateVerdict, PreparedDataset, Splits
from tasks.serving import contract, sessions
from tasks.serving.contract import PROBABILITIES
from tasks.serving.task import TASKS
from tasks.store import reading, verification, verified
from tasks.store.record import FileRef
from tasks.store.versions import Manifest

Array = NDArray[Any]
Measure = Callable[
    [bytes, Array], Array
]  # of an ONNX file and the rows it is fed ``(n, …)``: a figure of each ``(n,)``

PIECE = 2**13  # rows of own data whose probabilities are in memory at a time
MOVING = {"time", "column"}  # rules by which a row of the test split may once have been a training row


def against_published(
    name: str, candidate: FileRef, prepared: PreparedDataset, bounds: Gates, training: Training
) -> tuple[GateVerdict, ...]:
    """The verdicts on a candidate; none for the first version of a model. The caller holds the lock.

    Raises:
        DataError: a version to compare it with is damaged; nothing is measured against it.
    """
    pointer = reading.champion(name)
    held = pointer.held if pointer else ()
    numbers = [number for number in reading.versions(name) if number not in held]
    if not numbers:
        return ()
    for number in numbers:
        verification.verify_version(name, number)
    number = pointer.version if pointer else numbers[-1]  # without one a kill came before the first
    model = verified.read(candidate)
    signature = contract.of_session(sessions.open_session(model, Device.CPU))
    same = _like_the_champion(name, number, signature, prepared)
    if not same.passed:
        return (same,)
    measure = measuring(prepared, training)
    compared = list(_kept(name, numbers, signature, prepared, training, measure))
    kept = [each for each in compared if isinstance(each, Measured)]
    left_out = [each for each in compared if isinstance(each, str)]
    verdicts = [same]
    if kept:
        ours = Measured(None, measure(model, splits.read_split(prepared.test, prepared).inputs))
        verdicts += _against(kept, ours, prepared, bounds, training)
    if left_out:
        verdicts.append(gates.judge("champion_not_compared", len(left_out), detail="; ".join(left_out)))
    return tuple(verdicts)


def _like_the_champion(name: str, number: int, signature: contract.Signature, prepared: PreparedDataset) -> GateVerdict:
    """Whether consumers of the champion can take the candidate: tensors, columns, codes and classes."""
    champion = contract.of_session(sessions.open_session(reading.model(name, number), Device.CPU))
    found = [*(["inputs or outputs differ"] if signature != champion else [])]
    manifest = reading.manifest(name, number)
    found += differences(manifest.recipe, manifest.dataset.class_names, prepared)
    advice = "inputs, outputs, columns and classes as the champion's; give another shape of model another --name"
    return gates.judge("champion_signature", len(found), maximum=0, detail="; ".join([*found, advice]))


def _against(
    kept: list[Measured], ours: Measured, prepared: PreparedDataset, bounds: Gates, training: Training
) -> tuple[GateVerdict, ...]:
    """The verdicts on a candidate against kept versions, of which there is one at least."""
    if prepared.is_own:
        rows, objective = read_rows(prepared.test, prepared), Objective.of(training, prepared)
        groups, are_groups = clusters(rows, prepared), prepared.split is not None and prepared.split.rule == "group"
        if masks := [each.is_new for each in kept if each.is_new is not None]:
            at = np.flatnonzero(np.logical_and.reduce(masks))
            ours, *kept = (each._replace(output=each.output[at]) for each in (ours, *kept))
            rows, groups = KeyedRows(*(each[at] for each in rows)), None if groups is None else groups[at]
        compared = ComparedRows(rows.truth, groups, are_groups)
        return (champion_loss.against_kept(ours, kept, compared, objective, bounds),)
    truth = splits.read_split(prepared.test, prepared).truth
    return JUDGES[prepared.task].against_kept(ours, kept, truth, prepared.class_names, bounds)


def measuring(prepared: PreparedDataset, training: Training) -> Measure:
    """By what models are compared: of the book's data by their answers, of own data by their losses."""
    answer = TASKS[prepared.task].answer
    if not prepared.is_own:
        return functools.partial(outputs, output=answer)
    truth, objective = read_rows(prepared.test, prepared).truth, Objective.of(training, prepared)
    asked = PROBABILITIES if prepared.task == "classification" else answer

    def losses(model: bytes, rows: Array) -> Array:
        session = sessions.open_session(model, Device.CPU)
        pieces = [slice(start, start + PIECE) for start in range(0, len(truth), PIECE)]
        answers = (sessions.answers(session, rows[piece])[asked] for piece in pieces)
        return np.concatenate(
            [champion_loss.losses(each, truth[piece], objective) for each, piece in zip(answers, pieces, strict=True)]
        )

    return losses


def _kept(
    name: str,
    numbers: list[int],
    signature: contract.Signature,
    prepared: PreparedDataset,
    training: Training,
    measure: Measure,
) -> Iterator[Measured | str]:
    """Every kept version as it is compared, fed by its own recipe, or why it is not."""
    inputs = functools.cache(functools.partial(_inputs, prepared))
    for number in numbers:
        content, manifest = reading.model(name, number), reading.manifest(name, number)
        if contract.of_session(sessions.open_session(content, Device.CPU)) != signature:
            yield f"version {number} has other inputs or outputs"
        elif (rows := inputs(manifest.recipe)) is None or differences(
            manifest.recipe, manifest.dataset.class_names, prepared
        ):
            yield f"the recipe of version {number} cannot read the rows of today"
        elif prepared.is_own and (why := _trained_otherwise(manifest, prepared, training)):
            yield f"version {number} {why}"
        elif (is_new := new_rows(manifest.dataset, prepared)) is not None and is_new.sum() < len(is_new) / 2:
            seen = np.count_nonzero(~is_new)
            yield f"version {number} was trained on {seen} of the {len(is_new)} test rows of today"
        else:
            yield Measured(number, measure(content, rows), is_new)


def _trained_otherwise(manifest: Manifest, prepared: PreparedDataset, training: Training) -> str:
    """Why a version's losses on own data say nothing about this candidate; empty where they do."""
    asked = manifest.parameters.training.model_dump()
    for name in ("loss", "class_weight"):
        if asked.get(name) != getattr(training, name):
            return f"was trained with {name.replace('_', ' ')} {asked.get(name)}"
    if manifest.dataset.split != prepared.split:
        return "was split otherwise: it may have been trained on the test rows of today"
    if prepared.split and prepared.split.rule in MOVING and _digest(manifest.dataset) != _digest(prepared):
        rule = prepared.split.rule
        return f"had other rows, and a split by {rule} moves: it may have been trained on the test rows of today"
    return ""


def new_rows(old: Splits, prepared: PreparedDataset) -> Array | None:
    """Which test rows ``(n,)`` a version was not trained on; None where folders do not say which rows are for the test.

    Raises:
        DataError: the digests of its rows are missing.
    """
    if prepared.split is None or prepared.split.rule != "folders" or old.rows is None:
        return None
    rows = read_rows(prepared.test, prepared)
    digests = examining.digests_in_training(rows.key, rows.truth, prepared.class_names)
    is_new: Array = ~np.isin(digests, mapped.read(old.rows, "restore it from a backup")["train"])
    return is_new


def _digest(data: Splits) -> str | None:
    """Of which rows there are."""
    return data.rows.sha256 if data.rows else None


def _inputs(prepared: PreparedDataset, recipe: Recipe) -> Array | None:
    """The test rows as a recipe makes them ``(n, …)``; None where it cannot read them.

    Rows of own tables are raw for any recipe: a code that came later is unknown to an older version's graph.
    """
    if prepared.is_own and isinstance(recipe, Columns):
        return splits.read_split(prepared.test, prepared).inputs
    if recipe != prepared.recipe:
        raw = splits.read_split(prepared.raw_test, prepared).inputs
        if not recipe.accepts(raw.dtype, raw.shape[1:]):
            return None
    return splits.read_test(prepared, recipe).inputs


def outputs(model: bytes, rows: Array, output: str, batch_size: int = 1024) -> Array:
    """One output of a model for all rows, in order."""
    session = sessions.open_session(model, Device.CPU)
    (source,) = session.get_inputs()
    starts = range(0, len(rows), batch_size)
    return np.concatenate([session.run([output], {source.name: rows[at : at + batch_size]})[0] for at in starts])
