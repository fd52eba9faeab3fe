"""A finished job's folder is a data set: pyarrow and pandas read the folder, DuckDB and Polars part-*.parquet."""

import json
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
from tasks.store import artifact_paths, predictions

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


def test_a_folder_with_the_names_of_old_is_the_same_job_still(done: Prediction, tmp_path: Path) -> None:
    for name, old in artifact_paths.OLD_NAMES.items():
        if (done.path / name).exists():
            (done.path / name).rename(done.path / old)
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    assert {"job.json", "rejects.parquet"} < set(before)
    assert [found.job and found.job.status for found in predictions.below_artifacts()] == ["done"]
    again = {"input": str(tmp_path / "rows.npy"), "shard_rows": 700, "max_rejects": 2}
    assert predict_rows(**again) == done
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before
    (done.path / "part-00002.parquet").unlink()
    assert predict_rows(**again).rejects == 2
    assert json.loads((done.path / "_job.json").read_text())["status"] == "done"
    assert sorted(path.name for path in done.path.iterdir()) == [
        "_job.json", "_rejects.parquet", *(f"part-{number:05d}.parquet" for number in range(4)),
    ]  # fmt: skip
