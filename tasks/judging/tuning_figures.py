"""Pictures of a search, as PNG: Optuna's, for the trials that came to their end, and the winner beside before."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from optuna.visualization import matplotlib as plots

from tasks.judging.plots import save, subplots
from tasks.store.artifact_paths import (
    TUNING_HISTORY,
    TUNING_IMPORTANCES,
    TUNING_PARALLEL,
    TUNING_SLICES,
    TUNING_WINNER,
)
from tasks.store.record_base import FileRef
from tasks.store.tuning_result import Setting, Trial, TunedSettings, mean_interval

SHOWN = 0.75  # share of the losses that fit in the picture; larger ones are drawn as high as the last of these
FEWEST = 10  # complete trials needed to tell what mattered
WORDS = {"num_epochs": "epochs", "lr": "learning rate"}  # for settings whose names are not words
DECADE = 10.0  # the ratio of the largest to the smallest value from which on the scale is logarithmic


def draw(trials: Sequence[Trial], tuned: TunedSettings, folder: Path) -> list[FileRef]:
    """Draw every picture for which there are enough complete trials, in a run's folder."""
    losses = [each.validation_loss or 0.0 for each in trials if each.outcome == "complete"]
    drawn = []
    if losses:
        study = build_study(trials, most := float(np.quantile(losses, SHOWN, method="lower")))
        name = f"validation loss, at most {most:.3g}" if most < max(losses) else "validation loss"
        wanted: dict[str, Callable[..., Any]] = {TUNING_HISTORY: plots.plot_optimization_history}
        if study.trials[0].params:
            wanted |= {TUNING_SLICES: plots.plot_slice, TUNING_PARALLEL: plots.plot_parallel_coordinate}
            if len(losses) >= FEWEST and min(losses) < most:
                wanted[TUNING_IMPORTANCES] = plots.plot_param_importances
        drawn += [_draw_study(plot, study, name, folder / file) for file, plot in wanted.items()]
    if tuned.validation_losses and tuned.default_losses:
        drawn.append(draw_winner(tuned, folder / TUNING_WINNER))
    return drawn


def build_study(trials: Sequence[Trial], most: float) -> optuna.Study:
    """The trials with settings that differ between them, in words; a loss above ``most`` is replaced by it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = {field: [trial.settings[field] for trial in trials] for field in trials[0].settings}
    names = {field: WORDS.get(field, field.replace("_", " ")) for field in values if len(set(values[field])) > 1}
    for trial in trials:
        is_complete = trial.outcome == "complete"
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
                value=min(trial.validation_loss or 0.0, most) if is_complete else None,
                params={name: trial.settings[field] for field, name in names.items()},
                distributions={name: _find_domain(values[field]) for field, name in names.items()},
            )
        )
    return study


def draw_winner(tuned: TunedSettings, path: Path) -> FileRef:
    """The winner beside the previous settings: each seed, their mean and its interval."""
    figure, axes = subplots(6.4, 2.4)
    both = {"found": tuned.validation_losses, "before": tuned.default_losses}
    for at, losses in enumerate(both.values()):
        mean, low, high = mean_interval(losses)
        axes.plot(losses, [at] * len(losses), "o", color=f"C{at}", alpha=0.5)
        axes.errorbar([mean], [at + 0.2], xerr=[[mean - low], [high - mean]], fmt="D", color=f"C{at}", capsize=4)
    axes.set_yticks(range(2), list(both))
    seeds = len(tuned.validation_losses)
    title = f"{seeds} seeds, their mean and its 95 % interval" if seeds > 1 else "the loss with one seed"
    axes.set(ylim=(1.6, -0.5), xlabel="validation loss", title=title)
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


def _find_domain(values: Sequence[Setting]) -> BaseDistribution:
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted(set(values), key=str))
    low, high = min(numbers), max(numbers)
    return FloatDistribution(low, high, log=low > 0 and high >= DECADE * low)


def _draw_study(plot: Callable[..., Any], study: optuna.Study, name: str, path: Path) -> FileRef:
    """Draw with pyplot, which Optuna uses, and restore its styles and figures."""
    from matplotlib import pyplot as plt

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in another version of Optuna these pictures may look different
        plt.switch_backend("agg")
        axes = plot(study, target_name=name)  # several for several settings
        figure = np.asarray(axes, object).flat[0].figure
        plt.close(figure)
        return save(figure, path, bbox_inches="tight")
