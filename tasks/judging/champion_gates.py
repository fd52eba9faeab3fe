"""A candidate against what is published, all measured on the same test split in the same run.

A drop refuses only when it is both large (beyond its margin) and real (``max_statistic``). Versions that were rolled
back from are held for being bad, whatever their figures say: nothing is compared with them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

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
    split = safetensors.numpy.load(verified.read(prepared.test))
    (source,) = signature.inputs
    task = TASKS[prepared.task]
    ours = Measured(None, outputs(model, split[source.name], task.answer))
    kept = list(_kept(name, numbers, signature, split[source.name], task.answer))
    judge = JUDGES[prepared.task]
    return same, *judge.against_kept(ours, kept, split[task.target], prepared.class_names, bounds)


def _kept(name: str, numbers: list[int], signature: contract.Signature, rows: Array, output: str) -> Iterator[Measured]:
    for number in numbers:
        content = reading.model(name, number)
        if contract.of_session(sessions.open_session(content, Device.CPU)) == signature:
            yield Measured(number, outputs(content, rows, output))


def outputs(model: bytes, rows: Array, output: str, batch_size: int = 1024) -> Array:
    """One output of a model for all rows, in order."""
    session = sessions.open_session(model, Device.CPU)
    (source,) = session.get_inputs()
    starts = range(0, len(rows), batch_size)
    return np.concatenate([session.run([output], {source.name: rows[at : at + batch_size]})[0] for at in starts])
