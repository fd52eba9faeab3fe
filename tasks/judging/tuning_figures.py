"""Optuna's pictures of a search, as PNG."""

import io
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from tasks.judging.plots import DPI
from tasks.machine.run_messages import print_message
from tasks.store import atomic
from tasks.store.artifact_paths import TUNING_HISTORY, TUNING_IMPORTANCES, TUNING_PARALLEL, TUNING_SLICES
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder

FEWEST = 10  # complete trials needed to tell what mattered


def draw_study(study: optuna.Study, run: RunFolder) -> tuple[FileRef, ...]:
    """Draw every picture for which there are enough complete trials into a run's folder."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    params = [name for name in complete[0].params if len({trial.params[name] for trial in complete}) > 1]
    draws: dict[str, Callable[..., Any]] = {TUNING_HISTORY: plots.plot_optimization_history}
    if params:
        draws |= {TUNING_SLICES: plots.plot_slice, TUNING_PARALLEL: plots.plot_parallel_coordinate}
    if params and len(complete) >= FEWEST:
        draws[TUNING_IMPORTANCES] = plots.plot_param_importances
    drawn = []
    for name, draw in draws.items():
        options = {} if name == TUNING_HISTORY else {"params": params}
        try:
            drawn.append(_save_plot(partial(draw, study, **options, target_name="validation loss"), run, name))
        except Exception as error:  # whatever a plot of Optuna raises: the search is worth more than its pictures
            print_message(f"{name} was not drawn: {error}")
    return tuple(drawn)


def _save_plot(draw: Callable[[], Any], run: RunFolder, name: str) -> FileRef:
    """Draw with pyplot, which Optuna uses, and restore its styles and figures."""
    from matplotlib import pyplot as plt

    with mpl.rc_context(), warnings.catch_warnings(), io.BytesIO() as stream:
        warnings.simplefilter("ignore")  # in another version of Optuna these pictures may look different
        plt.switch_backend("agg")
        axes = draw()  # several for several settings
        figure = np.asarray(axes, object).flat[0].figure
        plt.close(figure)
        figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight")
        return atomic.write_bytes(run.file(name), stream.getvalue(), is_durable=False)
