"""The judgement of a kept version now, beside its figures when it was published."""

import math

from pydantic import Field, computed_field

from tasks.data.report import Finding
from tasks.store.record_base import PersistedRecord, Sha256

SIGNS = {"accuracy": 1, "loss": -1, "rmse": -1}  # 1 where larger is better
# Rows, or groups of them, and blocks of time, below which chance cannot be estimated: with random signs, fewer blocks
# never have a p below 0.05.
FEWEST, FEWEST_BLOCKS = 20, 5


class RowMetrics(PersistedRecord):
    """Metrics of some rows, with a 95 % interval for each."""

    rows: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    recall: dict[str, float] = Field({})  # of the classes that have rows
    recall_intervals: dict[str, tuple[float, float]] = Field({})


class PeriodMetrics(RowMetrics):
    """The same metrics for the rows of one period."""

    period: str


class EvaluationResult(RowMetrics):
    """How good a version is on labelled rows (README, "Command line"): fields are added, never renamed or removed.

    ``published`` has what the manifest says about the version's test split.
    """

    name: str
    version: int
    model_sha256: Sha256
    published: dict[str, float]
    published_rows: int
    published_recall: dict[str, float]
    unlabelled: int  # rows left out because they have no label
    broken: int  # images that could not be read
    groups: int | None = None  # of rows that are not independent evidence; None where every row is
    blocks: int | None = None  # of consecutive rows, where the split is by time
    trained_on: int | None  # rows that the version was trained on; None if unknown
    unseen: bool  # whether these were left out
    is_before_refit: bool = False  # whether the weights were those of the training part, which were not published
    changes: tuple[Finding, ...] = ()  # compared with the data that the version was made from
    periods: tuple[PeriodMetrics, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def worse(self) -> tuple[str, ...]:
        """The figures that are worse than published by more than chance in both sets of rows explains (without R²).

        R² depends on how much the target varies in the rows. A figure's interval at publication is assumed to be wider
        than today's to the extent that its rows were fewer. With very few rows, groups or blocks of time no interval
        can tell what is chance, and nothing is called worse.
        """
        if (self.groups or self.rows) < FEWEST or (self.blocks or FEWEST) < FEWEST_BLOCKS:
            return ()
        of_both = math.sqrt(1 + self.rows / max(1, self.published_rows))
        halves = {name: (high - low) / 2 for name, (low, high) in self.intervals.items()}
        return tuple(
            name
            for name, value in self.published.items()
            if (self.metrics[name] - value) * SIGNS.get(name, 0) < -halves[name] * of_both
        )
