"""How classifiers are measured, judged, drawn, and compared with kept ones."""

import itertools
from typing import Any

import numpy as np
import torch

from tasks.judging import figures, gates, image_figures, max_statistic
from tasks.judging.candidate import Candidate, Measured
from tasks.machine.arrays import Array
from tasks.networks import metrics
from tasks.parameters import Gates
from tasks.records import Epoch, GateVerdict
from tasks.store.artifact_paths import CONFUSION_MATRIX, MISCLASSIFIED, RELIABILITY
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

WORST = 18  # misclassified images in the picture
CURVES = figures.Curves(
    ("train_loss", "validation_loss", "train_accuracy", "test_accuracy", "validation_accuracy"),
    ylabel="loss (nats), accuracy",
    yscale="linear",
)


def epoch(point: Epoch) -> str:
    """One epoch in the log."""
    return (
        f"train loss {point.train_loss:.3f}, train accuracy {point.train_accuracy:.3f}, "
        f"test accuracy {point.test_accuracy:.3f}"
    )


def measure(candidate: Candidate) -> dict[str, Any]:
    """Everything measured on the test split.

    Confusion matrix (rows: true), precision and recall of each class (0 where there is none), and the calibration
    error, since softmax regression is trained for calibrated probabilities.
    """
    names, o, y = candidate.prepared.class_names, torch.from_numpy(candidate.scores), _labels(candidate)
    (measured,), count = metrics.numbers(metrics.classification(o, y)), metrics.confusion_matrix(o, y)
    right = count.diagonal()
    precision, recall = (right / count.sum(dim=other).clamp(min=1) for other in (0, 1))
    return {
        "test_accuracy": measured["accuracy"],
        "test_loss": measured["loss"],
        "test_loss_bits": metrics.bits(measured["loss"]),
        "label_entropy": metrics.entropy(y, len(names)),
        "calibration_error": metrics.calibration_error(o, y),
        "precision": dict(zip(names, precision.tolist(), strict=True)),
        "recall": dict(zip(names, recall.tolist(), strict=True)),
        "confusion_matrix": count.tolist(),
    }


def _labels(candidate: Candidate) -> torch.Tensor:
    return torch.from_numpy(candidate.test.y_true.astype(np.int64))


def sentence(measured: dict[str, Any]) -> str:
    """What was measured, in the log."""
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; cross-entropy {measured['test_loss']:.3f} nats "
        f"({measured['test_loss_bits']:.3f} bits) a label, {measured['label_entropy']:.3f} nats for a model that knows "
        "only how frequent each class is, 0 for a perfect one"
    )


def before_export(candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
    """The book's assertions."""
    return (
        gates.judge("train_loss", measured["train_loss"], below=bounds.max_train_loss),
        gates.judge("train_accuracy", measured["train_accuracy"], above=bounds.min_train_accuracy, maximum=1.0),
        gates.judge("test_accuracy", measured["test_accuracy"], above=bounds.min_test_accuracy, maximum=1.0),
    )


def draw(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """Confusion matrix, reliability diagram, and the images that were misclassified with the most confidence."""
    names, y = candidate.prepared.class_names, _labels(candidate)
    confidence, label = torch.from_numpy(candidate.scores).softmax(dim=1).max(dim=1)
    correct = (label == y).numpy()
    return (
        figures.confusion_matrix(measured["confusion_matrix"], names, run.file(CONFUSION_MATRIX)),
        figures.reliability(confidence.numpy(), correct, run.file(RELIABILITY)),
        misclassified(candidate, label.numpy(), confidence.numpy(), run),
    )


def misclassified(candidate: Candidate, label: Array, confidence: Array, run: RunFolder) -> FileRef:
    """The images that were misclassified with the most confidence; ``label`` and ``confidence`` are ``(n,)``."""
    (wrong,) = np.nonzero(label != candidate.test.y_true)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")[:WORST]]
    names = candidate.prepared.class_names
    predicted, true = ([names[index] for index in labels[worst]] for labels in (label, candidate.test.y_true))
    return image_figures.image_grid(candidate.test.inputs[worst], predicted, true, run.file(MISCLASSIFIED))


def against_kept(
    ours: Measured, kept: list[Measured], truth: Array, class_names: tuple[str, ...], bounds: Gates
) -> tuple[GateVerdict, ...]:
    """Accuracy over all rows and recall of each class, against every kept version.

    A drop refuses only when it is both large (beyond its margin) and real (``max_statistic``).
    """
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
            f"{kept[version].version}, {drops.reason(at, 'drop', margin, bounds.max_drop_p)}",
        )

    return (
        worst("champion_accuracy", range(1), bounds.max_accuracy_drop),
        worst("champion_recall", range(1, len(compared)), bounds.max_recall_drop),
    )
