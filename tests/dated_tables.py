"""An own table with dates."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]


def draw_rows(rows: int = 1500) -> dict[str, Any]:
    """Sales that depend on the month, the weekday, the hour and the year, of five years."""
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 5 * 365 * 24, rows), unit="h")
    effects = rng.normal(0, 10, 12)[when.month - 1] + rng.normal(0, 5, 7)[when.day_of_week] + 3 * when.year
    area = np.round(rng.uniform(0, 9, rows), 2)
    sales = np.round(effects + 4 * area + 0.2 * (when.hour - 12) ** 2 + rng.normal(0, 1, rows), 3)
    return {
        "when": when.to_numpy().astype("datetime64[s]"),
        "area": area,
        "sales": sales,
    }
