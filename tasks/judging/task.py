"""What is measured of a candidate, which gates it meets before export, and what is drawn: one task for each kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors.numpy
import torch

from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Columns
from tasks.fitting import served
from tasks.fitting.splits import load_split
from tasks.judging import figures, gates, image_figures, table_figures
from tasks.judging.baselines import Baselines, blocks_of_rows, read_rows
from tasks.judging.metrics import Answers, CalibrationBins, calibration_bins, measure, measure_periods
from tasks.judging.objective import Objective
from tasks.machine.arrays import Array
from tasks.machine.words import readable
from tasks.networks import linear_regression, metrics
from tasks.parameters import Gates, Loss, Training
from tasks.records import Epoch, GateVerdict, PreparedDataset, TrainedModel
from tasks.serving import raw_units
from tasks.serving.raw_units import list_coefficients
from tasks.serving.task import TaskName
from tasks.store import artifact_paths, verified
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

WHILE_TRAINING = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
MOST_WEIGHTS = 20_000  # that are told one by one
MOST_CLASSES = 200  # whose confusion matrix is among the metrics: that of a thousand is 9 MB of JSON
MOST_IMAGES = 1_000  # whose pixels are averaged
WORST = 18  # misclassified images in the picture
BEST_FITS = {
    Loss.SQUARED: ("least-squares", linear_regression.least_squares_fit),
    Loss.HUBER: ("Huber", linear_regression.huber_fit),
}


class Outputs(NamedTuple):
    """What a trained model says of the test rows ``(n,)``; of its scores memory holds some rows' at a time."""

    answer: Array  # labels int64, or predictions: of own tables float64 and in raw units
    losses: Array  # by the objective without its penalty
    confidence: Array | None = None  # the probability of the label; None of a regression
    lead: Array | None = None  # of two classes, of the second's score over the first's

    @classmethod
    def compute(cls, score: Callable[[Array], Array], test: Examples, num_outputs: int, objective: Objective) -> Self:
        """By what makes scores ``(n, outputs)`` of rows as the model takes them."""
        parts = []
        for rows in blocks_of_rows(len(test.y_true), num_outputs):
            scores, truth = score(test.inputs[rows]), test.y_true[rows]
            if not objective.is_of_classes:
                parts.append((scores[:, 0], objective.losses(scores, truth)))
                continue
            label = scores.argmax(axis=1)
            confidence = np.exp(-objective.losses(scores, label))
            lead = [scores[:, 1] - scores[:, 0]] if num_outputs == 2 else []
            parts.append((label, objective.losses(scores, truth), confidence, *lead))
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


@dataclass(frozen=True)
class Candidate:
    """A trained model that no gate has passed yet, and what it says of the test split."""

    prepared: PreparedDataset
    trained: TrainedModel
    objective: Objective
    weights: dict[str, Array]
    test: Examples
    outputs: Outputs
    baselines: Baselines | None  # of own data

    @classmethod
    def read(cls, prepared: PreparedDataset, trained: TrainedModel, training: Training) -> Self:
        """Read weights and test split, compute the answers, and of own data the losses to hold them against.

        Raises:
            DataError: a file is missing or has changed.
        """
        weights, recipe = safetensors.numpy.load(verified.read(trained.weights)), prepared.recipe
        objective, test = Objective.of(training, prepared, trained.steps), read_split(prepared.test, prepared)
        score: Callable[[Array], Array] = partial(served.scores, weights, recipe)
        if prepared.is_own and isinstance(recipe, Columns):
            score = partial(raw_units.score_rows, raw_units.fold_weights(weights, recipe, np.float64), recipe)
        outputs = Outputs.compute(score, test, len(weights["b"]), objective)
        baselines = Baselines.of_dataset(prepared, objective) if prepared.is_own else None
        return cls(prepared, trained, objective, weights, test, outputs, baselines)

    @property
    def truth(self) -> Array:
        """Labels int64 or the target ``(n,)`` of the test split."""
        return self.test.y_true.astype(np.int64) if self.prepared.class_names else self.test.y_true

    @property
    def while_training(self) -> dict[str, float]:
        """What was measured in the epoch whose weights were kept, but for the test split, which is measured anew."""
        kept = self.trained.kept
        measured = {name: getattr(kept, name) for name in WHILE_TRAINING}
        return {name: value for name, value in measured.items() if value is not None}


class Task(NamedTuple):
    """How a model of one kind is watched, measured, judged before export, and drawn."""

    curves: figures.Curves  # what the learning curve shows
    describe_epoch: Callable[[Epoch], str]  # in the log
    measure: Callable[[Candidate], dict[str, Any]]  # the metrics on the test split
    describe: Callable[[dict[str, Any]], str]  # they, in the log
    judge: Callable[[Candidate, dict[str, Any], Gates], tuple[GateVerdict, ...]]
    draw: Callable[[Candidate, dict[str, Any], RunFolder], tuple[FileRef, ...]]  # into the run's folder


def task_of(prepared: PreparedDataset) -> Task:
    """The one of these data."""
    return (OWN if prepared.is_own else BOOK)[prepared.task]


# Classifiers


def _describe_epoch_of_classes(point: Epoch) -> str:
    return (
        f"train loss {point.train_loss:.3f}, train accuracy {point.train_accuracy:.3f}, "
        f"test accuracy {point.test_accuracy:.3f}"
    )


def _measure_classes(candidate: Candidate) -> dict[str, Any]:
    """Everything measured on the test split.

    Confusion matrix (rows: true), precision and recall of each class (0 where there is none), and the calibration
    error, since softmax regression is trained for calibrated probabilities.
    """
    names, outputs, truth = candidate.prepared.class_names, candidate.outputs, candidate.truth
    counts = _confusion_matrix(candidate)
    precision, recall = (counts.diagonal() / counts.sum(axis=other).clip(1) for other in (0, 1))
    loss = float(outputs.losses.mean())
    return {
        "test_accuracy": float(np.mean(outputs.answer == truth)),
        "test_loss": loss,
        "test_loss_bits": metrics.bits(loss),
        "label_entropy": metrics.entropy(torch.from_numpy(truth), len(names)),
        "calibration_error": _bin(candidate).error,
        "precision": dict(zip(names, precision.tolist(), strict=True)),
        "recall": dict(zip(names, recall.tolist(), strict=True)),
        "confusion_matrix": counts.tolist(),
    }


def _confusion_matrix(candidate: Candidate) -> Array:
    count = len(candidate.prepared.class_names)
    cells = np.bincount(candidate.truth * count + candidate.outputs.answer, minlength=count * count)
    return cells.reshape(count, count)


def _bin(candidate: Candidate) -> CalibrationBins:
    return calibration_bins(_confidence(candidate), candidate.outputs.answer == candidate.truth)


def _confidence(candidate: Candidate) -> Array:
    if candidate.outputs.confidence is None:
        raise ValueError("a regression has no probabilities")
    return candidate.outputs.confidence


def _describe_images(measured: dict[str, Any]) -> str:
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; cross-entropy {measured['test_loss']:.3f} nats "
        f"({measured['test_loss_bits']:.3f} bits) a label, {measured['label_entropy']:.3f} nats for a model that knows "
        "only how frequent each class is, 0 for a perfect one"
    )


def _judge_by_the_book(candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
    """The book's assertions."""
    return (
        gates.judge("train_loss", measured["train_loss"], below=bounds.max_train_loss),
        gates.judge("train_accuracy", measured["train_accuracy"], above=bounds.min_train_accuracy, maximum=1.0),
        gates.judge("test_accuracy", measured["test_accuracy"], above=bounds.min_test_accuracy, maximum=1.0),
    )


def _draw_images(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """Confusion matrix, reliability diagram, and the images that were misclassified with the most confidence."""
    return (*_draw_classes(candidate, run), _draw_misclassified(candidate, run))


def _draw_classes(candidate: Candidate, run: RunFolder) -> tuple[FileRef, ...]:
    names, matrix = candidate.prepared.class_names, _confusion_matrix(candidate)
    return (
        figures.confusion_matrix(matrix, names, run.file(artifact_paths.CONFUSION_MATRIX)),
        figures.reliability(_bin(candidate), run.file(artifact_paths.RELIABILITY)),
    )


def _draw_misclassified(candidate: Candidate, run: RunFolder) -> FileRef:
    label, truth, confidence = candidate.outputs.answer, candidate.truth, _confidence(candidate)
    (wrong,) = np.nonzero(label != truth)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")[:WORST]]
    names = candidate.prepared.class_names
    predicted, true = ([names[index] for index in labels[worst]] for labels in (label, truth))
    path = run.file(artifact_paths.MISCLASSIFIED)
    return image_figures.image_grid(candidate.test.inputs[worst], predicted, true, path)


def _measure_own_classes(candidate: Candidate) -> dict[str, Any]:
    """What is measured of every classifier, and its weights and confusion matrix if they are not too many."""
    baselines, prepared = require_baselines(candidate), candidate.prepared
    measured = _measure_classes(candidate)
    if len(prepared.class_names) > MOST_CLASSES:
        del measured["confusion_matrix"]
    measured |= {"objective_loss": baselines.mean(candidate.outputs.losses), **baselines.metrics}
    measured |= measure_periods(prepared, Answers(candidate.truth, candidate.outputs.answer, candidate.outputs.losses))
    if not isinstance(prepared.recipe, Columns):
        measured["brightness"] = measure_brightness(candidate)
    else:
        folded = raw_units.fold_weights(candidate.weights, prepared.recipe, np.float64)
        if folded.W.size + folded.effects.size <= MOST_WEIGHTS:
            names, learned = prepared.class_names, raw_units.name_weights(folded, prepared.recipe)
            measured["weights"] = dict(zip(names, learned, strict=True))
            measured["bias"] = dict(zip(names, raw_units.find_intercepts(folded).tolist(), strict=True))
    return measured


def measure_brightness(candidate: Candidate) -> dict[str, float]:
    """Mean training pixels, 0…255: of the ``border``, a pixel wide, and of the ``middle``, half of each side.

    Where they differ much, things are light on dark or dark on light.
    """
    images = read_rows(candidate.prepared.train, candidate.prepared).features
    some = images[np.linspace(0, len(images) - 1, min(MOST_IMAGES, len(images))).astype(int)]
    height, width = some.shape[1:3]
    inner = np.zeros((height, width), bool)
    inner[1:-1, 1:-1] = True
    middle = some[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    return {"border": float(some[:, ~inner].mean()), "middle": float(middle.mean())}


def _describe_own_classes(measured: dict[str, Any]) -> str:
    """Of images that are many and large without a reference."""
    fitted = f"of the reference {measured['reference_loss']:.4f}, " if "reference_loss" in measured else ""
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; loss {measured['objective_loss']:.4f} nats a label, {fitted}"
        f"of the best constant {measured['baseline_loss']:.4f}"
    )


def require_baselines(candidate: Candidate) -> Baselines:
    """What own data's models are held against."""
    if candidate.baselines is None:
        raise ValueError("the book's data have gates of their own")
    return candidate.baselines


def _judge_by_baselines(candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
    return require_baselines(candidate).judge(candidate.outputs.losses, bounds)


def _draw_own_classes(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """What it has learned, confusion matrix, reliability, and of two classes what every threshold would do."""
    names, recipe, truth = candidate.prepared.class_names, candidate.prepared.recipe, candidate.truth
    pictures = list(_draw_classes(candidate, run))
    if (lead := candidate.outputs.lead) is not None:
        path = run.file(artifact_paths.THRESHOLDS)
        pictures.append(table_figures.thresholds(lead, truth == 1, names[1], path))
    if periods := measured.get("periods"):
        pictures.append(table_figures.by_period(periods, "accuracy", run.file(artifact_paths.BY_PERIOD)))
    if not isinstance(recipe, Columns):
        weights = candidate.weights["W"].T.reshape(-1, *recipe.input.shape)
        pictures.append(image_figures.class_weights(weights, names, run.file(artifact_paths.CLASS_WEIGHTS)))
        if (candidate.outputs.answer != truth).any():
            pictures.append(_draw_misclassified(candidate, run))
    elif found := list_coefficients(measured, recipe, names):
        of_two = f"change of the log odds of {figures.short(names[1])} with"
        unit = of_two if len(names) == 2 else "change of a class's score with"
        pictures.insert(0, table_figures.coefficients(found, unit, run.file(artifact_paths.COEFFICIENTS)))
    return tuple(pictures)


# Regressions


def _describe_epoch_of_numbers(point: Epoch) -> str:
    return f"train loss {readable(point.train_loss, 3)}, test loss {readable(point.test_loss, 3)}"


def _measure_numbers(candidate: Candidate) -> dict[str, Any]:
    """What was learned, and everything measured on the test split."""
    weights, y, y_hat = candidate.weights, *map(torch.from_numpy, (candidate.truth, candidate.outputs.answer))
    sigma = metrics.noise_estimate(y - y_hat)
    return {
        "test_loss": float(metrics.regression(y_hat, y)["loss"]),
        "weights": weights["W"].squeeze(1).tolist(),
        "bias": weights["b"].item(),
        "noise_estimate": sigma,
        "gaussian_nll": metrics.gaussian_nll(y - y_hat, sigma),
    }


def _describe_numbers(measured: dict[str, Any]) -> str:
    loss, noise = readable(measured["test_loss"], 3), readable(measured["noise_estimate"])
    return f"test loss {loss}; as maximum likelihood: noise {noise}, {measured['gaussian_nll']:.3f} nats an example"


def _judge_by_best_fit(candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
    """The test loss against that of the best fit; of synthetic data also the parameters against the true ones."""
    train, test = (load_split(candidate.prepared, name) for name in ("train", "test"))
    kind, fit = BEST_FITS[candidate.objective.loss]
    best = float(
        metrics.regression(linear_regression.with_ones(test.X) @ fit(train.X, train.y), test.y.double())["loss"]
    )
    allowance = (bounds.max_standardised_error * float(train.y.std())) ** 2 / 2
    ratio, plus = bounds.max_loss_ratio, readable(allowance, 2)
    detail = f"{ratio} times the {readable(best)} of the converged {kind} fit, plus {plus}"
    verdict = gates.judge("test_loss", measured["test_loss"], maximum=ratio * best + allowance, detail=detail)
    true = candidate.prepared.true_parameters
    if true is None:
        return (verdict,)
    error = max(abs(found - truth) for found, truth in zip(_learned(measured), true, strict=True))
    return (verdict, gates.judge("parameter_error", error, maximum=bounds.max_parameter_error))


def _learned(measured: dict[str, Any]) -> list[float]:
    """Weights, then the bias."""
    return [*measured["weights"], measured["bias"]]


def _draw_numbers(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """The learned parameters beside the true ones, and the residuals."""
    true, sigma = candidate.prepared.true_parameters, measured["noise_estimate"]
    residuals = candidate.truth - candidate.outputs.answer
    return (figures.fit(_learned(measured), true, residuals, sigma, run.file(artifact_paths.FIT)),)


def _measure_own_numbers(candidate: Candidate) -> dict[str, Any]:
    """R² and root mean squared error with 95 % intervals, coefficients, and the losses it is held against."""
    baselines, recipe = require_baselines(candidate), candidate.prepared.recipe
    answers = Answers(candidate.truth, candidate.outputs.answer)
    found = measure(answers, baselines.units)
    measured = {
        "test_loss": found.metrics["loss"],
        **{name: found.metrics[name] for name in ("r2", "rmse")},
        **{f"{name}_interval": list(found.intervals[name]) for name in ("r2", "rmse")},
        "objective_loss": baselines.mean(candidate.outputs.losses),
        **baselines.metrics,
        **measure_periods(candidate.prepared, answers),
    }
    if isinstance(recipe, Columns):
        folded = raw_units.fold_weights(candidate.weights, recipe, np.float64)
        measured["weights"] = raw_units.name_weights(folded, recipe)[0]
        measured["bias"] = float(raw_units.find_intercepts(folded)[0])
    return measured


def _describe_own_numbers(measured: dict[str, Any]) -> str:
    low, high = map(readable, measured["rmse_interval"])
    return (
        f"R² {measured['r2']:.4f}, root mean squared error {readable(measured['rmse'])} ({low} to {high}); "
        f"loss {readable(measured['objective_loss'])}, of the converged fit {readable(measured['reference_loss'])}, "
        f"of the best constant {readable(measured['baseline_loss'])}"
    )


def _draw_own_numbers(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """Coefficients, residuals, and predictions by the truth."""
    predicted, truth, recipe = candidate.outputs.answer, candidate.truth, candidate.prepared.recipe
    pictures = [
        table_figures.residuals(predicted, truth, run.file(artifact_paths.RESIDUALS)),
        table_figures.predicted_and_true(predicted, truth, run.file(artifact_paths.PREDICTED_AND_TRUE)),
    ]
    if periods := measured.get("periods"):
        pictures.append(table_figures.by_period(periods, "rmse", run.file(artifact_paths.BY_PERIOD)))
    if isinstance(recipe, Columns) and (found := list_coefficients(measured, recipe)):
        unit = f"change of {figures.short(recipe.target.name) if recipe.target else 'the prediction'} with"
        pictures.insert(0, table_figures.coefficients(found, unit, run.file(artifact_paths.COEFFICIENTS)))
    return tuple(pictures)


CURVES_OF_CLASSES = figures.Curves(
    ("train_loss", "validation_loss", "train_accuracy", "test_accuracy", "validation_accuracy"),
    ylabel="loss (nats), accuracy",
    yscale="linear",
)
CURVES_OF_NUMBERS = figures.Curves(
    ("train_loss", "validation_loss", "test_loss"), ylabel="half mean squared error", yscale="log"
)
_CLASSES, _NUMBERS = (CURVES_OF_CLASSES, _describe_epoch_of_classes), (CURVES_OF_NUMBERS, _describe_epoch_of_numbers)
BOOK: dict[TaskName, Task] = {
    "classification": Task(*_CLASSES, _measure_classes, _describe_images, _judge_by_the_book, _draw_images),
    "regression": Task(*_NUMBERS, _measure_numbers, _describe_numbers, _judge_by_best_fit, _draw_numbers),
}
OWN: dict[TaskName, Task] = {
    "classification": Task(
        *_CLASSES, _measure_own_classes, _describe_own_classes, _judge_by_baselines, _draw_own_classes
    ),
    "regression": Task(*_NUMBERS, _measure_own_numbers, _describe_own_numbers, _judge_by_baselines, _draw_own_numbers),
}
