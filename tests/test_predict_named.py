"""Rows of own tables by the names of their columns, in any format: what fits, what is a reject, what goes along."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from input_files import read, rejected, values
from own_tables import CLASSES, RECIPE
from table_files import written
from tasks.data.io import tabular
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.levels import find_levels
from tasks.errors import DataError

WANTED = ReadSpec(RECIPE, y_name="target", ids=("id",))
GOOD: dict[str, list[Any]] = {
    "year": [1990, 2001, None],
    "id": ["a", "b", None],
    "heating": ["heating-2", "heating-0", "heating-1"],
    "garden": [True, False, True],
    "note": ["x", "y", "z"],
    "price": [1e5, 2.5e5, None],
    "area": [80.5, None, 120.0],
    "city": ["city-1", None, "city-4"],
}
ENCODED = [[1, 80.5, 1, 2, 1990], [np.nan, np.nan, 0, 0, 2001], [4, 120, 1, 1, np.nan]]


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "t.csv": lambda table, path: written(path, table),
    "t.txt": lambda table, path: written(path.with_suffix(".csv"), table).rename(path),
    "t.parquet": lambda table, path: pq.write_table(table, path, row_group_size=2),
    "t.feather": lambda table, path: pyarrow.feather.write_feather(table, str(path)),
    "t.jsonl": lambda table, path: written(path, table),
}


def truths(chunks: list[Batch]) -> list[float]:
    return [float(value) for chunk in chunks if chunk.y_true is not None for value in chunk.y_true]


def ids(chunks: list[Batch]) -> list[str | None]:
    return [name for chunk in chunks if chunk.passthrough is not None for name in chunk.passthrough["id"].to_pylist()]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows_truth_and_ids(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[name](pa.table(GOOD), tmp_path / name)
    chunks = read(tmp_path / name, WANTED, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), np.array(ENCODED, np.float32))
    assert not rejected(chunks)
    np.testing.assert_array_equal(truths(chunks), [1e5, 2.5e5, np.nan])
    assert ids(chunks) == GOOD["id"]
    said = capsys.readouterr().out
    assert "1 column that the model does not take: note" in said
    assert "another order" in said


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("s"), pa.timestamp("ns", "UTC")])
def test_dates_that_were_taken_as_levels_are_levels_again(tmp_path: Path, kind: pa.DataType) -> None:
    days = pa.array([datetime(2024, 12, 31), datetime(2025, 1, 1), None], pa.timestamp("us")).cast(kind)
    trained = find_levels(pa.chunked_array([tabular.normalize(days)])).names()
    column = RECIPE.columns[0].model_copy(update={"levels": (*trained, "c", "d", "e")})
    wanted = WANTED._replace(recipe=RECIPE.model_copy(update={"columns": (column, *RECIPE.columns[1:])}))
    pq.write_table(pa.table({**GOOD, "city": days}), tmp_path / "t.parquet")
    chunks = read(tmp_path / "t.parquet", wanted, tmp_path / "spool")
    assert not rejected(chunks)
    np.testing.assert_array_equal(values(chunks)[:, 0], [0, 1, np.nan])
    assert trained == ["2024-12-31", "2025-01-01"]


@pytest.mark.parametrize("unit", [pa.date32(), pa.timestamp("us"), pa.time64("us"), pa.duration("s")])
@pytest.mark.parametrize("wanted", [WANTED, ReadSpec(CLASSES, y_name="labels", class_names=("a", "b"))])
def test_a_target_that_became_a_date_or_a_time_is_no_truth(tmp_path: Path, unit: pa.DataType, wanted: ReadSpec) -> None:
    target = {name: pa.array([0, 1, 2], unit) for name in ("price", "kind")}
    for name in ("t.parquet", "t.feather"):
        WRITERS[name](pa.table({**GOOD, **target}), tmp_path / name)
        chunks = read(tmp_path / name, wanted, tmp_path / name[:3])
        np.testing.assert_array_equal(values(chunks), np.array(ENCODED, np.float32))
        assert all(chunk.y_true is None for chunk in chunks)


def test_text_of_json_that_looks_like_a_date_stays_text_beside_numbers_that_name_levels(tmp_path: Path) -> None:
    levels = {"heating": ("2024-01-01", "2024-02-01"), "city": ("1", "2")}
    columns = [each.model_copy(update={"levels": levels.get(each.name, ())}) for each in RECIPE.columns]
    wanted = WANTED._replace(recipe=RECIPE.model_copy(update={"columns": tuple(columns)}))
    rows = {
        **GOOD,
        "heating": ["2024-02-01", "2024-01-01", "2024-02-01"],
        "city": [2, 1, None],
        "id": ["2024-03-04"] * 3,
    }
    WRITERS["t.jsonl"](pa.table(rows), tmp_path / "t.jsonl")
    chunks = read(tmp_path / "t.jsonl", wanted, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks)[:, [0, 3]], [[1, 1], [0, 0], [np.nan, 1]])
    assert ids(chunks) == ["2024-03-04"] * 3


def test_a_column_that_a_folder_above_the_input_tells_is_said(tmp_path: Path) -> None:
    (tmp_path / "year=2024").mkdir()
    pq.write_table(pa.table(GOOD).drop_columns("year"), tmp_path / "year=2024/t.parquet")
    with pytest.raises(DataError, match="name the folder above year=2024"):
        read(tmp_path / "year=2024/t.parquet", WANTED, tmp_path)


def test_text_that_is_no_number_is_no_truth(tmp_path: Path) -> None:
    pq.write_table(pa.table({**GOOD, "price": ["1.5", "cheap", None]}), tmp_path / "t.parquet")
    np.testing.assert_array_equal(truths(read(tmp_path / "t.parquet", WANTED, tmp_path)), [1.5, np.nan, np.nan])


def test_encoded_arrays_are_taken_by_the_same_rule(tmp_path: Path) -> None:
    rows = np.array([*ENCODED, [5, 1, 1, 0, 1], [0, 1, 0.5, 0, 1], [0, 1, np.nan, 0, 1], [0, np.inf, 1, 0, 1]])
    np.save(tmp_path / "t.npy", rows.astype(np.float32))
    wanted = WANTED._replace(ids=())
    assert set(rejected(read(tmp_path / "t.npy", wanted, tmp_path))) == {3, 4, 5, 6}
    assert set(rejected(read(tmp_path / "t.npy", wanted._replace(unknown="average"), tmp_path))) == {4, 6}
