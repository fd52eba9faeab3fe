"""How classifiers of own data are measured, judged and drawn: against the best constant and the converged fit."""

from typing import Any

import numpy as np

from tasks.data.recipe import Columns
from tasks.judging import classification, figures, own_pictures, table_figures
from tasks.judging.candidate import Candidate
from tasks.judging.classification import CURVES as CURVES
from tasks.judging.classification import epoch as epoch
from tasks.judging.measures import Answers, in_time
from tasks.parameters import Gates
from tasks.records import GateVerdict
from tasks.serving import folding
from tasks.serving.coefficients import largest
from tasks.store.artifact_paths import BY_PERIOD, COEFFICIENTS, CONFUSION_MATRIX, RELIABILITY, THRESHOLDS
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

MOST_WEIGHTS = 20_000  # that are told one by one
MOST_CLASSES = 200  # whose confusion matrix is among the metrics: that of a thousand is 9 MB of JSON


def measure(candidate: Candidate) -> dict[str, Any]:
    """What is measured of every classifier, and its weights and confusion matrix if they are not too many."""
    standards, prepared = candidate.held_against, candidate.prepared
    measured = classification.measure(candidate)
    if len(prepared.class_names) > MOST_CLASSES:
        del measured["confusion_matrix"]
    measured |= {"objective_loss": standards.mean(candidate.losses), **standards.metrics}
    measured |= in_time(prepared, Answers(candidate.test.y_true, candidate.scores.argmax(axis=1), candidate.losses))
    if not isinstance(prepared.recipe, Columns):
        measured["brightness"] = own_pictures.brightness(candidate)
    else:
        folded = folding.fold(candidate.weights, prepared.recipe, np.float64)
        if folded.W.size + folded.effects.size <= MOST_WEIGHTS:
            names, learned = prepared.class_names, folding.coefficients(folded, prepared.recipe)
            measured["weights"] = dict(zip(names, learned, strict=True))
            measured["bias"] = dict(zip(names, folding.intercepts(folded).tolist(), strict=True))
    return measured


def sentence(measured: dict[str, Any]) -> str:
    """What was measured, in the log; of pictures that are many and large without a reference."""
    fitted = f"of the reference {measured['reference_loss']:.4f}, " if "reference_loss" in measured else ""
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; loss {measured['objective_loss']:.4f} nats a label, {fitted}"
        f"of the best constant {measured['baseline_loss']:.4f}"
    )


def before_export(candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
    """The gates ``baseline`` and ``reference``."""
    return candidate.held_against.judge(candidate.losses, bounds)


def draw(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """What it has learned, confusion matrix, reliability, and of two classes what every threshold would do."""
    names, recipe, truth = candidate.prepared.class_names, candidate.prepared.recipe, candidate.test.y_true
    label = candidate.scores.argmax(axis=1)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (truth, label), 1)
    confidence = np.exp(-candidate.objective.losses(candidate.scores, label))  # of the label that it gives
    pictures = [
        figures.confusion_matrix(counts, names, run.file(CONFUSION_MATRIX)),
        figures.reliability(confidence, label == truth, run.file(RELIABILITY)),
    ]
    if len(names) == 2:
        score = candidate.scores[:, 1] - candidate.scores[:, 0]
        pictures.append(table_figures.thresholds(score, truth == 1, names[1], run.file(THRESHOLDS)))
    if periods := measured.get("periods"):
        pictures.append(table_figures.by_period(periods, "accuracy", run.file(BY_PERIOD)))
    if not isinstance(recipe, Columns):
        pictures += own_pictures.draw(candidate, label, confidence, run)
    elif found := largest(measured, recipe, names):
        of_two = f"change of the log odds of {figures.short(names[1])} with"
        unit = of_two if len(names) == 2 else "change of a class's score with"
        pictures.insert(0, table_figures.coefficients(found, unit, run.file(COEFFICIENTS)))
    return tuple(pictures)
