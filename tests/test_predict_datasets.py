"""A finished job's folder is a data set: pyarrow and pandas read the folder, DuckDB and Polars part-*.parquet."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow.dataset
import pytest

from candidate import Candidate
from prediction_jobs import FEATURES, predict_rows, table
from tasks.records import Prediction

REJECTED = [7, 1234]


@pytest.fixture
def done(candidates: list[Candidate], prefect_api: str, tmp_path: Path) -> Prediction:
    """Four parts, and two rejected rows."""
    candidates[0].publish()
    rows = FEATURES.copy()
    rows[REJECTED] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    return predict_rows(input=str(tmp_path / "rows.npy"), shard_rows=700, max_rejects=2)


def test_arrow_pandas_duckdb_and_polars_read_the_same_rows(done: Prediction) -> None:
    folder, parts = done.path, f"{done.path}/part-*.parquet"
    read = {
        "pyarrow": pyarrow.dataset.dataset(folder).to_table().to_pandas(),
        "pandas": pd.read_parquet(folder),
        "duckdb": duckdb.connect().execute(f"from '{parts}' order by row").df(),
        "polars": pl.read_parquet(parts).sort("row").to_pandas(),
    }
    expected = table(done)
    for reader, frame in read.items():
        assert list(frame) == ["row", "source", "prediction"], reader
        assert frame["row"].tolist() == np.delete(np.arange(len(FEATURES)), REJECTED).tolist(), reader
        assert frame["prediction"].tolist() == expected["prediction"].to_pylist(), reader
        assert frame["source"].astype(str).tolist() == expected["source"].to_pylist(), reader
    assert pd.read_parquet(folder / "_rejects.parquet")["row"].tolist() == REJECTED
