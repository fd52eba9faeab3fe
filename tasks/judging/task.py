"""What is measured of a candidate, which gates it meets before export, and what is drawn: one task for each kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors.numpy
import torch
from matplotlib.figure import Figure

from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Columns
from tasks.fitting import served
from tasks.fitting.splits import load_split
from tasks.judging import gates, plots
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
        baselines = Baselines.of_dataset(prepared, objective, training.validation) if prepared.is_own else None
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


Draw = Callable[[Candidate, dict[str, Any]], Figure | None]  # None: it does not apply


class Task(NamedTuple):
    """How a model of one kind is watched, measured, judged before export, and drawn."""

    curves: plots.Curves  # what the learning curve shows
    describe_epoch: Callable[[Epoch], str]  # in the log
    measure: Callable[[Candidate], dict[str, Any]]  # the metrics on the test split
    describe: Callable[[dict[str, Any]], str]  # they, in the log
    judge: Callable[[Candidate, dict[str, Any], Gates], tuple[GateVerdict, ...]]
    figures: dict[str, Draw]  # by the file in the run's folder

    def draw(self, candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
        """Write every figure that applies."""
        drawn = ((file, draw(candidate, measured)) for file, draw in self.figures.items())
        return tuple(plots.save(figure, run.file(file)) for file, figure in drawn if figure)


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


def _draw_confusion_matrix(candidate: Candidate, _: dict[str, Any]) -> Figure:
    return plots.draw_confusion_matrix(_confusion_matrix(candidate), candidate.prepared.class_names)


def _draw_reliability(candidate: Candidate, _: dict[str, Any]) -> Figure:
    return plots.draw_reliability(_bin(candidate))


def _draw_misclassified(candidate: Candidate, _: dict[str, Any]) -> Figure | None:
    """The images that were misclassified with the most confidence."""
    label, truth, names = candidate.outputs.answer, candidate.truth, candidate.prepared.class_names
    (wrong,) = np.nonzero(label != truth)
    if not len(wrong) or isinstance(candidate.prepared.recipe, Columns):
        return None
    worst = wrong[np.argsort(-_confidence(candidate)[wrong], kind="stable")[:WORST]]
    predicted, true = ([names[index] for index in labels[worst]] for labels in (label, truth))
    return plots.draw_image_grid(candidate.test.inputs[worst], predicted, true)


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


def _draw_thresholds(candidate: Candidate, _: dict[str, Any]) -> Figure | None:
    """Of two classes: what every threshold would do."""
    lead, names = candidate.outputs.lead, candidate.prepared.class_names
    return None if lead is None else plots.draw_thresholds(lead, candidate.truth == 1, names[1])


def _draw_class_weights(candidate: Candidate, _: dict[str, Any]) -> Figure | None:
    recipe = candidate.prepared.recipe
    if isinstance(recipe, Columns):
        return None
    weights = candidate.weights["W"].T.reshape(-1, *recipe.input.shape)
    return plots.draw_class_weights(weights, candidate.prepared.class_names)


def _draw_periods(candidate: Candidate, measured: dict[str, Any]) -> Figure | None:
    metric = "accuracy" if candidate.objective.is_of_classes else "rmse"
    return plots.draw_periods(measured["periods"], metric) if measured.get("periods") else None


def _draw_coefficients(candidate: Candidate, measured: dict[str, Any]) -> Figure | None:
    recipe, names = candidate.prepared.recipe, candidate.prepared.class_names
    if not isinstance(recipe, Columns) or not (found := list_coefficients(measured, recipe, names)):
        return None
    target = recipe.target.name if recipe.target else "the prediction"
    of_classes = f"the log odds of {plots.short(names[1])}" if len(names) == 2 else "a class's score"
    return plots.draw_coefficients(found, f"change of {of_classes if names else plots.short(target)} with")


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


def _draw_fit(candidate: Candidate, measured: dict[str, Any]) -> Figure:
    true, residuals = candidate.prepared.true_parameters, candidate.truth - candidate.outputs.answer
    return plots.draw_fit(_learned(measured), true, residuals, measured["noise_estimate"])


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


def _draw_residuals(candidate: Candidate, _: dict[str, Any]) -> Figure:
    return plots.draw_residuals(candidate.outputs.answer, candidate.truth)


def _draw_predictions(candidate: Candidate, _: dict[str, Any]) -> Figure:
    return plots.draw_predictions(candidate.outputs.answer, candidate.truth)


CURVES_OF_CLASSES = plots.Curves(
    ("train_loss", "validation_loss", "train_accuracy", "test_accuracy", "validation_accuracy"),
    ylabel="loss (nats), accuracy",
    yscale="linear",
)
CURVES_OF_NUMBERS = plots.Curves(
    ("train_loss", "validation_loss", "test_loss"), ylabel="half mean squared error", yscale="log"
)
FIGURES_OF_IMAGES: dict[str, Draw] = {
    artifact_paths.CONFUSION_MATRIX: _draw_confusion_matrix,
    artifact_paths.RELIABILITY: _draw_reliability,
    artifact_paths.MISCLASSIFIED: _draw_misclassified,
}
FIGURES_OF_CLASSES: dict[str, Draw] = {
    artifact_paths.COEFFICIENTS: _draw_coefficients,
    artifact_paths.CONFUSION_MATRIX: _draw_confusion_matrix,
    artifact_paths.RELIABILITY: _draw_reliability,
    artifact_paths.THRESHOLDS: _draw_thresholds,
    artifact_paths.BY_PERIOD: _draw_periods,
    artifact_paths.CLASS_WEIGHTS: _draw_class_weights,
    artifact_paths.MISCLASSIFIED: _draw_misclassified,
}
FIGURES_OF_NUMBERS: dict[str, Draw] = {
    artifact_paths.COEFFICIENTS: _draw_coefficients,
    artifact_paths.RESIDUALS: _draw_residuals,
    artifact_paths.PREDICTED_AND_TRUE: _draw_predictions,
    artifact_paths.BY_PERIOD: _draw_periods,
}
_CLASSES, _NUMBERS = (CURVES_OF_CLASSES, _describe_epoch_of_classes), (CURVES_OF_NUMBERS, _describe_epoch_of_numbers)
BOOK: dict[TaskName, Task] = {
    "classification": Task(*_CLASSES, _measure_classes, _describe_images, _judge_by_the_book, FIGURES_OF_IMAGES),
    "regression": Task(
        *_NUMBERS, _measure_numbers, _describe_numbers, _judge_by_best_fit, {artifact_paths.FIT: _draw_fit}
    ),
}
OWN: dict[TaskName, Task] = {
    "classification": Task(
        *_CLASSES, _measure_own_classes, _describe_own_classes, _judge_by_baselines, FIGURES_OF_CLASSES
    ),
    "regression": Task(*_NUMBERS, _measure_own_numbers, _describe_own_numbers, _judge_by_baselines, FIGURES_OF_NUMBERS),
}
