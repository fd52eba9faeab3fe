"""Own tables as files of any format, and one to write there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

FORMATS = (".csv", ".parquet", ".feather", ".jsonl")


def written(path: Path, columns: pa.Table | Mapping[str, Any]) -> Path:
    """A table as a file; of a number of decimals no format keeps another."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, path)
    else:
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    return path


def houses(rows: int = 400, seed: int = 0, cities: Sequence[str] = ("Bonn", "Köln", "Ulm")) -> pa.Table:
    """Prices that follow from areas, cities and gardens, nearly; a tenth of the areas and of the cities is missing."""
    rng = np.random.default_rng(seed)
    area, garden, city = rng.uniform(30, 250, rows).round(2), rng.random(rows) < 0.3, rng.integers(0, len(cities), rows)
    price = (3000 * area + 25_000 * garden + 40_000 * city + rng.normal(0, 9000, rows)).round()
    gaps = rng.random((2, rows)) < 0.1
    columns = {"area": pa.array(area, mask=gaps[0]), "city": pa.array(np.take(cities, city), mask=gaps[1])}
    return pa.table(columns | {"garden": garden, "price": price})
