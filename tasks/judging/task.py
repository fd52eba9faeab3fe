"""What is measured for a candidate, which gates it must pass before export, and what is drawn, by kind of task."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, Self, cast

import numpy as np
import safetensors.numpy
from matplotlib.figure import Figure

from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Columns
from tasks.fitting.objective import Objective
from tasks.judging import effects, gates, plots
from tasks.judging.baselines import Baselines, bound_rows, fit_table
from tasks.judging.metrics import Answers, bin_by_confidence, find_row_times, measure, measure_by_period
from tasks.machine.words import format_number
from tasks.parameters import Gates, Loss, Training, Use
from tasks.records import GateVerdict, PreparedDataset, TrainedModel
from tasks.serving import raw_units
from tasks.serving.task import TASKS, TaskName
from tasks.store import artifact_paths, verified_files
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder

WHILE_TRAINING = "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
MOST_WEIGHTS = 20_000  # that are listed one by one
MOST_CLASSES = 200  # beyond which metrics have no confusion matrix: that of a thousand classes is 9 MB of JSON
WORST = 18  # misclassified images in the picture
BEST_FITS = {Loss.SQUARED: "least-squares", Loss.HUBER: "Huber"}  # as gates name them
Metrics = dict[str, Any]
Drawings = Iterator[tuple[str, Figure]]  # each with its file in the run's folder


@dataclass(frozen=True)
class Candidate:
    """A trained model that has not passed any gate yet, and its answers on the test split."""

    prepared: PreparedDataset
    trained: TrainedModel
    training: Training
    objective: Objective
    weights: raw_units.Weights
    test: Examples
    answers: Answers

    @classmethod
    def read(cls, prepared: PreparedDataset, trained: TrainedModel, training: Training) -> Self:
        """Read weights and test split, and compute the answers.

        Raises:
            DataError: a file is missing or has changed.
        """
        weights, test = (
            safetensors.numpy.load(verified_files.read(trained.weights)),
            read_split(prepared.test, prepared),
        )
        recipe, objective = prepared.recipe, Objective.choose(training, prepared, trained.steps)
        score = partial(raw_units.score_rows, weights, recipe)
        size = bound_rows(max(len(weights["b"]), math.prod(recipe.input.shape)))
        answers = Answers.ask(score, test.inputs.__getitem__, test.y_true, objective, size)
        return cls(prepared, trained, training, objective, weights, test, answers)

    @cached_property
    def baselines(self) -> Baselines:
        """What models of own data are compared with; raises the same errors as ``Baselines.of_dataset``."""
        return Baselines.of_dataset(self.prepared, self.objective, self.training.validation)

    @cached_property
    def metrics(self) -> Metrics:
        """Everything that is measured on the test split, and on the others in the epoch whose weights were kept."""
        kept = {name: getattr(self.trained.kept_point, name, None) for name in WHILE_TRAINING}
        measured = {name: value for name, value in kept.items() if value is not None}
        for measure_part in choose_task(self.prepared).measures:
            measured |= measure_part(self)
        return measured

    def draw(self, run: RunFolder) -> tuple[FileRef, ...]:
        """Write every picture that applies."""
        drawn = (each for draw in choose_task(self.prepared).drawings for each in draw(self))
        return tuple(plots.save(figure, run.file(file)) for file, figure in drawn)


# Classifiers


def measure_labels(candidate: Candidate) -> Metrics:
    """Everything measured on the test split.

    A class's precision and recall are 0 where undefined; rows of the confusion matrix are the true classes. The
    calibration error is included because softmax regression is trained for calibrated probabilities.
    """
    names, (y_true, answer, losses, _) = candidate.prepared.class_names, candidate.answers
    count, is_right, loss = len(names), candidate.answers.is_right, float(losses.mean())
    rows, predicted, right = (np.bincount(each, minlength=count) for each in (y_true, answer, y_true[is_right]))
    frequencies = rows[rows > 0] / len(y_true)
    measured = {
        "test_accuracy": float(is_right.mean()),
        "test_loss": loss,
        "test_loss_bits": loss / math.log(2),
        "label_entropy": -float((frequencies * np.log(frequencies)).sum()),
        "calibration_error": bin_by_confidence(candidate.answers).error,
        "precision": dict(zip(names, (right / predicted.clip(1)).tolist(), strict=True)),
        "recall": dict(zip(names, (right / rows.clip(1)).tolist(), strict=True)),
    }
    if count <= MOST_CLASSES:
        cells = np.bincount(y_true * count + answer, minlength=count * count)
        measured["confusion_matrix"] = cells.reshape(count, count).tolist()
    return measured


def describe_book_labels(candidate: Candidate) -> str:
    """What was measured on the book's data, in words."""
    measured = candidate.metrics
    return (
        f"test accuracy {measured['test_accuracy']:.4f}; cross-entropy {measured['test_loss']:.3f} nats "
        f"({measured['test_loss_bits']:.3f} bits) a label, {measured['label_entropy']:.3f} nats for a model that knows "
        "only how frequent each class is, 0 for a perfect one"
    )


def judge_by_the_book(candidate: Candidate, bounds: Gates) -> Iterator[GateVerdict]:
    """Judge by the book's assertions."""
    measured = candidate.metrics
    yield gates.judge("train_loss", measured["train_loss"], below=bounds.max_train_loss)
    for name in ("train_accuracy", "test_accuracy"):
        yield gates.judge(name, measured[name], above=getattr(bounds, f"min_{name}"), maximum=1.0)


def draw_labels(candidate: Candidate) -> Drawings:
    """Which labels are confused, and how far confidence can be trusted; with two classes, also every threshold."""
    answers, names = candidate.answers, candidate.prepared.class_names
    yield artifact_paths.CONFUSION_MATRIX, plots.draw_confusion_matrix(answers.y_true, answers.answer, names)
    yield artifact_paths.RELIABILITY, plots.draw_reliability(bin_by_confidence(answers))
    if len(names) == 2:
        score = np.where(answers.answer == 1, answers.confidence, 1 - answers.confidence)
        yield artifact_paths.THRESHOLDS, plots.draw_thresholds(score, answers.y_true == 1, names[1])


def draw_misclassified(candidate: Candidate) -> Drawings:
    """The images misclassified with the highest confidence."""
    answers, names = candidate.answers, candidate.prepared.class_names
    wrong = np.flatnonzero(~answers.is_right)
    if len(wrong):
        worst = wrong[np.argsort(-answers.confidence[wrong], kind="stable")[:WORST]]
        predicted, true = ([names[index] for index in labels[worst]] for labels in (answers.answer, answers.y_true))
        yield artifact_paths.MISCLASSIFIED, plots.draw_misclassified(candidate.test.inputs[worst], predicted, true)


# Regressions


def measure_parameters(candidate: Candidate) -> Metrics:
    """What was learned from the book's data, and the test loss with its interpretation as maximum likelihood."""
    import torch  # here, so that tables need none

    from tasks.networks import metrics

    weights, y, y_hat = candidate.weights, *map(torch.from_numpy, candidate.answers[:2])
    sigma = metrics.noise_estimate(y - y_hat)
    return {
        "test_loss": float(metrics.regression(y_hat, y)["loss"]),
        "weights": weights["W"].squeeze(1).tolist(),
        "bias": weights["b"].item(),
        "noise_estimate": sigma,
        "gaussian_nll": metrics.gaussian_nll(y - y_hat, sigma),
    }


def describe_parameters(candidate: Candidate) -> str:
    """What was learned from the book's data, in words."""
    measured = candidate.metrics
    loss, noise = format_number(measured["test_loss"], 3), format_number(measured["noise_estimate"])
    return f"test loss {loss}; as maximum likelihood: noise {noise}, {measured['gaussian_nll']:.3f} nats an example"


def judge_by_best_fit(candidate: Candidate, bounds: Gates) -> Iterator[GateVerdict]:
    """Compare the test loss with the best fit's; for synthetic data also the parameters with the true ones."""
    measured = candidate.metrics
    recipe, loss = cast("Columns", candidate.prepared.recipe), candidate.objective.loss
    train, test = read_split(candidate.prepared.train, candidate.prepared), candidate.test
    fit = fit_table(train.inputs, train.y_true.astype(np.float64), recipe, 1, Objective(loss))
    best = Objective(Loss.SQUARED).mean(fit.score(test.inputs), test.y_true)
    deviation = float(train.y_true.std(ddof=1, dtype=np.float64))
    allowance = (bounds.max_standardised_error * deviation) ** 2 / 2
    ratio, plus = bounds.max_loss_ratio, format_number(allowance, 2)
    detail = f"{ratio} times the {format_number(best)} of the converged {BEST_FITS[loss]} fit, plus {plus}"
    yield gates.judge("test_loss", measured["test_loss"], maximum=ratio * best + allowance, detail=detail)
    if (true := candidate.prepared.true_parameters) is not None:
        error = float(np.abs(np.array([*measured["weights"], measured["bias"]]) - true).max())
        yield gates.judge("parameter_error", error, maximum=bounds.max_parameter_error)


def draw_parameters(candidate: Candidate) -> Drawings:
    """What was learned from the book's data beside the truth, and the residuals."""
    measured, (y_true, predicted, *_) = candidate.metrics, candidate.answers
    learned, true = [*measured["weights"], measured["bias"]], candidate.prepared.true_parameters
    yield artifact_paths.FIT, plots.draw_fit(learned, true, y_true - predicted, measured["noise_estimate"])


def measure_numbers(candidate: Candidate) -> Metrics:
    """R² and root mean squared error with 95 % intervals."""
    found = measure(candidate.answers, candidate.baselines.units)
    intervals = {f"{name}_interval": list(found.intervals[name]) for name in ("r2", "rmse")}
    return {"test_loss": found.metrics["loss"], "r2": found.metrics["r2"], "rmse": found.metrics["rmse"], **intervals}


def draw_numbers(candidate: Candidate) -> Drawings:
    """Draw predictions beside the truth."""
    y_true, predicted = candidate.answers[:2]
    yield artifact_paths.RESIDUALS, plots.draw_residuals(predicted, y_true)
    yield artifact_paths.PREDICTED_AND_TRUE, plots.draw_predictions(predicted, y_true)


# Own data


def measure_baselines(candidate: Candidate) -> Metrics:
    """The minimised loss, those it is compared with, and for a split by time the metrics of each period."""
    measured = {"objective_loss": candidate.baselines.mean(candidate.answers.losses), **candidate.baselines.metrics}
    times = find_row_times(candidate.test.key, candidate.prepared)
    if times is not None:
        of_all, periods = {"recall", "recall_intervals"}, measure_by_period(candidate.answers, times, in_time=True)
        return {**measured, "periods": [each.model_dump(mode="json", exclude=of_all) for each in periods]}
    return measured


def describe_losses(candidate: Candidate) -> str:
    """How good the model is, and its loss beside those it is compared with, as far as they are known."""
    measured, summary = candidate.metrics, TASKS[candidate.prepared.task].summary(candidate.metrics)
    if interval := measured.get("rmse_interval"):
        summary += f" ({' to '.join(map(format_number, interval))})"
    kind, unit = "loss", " nats a label" if candidate.objective.is_of_classes else ""
    if candidate.objective.class_weights:  # labels do not count alike in it
        kind, unit = "class-weighted loss", ""
    others = {"of the converged fit": "reference_loss", "of the best constant": "baseline_loss"}
    said = [f"{words} {format_number(measured[name])}" for words, name in others.items() if name in measured]
    loss = f"{kind} {format_number(measured['objective_loss'])}{unit}"
    return f"{summary}; {', '.join([loss, *said])}"


def judge_by_baselines(candidate: Candidate, bounds: Gates) -> Iterator[GateVerdict]:
    """Judge by the best constant, and record the fit to some images."""
    return candidate.baselines.judge(candidate.answers.losses, bounds)


def judge_table(candidate: Candidate, bounds: Gates) -> Iterator[GateVerdict]:
    """Judge by the best constant, and by what is left of the gradient."""
    yield from judge_by_baselines(candidate, bounds)
    if fit := candidate.trained.fit:
        gradient, rows = fit.gradient, "all training rows"
        if refit := candidate.trained.refit:
            gradient = float(np.maximum(gradient, refit.gradient))  # unlike max(), this keeps NaN
            rows += ", or of the refit on all rows if that is larger"
        detail = f"the gradient's norm on {rows}, as a share of that at zero weights"
        yield gates.judge("converged", gradient, maximum=bounds.max_gradient, detail=detail)


def draw_periods(candidate: Candidate) -> Drawings:
    """The metric of each period, if the latest rows are the test split."""
    if periods := candidate.metrics.get("periods"):
        metric = "accuracy" if candidate.objective.is_of_classes else "rmse"
        yield artifact_paths.BY_PERIOD, plots.draw_periods(periods, metric)


def measure_coefficients(candidate: Candidate) -> Metrics:
    """The published weights of a table's columns and levels in raw units; for many classes none."""
    recipe, names, weights = candidate.prepared.recipe, candidate.prepared.class_names, candidate.weights
    if file := candidate.trained.refit_weights:
        weights = safetensors.numpy.load(verified_files.read(file))
    folded = raw_units.fold_weights(weights, recipe, np.float64)
    listed = folded.W, folded.effects, folded.slopes, folded.pair_weights
    if names and sum(array.size for array in listed) > MOST_WEIGHTS:
        return {}
    found = {
        "weights": raw_units.name_weights(folded, recipe),
        "bias": raw_units.find_intercepts(folded, recipe).tolist(),
    }
    return {key: dict(zip(names, each, strict=True)) if names else each[0] for key, each in found.items()}


def draw_effects(candidate: Candidate) -> Drawings:
    """The largest effects of a table's columns and pairs; of many classes, on those with most test rows."""
    recipe, names = cast("Columns", candidate.prepared.recipe), candidate.prepared.class_names
    weights = raw_units.list_arrays(raw_units.fold_weights(candidate.weights, recipe, np.float64))
    if found := effects.find_effects(weights, recipe, candidate.test.inputs):
        of_what = plots.shorten(recipe.target_scaling.name)
        shown = [0]
        if len(names) == 2:
            of_what = f"the log odds of {plots.shorten(names[1])}"
        elif names:
            of_what = "each class's score"
            rows = np.bincount(candidate.test.y_true, minlength=len(names))
            shown = sorted(np.argsort(-rows, kind="stable")[: effects.MOST_LINES].tolist())
        num_terms = len(recipe.columns) + len(recipe.pairs)
        more = f": the {len(found)} largest effects of {num_terms}" if len(found) < num_terms else ""
        yield artifact_paths.EFFECTS, effects.draw_effects(found, f"What columns add to {of_what}{more}", names, shown)


def draw_class_weights(candidate: Candidate) -> Drawings:
    """The weight of each pixel for each class."""
    weights = candidate.weights["W"].T.reshape(-1, *candidate.prepared.recipe.input.shape)
    yield artifact_paths.CLASS_WEIGHTS, plots.draw_class_weights(weights, candidate.prepared.class_names)


class Judgement(NamedTuple):
    """How a model of one kind is measured, judged before export, and drawn: the defaults are those of own data."""

    measures: tuple[Callable[[Candidate], Metrics], ...]  # on the test split
    drawings: tuple[Callable[[Candidate], Drawings], ...]
    describe: Callable[[Candidate], str] = describe_losses  # what was measured, in the log
    judge: Callable[[Candidate, Gates], Iterable[GateVerdict]] = judge_by_baselines


OF_TABLE = measure_baselines, measure_coefficients
TASKS_OF: dict[tuple[Use, TaskName], Judgement] = {
    (Use.BOOK, "classification"): Judgement(
        (measure_labels,), (draw_labels, draw_misclassified), describe_book_labels, judge_by_the_book
    ),
    (Use.BOOK, "regression"): Judgement(
        (measure_parameters,), (draw_parameters,), describe_parameters, judge_by_best_fit
    ),
    (Use.TABLES, "classification"): Judgement(
        (measure_labels, *OF_TABLE),
        (draw_effects, draw_labels, draw_periods),
        judge=judge_table,
    ),
    (Use.TABLES, "regression"): Judgement(
        (measure_numbers, *OF_TABLE),
        (draw_effects, draw_numbers, draw_periods),
        judge=judge_table,
    ),
    (Use.IMAGES, "classification"): Judgement(
        (measure_labels, measure_baselines), (draw_labels, draw_class_weights, draw_misclassified)
    ),
}


def choose_task(prepared: PreparedDataset) -> Judgement:
    """The judgement for these data."""
    # This is the only place where the kind of data decides what is measured, judged and drawn.
    return TASKS_OF[prepared.find_use(prepared.recipe), prepared.task]
