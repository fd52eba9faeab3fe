"""What the judgement of a kept version comes to, beside what it came to when it was published."""

from pydantic import Field, computed_field

from tasks.store.record import Lasting, Sha256

IS_MORE_BETTER = {"accuracy": True, "loss": False, "rmse": False, "r2": True}


class Measured(Lasting):
    """Figures of some rows, and the 95 % interval of each."""

    rows: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    recall: dict[str, float] = Field({})  # of classes that have rows
    recall_intervals: dict[str, tuple[float, float]] = Field({})


class Period(Measured):
    """The same of the rows of one period."""

    period: str


class Judged(Measured):
    """How good a version is on labelled rows (README, "JSON"): fields are added, never renamed or removed.

    ``published`` is what the manifest says of the version's test split.
    """

    name: str
    version: int
    model_sha256: Sha256
    published: dict[str, float]
    published_recall: dict[str, float]
    unlabelled: int  # rows that were left out for want of a label
    broken: int  # images that could not be read
    trained_on: int | None  # rows that the version was trained on; None where that is not known
    unseen: bool  # these were left out
    periods: tuple[Period, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def worse(self) -> tuple[str, ...]:
        """The figures whose published value lies beyond the interval, on its good side."""
        ends = {name: self.intervals[name] for name in self.published}
        beyond = {
            name: self.published[name] > high if IS_MORE_BETTER[name] else self.published[name] < low
            for name, (low, high) in ends.items()
        }
        return tuple(name for name, is_worse in beyond.items() if is_worse)
