"""A candidate against what is published, all measured on the same test split in the same run.

A drop refuses only when it is both large (beyond its margin) and real (``max_statistic``). Versions that were rolled
back from are held for being bad, whatever their figures say: nothing is compared with them.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tasks.judging import gates, max_statistic
from tasks.parameters import Device, Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import contract, sessions
from tasks.store import reading, verification, verified
from tasks.store.record import FileRef

Array = NDArray[Any]


class Measured(NamedTuple):
    """A model's outputs on the test split; ``version`` is None for the candidate."""

    version: int | None
    output: Array


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
    output = contract.LABEL if prepared.class_names else contract.PREDICTION
    ours = Measured(None, outputs(model, split[source.name], output))
    kept = list(_kept(name, numbers, signature, split[source.name], output))
    if prepared.class_names:
        return same, *classification(ours, kept, split["labels"], prepared.class_names, bounds)
    return same, regression(ours, kept, split["target"], bounds)


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


def classification(
    ours: Measured, kept: list[Measured], truth: Array, class_names: tuple[str, ...], bounds: Gates
) -> tuple[GateVerdict, GateVerdict]:
    """Accuracy over all rows and recall of each class, against every kept version."""
    classes = {name: rows for index, name in enumerate(class_names) if (rows := np.flatnonzero(truth == index)).size}
    right, kept_right = ours.output == truth, np.stack([each.output == truth for each in kept])
    margins = (bounds.max_accuracy_drop, bounds.max_recall_drop)
    drops = max_statistic.drops(right, kept_right, list(classes.values()), margins)
    refused = drops.beyond & (drops.p < bounds.max_drop_p)
    compared: list[tuple[str, Any]] = [("", slice(None)), *((f"{name} ", rows) for name, rows in classes.items())]

    def worst(gate: str, tests: range, margin: float) -> GateVerdict:
        at = max(itertools.product(tests, range(len(kept))), key=lambda at: (refused[at], drops.drop[at]))
        (name, rows), version = compared[at[0]], at[1]
        return GateVerdict(
            name=gate,
            value=float(drops.drop[at]),
            maximum=margin,
            passed=not refused[at],
            detail=f"{name}{right[rows].mean():.4f} against {kept_right[version, rows].mean():.4f} of version "
            f"{kept[version].version}, {_reason(bool(drops.beyond[at]), float(drops.p[at]), margin, bounds)}",
        )

    return (
        worst("champion_accuracy", range(1), bounds.max_accuracy_drop),
        worst("champion_recall", range(1, len(compared)), bounds.max_recall_drop),
    )


def _reason(beyond: bool, p: float, margin: float, bounds: Gates) -> str:
    """Why a drop is refused or not."""
    if not beyond:
        return f"a drop of at most {margin:g} is allowed"
    more, corrected = f"a drop of more than {margin:g}", f"corrected p {p:.4g}"
    if p < bounds.max_drop_p:
        return f"{more} that chance does not explain ({corrected}, below {bounds.max_drop_p:g})"
    return f"{more}, but one that chance may explain ({corrected}, not below {bounds.max_drop_p:g})"


def regression(ours: Measured, kept: list[Measured], truth: Array, bounds: Gates) -> GateVerdict:
    """Test loss (half the mean squared error) against that of the kept version with the smallest."""
    losses = {each.version: float(np.square(each.output - truth).mean()) / 2 for each in kept}
    version = min(losses, key=lambda number: losses[number])
    loss = float(np.square(ours.output - truth).mean()) / 2
    return gates.judge(
        "champion_loss",
        loss,
        maximum=bounds.max_loss_rise * losses[version],
        detail=f"{bounds.max_loss_rise:g} times the {losses[version]:.4g} of version {version}",
    )
