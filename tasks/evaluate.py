"""Stage 4: measure the candidate and let the gates judge it, the book's assertions among them."""

from typing import Any

import safetensors.torch
from torch import Tensor

from tasks.fitting.splits import load_split, scores
from tasks.judging import figures, gates
from tasks.machine.telling import tell
from tasks.networks import metrics
from tasks.networks.best_fit import huber_fit, least_squares_fit, with_ones
from tasks.networks.training import Split
from tasks.parameters import Gates, Loss
from tasks.records import Epoch, Evaluation, GateVerdict, PreparedDataset, TrainedModel
from tasks.stage import stage
from tasks.store import atomic, verified
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

WORST = 18  # misclassified images in the picture


@stage(reusable=True)
def evaluate(run: RunFolder, prepared: PreparedDataset, trained: TrainedModel, bounds: Gates, loss: Loss) -> Evaluation:
    """Write ``evaluation.json`` and pictures into the run's folder, then pass or refuse the candidate.

    Raises:
        GateFailed: at least one gate refused; the evidence is written all the same.
    """
    weights = safetensors.torch.load(verified.read(trained.weights))
    test = load_split(prepared, "test")
    outputs = scores(weights, test)
    if prepared.class_names:
        evaluation = _classifier(run, prepared, trained, bounds, outputs, test)
    else:
        evaluation = _regressor(run, prepared, trained, bounds, loss, outputs.squeeze(1), test, weights)
    atomic.write_json(run.file("evaluation.json"), evaluation.model_dump(mode="json"))
    gates.enforce(evaluation, evaluation.gates, run)
    return evaluation


def _classifier(
    run: RunFolder, prepared: PreparedDataset, trained: TrainedModel, bounds: Gates, o: Tensor, test: Split
) -> Evaluation:
    last = trained.kept
    report = classification_report(o, test.y, prepared.class_names)
    pictures = _classifier_pictures(run, report, prepared.class_names, o.softmax(dim=1), test)
    measured = {"train_loss": last.train_loss, "train_accuracy": last.train_accuracy} | _on_validation(last) | report
    tell(
        f"test accuracy {measured['test_accuracy']:.4f}; cross-entropy {measured['test_loss']:.3f} nats "
        f"({measured['test_loss_bits']:.3f} bits) a label, {measured['label_entropy']:.3f} nats for a model that knows "
        "only how frequent each class is, 0 for a perfect one"
    )
    verdicts = (
        gates.judge("train_loss", measured["train_loss"], below=bounds.max_train_loss),
        gates.judge("train_accuracy", measured["train_accuracy"], above=bounds.min_train_accuracy, maximum=1.0),
        gates.judge("test_accuracy", measured["test_accuracy"], above=bounds.min_test_accuracy, maximum=1.0),
    )
    return Evaluation(metrics=measured, gates=verdicts, pictures=pictures)


def _on_validation(point: Epoch) -> dict[str, Any]:
    """What was measured on the examples that were held out; empty where there were none."""
    measured = {"validation_loss": point.validation_loss, "validation_accuracy": point.validation_accuracy}
    return {name: value for name, value in measured.items() if value is not None}


def _classifier_pictures(
    run: RunFolder, report: dict[str, Any], names: tuple[str, ...], probabilities: Tensor, test: Split
) -> tuple[FileRef, ...]:
    """Confusion matrix, reliability diagram, and the images that were misclassified with the most confidence."""
    confidence, label = probabilities.max(dim=1)
    wrong = (label != test.y).nonzero().squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)[:WORST]]
    predicted, true = ([names[index] for index in labels[worst].tolist()] for labels in (label, test.y))
    correct = (label == test.y).numpy()
    return (
        figures.confusion_matrix(report["confusion_matrix"], names, run.file("confusion-matrix.png")),
        figures.reliability(confidence.numpy(), correct, run.file("reliability.png")),
        figures.image_grid(test.X[worst].numpy(), predicted, true, run.file("misclassified.png")),
    )


def classification_report(o: Tensor, y: Tensor, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Everything measured on the test scores ``(n, classes)``.

    Confusion matrix (rows: true), precision and recall of each class, and the expected calibration error over 15
    bins: how far confidence is from accuracy, since softmax regression is trained for calibrated probabilities.
    """
    # Imported here: it takes longer than everything else in this stage.
    from torchmetrics.functional.classification import (
        multiclass_calibration_error,
        multiclass_confusion_matrix,
        multiclass_precision,
        multiclass_recall,
    )

    count = len(class_names)
    measured = metrics.classification(o, y)
    precision = multiclass_precision(o, y, count, average=None)
    recall = multiclass_recall(o, y, count, average=None)
    return {
        "test_accuracy": measured["accuracy"],
        "test_loss": measured["loss"],
        "test_loss_bits": metrics.bits(measured["loss"]),
        "label_entropy": metrics.entropy(y, count),
        "calibration_error": float(multiclass_calibration_error(o.softmax(dim=1), y, count, n_bins=15)),
        "precision": dict(zip(class_names, precision.tolist(), strict=True)),
        "recall": dict(zip(class_names, recall.tolist(), strict=True)),
        "confusion_matrix": multiclass_confusion_matrix(o, y, count).tolist(),
    }


def _regressor(
    run: RunFolder,
    prepared: PreparedDataset,
    trained: TrainedModel,
    bounds: Gates,
    loss: Loss,
    y_hat: Tensor,
    test: Split,
    weights: dict[str, Tensor],
) -> Evaluation:
    residuals = test.y - y_hat
    sigma = metrics.noise_estimate(residuals)
    learned_weights, learned_bias = weights["W"].squeeze(1).tolist(), weights["b"].item()
    measured: dict[str, Any] = {
        "train_loss": trained.kept.train_loss,
        **_on_validation(trained.kept),
        "test_loss": metrics.regression(y_hat, test.y)["loss"],
        "weights": learned_weights,
        "bias": learned_bias,
        "noise_estimate": sigma,
        "gaussian_nll": metrics.gaussian_nll(residuals, sigma),
    }
    learned = [*learned_weights, learned_bias]
    true = prepared.true_parameters
    names = [*(f"w{index}" for index in range(len(learned_weights))), "b"]
    picture = figures.regression_report(learned, true, names, residuals.numpy(), sigma, run.file("regression.png"))
    tell(
        f"test loss {measured['test_loss']:.3g}; as maximum likelihood: noise {sigma:.4g}, "
        f"{measured['gaussian_nll']:.3f} nats an example"
    )
    verdicts = [_against_best_fit(measured["test_loss"], load_split(prepared, "train"), test, bounds, loss)]
    if true is not None:
        error = max(abs(found - truth) for found, truth in zip(learned, true, strict=True))
        verdicts.append(gates.judge("parameter_error", error, maximum=bounds.max_parameter_error))
    return Evaluation(metrics=measured, gates=tuple(verdicts), pictures=(picture,))


def _against_best_fit(test_loss: float, train: Split, test: Split, bounds: Gates, loss: Loss) -> GateVerdict:
    """The candidate's test loss against that of the best fit to the same training split."""
    fit = huber_fit(train.X, train.y) if loss is Loss.HUBER else least_squares_fit(train.X, train.y)
    best = metrics.regression(with_ones(test.X) @ fit, test.y.double())["loss"]
    allowance = (bounds.max_standardised_error * float(train.y.std())) ** 2 / 2
    kind = "Huber" if loss is Loss.HUBER else "least-squares"
    return gates.judge(
        "test_loss",
        test_loss,
        maximum=bounds.max_loss_ratio * best + allowance,
        detail=f"{bounds.max_loss_ratio} times the {best:.4g} of the converged {kind} fit, plus {allowance:.2g}",
    )
