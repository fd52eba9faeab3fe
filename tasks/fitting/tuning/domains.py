"""The values among which a search chooses one for a parameter."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tasks.store.tuned import Setting

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Log:
    """Any number between two, as likely in one decade as in another."""

    low: float
    high: float

    def suggest(self, trial: "BaseTrial", field: str) -> Setting:
        """One of them."""
        return _short(trial.suggest_float(field, self.low, self.high, log=True), self)


@dataclass(frozen=True)
class Uniform:
    """Any number between two; a whole one where both are."""

    low: float
    high: float

    def suggest(self, trial: "BaseTrial", field: str) -> Setting:
        """One of them."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(field, self.low, self.high)
        return _short(trial.suggest_float(field, self.low, self.high), self)


@dataclass(frozen=True)
class Choice:
    """One of several values; of a single one there is nothing to search."""

    values: tuple[Setting, ...]

    def suggest(self, trial: "BaseTrial", field: str) -> Setting:
        """One of them."""
        if len(self.values) == 1:
            return self.values[0]
        return cast("Setting", trial.suggest_categorical(field, self.values))


def _short(value: float, within: Log | Uniform) -> float:
    """With three digits, which a person can type again; more make no other model."""
    return min(max(float(f"{value:.3g}"), within.low), within.high)


Domain = Log | Uniform | Choice


def has(domain: Domain, value: Setting | None) -> bool:
    """Whether it is one of these."""
    if isinstance(domain, Choice):
        return value in domain.values
    return isinstance(value, int | float) and domain.low <= value <= domain.high
