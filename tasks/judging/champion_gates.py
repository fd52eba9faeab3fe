"""A candidate against what is published, all measured on the same test rows in the same run.

Each is fed these rows through its own recipe. Versions that were rolled back from are held for being bad, whatever
their figures say: nothing is compared with them.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data import splits
from tasks.data.recipe import Recipe
from tasks.judging import gates
from tasks.judging.candidate import Measured
from tasks.judging.judges import JUDGES
from tasks.parameters import Device, Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import contract, sessions
from tasks.serving.task import TASKS
from tasks.store import reading, verification, verified
from tasks.store.record import FileRef

Array = NDArray[Any]


def against_published(
    name: str, candidate: FileRef, prepared: PreparedDataset, bounds: Gates
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
    champion = contract.of_session(sessions.open_session(reading.model(name, number), Device.CPU))
    same = gates.judge(
        "champion_signature",
        int(signature != champion),
        maximum=0,
        detail="inputs and outputs as the champion's; give another shape of model another --name",
    )
    if not same.passed:
        return (same,)
    compared = list(_kept(name, numbers, signature, prepared))
    kept = [each for each in compared if isinstance(each, Measured)]
    left_out = [each for each in compared if isinstance(each, str)]
    verdicts = [same]
    if kept:
        task, judge = TASKS[prepared.task], JUDGES[prepared.task]
        test = splits.read_split(prepared.test, prepared)
        ours = Measured(None, outputs(model, test.inputs, task.answer))
        verdicts += judge.against_kept(ours, kept, test.truth, prepared.class_names, bounds)
    if left_out:
        verdicts.append(gates.judge("champion_not_compared", len(left_out), detail="; ".join(left_out)))
    return tuple(verdicts)


def _kept(
    name: str, numbers: list[int], signature: contract.Signature, prepared: PreparedDataset
) -> Iterator[Measured | str]:
    """The answers of every kept version, each fed by its own recipe, or why it is not compared."""
    inputs = functools.cache(functools.partial(_inputs, prepared))
    for number in numbers:
        content, recipe = reading.model(name, number), reading.manifest(name, number).recipe
        if contract.of_session(sessions.open_session(content, Device.CPU)) != signature:
            yield f"version {number} has other inputs or outputs"
        elif (rows := inputs(recipe)) is None:
            yield f"the recipe of version {number} cannot read the rows of today"
        else:
            yield Measured(number, outputs(content, rows, TASKS[prepared.task].answer))


def _inputs(prepared: PreparedDataset, recipe: Recipe) -> Array | None:
    """The test rows as a recipe makes them ``(n, …)``; None where it cannot read them."""
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
