"""What is measured of a candidate, which gates it meets before export, and what is drawn: one task for each kind."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

import numpy as np
import safetensors.numpy
import torch
from matplotlib.figure import Figure

from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Columns, Recipe
from tasks.fitting import served
from tasks.fitting.splits import load_split
from tasks.judging import gates, plots
from tasks.judging.baselines import Baselines, split_rows
from tasks.judging.metrics import Answers, bin_by_confidence, measure, measure_periods
from tasks.judging.objective import Objective
from tasks.machine.arrays import Array
from tasks.machine.words import readable
from tasks.networks import linear_regression, metrics
from tasks.parameters import Gates, Loss, Training
from tasks.records import Epoch, GateVerdict, PreparedDataset, TrainedModel
from tasks.serving import raw_units
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
Metrics = dict[str, Any]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Candidate:
    """A trained model that no gate has passed yet, and what it says of the test split."""

    prepared: PreparedDataset
    trained: TrainedModel
    training: Training
    objective: Objective
    weights: Weights
    test: Examples
    answers: Answers

    @classmethod
    def read(cls, prepared: PreparedDataset, trained: TrainedModel, training: Training) -> Self:
        """Read weights and test split, and compute the answers.

        Raises:
            DataError: a file is missing or has changed.
        """
        weights, test = safetensors.numpy.load(verified.read(trained.weights)), read_split(prepared.test, prepared)
        objective, score = Objective.of(training, prepared, trained.steps), choose_task(prepared).score
        parts = (
            Answers.from_scores(score(weights, prepared.recipe, test.inputs[rows]), test.y_true[rows], objective)
            for rows in split_rows(len(test.y_true), max(len(weights["b"]), math.prod(prepared.recipe.input.shape)))
        )
        return cls(prepared, trained, training, objective, weights, test, Answers.concatenate(list(parts)))

    @property
    def while_training(self) -> Metrics:
        """What was measured in the epoch whose weights were kept, but for the test split, which is measured anew."""
        kept = self.trained.kept
        measured = {name: getattr(kept, name) for name in WHILE_TRAINING}
        return {name: value for name, value in measured.items() if value is not None}

    @cached_property
    def baselines(self) -> Baselines:
        """What models of own data are held against; it raises as ``Baselines.of_dataset``."""
        return Baselines.of_dataset(self.prepared, self.objective, self.training.validation)


Drawing = tuple[str, Figure]  # and the file in the run's folder


class Task(NamedTuple):
    """How a model of one kind is watched, measured, judged before export, and drawn."""

    curves: plots.Curves  # what the learning curve shows
    describe_epoch: Callable[[Epoch], str]  # in the log
    score: Callable[[Weights, Recipe, Array], Array]  # rows, as the model takes them: ``(n, outputs)``
    measures: tuple[Callable[[Candidate], Metrics], ...]  # on the test split
    describe: Callable[[Metrics], str]  # they, in the log
    judge: Callable[[Candidate, Metrics, Gates], tuple[GateVerdict, ...]]
    drawings: tuple[Callable[[Candidate, Metrics], Iterator[Drawing]], ...]

    def measure(self, candidate: Candidate) -> Metrics:
        """Everything that is measured on the test split."""
        return {name: value for each in self.measures for name, value in each(candidate).items()}

    def draw(self, candidate: Candidate, measured: Metrics, run: RunFolder) -> tuple[FileRef, ...]:
        """Write every picture that applies."""
        drawn = (drawing for each in self.drawings for drawing in each(candidate, measured))
        return tuple(plots.save(figure, run.file(file)) for file, figure in drawn)


def choose_task(prepared: PreparedDataset) -> Task:
    """The one of these data."""
    return OWN[prepared.recipe.kind, prepared.task] if prepared.is_own else BOOK[prepared.task]


# Classifiers


def describe_epoch_of_labels(point: Epoch) -> str:
    """Losses and accuracies."""
    return (
        f"train loss {point.train_loss:.3f}, train accuracy {point.train_accuracy:.3f}, "
        f"test accuracy {point.test_accuracy:.3f}"
    )


def measure_labels(candidate: Candidate) -> Metrics:
    """Everything measured on the test split.

    Precision and recall of each class are 0 where there is none; rows of the confusion matrix are the true classes. The
    calibration error is there since softmax regression is trained for calibrated probabilities.
    """
    names, answers = candidate.prepared.class_names, candidate.answers
    rows, predicted, right = (
        np.bincount(each, minlength=len(names))
        for each in (answers.truth, answers.answer, answers.truth[answers.is_right])
    )
    loss = float(answers.losses.mean())
    measured = {
        "test_accuracy": float(answers.is_right.mean()),
        "test_loss": loss,
        "test_loss_bits": metrics.bits(loss),
        "label_entropy": metrics.entropy(torch.from_numpy(answers.truth), len(names)),
        "calibration_error": bin_by_confidence(answers).error,
        "precision": dict(zip(names, (right / predicted.clip(1)).tolist(), strict=True)),
        "recall": dict(zip(names, (right / rows.clip(1)).tolist(), strict=True)),
    }
    if len(names) <= MOST_CLASSES:
        measured["confusion_matrix"] = count_confusions(answers, len(names)).tolist()
    return measured


def count_confusions(answers: Answers, count: int) -> Array:
    """How many rows of each class (first) are taken for each other."""
    cells = np.bincount(answers.truth * count + answers.answer, minlength=count * count)
    return cells.reshape(count, count)


def describe_labels(measured: Metrics) -> str:
    """Of the book's data."""
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; cross-entropy {measured['test_loss']:.3f} nats "
        f"({measured['test_loss_bits']:.3f} bits) a label, {measured['label_entropy']:.3f} nats for a model that knows "
        "only how frequent each class is, 0 for a perfect one"
    )


def describe_own_labels(measured: Metrics) -> str:
    """Of own data; of images that are many and large without a reference."""
    fitted = f"of the reference {measured['reference_loss']:.4f}, " if "reference_loss" in measured else ""
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; loss {measured['objective_loss']:.4f} nats a label, {fitted}"
        f"of the best constant {measured['baseline_loss']:.4f}"
    )


def judge_by_the_book(candidate: Candidate, measured: Metrics, bounds: Gates) -> tuple[GateVerdict, ...]:
    """The book's assertions."""
    return (
        gates.judge("train_loss", measured["train_loss"], below=bounds.max_train_loss),
        gates.judge("train_accuracy", measured["train_accuracy"], above=bounds.min_train_accuracy, maximum=1.0),
        gates.judge("test_accuracy", measured["test_accuracy"], above=bounds.min_test_accuracy, maximum=1.0),
    )


def draw_labels(candidate: Candidate, _: Metrics) -> Iterator[Drawing]:
    """What is taken for what, and how far confidence can be trusted; of two classes, what every threshold would do."""
    answers, names = candidate.answers, candidate.prepared.class_names
    if len(names) > plots.MOST_NAMED:
        matrix = plots.draw_mistakes(answers.truth, answers.answer, names)
    else:
        matrix = plots.draw_confusion_matrix(count_confusions(answers, len(names)), names)
    yield artifact_paths.CONFUSION_MATRIX, matrix
    yield artifact_paths.RELIABILITY, plots.draw_reliability(bin_by_confidence(answers))
    if len(names) == 2:
        score = np.where(answers.answer == 1, answers.confidence, 1 - answers.confidence)
        yield artifact_paths.THRESHOLDS, plots.draw_thresholds(score, answers.truth == 1, names[1])


def draw_misclassified(candidate: Candidate, _: Metrics) -> Iterator[Drawing]:
    """The images that were misclassified with the most confidence."""
    answers, names = candidate.answers, candidate.prepared.class_names
    (wrong,) = np.nonzero(~answers.is_right)
    if len(wrong):
        worst = wrong[np.argsort(-answers.confidence[wrong], kind="stable")[:WORST]]
        predicted, true = ([names[index] for index in labels[worst]] for labels in (answers.answer, answers.truth))
        yield artifact_paths.MISCLASSIFIED, plots.draw_image_grid(candidate.test.inputs[worst], predicted, true)


# Regressions


def describe_epoch_of_numbers(point: Epoch) -> str:
    """Losses."""
    return f"train loss {readable(point.train_loss, 3)}, test loss {readable(point.test_loss, 3)}"


def measure_parameters(candidate: Candidate) -> Metrics:
    """What was learned of the book's data, and the test loss beside its reading as maximum likelihood."""
    weights, y, y_hat = candidate.weights, *map(torch.from_numpy, candidate.answers[:2])
    sigma = metrics.noise_estimate(y - y_hat)
    return {
        "test_loss": float(metrics.regression(y_hat, y)["loss"]),
        "weights": weights["W"].squeeze(1).tolist(),
        "bias": weights["b"].item(),
        "noise_estimate": sigma,
        "gaussian_nll": metrics.gaussian_nll(y - y_hat, sigma),
    }


def describe_parameters(measured: Metrics) -> str:
    """Of the book's data."""
    loss, noise = readable(measured["test_loss"], 3), readable(measured["noise_estimate"])
    return f"test loss {loss}; as maximum likelihood: noise {noise}, {measured['gaussian_nll']:.3f} nats an example"


def judge_by_best_fit(candidate: Candidate, measured: Metrics, bounds: Gates) -> tuple[GateVerdict, ...]:
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
    error = float(np.abs(np.array([*measured["weights"], measured["bias"]]) - true).max())
    return (verdict, gates.judge("parameter_error", error, maximum=bounds.max_parameter_error))


def draw_parameters(candidate: Candidate, measured: Metrics) -> Iterator[Drawing]:
    """What was learned of the book's data beside the truth, and the residuals."""
    learned, residuals = [*measured["weights"], measured["bias"]], candidate.answers.truth - candidate.answers.answer
    true, sigma = candidate.prepared.true_parameters, measured["noise_estimate"]
    yield artifact_paths.FIT, plots.draw_fit(learned, true, residuals, sigma)


def measure_numbers(candidate: Candidate) -> Metrics:
    """R² and root mean squared error with 95 % intervals."""
    found = measure(candidate.answers, candidate.baselines.units)
    return {
        "test_loss": found.metrics["loss"],
        **{name: found.metrics[name] for name in ("r2", "rmse")},
        **{f"{name}_interval": list(found.intervals[name]) for name in ("r2", "rmse")},
    }


def describe_numbers(measured: Metrics) -> str:
    """Of own data."""
    low, high = map(readable, measured["rmse_interval"])
    return (
        f"R² {measured['r2']:.4f}, root mean squared error {readable(measured['rmse'])} ({low} to {high}); "
        f"loss {readable(measured['objective_loss'])}, of the converged fit {readable(measured['reference_loss'])}, "
        f"of the best constant {readable(measured['baseline_loss'])}"
    )


def draw_numbers(candidate: Candidate, _: Metrics) -> Iterator[Drawing]:
    """Predictions beside the truth."""
    truth, predicted = candidate.answers[:2]
    yield artifact_paths.RESIDUALS, plots.draw_residuals(predicted, truth)
    yield artifact_paths.PREDICTED_AND_TRUE, plots.draw_predictions(predicted, truth)


# Own data


def measure_baselines(candidate: Candidate) -> Metrics:
    """The loss that was minimised, those it is held against, and of a split by time the figures of each period."""
    objective_loss = candidate.baselines.mean(candidate.answers.losses)
    periods = measure_periods(candidate.prepared, candidate.answers)
    return {"objective_loss": objective_loss, **candidate.baselines.metrics, **periods}


def judge_by_baselines(candidate: Candidate, measured: Metrics, bounds: Gates) -> tuple[GateVerdict, ...]:
    """The best constant and the converged fit."""
    return candidate.baselines.judge(candidate.answers.losses, bounds)


def draw_periods(candidate: Candidate, measured: Metrics) -> Iterator[Drawing]:
    """Where the latest rows are the test split."""
    metric = "accuracy" if candidate.objective.is_of_classes else "rmse"
    if measured.get("periods"):
        yield artifact_paths.BY_PERIOD, plots.draw_periods(measured["periods"], metric)


def score_table(weights: Weights, recipe: Recipe, rows: Array) -> Array:
    """Scores ``(n, outputs)`` float64 of raw rows."""
    columns = cast("Columns", recipe)
    return raw_units.score_rows(raw_units.fold_weights(weights, columns, np.float64), columns, rows)


def measure_coefficients(candidate: Candidate) -> Metrics:
    """The weights of a table's columns and levels in raw units; of classes only where they are not too many."""
    recipe, names = cast("Columns", candidate.prepared.recipe), candidate.prepared.class_names
    folded = raw_units.fold_weights(candidate.weights, recipe, np.float64)
    weights, bias = raw_units.name_weights(folded, recipe), raw_units.find_intercepts(folded).tolist()
    if not names:
        return {"weights": weights[0], "bias": bias[0]}
    if folded.W.size + folded.effects.size > MOST_WEIGHTS:
        return {}
    return {"weights": dict(zip(names, weights, strict=True)), "bias": dict(zip(names, bias, strict=True))}


def draw_coefficients(candidate: Candidate, measured: Metrics) -> Iterator[Drawing]:
    """The largest of a table's model."""
    recipe, names = cast("Columns", candidate.prepared.recipe), candidate.prepared.class_names
    if found := raw_units.list_coefficients(measured, recipe, names):
        of_what = plots.shorten(recipe.target.name) if recipe.target else "the prediction"
        if names:
            of_what = f"the log odds of {plots.shorten(names[1])}" if len(names) == 2 else "a class's score"
        yield artifact_paths.COEFFICIENTS, plots.draw_coefficients(found, f"change of {of_what} with")


def measure_brightness(candidate: Candidate) -> Metrics:
    """Mean training pixels, 0…255: of the ``border``, a pixel wide, and of the ``middle``, half of each side.

    Where they differ much, things are light on dark or dark on light.
    """
    images = read_split(candidate.prepared.train, candidate.prepared).inputs
    some = images[np.linspace(0, len(images) - 1, min(MOST_IMAGES, len(images))).astype(int)]
    height, width = some.shape[1:3]
    inner = np.zeros((height, width), bool)
    inner[1:-1, 1:-1] = True
    middle = some[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    return {"brightness": {"border": float(some[:, ~inner].mean()), "middle": float(middle.mean())}}


def draw_class_weights(candidate: Candidate, _: Metrics) -> Iterator[Drawing]:
    """The weight of each pixel for each class."""
    weights = candidate.weights["W"].T.reshape(-1, *candidate.prepared.recipe.input.shape)
    yield artifact_paths.CLASS_WEIGHTS, plots.draw_class_weights(weights, candidate.prepared.class_names)


CURVES_OF_LABELS = plots.Curves(
    ("train_loss", "validation_loss", "train_accuracy", "test_accuracy", "validation_accuracy"),
    ylabel="loss (nats), accuracy",
    yscale="linear",
)
CURVES_OF_NUMBERS = plots.Curves(
    ("train_loss", "validation_loss", "test_loss"), ylabel="half mean squared error", yscale="log"
)
LABELS, NUMBERS = (CURVES_OF_LABELS, describe_epoch_of_labels), (CURVES_OF_NUMBERS, describe_epoch_of_numbers)
BOOK: dict[TaskName, Task] = {
    "classification": Task(
        *LABELS,
        served.scores,
        (measure_labels,),
        describe_labels,
        judge_by_the_book,
        (draw_labels, draw_misclassified),
    ),
    "regression": Task(
        *NUMBERS,
        served.scores,
        (measure_parameters,),
        describe_parameters,
        judge_by_best_fit,
        (draw_parameters,),
    ),
}
OWN: dict[tuple[str, TaskName], Task] = {  # by the kind of recipe
    ("columns", "classification"): Task(
        *LABELS,
        score_table,
        (measure_labels, measure_baselines, measure_coefficients),
        describe_own_labels,
        judge_by_baselines,
        (draw_coefficients, draw_labels, draw_periods),
    ),
    ("columns", "regression"): Task(
        *NUMBERS,
        score_table,
        (measure_numbers, measure_baselines, measure_coefficients),
        describe_numbers,
        judge_by_baselines,
        (draw_coefficients, draw_numbers, draw_periods),
    ),
    ("pixels", "classification"): Task(
        *LABELS,
        served.scores,
        (measure_labels, measure_baselines, measure_brightness),
        describe_own_labels,
        judge_by_baselines,
        (draw_labels, draw_class_weights, draw_misclassified),
    ),
}
