"""Predictions in one file: every row of the input in order, its own columns first, put in place when it is whole."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flows.cli.app
from candidate import Candidate
from prediction_jobs import FEATURES, NAME, expected, predict_rows, stop_after, table
from tasks.errors import UsageError
from tasks.records import PublishedModel
from tasks.store import artifact_paths

NOTES = ["plain", 'says "no", twice', "two\nlines", "Köln; Ulm", "", "007"]


@pytest.fixture(autouse=True)
def published(candidates: list[Candidate], prefect_api: str) -> PublishedModel:
    return candidates[0].publish()


def write_csv(path: Path, rows: list[list[Any]], header: tuple[str, ...] = ("id", "x2", "note", "x1")) -> str:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


def make_rows(count: int = 2500) -> list[list[Any]]:
    """Rows as text, with values that CSV has to quote."""
    return [[f"n{at}", str(x2), NOTES[at % 6], str(x1)] for at, (x1, x2) in enumerate(FEATURES[:count])]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_csv_has_the_input_as_it_stands_then_the_prediction_then_why_there_is_none(
    tmp_path: Path, candidates: list[Candidate]
) -> None:
    rows = make_rows()
    rows[7][1], rows[1300][3], rows[2499] = "", "big, really", ["n2499", "1"]
    done = predict_rows(input=write_csv(tmp_path / "in.csv", rows), output=str(tmp_path / "out.csv"), shard_rows=600)
    found = read_csv(tmp_path / "out.csv")
    assert list(found[0]) == ["id", "x2", "note", "x1", "prediction", "rejected"]
    assert [[row[name] for name in ("id", "x2", "note", "x1")] for row in found[:-1]] == rows[:-1]
    assert {at: row["rejected"] for at, row in enumerate(found) if row["rejected"]} == {
        7: "x2 is missing", 1300: "x1 is 'big, really', not a number", 2499: "2 fields, expected 4",
    }  # fmt: skip
    good = [at for at, row in enumerate(found) if row["prediction"]]
    assert len(good) == done.rows == 2497
    np.testing.assert_allclose(
        [float(found[at]["prediction"]) for at in good], expected(candidates[0])[good], atol=1e-4
    )
    assert [np.float32(found[at]["prediction"]) for at in good] == table(done)["prediction"].to_pylist()
    assert done.file == tmp_path / "out.csv"
    assert done.path.parent == artifact_paths.all_predictions()
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "in.csv", "out.csv"}


def test_a_parquet_keeps_types_and_columns_of_several_files(tmp_path: Path) -> None:
    data, days = tmp_path / "data", pa.array([0, 1, None], pa.date32())
    data.mkdir()
    first = pa.table({"x1": [1.0, 2.0, None], "day": days, "kind": pa.array(["a", None, "b"]).dictionary_encode()})
    first = first.append_column("x2", pa.array([3, 4, 5])).append_column("tags", pa.array([[1], [], None]))
    second = pa.table({"x2": [7, 8], "x1": [0.5, 1.5], "kind": [1, 2], "more": [True, False]})
    pq.write_table(first, data / "a.parquet")
    pq.write_table(second, data / "b.parquet")
    done = predict_rows(input=str(data), output=str(tmp_path / "out.parquet"), max_rejects=1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["x1", "day", "kind", "x2", "more", "prediction", "rejected"]
    assert found["day"].type == pa.date32()
    assert found["kind"].to_pylist() == ["a", None, "b", "1", "2"]
    assert found["more"].to_pylist() == [None, None, None, True, False]
    assert found["x2"].to_pylist() == [3, 4, 5, 7, 8]
    assert found["rejected"].to_pylist() == [None, None, "x1 is missing", None, None]
    answers = table(done)["prediction"].to_pylist()
    assert found["prediction"].to_pylist() == [*answers[:2], None, *answers[2:]]


def test_a_file_of_json_lines_has_the_columns_that_any_row_has(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x1": 1, "x2": 2}\n{"x1": 3, "x2": 4.5, "who": "me"}\n')
    predict_rows(input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.csv"))
    found = read_csv(tmp_path / "out.csv")
    assert [(float(row["x1"]), float(row["x2"]), row["who"]) for row in found] == [(1, 2, ""), (3, 4.5, "me")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_of_arrays_the_file_has_row_and_source(suffix: str, tmp_path: Path) -> None:
    bad = FEATURES.copy()
    bad[[0, 1234]] = np.nan
    np.save(tmp_path / "rows.npy", bad)
    out = tmp_path / f"out.{suffix}"
    done = predict_rows(input=str(tmp_path / "rows.npy"), output=str(out), max_rejects=2, shard_rows=700)
    found = pq.read_table(out).to_pylist() if suffix == "parquet" else read_csv(out)
    assert list(found[0]) == ["row", "source", "prediction", "rejected"]
    assert [int(row["row"]) for row in found] == list(range(2500))
    assert {row["source"] for row in found} == {str(tmp_path / "rows.npy")}
    assert [at for at, row in enumerate(found) if row["rejected"]] == [0, 1234]
    assert len([row for row in found if row["prediction"] not in (None, "")]) == done.rows == 2498


def test_a_file_appears_when_its_job_is_whole_and_the_same_command_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"input": write_csv(tmp_path / "in.csv", make_rows()), "output": str(tmp_path / "out.csv")}
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(RuntimeError, match="killed"):
            predict_rows(**asked, shard_rows=250)
    assert not (tmp_path / "out.csv").exists()
    kept = {path: path.stat().st_mtime_ns for path in artifact_paths.all_predictions().glob("*/part-*")}
    assert len(kept) == 3
    done = predict_rows(**asked, shard_rows=250)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    before = (tmp_path / "out.csv").stat().st_mtime_ns
    assert predict_rows(**asked, shard_rows=250) == done
    assert (tmp_path / "out.csv").stat().st_mtime_ns == before, "it was not written again"
    (tmp_path / "out.csv").unlink()
    predict_rows(**asked, shard_rows=250)
    assert len(read_csv(tmp_path / "out.csv")) == 2500, "made anew of the same parts"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_file_is_replaced_only_as_a_prediction_wrote_it(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    first, second = (write_csv(tmp_path / f"{count}.csv", make_rows(count)) for count in (10, 20))
    out.write_text("mine\n")
    with pytest.raises(UsageError, match=r"out\.csv is there") as caught:
        predict_rows(input=first, output=str(out))
    assert "--restart" in caught.value.action
    assert out.read_text() == "mine\n"
    assert not artifact_paths.all_predictions().exists(), "nothing was predicted"
    predict_rows(input=first, output=str(out), restart=True)
    predict_rows(input=second, output=str(out))
    assert len(read_csv(out)) == 20, "of another input, over what the first has written"
    out.write_text(out.read_text().replace("plain", "edited"))
    with pytest.raises(UsageError, match=r"out\.csv is there"):
        predict_rows(input=first, output=str(out))
    assert "edited" in out.read_text()


@pytest.mark.parametrize("column", ["prediction", "rejected"])
def test_a_column_of_the_input_that_is_called_like_one_of_ours_is_exit_2_before_a_row_is_predicted(
    column: str, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "in.csv", [[1, 2, 3]], ("x1", "x2", column))
    with pytest.raises(UsageError, match=f"a column {column}"):
        predict_rows(input=source, output=str(tmp_path / "out.csv"))
    assert not artifact_paths.all_predictions().exists()
    assert predict_rows(input=source, output=str(tmp_path / "out")).rows == 1, "a folder has none of these"


def test_a_file_beside_its_input_is_no_input_the_next_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_csv(data / "in.csv", make_rows(10))
    options = {"input": str(data), "output": str(data / "out.csv")}
    first = predict_rows(**options)
    assert predict_rows(**options) == first
    with pytest.raises(UsageError, match="is the output file"):
        predict_rows(input=str(data / "out.csv"), output=str(data / "out.csv"))


def test_what_cannot_be_a_file_is_exit_2(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", make_rows(3))
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "fifo.csv")
    for name in ("folder.csv", "fifo.csv"):
        with pytest.raises(UsageError, match="is no file"):
            predict_rows(input=source, output=str(tmp_path / name))
    inside = artifact_paths.model(NAME) / "out.csv"
    with pytest.raises(UsageError, match="inside the artifacts folder"):
        predict_rows(input=source, output=str(inside))


@pytest.mark.parametrize("address", ["s3://bucket/out.csv", "file:///tmp/out", "https://host/out.parquet"])
def test_an_address_is_exit_2_and_makes_no_folder(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert flows.cli.app.run(["predict", "--name", NAME, "--output", address]) == UsageError.exit_code
    told = capsys.readouterr().err
    assert f"--output {address}" in told
    assert "machine" in told
    assert set(tmp_path.iterdir()) == before
