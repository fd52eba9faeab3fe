"""What the judgement of a kept version comes to, beside what it came to when it was published."""

import math

from pydantic import Field, computed_field

from tasks.data.report import Finding
from tasks.serving.drift import find_worse
from tasks.store.record import Lasting, Sha256

SIGNS = {"accuracy": 1, "loss": -1, "rmse": -1}  # of what is better
FEWEST, FEWEST_BLOCKS = 20, 5  # rows, or groups of them, and blocks of time, that tell how far chance goes


class RowMetrics(Lasting):
    """Figures of some rows, and the 95 % interval of each."""

    rows: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    recall: dict[str, float] = Field({})  # of classes that have rows
    recall_intervals: dict[str, tuple[float, float]] = Field({})


class PeriodMetrics(RowMetrics):
    """The same of the rows of one period."""

    period: str


class EvaluationResult(RowMetrics):
    """How good a version is on labelled rows (README, "Command line"): fields are added, never renamed or removed.

    ``published`` is what the manifest says of the version's test split.
    """

    name: str
    version: int
    model_sha256: Sha256
    published: dict[str, float]
    published_rows: int
    published_recall: dict[str, float]
    unlabelled: int  # rows that were left out for want of a label
    broken: int  # images that could not be read
    groups: int | None = None  # of rows that are no independent evidence; None where every row is
    blocks: int | None = None  # of consecutive rows, where rows go by time
    trained_on: int | None  # rows that the version was trained on; None where that is not known
    unseen: bool  # these were left out
    changes: tuple[Finding, ...] = ()  # from the data that the version was made of
    periods: tuple[PeriodMetrics, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def worse(self) -> tuple[str, ...]:
        """The figures that are worse than published, by more than the chance of either rows (R² is left out).

        R² goes with how much the target varies in the rows. A figure's interval at publication is taken to be as much
        wider than that of now as its rows were fewer. Of very few rows, groups or blocks of time no interval tells what
        chance does, and only what is much worse counts (``drift.find_worse``).
        """
        units, metrics = self.groups or self.rows, dict(self.metrics)
        if units < FEWEST or (self.blocks or FEWEST) < FEWEST_BLOCKS:
            if "accuracy" in metrics:  # as if of each group one row counted, a right one if any; time says nothing
                metrics["accuracy"] = 1.0 if self.blocks else min(1.0, metrics["accuracy"] * self.rows / units)
            return find_worse(metrics, units, self.published, self.published_rows)
        of_both = math.sqrt(1 + self.rows / max(1, self.published_rows))
        halves = {name: (high - low) / 2 for name, (low, high) in self.intervals.items()}
        return tuple(
            name
            for name, value in self.published.items()
            if (metrics[name] - value) * SIGNS.get(name, 0) < -halves[name] * of_both
        )
