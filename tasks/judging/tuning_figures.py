"""Pictures of a search, as PNG: Optuna's, of trials that came to their end, and the winner beside before."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from optuna.visualization import matplotlib as plots

from tasks.judging.plots import save
from tasks.store import artifact_paths, atomic
from tasks.store.record import FileRef
from tasks.store.tuned import Setting, Trial, Tuned, mean_interval

SHOWN = 0.75  # of the losses have room; those above are drawn as high as the last of these
FEWEST = 10  # complete trials that say what mattered
FEW, DECADE = 5, 10.0  # values that are told one by one; the greatest over the least, from which on decades count


def draw(trials: Sequence[Trial], tuned: Tuned, folder: Path) -> list[FileRef]:
    """Every picture that the complete trials are enough for, in a run's folder."""
    losses, drawn = list_losses(trials), list[FileRef]()
    if losses:
        study = build_study(trials, most := float(np.quantile(losses, SHOWN, method="lower")))
        name = {"target_name": f"validation loss, at most {most:.3g}" if most < max(losses) else "validation loss"}
        drawn.append(_save(plots.plot_optimization_history, study, folder / artifact_paths.TUNING_HISTORY, **name))
        if study.trials[0].params:
            drawn.append(_save(plots.plot_slice, study, folder / artifact_paths.TUNING_SLICES, **name))
            drawn.append(_save(plots.plot_parallel_coordinate, study, folder / artifact_paths.TUNING_PARALLEL, **name))
            if len(losses) >= FEWEST and min(losses) < most:
                drawn.append(_save(plots.plot_param_importances, study, folder / artifact_paths.TUNING_IMPORTANCES))
    if tuned.validation_losses and tuned.default_losses:
        drawn.append(draw_winner(tuned, folder / artifact_paths.TUNING_WINNER))
    return drawn


def list_losses(trials: Sequence[Trial]) -> list[float]:
    """Those of the trials that came to their end."""
    found = (trial.validation_loss for trial in trials if trial.outcome == "complete")
    return [loss for loss in found if loss is not None]


def build_study(trials: Sequence[Trial], most: float) -> optuna.Study:
    """The trials by the words of the settings that are not the same in all; a loss above ``most`` counts as that."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = {field: [trial.settings[field] for trial in trials] for field in trials[0].settings}
    domains = {field: _find_domain(each) for field, each in values.items() if len(set(each)) > 1}
    for trial in trials:
        loss = min(trial.validation_loss or 0.0, most) if trial.outcome == "complete" else None
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if loss is None else TrialState.COMPLETE,
                value=loss,
                params={word(field): trial.settings[field] for field in domains},
                distributions={word(field): domain for field, domain in domains.items()},
            )
        )
    return study


def word(field: str) -> str:
    """A setting in words."""
    return {"num_epochs": "epochs", "lr": "learning rate"}.get(field, field.replace("_", " "))


def draw_winner(tuned: Tuned, path: Path) -> FileRef:
    """The winner beside the settings of before: each seed, their mean and its interval."""
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    both = {"found": tuned.validation_losses, "before": tuned.default_losses}
    for at, losses in enumerate(both.values()):
        mean, low, high = mean_interval(losses)
        axes.plot(losses, [at] * len(losses), "o", color=f"C{at}", alpha=0.5)
        axes.errorbar([mean], [at + 0.2], xerr=[[mean - low], [high - mean]], fmt="D", color=f"C{at}", capsize=4)
    axes.set_yticks(range(2), list(both))
    title = f"{len(tuned.validation_losses)} seeds, their mean and its 95 % interval"
    axes.set(ylim=(1.6, -0.5), xlabel="validation loss", title=title)
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


def _find_domain(values: Sequence[Setting]) -> BaseDistribution:
    different = sorted(set(values), key=lambda value: (str(type(value)), value))
    numbers = [value for value in different if not isinstance(value, str)]
    if len(numbers) < len(different) or len(different) <= FEW:
        return CategoricalDistribution(different)
    return FloatDistribution(numbers[0], numbers[-1], log=numbers[0] > 0 and numbers[-1] >= DECADE * numbers[0])


def _save(plot: Callable[..., Any], study: optuna.Study, path: Path, **options: object) -> FileRef:
    """Draw with pyplot, which Optuna does, and leave its styles and figures as they were."""
    from matplotlib import pyplot as plt

    with mpl.rc_context(), warnings.catch_warnings(), io.BytesIO() as stream:
        warnings.simplefilter("ignore")  # that these pictures may look otherwise in another version of Optuna
        plt.switch_backend("agg")
        axes = plot(study, **options)  # several for several settings
        figure = np.asarray(axes, object).flat[0].figure
        figure.savefig(stream, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
        return atomic.write_bytes(path, stream.getvalue(), is_kept=False)
