"""Rows of own tables by the names of their columns, in any format: what fits, what is a reject, what goes along."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score, root_mean_squared_error

from input_files import IMAGES, read, rejected, values
from own_tables import CLASSES, RECIPE
from tasks.batch.results import Score
from tasks.data.io import batches, tabular
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.levels import find_levels
from tasks.errors import DataError, UsageError
from tasks.serving.task import TASKS

WANTED = ReadSpec(RECIPE, y_name="target", ids=("id",))
AVERAGE = WANTED._replace(unknown="average")
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


def as_csv(table: pa.Table, delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(table.column_names)
    writer.writerows([["" if value is None else value for value in row.values()] for row in table.to_pylist()])
    return stream.getvalue().encode()


def as_json(table: pa.Table) -> bytes:
    rows = ({name: value for name, value in row.items() if value is not None} for row in table.to_pylist())
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "t.csv": lambda table, path: path.write_bytes(as_csv(table)),
    "t.tsv": lambda table, path: path.write_bytes(as_csv(table, "\t")),
    "semicolon.csv.gz": lambda table, path: path.write_bytes(gzip.compress(as_csv(table, ";"))),
    "t.parquet": lambda table, path: pq.write_table(table, path, row_group_size=2),
    "t.feather": lambda table, path: pyarrow.feather.write_feather(table, str(path)),
    "t.jsonl": lambda table, path: path.write_bytes(as_json(table)),
    "t.ndjson.gz": lambda table, path: path.write_bytes(gzip.compress(as_json(table))),
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


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("name", ["t.parquet", "t.feather"])
def test_numbers_and_booleans_stored_as_text_are_read_in_files_that_keep_types_too(
    tmp_path: Path, name: str, text: pa.DataType
) -> None:
    texts = {"area": ["80.5", " ", "big"], "garden": ["True", "0", "1"]}
    rows = {**GOOD, **{column: pa.array(values).cast(text) for column, values in texts.items()}}
    WRITERS[name](pa.table(rows), tmp_path / name)
    chunks = read(tmp_path / name, WANTED, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), np.array(ENCODED[:2], np.float32))
    assert rejected(chunks) == {2: "area is 'big', not a number"}


@pytest.mark.parametrize("unit", [pa.date32(), pa.timestamp("us"), pa.time64("us"), pa.duration("s")])
@pytest.mark.parametrize("wanted", [WANTED, ReadSpec(CLASSES, y_name="labels", class_names=("a", "b"))])
def test_a_target_that_became_a_date_or_a_time_is_no_truth(tmp_path: Path, unit: pa.DataType, wanted: ReadSpec) -> None:
    target = {name: pa.array([0, 1, 2], unit) for name in ("price", "kind")}
    for name in ("t.parquet", "t.feather"):
        WRITERS[name](pa.table({**GOOD, **target}), tmp_path / name)
        chunks = read(tmp_path / name, wanted, tmp_path / name[:3])
        np.testing.assert_array_equal(values(chunks), np.array(ENCODED, np.float32))
        assert all(chunk.y_true is None for chunk in chunks)


def test_numbers_that_name_levels_are_found_whatever_they_are_written_as(tmp_path: Path) -> None:
    columns = tuple(
        column.model_copy(update={"levels": ("1", "2.5", "30")}) if column.name == "heating" else column
        for column in RECIPE.columns
    )
    wanted = WANTED._replace(recipe=RECIPE.model_copy(update={"columns": columns}))
    for name, heating in (
        ("t.parquet", pa.array([30.0, 1.0, 2.5])),
        ("f.parquet", pa.array([30, 1, 2.5], pa.float32())),
        ("t.csv", pa.array(["30.0", "1", "2.5"])),
        ("t.feather", pa.array(["30", "1", "2.5"]).dictionary_encode()),
        ("t.jsonl", pa.array([30, 1, 2.5])),
    ):
        WRITERS.get(name, WRITERS["t.parquet"])(pa.table({**GOOD, "heating": heating}), tmp_path / name)
        assert values(read(tmp_path / name, wanted, tmp_path / f"spool-{name}"))[:, 3].tolist() == [2, 0, 1]


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


def test_a_table_to_predict_is_text_whatever_its_name_says(tmp_path: Path) -> None:
    table = pa.table(GOOD)
    WRITERS["t.csv"](table, tmp_path / "t.csv")
    (tmp_path / "t.txt").write_bytes((tmp_path / "t.csv").read_bytes())
    found, known = (read(tmp_path / name, WANTED, tmp_path / name[-3:]) for name in ("t.txt", "t.csv"))
    assert np.array_equal(values(found), values(known), equal_nan=True)


def test_what_is_to_be_copied_or_compared_must_be_a_single_value(tmp_path: Path) -> None:
    rows = {**GOOD, "id": [[1], [2], []], "price": [[1.0], [], []]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"id of type list<.*>, which is no single value; price of type list"):
        read(tmp_path / "t.parquet", WANTED, tmp_path)
    WRITERS["t.jsonl"](pa.table(rows), tmp_path / "t.jsonl")
    with pytest.raises(DataError, match=r"t\.jsonl has columns"):
        read(tmp_path / "t.jsonl", WANTED, tmp_path / "spool")
    pq.write_table(pa.table({**GOOD, "price": ["1.5", "cheap", None]}), tmp_path / "t.parquet")
    np.testing.assert_array_equal(truths(read(tmp_path / "t.parquet", WANTED, tmp_path)), [1.5, np.nan, np.nan])


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table(GOOD), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="--columns"):
        read(tmp_path / "t.parquet", WANTED._replace(columns=RECIPE.names), tmp_path)
    with pytest.raises(DataError, match=r"number missing\nexpected: .*, number \(--id-column\)"):
        read(tmp_path / "t.parquet", WANTED._replace(ids=("number",)), tmp_path)
    np.save(tmp_path / "t.npy", np.array(ENCODED, np.float32))
    with pytest.raises(UsageError, match="--id-column"):
        read(tmp_path / "t.npy", WANTED, tmp_path)
    for name in ("t.csv", "t.feather", "t.jsonl"):
        WRITERS[name](pa.table(GOOD), tmp_path / name)
        with pytest.raises(DataError, match="is a table of"):
            read(tmp_path / name, IMAGES, tmp_path)


def test_encoded_arrays_are_taken_by_the_same_rule(tmp_path: Path) -> None:
    rows = np.array([*ENCODED, [5, 1, 1, 0, 1], [0, 1, 0.5, 0, 1], [0, 1, np.nan, 0, 1], [0, np.inf, 1, 0, 1]])
    np.save(tmp_path / "t.npy", rows.astype(np.float32))
    wanted = WANTED._replace(ids=())
    assert set(rejected(read(tmp_path / "t.npy", wanted, tmp_path))) == {3, 4, 5, 6}
    assert set(rejected(read(tmp_path / "t.npy", wanted._replace(unknown="average"), tmp_path))) == {4, 6}


def test_classes_are_told_by_name_and_one_that_is_new_is_never_right(tmp_path: Path) -> None:
    pq.write_table(pa.table({**GOOD, "kind": ["b", "new", None]}), tmp_path / "t.parquet")
    wanted = ReadSpec(CLASSES, y_name="labels", class_names=("a", "b"))
    chunks = read(tmp_path / "t.parquet", wanted, tmp_path)
    np.testing.assert_array_equal(truths(chunks), [1, batches.UNKNOWN, np.nan])
    (truth,) = (chunk.y_true for chunk in chunks)
    assert truth is not None
    score = Score.count(TASKS["classification"], {"label": np.array([1, 1, 1])}, truth)
    assert score.metrics == {"accuracy": 0.5}


@given(
    st.lists(st.lists(st.tuples(*[st.floats(-1e3, 1e3, width=32)] * 2), max_size=9), min_size=1, max_size=5).filter(
        lambda chunks: len({truth for chunk in chunks for truth, _ in chunk}) > 1
    )
)
def test_errors_summed_chunk_by_chunk_are_those_of_scikit_learn(chunks: list[list[tuple[float, float]]]) -> None:
    parts = [np.array(chunk, np.float64).reshape(-1, 2).T for chunk in chunks]
    scores = [Score.count(TASKS["regression"], {"prediction": found}, truth) for truth, found in parts]
    truth, found = np.concatenate(parts, axis=1)
    total = sum(scores[1:], start=scores[0])
    assert total.rows == len(truth)
    assert total.metrics["rmse"] == pytest.approx(root_mean_squared_error(truth, found))
    assert total.metrics["r2"] == pytest.approx(r2_score(truth, found), rel=1e-6, abs=1e-6)


def test_shards_of_a_table_are_its_rows_of_any_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 7)
    rng = np.random.default_rng(0)
    area = rng.random(100)
    rows: dict[str, Any] = {name: [each[0]] * 100 for name, each in GOOD.items()}
    rows |= {"area": area, "id": list(map(str, range(100)))}
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        WRITERS[name](pa.table(rows), tmp_path / name)
        chunks = read(tmp_path / name, WANTED, tmp_path / f"spool-{name}", 13, 88)
        np.testing.assert_array_equal(values(chunks)[:, 1], area[13:88].astype(np.float32))
        assert ids(chunks) == list(map(str, range(13, 88)))


def test_rows_of_many_classes_are_answered_fewer_at_a_time() -> None:
    few, many = (ReadSpec(CLASSES, y_name="labels", class_names=tuple(map(str, range(count)))) for count in (3, 10_000))
    assert few.chunk_rows == batches.CHUNK_ROWS
    assert many.chunk_rows * 4 * 10_000 <= batches.CHUNK_BYTES
