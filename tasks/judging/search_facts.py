"""What a search tells: which settings mattered, and what its winner is worth. Plain numbers, no pictures."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from tasks.parameters import Loss
from tasks.store.tuned import Setting, Trial

DECADE = 10.0  # between the least and the greatest value: then decades count, and no differences
FEW = 5  # values, each of which can be told
FEWEST = 10  # trials that say what mattered


class Found(NamedTuple):
    """The mean of what several seeds came to, and its interval (95 %, of Student's t); one seed has none."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Found:
    """Of the mean."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Found(mean, mean, mean)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Found(mean, mean - half, mean + half)


def word(field: str) -> str:
    """A setting in words."""
    return {"num_epochs": "epochs", "lr": "learning rate"}.get(field, field.replace("_", " "))


def searched(trials: Sequence[Trial]) -> list[str]:
    """The fields that are not the same in all trials."""
    fields = dict.fromkeys(field for trial in trials for field in trial.settings)
    return [field for field in fields if len({trial.settings.get(field) for trial in trials}) > 1]


class Scale(NamedTuple):
    """Where the values of one field lie: numbers as they are or by decades, words one beside another."""

    few: tuple[Setting, ...]  # every value, where these are words, or few that trials share
    by_decades: bool

    @classmethod
    def of(cls, values: Sequence[Setting | None], few: int = FEW) -> "Scale":
        """That of the values of one field, of which there is one at least."""
        known = [value for value in values if value is not None]
        different = sorted({str(value) for value in known} if isinstance(known[0], str) else set(known))
        if isinstance(known[0], str) or len(different) <= min(few, len(known) // 2):
            return cls(tuple(different), False)
        low, high = float(different[0]), float(different[-1])
        return cls((), low > 0 and high >= DECADE * low)

    def place(self, value: Setting | None) -> float:
        """NaN where there is none."""
        if value is None:
            return math.nan
        return float(self.few.index(value) if isinstance(value, str) else value)


def _is_decay_chosen(trials: Sequence[Trial]) -> bool:
    decays = [
        trial.settings.get("weight_decay") for trial in trials if trial.settings.get("loss") == Loss.SQUARED.value
    ]
    return len(decays) > 1 and len(set(decays)) == 1


def importances(trials: Sequence[Trial], fields: Sequence[str]) -> dict[str, float]:
    """The share of each field in what makes the best tenth of the trials better, by PED-ANOVA; none of few trials.

    A weight decay that the ridge path has chosen is left out: it is the loss that is better, not the value.
    """
    told = [trial for trial in trials if trial.validation_loss is not None]
    if _is_decay_chosen(told):
        fields = [field for field in fields if field != "weight_decay"]
    if len(told) < FEWEST or not fields:
        return {}
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    def domain(field: str) -> BaseDistribution:
        values = [trial.settings[field] for trial in told if field in trial.settings]
        scale = Scale.of(values)
        if scale.few:
            return CategoricalDistribution(scale.few)
        return FloatDistribution(float(min(values)), float(max(values)), log=scale.by_decades)

    domains = {field: domain(field) for field in fields}
    sampler = optuna.samplers.RandomSampler(seed=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    for trial in told:
        known = {field: trial.settings[field] for field in fields if field in trial.settings}
        study.add_trial(
            optuna.trial.create_trial(
                params=known, distributions={field: domains[field] for field in known}, value=trial.validation_loss
            )
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some regimes for parameter")  # a field that few trials have
        return optuna.importance.get_param_importances(study)
