"""A candidate against what is published, all measured on the same test split in the same run.

A drop refuses only when it is both large and real: McNemar's exact test asks whether the rows on which two models
disagree fall to either side as a fair coin would.
"""

from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tasks import artifact_paths, contract, gates, onnx_session
from tasks.artifact_paths import ONNX
from tasks.model_store import reading, verification
from tasks.parameters import Device, Gates
from tasks.records import FileRef, GateVerdict, PreparedDataset

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
        DataError: a kept version is damaged; nothing is measured against it.
    """
    kept_numbers = reading.versions(name)
    if not kept_numbers:
        return ()
    for number in kept_numbers:
        verification.verify_version(name, number)
    pointer = reading.champion(name) or {"version": kept_numbers[-1]}  # none: a kill came before the first pointer
    signature = contract.of_session(onnx_session.open_session(candidate.path, Device.CPU))
    champion = contract.of_session(
        onnx_session.open_session(artifact_paths.version(name, pointer["version"]) / ONNX, Device.CPU)
    )
    same = gates.judge(
        "champion_signature",
        int(signature != champion),
        maximum=0,
        detail="inputs and outputs as the champion's; give another shape of model another --name",
    )
    if not same.passed:
        return (same,)
    split = safetensors.numpy.load_file(prepared.test.path)
    (source,) = signature.inputs
    output = contract.LABEL if prepared.class_names else contract.PREDICTION
    ours = Measured(None, outputs(candidate.path.read_bytes(), split[source.name], output))
    kept = [Measured(number, found) for number, found in _kept(name, signature, split[source.name], output)]
    if prepared.class_names:
        return same, *classification(ours, kept, split["labels"], prepared.class_names, bounds)
    return same, regression(ours, kept, split["target"], bounds)


def _kept(name: str, signature: contract.Signature, rows: Array, output: str) -> list[tuple[int, Array]]:
    found = []
    for number in reading.versions(name):
        content = (artifact_paths.version(name, number) / ONNX).read_bytes()
        if contract.of_session(onnx_session.open_session(content, Device.CPU)) == signature:
            found.append((number, outputs(content, rows, output)))
    return found


def outputs(model: bytes, rows: Array, output: str, batch_size: int = 1024) -> Array:
    """One output of a model for all rows, in order."""
    session = onnx_session.open_session(model, Device.CPU)
    (source,) = session.get_inputs()
    starts = range(0, len(rows), batch_size)
    return np.concatenate([session.run([output], {source.name: rows[at : at + batch_size]})[0] for at in starts])


def classification(
    ours: Measured, kept: list[Measured], truth: Array, class_names: tuple[str, ...], bounds: Gates
) -> tuple[GateVerdict, GateVerdict]:
    """Accuracy over all rows and recall of each class, against the kept version with the best accuracy."""
    best = max(kept, key=lambda each: (each.output == truth).mean())
    right, best_right = ours.output == truth, best.output == truth
    drop = _drop(right, best_right)
    p = mcnemar(right, best_right)
    accuracy = GateVerdict(
        name="champion_accuracy",
        value=drop,
        maximum=bounds.max_accuracy_drop,
        passed=drop <= bounds.max_accuracy_drop or p >= bounds.max_accuracy_p,
        detail=f"{right.mean():.4f} against {best_right.mean():.4f} of version {best.version}, "
        f"a drop of at most {bounds.max_accuracy_drop:g} allowed, or one that chance explains (p {p:.3g})",
    )
    return accuracy, _recall(right, best_right, truth, class_names, bounds)


def _drop(right: Array, best_right: Array) -> float:
    """By how much the fraction of correct rows is lower; of counts, so that a drop as large as its bound is equal."""
    return int(best_right.sum() - right.sum()) / len(right)


def _recall(right: Array, best_right: Array, truth: Array, class_names: tuple[str, ...], bounds: Gates) -> GateVerdict:
    rows = [truth == index for index in range(len(class_names)) if (truth == index).any()]
    drops = np.array([_drop(right[each], best_right[each]) for each in rows])
    ps = holm(np.array([mcnemar(right[each], best_right[each]) for each in rows]))
    refused = (drops > bounds.max_recall_drop) & (ps < bounds.max_recall_p)
    worst = int(np.where(refused, drops, -np.inf).argmax()) if refused.any() else int(drops.argmax())
    present = [name for index, name in enumerate(class_names) if (truth == index).any()]
    return GateVerdict(
        name="champion_recall",
        value=float(drops[worst]),
        maximum=bounds.max_recall_drop,
        passed=not refused.any(),
        detail=f"largest drop: {present[worst]}, a drop of at most {bounds.max_recall_drop:g} allowed, "
        f"or one that chance explains (p {ps[worst]:.3g})",
    )


def regression(ours: Measured, kept: list[Measured], truth: Array, bounds: Gates) -> GateVerdict:
    """Test loss (half the mean squared error) over that of the kept version with the smallest."""
    losses = {each.version: float(np.square(each.output - truth).mean()) / 2 for each in kept}
    version = min(losses, key=lambda number: losses[number])
    loss = float(np.square(ours.output - truth).mean()) / 2
    return gates.judge(
        "champion_loss",
        loss / losses[version],
        maximum=bounds.max_loss_rise,
        detail=f"times the {losses[version]:.4g} of version {version}",
    )


def mcnemar(right: Array, best_right: Array) -> float:
    """Two-sided p of McNemar's exact test on two models' correct rows (McNemar 1947), 1 where they never differ."""
    from scipy.stats import binomtest  # takes a second to import, and a first or unchanged version needs no test

    lost, won = int((best_right & ~right).sum()), int((right & ~best_right).sum())
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def holm(ps: Array) -> Array:
    """Holm's step-down correction of p-values (Holm 1979), in their order."""
    order = np.argsort(ps, kind="stable")
    corrected = np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1))
    adjusted = np.empty_like(ps)
    adjusted[order] = np.minimum(corrected, 1.0)
    return adjusted
