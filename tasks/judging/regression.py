"""How regressions are measured, judged, drawn, and compared with kept ones."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.fitting.splits import load_split
from tasks.judging import figures, gates
from tasks.judging.candidate import Candidate, Measured
from tasks.machine.words import readable
from tasks.networks import linear_regression, metrics
from tasks.parameters import Gates, Loss
from tasks.records import Epoch, GateVerdict
from tasks.store.artifact_paths import FIT
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

CURVES = figures.Curves(("train_loss", "validation_loss", "test_loss"), ylabel="half mean squared error", yscale="log")
BEST_FITS = {
    Loss.SQUARED: ("least-squares", linear_regression.least_squares_fit),
    Loss.HUBER: ("Huber", linear_regression.huber_fit),
}


def epoch(point: Epoch) -> str:
    """One epoch in the log."""
    return f"train loss {readable(point.train_loss, 3)}, test loss {readable(point.test_loss, 3)}"


def measure(candidate: Candidate) -> dict[str, Any]:
    """What was learned, and everything measured on the test split."""
    weights, y, y_hat = candidate.weights, *map(torch.from_numpy, (candidate.test.y_true, candidate.scores[:, 0]))
    sigma = metrics.noise_estimate(y - y_hat)
    return {
        "test_loss": float(metrics.regression(y_hat, y)["loss"]),
        "weights": weights["W"].squeeze(1).tolist(),
        "bias": weights["b"].item(),
        "noise_estimate": sigma,
        "gaussian_nll": metrics.gaussian_nll(y - y_hat, sigma),
    }


def sentence(measured: dict[str, Any]) -> str:
    """What was measured, in the log."""
    loss, noise = readable(measured["test_loss"], 3), readable(measured["noise_estimate"])
    return f"test loss {loss}; as maximum likelihood: noise {noise}, {measured['gaussian_nll']:.3f} nats an example"


def before_export(candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
    """The test loss against that of the best fit; of synthetic data also the parameters against the true ones."""
    verdicts = (_against_best_fit(candidate, measured["test_loss"], bounds),)
    true = candidate.prepared.true_parameters
    if true is None:
        return verdicts
    error = max(abs(found - truth) for found, truth in zip(_learned(measured), true, strict=True))
    return (*verdicts, gates.judge("parameter_error", error, maximum=bounds.max_parameter_error))


def _against_best_fit(candidate: Candidate, test_loss: float, bounds: Gates) -> GateVerdict:
    """The candidate's test loss against that of the best fit to the same training split."""
    train, test = (load_split(candidate.prepared, name) for name in ("train", "test"))
    kind, fit = BEST_FITS[candidate.objective.loss]
    best = float(
        metrics.regression(linear_regression.with_ones(test.X) @ fit(train.X, train.y), test.y.double())["loss"]
    )
    allowance = (bounds.max_standardised_error * float(train.y.std())) ** 2 / 2
    ratio, plus = bounds.max_loss_ratio, readable(allowance, 2)
    return gates.judge(
        "test_loss",
        test_loss,
        maximum=ratio * best + allowance,
        detail=f"{ratio} times the {readable(best)} of the converged {kind} fit, plus {plus}",
    )


def _learned(measured: dict[str, Any]) -> list[float]:
    """Weights, then the bias."""
    return [*measured["weights"], measured["bias"]]


def draw(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """The learned parameters beside the true ones, and the residuals."""
    residuals = candidate.test.y_true - candidate.scores[:, 0]
    true, sigma = candidate.prepared.true_parameters, measured["noise_estimate"]
    return (figures.fit(_learned(measured), true, residuals, sigma, run.file(FIT)),)


def against_kept(
    ours: Measured, kept: list[Measured], truth: NDArray[Any], class_names: tuple[str, ...], bounds: Gates
) -> tuple[GateVerdict, ...]:
    """Test loss (half the mean squared error) against that of the kept version with the smallest."""
    losses = {each.version: float(np.square(each.output - truth).mean()) / 2 for each in kept}
    version = min(losses, key=lambda number: losses[number])
    return (
        gates.judge(
            "champion_loss",
            float(np.square(ours.output - truth).mean()) / 2,
            maximum=bounds.max_loss_rise * losses[version],
            detail=f"{bounds.max_loss_rise:g} times the {readable(losses[version])} of version {version}",
        ),
    )
