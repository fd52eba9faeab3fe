"""``tuned/<name>.json``: the settings that a search found, what they were chosen by, and from what."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import ValidationError

from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import tell
from tasks.machine.words import short
from tasks.parameters import Found, RetrainParameters, Training
from tasks.store import artifact_paths
from tasks.store.documents import Document, RootDocument
from tasks.store.record_base import Record

Setting = float | int | str


class Trial(Document):
    """One training of a search; its loss is None where it diverged."""

    number: int  # from 0
    settings: dict[str, Setting]  # fields of ``Training`` by name
    validation_loss: float | None  # the mean of the last fifth of its epochs; of a table, where it has converged
    losses: tuple[float, ...] = ()  # of the validation part, by epoch
    epochs: int
    seconds: float
    outcome: Literal["complete", "pruned", "diverged"]


class Tuned(RootDocument):
    """The best of a search, beside the settings that would have been used without one."""

    model: str
    dataset: str = ""  # its name; empty: not noted
    dataset_digest: str  # SHA-256 (hex) of the data that were searched on
    settings: dict[str, Setting]  # fields of ``Training`` by name
    trial: int | None = None  # the winner's number; None: not noted
    validation_losses: tuple[float, ...]  # of the winner, one a seed
    default_settings: dict[str, Setting]
    default_losses: tuple[float, ...]
    num_trials: int
    num_validation: int  # examples that it was chosen on
    seed: int
    run: str  # in whose folder every trial stands

    @property
    def difference(self) -> "MeanInterval | None":
        """Seed by seed, the loss of the winner less that of the settings of before; None where a seed is missing."""
        found, before = self.validation_losses, self.default_losses
        if len(found) != len(before) or not found:
            return None
        return mean_interval([after - first for after, first in zip(found, before, strict=True)])

    @property
    def is_better(self) -> bool:
        """Than the settings of before: fewer seeds diverged, or the loss is smaller by more than the seeds' chance."""
        if self.difference is None:
            return len(self.validation_losses) > len(self.default_losses)
        return self.difference.high < -ROUNDING * abs(self.difference.mean)


ROUNDING = 1e-9  # of a difference


class MeanInterval(NamedTuple):
    """The mean of what several seeds came to, and its interval (95 %, of Student's t); one seed has none."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Of one value or more."""
    from scipy.special import stdtrit  # here, since most commands need none of it

    mean = statistics.fmean(values)
    if len(values) < 2:
        return MeanInterval(mean, mean, mean)
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half, mean + half)


class Searched(Record):
    """What the stage of a search returns: every trial of it, and what they come to."""

    trials: tuple[Trial, ...]
    tuned: Tuned


def write(name: str, tuned: Tuned) -> None:
    """Let ``retrain --tuned`` find it; whoever reads meanwhile sees the old document or the new one."""
    tuned.write(artifact_paths.tuned(name))


def read(name: str) -> Tuned:
    """What was found for a name.

    Raises:
        UsageError: nothing was found yet.
        DataError: the document is damaged.
    """
    path = artifact_paths.tuned(name)
    if found := Tuned.find(path, f"search anew: gradmill tune {name}; or retrain with --no-tuned"):
        return found
    raise UsageError(
        f"no settings were found for {name} yet", f"{path}, which a search writes", f"gradmill tune {name}"
    )


def take_found(parameters: RetrainParameters, is_told: bool = False) -> RetrainParameters:
    """The parameters with what the newest search has found where no value is given, if they ask for it.

    Which values that has given is said where it ``is_told``.

    Raises:
        UsageError: nothing was found for this name yet, or it was found for another model or for other data.
        DataError: the document is damaged, or has values that training does not take.
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
            f"search anew: gradmill tune {name}; or give --no-tuned",
        )
    found = Found(run=tuned.run, fields=tuple(sorted(tuned.settings.keys() - training.given.keys())))
    try:
        training = Training.model_validate(tuned.settings | training.given)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{artifact_paths.tuned(name)}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(where, "settings that training takes", f"search anew: gradmill tune {name}") from error
    if is_told:
        values = (f"{field.replace('_', ' ')} {short(getattr(training, field))}" for field in found.fields)
        tell(f"tuned: {', '.join(values) or 'nothing, every setting is given'} (found by {found.run})")
    return parameters.model_copy(update={"training": training, "found": found})
