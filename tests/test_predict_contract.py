"""Batch prediction from outside: what ``gradmill predict`` writes of good rows, odd values and broken files.

What a model must say is worked out from the weights that its retrain printed, in plain Python.
"""

import csv
import gzip
import io
import json
import os
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from sklearn.metrics import accuracy_score, r2_score, root_mean_squared_error

from command_line import assert_clear, typed
from prefect_api import use_server
from table_files import written

if TYPE_CHECKING:
    from prefect.settings import Settings

Row = dict[str, Any]
pytestmark = pytest.mark.usefixtures("prefect_api")


def houses(count: int, seed: int) -> list[Row]:
    """Rows of which ``area`` and ``city`` may be missing; ``zone`` is a number that names a level."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(count):
        area, city, garden = rng.normal(120, 30), str(rng.choice(["Ulm", "Köln", "Bonn"])), bool(rng.random() < 0.5)
        price = 2000 * area + 30_000 * (city == "Köln") + 10_000 * garden + rng.normal(0, 5000)
        gaps = rng.random(2) < 0.1
        rows.append(
            {
                "id": f"h{number}",
                "area": None if gaps[0] else round(area, 2),
                "city": None if gaps[1] else city,
                "garden": garden,
                "zone": int(rng.integers(1, 4)),
                "price": round(price),
                "kind": "dear" if price > 260_000 else "cheap",
            }
        )
    return rows


def as_csv(rows: list[Row], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(rows[0])
    words = {None: "", True: "true", False: "false"}
    writer.writerows([[words.get(each, each) if not isinstance(each, int | float) or isinstance(each, bool) else each
                       for each in row.values()] for row in rows])  # fmt: skip
    return stream.getvalue().encode()


def as_rows(path: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


def as_json(rows: list[Row]) -> bytes:
    known = ({name: value for name, value in row.items() if value is not None} for row in rows)
    return "".join(json.dumps(row) + "\n" for row in known).encode()


WRITERS: dict[str, Callable[[list[Row], Path], object]] = {
    "a.csv": lambda rows, path: path.write_bytes(as_csv(rows)),
    "b.tsv": lambda rows, path: path.write_bytes(as_csv(rows, "\t")),
    "c.csv.gz": lambda rows, path: path.write_bytes(gzip.compress(as_csv(rows, ";"))),
    "d.parquet": lambda rows, path: pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7),
    "e.feather": lambda rows, path: pyarrow.feather.write_feather(pa.Table.from_pylist(rows), str(path)),
    "f.jsonl": lambda rows, path: path.write_bytes(as_json(rows)),
    "g.ndjson.gz": lambda rows, path: path.write_bytes(gzip.compress(as_json(rows))),
}


class Store(NamedTuple):
    """An artifacts folder, and what the retrains of its versions printed."""

    artifacts: Path
    reports: dict[str, Any]

    def by_hand(self, row: Row) -> float:
        """What ``houses`` must say: a gap in a number is its mean, a level that nobody knows the average of all."""
        weights = self.reports["houses"]["metrics"]["weights"]
        manifest = json.loads((self.artifacts / "models/houses/1/manifest.json").read_text())
        means = {each["name"]: each.get("mean") for each in manifest["recipe"]["columns"]}
        total: float = self.reports["houses"]["metrics"]["bias"]
        for name, weight in weights.items():
            value = row[name]
            if isinstance(weight, dict):
                total += weight.get("(missing)" if value is None else str(value), 0.0)
            else:
                total += weight * (means[name] if value is None else value)
        return total


@pytest.fixture(scope="module")
def made(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A regression and a classifier of a table, and the book's regression, made by the command line."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "houses.csv").write_bytes(as_csv(houses(600, seed=0)))
    own = ["--data", str(folder / "houses.csv"), "--category", "zone"]
    commands = {
        "houses": ["linear-regression", "--name", "houses", "--target", "price", "--ignore", "id,kind", *own],
        "kinds": ["softmax-regression", "--name", "kinds", "--target", "kind", "--ignore", "id,price", *own],
        "linear-regression": ["linear-regression"],
    }
    reports = {}
    with pytest.MonkeyPatch.context() as patch, use_server(server_settings):
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        for name, command in commands.items():
            done = typed("retrain", *command, "--json")
            assert done.returncode == 0, done.stderr
            reports[name] = json.loads(done.stdout)
    return Store(folder / "artifacts", reports)


@pytest.fixture
def store(made: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(made.artifacts))
    return made


def predicted(path: Path | str, *options: str, name: str = "houses") -> Any:
    """The document of a prediction that succeeds."""
    done = typed("predict", path, "--name", name, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def table(done: Any) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in sorted(Path(done["path"]).glob("part-*.parquet"))])


def rejects(done: Any) -> dict[int, str]:
    """Reasons by row; quotes around a value are a matter of the format."""
    rows = pq.read_table(Path(done["path"]) / "_rejects.parquet").to_pylist()
    return {row["row"]: row["reason"].replace("'", "") for row in rows}


def test_every_format_gives_the_same_predictions_ids_and_measures(store: Store, tmp_path: Path) -> None:
    rows = houses(60, seed=1)
    (tmp_path / "all").mkdir()
    for name, write in WRITERS.items():
        write(rows, tmp_path / "all" / name)
    done = predicted(tmp_path / "all", "--id-column", "id,zone", "--shard-rows", "25")
    found = table(done)
    assert (done["rows"], done["rejects"], done["version"]) == (60 * len(WRITERS), 0, 1)
    assert done["parts"] == len(list(Path(done["path"]).glob("part-*"))) >= 17
    assert found.column_names == ["row", "source", "prediction", "id_id", "id_zone"]
    assert found["row"].to_pylist() == list(range(done["rows"]))
    assert found["source"].to_pylist() == [str(tmp_path / "all" / name) for name in WRITERS for _ in rows]
    assert found["id_id"].to_pylist() == [row["id"] for row in rows] * len(WRITERS)
    assert found["id_zone"].to_pylist() == [str(row["zone"]) for row in rows] * len(WRITERS)
    expected = [store.by_hand(row) for row in rows] * len(WRITERS)
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-5)
    truth = [row["price"] for row in rows] * len(WRITERS)
    assert done["metrics"]["rmse"] == pytest.approx(root_mean_squared_error(truth, found["prediction"]), rel=1e-5)
    assert done["metrics"]["r2"] == pytest.approx(r2_score(truth, found["prediction"]), rel=1e-5)


# What a row may say instead: the reason for which it is rejected, or none; and whether --unknown average lets it pass.
GOOD = {"id": "a", "area": 100.5, "city": "Ulm", "garden": True, "zone": 2, "price": 1, "kind": ""}
VALUES: dict[str, tuple[Row, str | None, bool]] = {
    "good": ({}, None, True),
    "a gap that training had": ({"area": None}, None, True),
    "a gap of text that training had": ({"city": None}, None, True),
    "a gap that no row had": ({"garden": None}, "garden is missing", True),
    "a gap of levels that no row had": ({"zone": None}, "zone is missing", True),
    "a new level": ({"city": "Paris"}, "city is 'Paris', a level that the model has not seen", True),
    "a new number that names a level": ({"zone": 9}, "zone is '9', a level that the model has not seen", True),
    "no target": ({"price": None}, None, True),
    "another case": ({"city": "ulm"}, "city is 'ulm', a level that the model has not seen", True),
}
TEXTS: dict[str, tuple[Row, str | None, bool]] = {
    "spaces around a number": ({"area": " 1e2 "}, None, True),
    "a level as another number": ({"zone": "2.0"}, None, True),
    "truth in capitals": ({"garden": "TRUE"}, None, True),
    "truth as 1": ({"garden": "1"}, None, True),
    "text for a number": ({"area": "big"}, "area is 'big', not a number", False),
    "a number beyond float32": ({"area": "1e39"}, "area is '1e39', not a finite number", False),
    "text for truth": ({"garden": "maybe"}, "garden is 'maybe', neither true nor false", False),
    "a number for truth": ({"garden": "2"}, "garden is '2', neither true nor false", False),
    "missing in words": ({"area": "NA"}, None, True),
    "missing in text": ({"city": "N/A"}, None, True),
}
PLAIN = {" 1e2 ": 100.0, "2.0": 2, "TRUE": True, "1": True, "NA": None, "N/A": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "d.parquet", "f.jsonl"])
def test_a_row_that_the_model_cannot_take_is_a_reject_with_its_reason_unless_averages_are_asked_for(
    name: str, store: Store, tmp_path: Path
) -> None:
    cases = VALUES | (TEXTS if name == "a.csv" else {})
    rows = [GOOD | change for change, _, _ in cases.values()]
    WRITERS[name](rows, tmp_path / name)
    reasons = {at: reason for at, (_, reason, _) in enumerate(cases.values()) if reason}
    done = predicted(tmp_path / name, "--max-rejects", "99", "--id-column", "id")
    assert rejects(done) == {at: reason.replace("'", "") for at, reason in reasons.items()}
    assert (done["rows"], done["rejects"]) == (len(rows) - len(reasons), len(reasons))
    good = [at for at in range(len(rows)) if at not in reasons]
    assert table(done)["row"].to_pylist() == good

    averaged = predicted(tmp_path / name, "--max-rejects", "99", "--unknown", "average")
    faults = {at: reason for at, (_, reason, passes) in enumerate(cases.values()) if not passes}
    assert rejects(averaged) == {at: str(reason).replace("'", "") for at, reason in faults.items()}
    said = [{key: PLAIN.get(value, value) if isinstance(value, str) else value for key, value in row.items()}
            for at, row in enumerate(rows) if at not in faults]  # fmt: skip
    expected = [store.by_hand(row | {"garden": 0.0 if row["garden"] is None else row["garden"]}) for row in said]
    known = [at for at, row in enumerate(said) if row["garden"] is not None]
    np.testing.assert_allclose(np.array(table(averaged)["prediction"])[known], np.array(expected)[known], rtol=1e-5)


TEXT_TYPES = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
TYPED: dict[str, Callable[[pa.Table, Path], object]] = {
    "t.parquet": pq.write_table,
    "t.feather": lambda rows, path: pyarrow.feather.write_feather(rows, str(path)),
}


def test_numbers_and_truth_stored_as_text_in_typed_files_are_read(store: Store, tmp_path: Path) -> None:
    texts = {"area": ["80.5", " 1e2 ", "big", "7"], "garden": ["True", "0", "1", "maybe"]}
    count = 0
    for name, write in TYPED.items():
        for text in TEXT_TYPES:
            rows = pa.Table.from_pylist([GOOD] * 4).drop_columns(list(texts))
            for column, values in texts.items():
                rows = rows.append_column(column, pa.array(values).cast(text))
            write(rows, tmp_path / f"{count} {name}")
            count += 1
    done = predicted(tmp_path, "--max-rejects", "99")
    reasons = {2: "area is big, not a number", 3: "garden is maybe, neither true nor false"}
    assert rejects(done) == {4 * at + row: reason for at in range(count) for row, reason in reasons.items()}
    expected = [store.by_hand(GOOD | {"area": area, "garden": garden}) for area, garden in ((80.5, True), (100, False))]
    np.testing.assert_allclose(table(done)["prediction"], expected * count, rtol=1e-5)


@pytest.mark.slow
def test_numbers_that_name_levels_are_found_however_they_are_written(store: Store, tmp_path: Path) -> None:
    zones = {
        "a.parquet": pa.array([3.0, 1.0, 2.0]),
        "b.parquet": pa.array([3, 1, 2], pa.int8()),
        "c.parquet": pa.array([3, 1, 2], pa.float32()),
        "d.csv": pa.array(["3.0", "1", "2.00"]),
        "e.feather": pa.array(["3", "1", "2"]).dictionary_encode(),
        "f.jsonl": pa.array([3, 1, 2]),
        "g.jsonl": pa.array([3.0, 1.0, 2.0]),
    }
    (tmp_path / "all").mkdir()
    for name, values in zones.items():
        rows = pa.Table.from_pylist([GOOD] * 3).drop_columns(["zone"]).append_column("zone", values)
        written(tmp_path / "all" / name, rows)
    done = predicted(tmp_path / "all")
    expected = [store.by_hand(GOOD | {"zone": zone}) for zone in (3, 1, 2)] * len(zones)
    assert len(set(expected)) == 3
    np.testing.assert_allclose(table(done)["prediction"], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_one_file_has_every_row_of_the_input_its_columns_first(suffix: str, store: Store, tmp_path: Path) -> None:
    rows, path, output = houses(30, seed=8), tmp_path / "rows.csv", tmp_path / f"out{suffix}"
    rows[4]["garden"], rows[5]["area"] = None, "big, really"
    rows[6]["id"], rows[7]["id"] = 'says "no", twice\nKöln; Ulm', "007"
    path.write_bytes(as_csv(rows) + b"h30,1\n")
    done = predicted(path, "--max-rejects", "3", "--shard-rows", "8", "--output", str(output))
    given = as_rows(path)
    found = pq.read_table(output).to_pylist() if suffix == ".parquet" else as_rows(output)
    assert [*found[0]] == [*given[0], "prediction", "rejected"]
    assert [{name: row[name] or "" for name in given[0]} for row in found[:-1]] == given[:-1]
    reasons = {at: row["rejected"] for at, row in enumerate(found) if row["rejected"]}
    assert reasons == {4: "garden is missing", 5: "area is 'big, really', not a number", 30: "2 fields, expected 7"}
    assert not any(found[at]["prediction"] for at in reasons)
    good = [at for at in range(30) if at not in reasons]
    answers = [np.float32(found[at]["prediction"]) for at in good]
    np.testing.assert_allclose(answers, [store.by_hand(rows[at]) for at in good], rtol=1e-5)
    assert answers == table(done)["prediction"].to_pylist()
    assert Path(done["path"]).parent == store.artifacts / "predictions"
    assert {each.name for each in tmp_path.iterdir()} == {path.name, output.name}


@pytest.mark.slow
def test_too_many_rejects_tell_the_first_by_its_ids_and_what_would_help(store: Store, tmp_path: Path) -> None:
    cases = (("city", "Paris", "city is 'Paris'", True), ("area", "big", "area is 'big', not a number", False))
    for column, value, reason, averages in cases:
        (tmp_path / "t.csv").write_bytes(as_csv([GOOD | {column: value}]))
        done = typed("predict", tmp_path / "t.csv", "--name", "houses", "--id-column", "id,zone")
        assert_clear(done, 4)
        assert f"row 0 (id a, zone 2) of {tmp_path}/t.csv: {reason}" in done.stderr
        assert ("--unknown average" in done.stderr) == averages


@pytest.mark.slow
def test_a_target_is_compared_in_float64(store: Store, tmp_path: Path) -> None:
    rows = houses(50, seed=4)
    (tmp_path / "rows.csv").write_bytes(as_csv(rows))
    answers = table(predicted(tmp_path / "rows.csv"))["prediction"].to_pylist()
    near = [row | {"price": answer + 0.004} for row, answer in zip(rows, answers, strict=True)]
    (tmp_path / "near.csv").write_bytes(as_csv(near))  # float32 has steps of 0.016 and more there
    assert predicted(tmp_path / "near.csv")["metrics"]["rmse"] == pytest.approx(0.004, rel=1e-4)


def test_a_row_of_another_length_is_a_reject_and_keeps_its_number(store: Store, tmp_path: Path) -> None:
    lines = as_csv([GOOD] * 4).decode().splitlines()
    lines[2], lines[4] = "a,100.5", lines[4] + ",more"
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    done = predicted(tmp_path / "t.csv", "--max-rejects", "2")
    assert rejects(done) == {1: "2 fields, expected 7", 3: "8 fields, expected 7"}
    assert table(done)["row"].to_pylist() == [0, 2]


DATES = pa.array([0, 1], pa.date32())


def changed(**columns: Any) -> Callable[[Path], object]:
    whole = pa.Table.from_pylist([GOOD, GOOD])
    for name, values in columns.items():
        at = whole.column_names.index(name)
        whole = whole.remove_column(at) if values is None else whole.set_column(at, name, pa.array(values))
    return lambda path: pq.write_table(whole, path)


def damaged(path: Path) -> None:
    rows = {name: np.random.default_rng(0).random(5000) for name in GOOD}
    pq.write_table(pa.table(rows), path, compression="snappy")
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)


def twice(path: Path) -> None:
    whole = pa.Table.from_pylist([GOOD, GOOD])
    pq.write_table(whole.add_column(2, "area", whole["area"]), path)


TEXT = as_csv([GOOD, GOOD])
UNFIT: dict[str, tuple[Callable[[Path], object], str, int, str]] = {
    "missing.parquet": (changed(area=None, city=None), "", 4, "area, city missing"),
    "missing.csv": (lambda path: path.write_bytes(b"city,id\nUlm,a\n"), "", 4, "area, garden, zone missing"),
    "missing.jsonl": (lambda path: path.write_bytes(b'{"city": "Ulm"}\n'), "", 4, "area, garden, zone missing"),
    "dates.parquet": (changed(area=DATES, garden=[[True]] * 2), "", 4, "area of type date32"),
    "lists.parquet": (changed(area=DATES, garden=[[True]] * 2), "", 4, "garden of type list"),
    "spaces.csv": (lambda path: path.write_bytes(TEXT.replace(b"area", b" area")), "", 4, "' area'"),
    "twice.csv": (lambda path: path.write_bytes(TEXT.replace(b"kind", b"area")), "", 4, "'area' stands 2"),
    "unused twice.csv": (lambda path: path.write_bytes(TEXT.replace(b"kind", b"id")), "", 4, "'id' stands 2"),
    "twice.parquet": (twice, "", 4, "twice.parquet has columns id (string), area (double), area (double)"),
    "header.csv": (lambda path: path.write_bytes(TEXT.splitlines()[0] + b"\n"), "", 4, "holds no rows"),
    "empty.csv": (lambda path: path.write_bytes(b""), "", 4, "empty"),
    "utf16.csv": (lambda path: path.write_bytes(TEXT.decode().encode("utf-16")), "", 4, "UTF-16"),
    "page.csv": (lambda path: path.write_bytes(b"<html><body>sign in"), "", 4, "a page of the web"),
    "sheet.csv": (lambda path: path.write_bytes(b"PK\x03\x04"), "", 4, "Excel"),
    "broken.parquet": (lambda path: path.write_bytes(b"PAR1 no parquet PAR1"), "", 4, "broken.parquet"),
    "damaged.parquet": (damaged, "", 4, "damaged.parquet"),
    "broken.feather": (lambda path: path.write_bytes(b"ARROW1 no feather"), "", 4, "broken.feather"),
    "broken.jsonl": (lambda path: path.write_bytes(as_json([GOOD]) + b"{"), "", 4, "broken.jsonl"),
    "text.txt": (lambda path: path.write_bytes(b"just text"), "", 4, "text.txt"),
    "ids.parquet": (changed(), "--id-column number", 4, "number"),
    "nested.parquet": (
        changed(id=[[1], [2]], price=[[1.0], []]), "--id-column id", 4, "which is no single value; price of type list"
    ),
    "nested.jsonl": (
        lambda path: path.write_bytes(as_json([GOOD | {"id": [1]}])), "--id-column id", 4, "nested.jsonl has columns"
    ),
    "clash.parquet": (changed(), "--id-column id,id", 2, "id"),
    "fifo.csv": (os.mkfifo, "", 4, "fifo.csv is no regular file"),
    "nowhere.csv": (lambda path: None, "", 2, "nowhere.csv"),
    "*.none": (lambda path: None, "", 2, "*.none"),
    "notes": (lambda path: written(path / "notes.md", {}), "", 4, "nothing that can be read"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", UNFIT)
def test_an_input_that_does_not_fit_is_named_with_what_was_expected_and_leaves_no_part(
    name: str, store: Store, tmp_path: Path
) -> None:
    write, options, exit_code, words = UNFIT[name]
    write(tmp_path / name)
    output = tmp_path / "out"
    done = typed("predict", tmp_path / name, "--name", "houses", "--output", str(output), *options.split())
    assert_clear(done, exit_code)
    assert words in done.stderr
    assert not list(output.glob("part-*"))


def test_a_folder_of_something_else_is_refused_and_left_byte_for_byte(store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(TEXT)
    for name in ("x.partial", ".rejects/a", ".spool/b", ".sources.parquet", ".cache/download.partial"):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text("mine")
    for folder in (tmp_path / "home", store.artifacts / "models/houses/1"):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for options in ([], ["--restart"]):
            done = typed("predict", tmp_path / "rows.csv", "--name", "houses", "--output", folder, *options)
            assert_clear(done, 2)
            assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_folder_is_read_in_the_order_of_its_names_and_says_what_it_leaves_out(store: Store, tmp_path: Path) -> None:
    rows = houses(12, seed=4)
    for number in (2, 0, 1):
        WRITERS["a.csv"](rows[number * 4 : number * 4 + 4], tmp_path / f"{number}.csv")
    (tmp_path / "notes.md").touch()
    (tmp_path / "itself").symlink_to(tmp_path)
    done = typed("predict", tmp_path, "--name", "houses", "--id-column", "id", "--output", f"{tmp_path}/out")
    assert "ignored 1 file of no known kind" in done.stdout + done.stderr
    assert "links to folders are not followed" in done.stdout + done.stderr
    parts = pq.read_table(sorted((tmp_path / "out").glob("part-*")))
    assert parts["id_id"].to_pylist() == [row["id"] for row in rows]
    by_glob = predicted(f"{tmp_path}/?.csv", "--id-column", "id")
    assert table(by_glob)["id_id"].to_pylist() == [row["id"] for row in rows]


BOOK = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
ARRAYS: dict[str, Callable[[Path], object]] = {
    "a.npy": lambda path: np.save(path, BOOK),
    "b.npy": lambda path: np.save(path, BOOK.astype(np.float64)),
    "c.npy": lambda path: np.save(path, np.asfortranarray(BOOK)),
    "d.npz": lambda path: np.savez(path, BOOK),
    "e.npz": lambda path: np.savez_compressed(path, features=BOOK, other=np.zeros(3)),
    "f.safetensors": lambda path: safetensors.numpy.save_file({"features": BOOK}, path),
    "g.parquet": lambda path: pq.write_table(pa.table({"x2": BOOK[:, 1], "note": ["n"] * 40, "x1": BOOK[:, 0]}), path),
    "h.csv": lambda path: path.write_text("x2,x1\n" + "".join(f"{float(b)!r},{float(a)!r}\n" for a, b in BOOK)),
}


def test_the_books_rows_come_from_every_kind_of_array_and_table(store: Store, tmp_path: Path) -> None:
    for name, write in ARRAYS.items():
        write(tmp_path / name)
    done = predicted(tmp_path, name="linear-regression")
    figures = store.reports["linear-regression"]["metrics"]
    expected = BOOK.astype(float) @ np.ravel(figures["weights"]) + figures["bias"]
    found = np.array(table(done)["prediction"]).reshape(len(ARRAYS), 40)
    np.testing.assert_allclose(found, np.tile(expected, (len(ARRAYS), 1)), atol=1e-4)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


BROKEN_ARRAYS: dict[str, Callable[[Path], object]] = {
    "empty.npy": lambda path: path.touch(),
    "pickled.npy": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "shape.npy": lambda path: np.save(path, BOOK[:, :1]),
    "norows.npy": lambda path: np.save(path, BOOK[:0]),
    "cut.npy": lambda path: path.write_bytes(npy(BOOK)[:-1]),
    "broken.npz": lambda path: path.write_bytes(b"PK\x03\x04 no zip"),
    "two.npz": lambda path: np.savez(path, BOOK, BOOK),
    "broken.safetensors": lambda path: path.write_bytes(b"\xff" * 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN_ARRAYS)
def test_a_broken_array_is_exit_4_and_named(name: str, store: Store, tmp_path: Path) -> None:
    BROKEN_ARRAYS[name](tmp_path / name)
    done = typed("predict", tmp_path / name, "--name", "linear-regression")
    assert_clear(done, 4)
    assert str(tmp_path / name) in done.stderr


def lying_tensors(shape: list[int], *offsets: int, data: int = 1000, length: int | None = None) -> bytes:
    header = json.dumps({"features": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(data)


def lying_npy(*shape: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(1000)


def lying_npz() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("features.npy", lying_npy(2**40, 2))
    return stream.getvalue()


LIES = {
    "huge.npy": lying_npy(2**40, 2),
    "beyond.npy": lying_npy(2**62, 2),
    "negative.npy": lying_npy(-125, 2),
    "sparse.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
    "huge.npz": lying_npz(),
    "huge.safetensors": lying_tensors([2**40, 2], 0, 2**43),
    "beyond.safetensors": lying_tensors([2**62, 2], 0, 1000),
    "short.safetensors": lying_tensors([125, 2], 0, 1000, data=999),
    "backwards.safetensors": lying_tensors([125, 2], 1000, 0),
    "header.safetensors": lying_tensors([125, 2], 0, 1000, length=2**63),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIES)
def test_a_header_that_promises_more_than_there_is_is_exit_4_and_takes_no_memory(
    name: str, store: Store, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(LIES[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = typed("predict", tmp_path / name, "--name", "linear-regression")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17, "KiB"
    assert_clear(done, 4)
    assert str(tmp_path / name) in done.stderr


POINTERS: dict[str, tuple[Callable[[Row], Row] | str, str]] = {
    "a field of the future": (lambda pointer: pointer | {"from the future": {"a": [1]}}, ""),
    "not yet frozen": (lambda pointer: {name: pointer[name] for name in pointer if name != "frozen"}, ""),
    "a number as text": (lambda pointer: pointer | {"version": "1"}, "version"),
    "a number with a point": (lambda pointer: pointer | {"version": 1.0}, "version"),
    "truth for a number": (lambda pointer: pointer | {"version": True}, "version"),
    "nobody's version": (lambda pointer: pointer | {"version": None}, "version"),
    "a list of nothing": (lambda pointer: pointer | {"held": [None]}, "held"),
    "text for truth": (lambda pointer: pointer | {"frozen": "no"}, "frozen"),
    "a field gone": (lambda pointer: {name: pointer[name] for name in pointer if name != "version"}, "version"),
    "nothing": ("", ""),
    "no object": ("[]", ""),
    "null": ("null", ""),
    "cut": ('{"version": 1', ""),
    "a name twice": ('{"version": 1, "version": 1}', ""),
    "deep": ('{"version": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", ""),
    "no number": ('{"version": 1, "x": NaN}', ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", POINTERS)
def test_a_pointer_is_read_strictly_but_for_fields_that_are_new_or_not_yet_there(
    case: str, made: Store, artifacts: Path, tmp_path: Path
) -> None:
    shutil.copytree(made.artifacts, artifacts)
    pointer, (change, word) = artifacts / "models/houses/champion.json", POINTERS[case]
    known = json.loads(pointer.read_text())
    pointer.write_text(change if isinstance(change, str) else json.dumps(change(known)))
    WRITERS["a.csv"]([GOOD], tmp_path / "t.csv")
    done = typed("predict", tmp_path / "t.csv", "--name", "houses")
    if not isinstance(change, str) and not word:
        assert done.returncode == 0, done.stderr
        return
    assert_clear(done, 4)
    assert "champion.json" in done.stderr
    assert word in done.stderr


@pytest.mark.slow
def test_classes_are_told_by_name_with_their_probabilities_and_measured(store: Store, tmp_path: Path) -> None:
    rows = houses(200, seed=3)
    rows[5]["kind"] = ""  # nobody knows it yet
    for row in rows[:3]:
        row["kind"] = "ruin"
    (tmp_path / "rows.csv").write_bytes(as_csv(rows))
    done = predicted(tmp_path / "rows.csv", name="kinds")
    found = table(done)
    assert found.column_names == ["row", "source", "label", "label_name", "probability_cheap", "probability_dear"]
    chances = np.stack([found["probability_cheap"], found["probability_dear"]], axis=1)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    assert found["label"].to_pylist() == chances.argmax(axis=1).tolist()
    names = ["cheap", "dear"]
    assert found["label_name"].to_pylist() == [names[at] for at in chances.argmax(axis=1)]
    known = [at for at in range(200) if at != 5]
    truth = [rows[at]["kind"] for at in known]
    accuracy = accuracy_score(truth, [found["label_name"][at].as_py() for at in known])
    assert done["accuracy"] == pytest.approx(accuracy), "a class that the model does not know is never right"
    assert done["unknown_class"] == 3
    again = typed("predict", tmp_path / "rows.csv", "--name", "kinds")
    sentence = "3 of 200 rows of a class that the model does not know, counted as wrong"
    assert (again.stdout + again.stderr).count(sentence) == 1, "of a job that is done already, too"


def test_tables_called_like_labels_of_images_are_predicted(store: Store, tmp_path: Path) -> None:
    for number in (0, 1, 10):
        pq.write_table(pa.Table.from_pylist([GOOD] * 2), tmp_path / f"chunk_idx{number}.parquet")
    assert predicted(tmp_path)["rows"] == 6


def test_without_an_input_the_test_split_of_the_version_is_predicted(store: Store) -> None:
    made = store.reports["houses"]
    done = json.loads(typed("predict", "--name", "houses", "--json").stdout)
    assert (done["rows"], done["path"]) == (made["prediction"]["rows"], made["prediction"]["path"])
    assert done["metrics"]["rmse"] == pytest.approx(made["metrics"]["rmse"], rel=1e-5)
    assert_clear(typed("predict", "--name", "houses", "--id-column", "id"), 2)
