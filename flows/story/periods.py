"""Figures by period, for the terminal and for pages."""

from collections.abc import Sequence

from tasks.judging.evaluation_result import PeriodMetrics, RowMetrics
from tasks.machine.words import readable

WORDS = {"accuracy": "accuracy", "loss": "loss", "rmse": "RMSE", "r2": "R²"}


def head(found: RowMetrics) -> tuple[str, ...]:
    """The columns of ``rows``."""
    main, other = _told(found)
    return "period", "rows", WORDS[main], "95 % interval", WORDS[other]


def rows(found: Sequence[PeriodMetrics]) -> list[tuple[str, ...]]:
    """Each period's figures."""
    return [
        (
            each.period,
            f"{each.rows:,}",
            readable(each.metrics[main]),
            between(each.intervals[main]),
            readable(each.metrics[other]),
        )
        for each in found
        for main, other in [_told(each)]
    ]


def between(interval: tuple[float, float]) -> str:
    """An interval in words."""
    return " to ".join(map(readable, interval))


def _told(found: RowMetrics) -> tuple[str, str]:
    return ("accuracy", "loss") if "accuracy" in found.metrics else ("rmse", "r2")
