"""``tuned/<name>.json``: the settings that a search found, from which data, and by which losses they were chosen."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import ValidationError

from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_setting
from tasks.parameters import Found, RetrainParameters, Training
from tasks.store import artifact_paths
from tasks.store.documents import Document, RootDocument
from tasks.store.record_base import FileRef, Record

Setting = float | int | str


class Trial(Document):
    """One training of a search; its loss is None if it diverged."""

    number: int  # from 0
    settings: dict[str, Setting]  # fields of ``Training`` by name
    validation_loss: float | None  # the mean of the last fifth of its epochs; of a table, after convergence
    losses: tuple[float, ...] = ()  # on the validation part, by epoch
    epochs: int
    seconds: float
    outcome: Literal["complete", "pruned", "diverged"]


class TunedSettings(RootDocument):
    """The best settings of a search, beside those that would have been used without it."""

    model: str
    dataset: str = ""  # its name; empty: not recorded
    dataset_digest: str  # SHA-256 (hex) of the data that were searched on
    settings: dict[str, Setting]  # fields of ``Training`` by name
    trial: int | None = None  # the winner's number; None: not recorded
    validation_losses: tuple[float, ...]  # of the winner, one per seed
    default_settings: dict[str, Setting]
    default_losses: tuple[float, ...]
    num_trials: int
    num_validation: int  # examples that the choice was made on
    seed: int
    run: str  # the run whose folder holds every trial

    @property
    def difference(self) -> "MeanInterval | None":
        """The paired difference between the winner's losses and the previous settings'; None if a seed is missing."""
        found, before = self.validation_losses, self.default_losses
        if len(found) != len(before) or not found:
            return None
        return mean_interval([after - first for after, first in zip(found, before, strict=True)])

    @property
    def is_better(self) -> bool:
        """Whether fewer seeds diverged than with the previous settings, or the loss is smaller by more than chance."""
        if self.difference is None:
            return len(self.validation_losses) > len(self.default_losses)
        return self.difference.high < -ROUNDING * abs(self.difference.mean)


ROUNDING = 1e-9  # tolerance of a difference


class MeanInterval(NamedTuple):
    """The mean over several seeds and its 95 % interval (Student's t); a single seed has no interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """The mean and the interval of one value or more."""
    from scipy.special import stdtrit  # not at the top, because most commands do not need it

    mean = statistics.fmean(values)
    if len(values) < 2:
        return MeanInterval(mean, mean, mean)
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half, mean + half)


class SearchResult(Record):
    """The result of the search stage: every trial, the settings chosen, and pictures."""

    trials: tuple[Trial, ...]
    tuned: TunedSettings
    pictures: tuple[FileRef, ...] = ()


def read(name: str) -> TunedSettings:
    """The settings that a search found for a name.

    Raises:
        UsageError: no search has found any yet.
        DataError: the document is damaged.
    """
    path = artifact_paths.tuned(name)
    if found := TunedSettings.find(path, f"search again: gradmill tune {name}; or retrain with --no-tuned"):
        return found
    raise UsageError(
        f"no settings were found for {name} yet", f"{path}, which a search writes", f"gradmill tune {name}"
    )


def take_found(parameters: RetrainParameters, is_told: bool = False) -> RetrainParameters:
    """The parameters, with the newest search's settings where no value is given, if they ask for them.

    If ``is_told``, the values that were filled in are printed.

    Raises:
        UsageError: no search has found settings for this name, or they are for another model or other data.
        DataError: the document is damaged, or has values that training does not accept.
    """
    if not parameters.tuned:
        return parameters
    name, training = parameters.name, parameters.training
    tuned = read(name)
    searched = tuned.model, tuned.dataset or parameters.dataset
    if searched != (training.model, parameters.dataset):
        raise UsageError(
            f"settings found for {' on '.join(searched)}",
            f"some for {training.model} on {parameters.dataset}",
            f"search again: gradmill tune {name}; or give --no-tuned",
        )
    found = Found(run=tuned.run, fields=tuple(sorted(tuned.settings.keys() - training.given_values.keys())))
    try:
        training = Training.model_validate(tuned.settings | training.given_values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{artifact_paths.tuned(name)}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(where, "settings that training takes", f"search again: gradmill tune {name}") from error
    if is_told:
        values = (f"{field.replace('_', ' ')} {format_setting(getattr(training, field))}" for field in found.fields)
        print_message(f"tuned: {', '.join(values) or 'nothing, every setting is given'} (found by {found.run})")
    return parameters.model_copy(update={"training": training, "found": found})
