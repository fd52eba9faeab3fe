"""A search for hyperparameters beside as many plain trainings, scikit-learn's grid search, and what it is worth."""

import statistics
import tempfile
import warnings
from pathlib import Path

import numpy as np
import optuna
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from tasks.fitting.tuning import parts, space
from tasks.fitting.tuning.batches import applied
from tasks.fitting.tuning.study import ROUND
from tasks.fitting.tuning.together import try_out

from flows.bench import images, measure
from flows.bench.growth import CPU
from flows.bench.measure import Report
from flows.story.searched import TuneReport
from flows.tune import tune
from tasks.fitting import devices, learning
from tasks.fitting.building import build
from tasks.fitting.learning import Parts
from tasks.machine import cores
from tasks.machine.telling import tell
from tasks.networks.examples import Split
from tasks.parameters import RetrainParameters, Training, TuneParameters
from tasks.records import PreparedDataset
from tasks.store import artifact_paths

NAME = "bench-tune"
PACKAGES = ("gradmill", "optuna", "prefect", "scikit-learn", "torch")
LOGISTIC = 0.8445  # test accuracy of scikit-learn's LogisticRegression as it comes: gradmill bench train
SEEDS = range(5)
STRENGTHS = tuple(10.0**power for power in range(-4, 4))  # scikit-learn's C
TINY = ("lr=0.01:0.1", "epochs=1", "batch-size=1000")  # a trial of a millisecond: what is left is the search's own

Figures = dict[str, list[float]]


def bench(quick: bool) -> Report:
    """Measure everything, each part told as it comes; ``quick`` takes a quarter of the trials and of the grid."""
    num_trials, strengths = (16, STRENGTHS[3:5]) if quick else (64, STRENGTHS)
    asked = RetrainParameters.model_validate({"name": NAME, "training": {"device": "cpu"}})
    prepared, book = images.prepared(asked), asked.training
    data: Parts[Split] = parts.of(prepared, book, CPU)  # type: ignore[assignment]  # pictures
    plain = _told("one plain training", "s", [_plain(book, data, prepared) for _ in range(3)])
    together = _told(f"{num_trials} trials side by side", "s", [_together(book, data, prepared, num_trials)])
    found, tiny = _search("softmax-regression", num_trials, ()), _search("linear-regression", num_trials, TINY)
    search = _told(f"a search of {num_trials} trials", "s", [found.seconds["tune"]])
    overhead = _told("a trial of a search but its training", "ms", [tiny.seconds["tune"] / num_trials * 1e3])
    of_winner = _told("the winner's test accuracy", "", _accuracies(applied(book, found.settings), prepared))
    of_book = _told("the book's test accuracy", "", _accuracies(book, prepared))
    grid = _told(f"GridSearchCV of {len(strengths)} values of C", "s", [_grid(data, strengths)])
    accuracy = statistics.fmean(of_winner["the winner's test accuracy"])
    gain = accuracy - statistics.fmean(of_book["the book's test accuracy"])
    seconds = {name: min(figures) for name, figures in (plain | together | search | overhead | grid).items()}
    one, side_by_side, all_of_it, each, by_grid = seconds.values()
    return Report(
        benchmark="tune",
        conditions=measure.conditions(PACKAGES, trials=num_trials, device="cpu", winner=found.settings, quick=quick),
        sides=[
            *measure.sides(plain | together | search | grid, "s").values(),
            *measure.sides(overhead, "ms").values(),
            *measure.sides(of_winner | of_book, "", statistics.fmean, "mean of five seeds").values(),
        ],
        ratios=[
            measure.at_most("trials side by side over as many plain ones", side_by_side / one / num_trials, 0.4),
            measure.at_least("accuracy of the winner over LogisticRegression's, less", accuracy - LOGISTIC, -0.001),
            measure.at_least("accuracy of the winner over the book's, less", gain, 0.01),
            measure.at_most("the whole search over GridSearchCV", all_of_it / by_grid, 1),
            measure.at_most("overhead of a trial, ms", each, 60),
        ],
    )


def _told(name: str, unit: str, figures: list[float]) -> Figures:
    tell(f"{name}: {', '.join(f'{figure:.4g}' for figure in figures)} {unit}".rstrip())
    return {name: figures}


def _plain(training: Training, data: Parts[Split], prepared: PreparedDataset) -> float:
    """Seconds of the loop that retraining has, with the settings of the book."""
    with devices.one_thread():
        generator = torch.Generator().manual_seed(0)
        net, optimizer = build(training, prepared, generator, CPU)
        epochs = learning.epochs(net, optimizer, data._replace(validation=None), training, generator)
        return measure.seconds(lambda: list(epochs))


def _together(training: Training, data: Parts[Split], prepared: PreparedDataset, num_trials: int) -> float:
    """Seconds of trials drawn at random from what is searched by default, none of which is given up; as in rounds."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = space.default(training, prepared)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    trials = [applied(training, space.suggest(searched, drawn.ask(), None)) for _ in range(num_trials)]
    rounds = [trials[start : start + ROUND] for start in range(0, num_trials, ROUND)]
    return measure.seconds(
        lambda: [list(try_out(each, [0] * len(each), data, prepared, lambda *_: False)) for each in rounds]
    )


def _search(model: str, num_trials: int, narrowed: tuple[str, ...]) -> TuneReport:
    """Of the flow on the server that answers; nothing of it is kept."""
    document = {
        "name": f"{NAME}-{model}",
        "training": {"model": model, "device": "cpu"},
        "search": {"trials": num_trials, "space": narrowed},
        "force": True,
    }
    try:
        return tune(TuneParameters.model_validate(document))
    finally:
        artifact_paths.tuned(f"{NAME}-{model}").unlink(missing_ok=True)


def _accuracies(training: Training, prepared: PreparedDataset) -> list[float]:
    """On the test split, after training on all training examples, of each seed."""
    data, found = learning.parts(prepared, 0, torch.Generator(), CPU), []
    for seed in SEEDS:
        with devices.one_thread(), devices.seeded(CPU, seed) as generator:
            net, optimizer = build(training, prepared, generator, CPU)
            *_, last = learning.epochs(net, optimizer, data, training, generator)
            found.append(last.test["accuracy"])
    return found


def _grid(data: Parts[Split], strengths: tuple[float, ...]) -> float:
    """Seconds of a grid on the same two parts, on all cores; the winner is not fitted again."""
    X = torch.cat([data.train.X, data.test.X]).flatten(1).numpy().astype(np.float32) / 255  # noqa: N806
    y = torch.cat([data.train.y, data.test.y]).numpy()
    held_out = np.r_[np.full(len(data.train), -1), np.zeros(len(data.test))]
    search = GridSearchCV(
        LogisticRegression(),
        {"C": strengths},
        cv=PredefinedSplit(held_out),
        scoring="neg_log_loss",
        n_jobs=cores.available(),
        refit=False,
    )
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # it says that it has not converged
        np.save(file := Path(folder) / "X.npy", X)
        mapped = np.load(file, mmap_mode="r")  # a map of joblib's own, which it loses count of, would end in tracebacks
        return measure.seconds(lambda: search.fit(mapped, y))
