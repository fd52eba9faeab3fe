"""A candidate against what is published, all measured on the same test rows in the same run.

Each is fed these rows through its own recipe. Versions that were rolled back from are held for being bad, whatever
their figures say: nothing is compared with them.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Columns, Recipe
from tasks.judging import champion_loss, gates
from tasks.judging.candidate import Measured
from tasks.judging.champion_loss import ComparedRows
from tasks.judging.judges import JUDGES
from tasks.judging.objective import Objective
from tasks.judging.signature import differences
from tasks.judging.standards import clusters, read_rows
from tasks.judging.unseen import RowsOfToday
from tasks.machine.arrays import Array
from tasks.parameters import Device, Gates, Training
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import contract, sessions
from tasks.serving.contract import PROBABILITIES
from tasks.serving.task import TASKS
from tasks.store import reading, verification, verified
from tasks.store.record import FileRef
from tasks.store.versions import Manifest

Measure = Callable[
    [bytes, Array], Array
]  # of an ONNX file and the rows it is fed ``(n, …)``: a figure of each ``(n,)``

PIECE = 2**13  # rows of own data whose probabilities are in memory at a time


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
    measure, left_out = measuring(prepared, training), list[str]()
    kept = _kept(name, numbers, signature, prepared, training, measure, left_out)
    ours = Measured(None, measure(model, read_split(prepared.test, prepared).inputs))
    verdicts = (same, *_against(kept, ours, prepared, bounds, training))
    if left_out:
        return *verdicts, gates.judge("champion_not_compared", len(left_out), detail="; ".join(left_out))
    return verdicts


def _like_the_champion(name: str, number: int, signature: contract.Signature, prepared: PreparedDataset) -> GateVerdict:
    """Whether consumers of the champion can take the candidate: tensors, columns, codes and classes."""
    champion = contract.of_session(sessions.open_session(reading.model(name, number), Device.CPU))
    found = [*(["inputs or outputs differ"] if signature != champion else [])]
    manifest = reading.manifest(name, number)
    found += differences(manifest.recipe, manifest.dataset.class_names, prepared)
    advice = "inputs, outputs, columns and classes as the champion's; give another shape of model another --name"
    return gates.judge("champion_signature", len(found), maximum=0, detail="; ".join([*found, advice]))


def _against(
    kept: Iterator[Measured], ours: Measured, prepared: PreparedDataset, bounds: Gates, training: Training
) -> tuple[GateVerdict, ...]:
    """The verdicts on a candidate against kept versions, if there are any; of own data one at a time is in memory."""
    if prepared.is_own:
        rows, objective = read_rows(prepared.test, prepared), Objective.of(training, prepared)
        are_groups = prepared.split is not None and prepared.split.rule == "group"
        compared = ComparedRows(rows.truth, clusters(rows, prepared), are_groups)
        return champion_loss.against_kept(ours, kept, compared, objective, bounds)
    truth = read_split(prepared.test, prepared).y_true
    if not (versions := list(kept)):
        return ()
    return JUDGES[prepared.task].against_kept(ours, versions, truth, prepared.class_names, bounds)


def measuring(prepared: PreparedDataset, training: Training) -> Measure:
    """By what models are compared: of the book's data by their answers, of own data by their losses."""
    answer = TASKS[prepared.task].answer
    if not prepared.is_own:
        return lambda model, rows: sessions.answers(sessions.open_session(model, Device.CPU), rows)[answer]
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
    left_out: list[str],
) -> Iterator[Measured]:
    """Every kept version as it is compared, fed by its own recipe; ``left_out`` gets why one is not."""
    inputs = functools.cache(functools.partial(_inputs, prepared))
    today = RowsOfToday(prepared)
    for number in numbers:
        content, manifest = reading.model(name, number), reading.manifest(name, number)
        if contract.of_session(sessions.open_session(content, Device.CPU)) != signature:
            left_out.append(f"version {number} has other inputs or outputs")
        elif (rows := inputs(manifest.recipe)) is None or differences(
            manifest.recipe, manifest.dataset.class_names, prepared
        ):
            left_out.append(f"the recipe of version {number} cannot read the rows of today")
        elif prepared.is_own and (why := _trained_otherwise(manifest, training)):
            left_out.append(f"version {number} was trained with {why}")
        elif isinstance(is_new := today.unseen_by(manifest.dataset), str):
            left_out.append(f"version {number} {is_new}")
        else:
            yield Measured(number, measure(content, rows), is_new)


def _trained_otherwise(manifest: Manifest, training: Training) -> str:
    """Why a version's losses on own data say nothing about this candidate; empty where they do."""
    asked = manifest.parameters.training.model_dump()
    others = [name for name in ("loss", "class_weight") if asked.get(name) != getattr(training, name)]
    return " and ".join(f"{name.replace('_', ' ')} {asked.get(name)}" for name in others)


def _inputs(prepared: PreparedDataset, recipe: Recipe) -> Array | None:
    """The test rows as a recipe makes them ``(n, …)``; None where it cannot read them.

    Rows of own tables are raw for any recipe: a code that came later is unknown to an older version's graph.
    """
    if recipe == prepared.recipe or (prepared.is_own and isinstance(recipe, Columns)):
        return read_split(prepared.test, prepared).inputs
    raw = read_split(prepared.raw_test, prepared).inputs
    return recipe.encode(raw) if recipe.accepts(raw.dtype, raw.shape[1:]) else None
