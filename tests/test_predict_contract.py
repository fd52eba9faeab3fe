"""Batch prediction from outside: what ``gradmill predict`` writes of good rows, odd values and broken files.

What a model must say is worked out from the weights in its manifest, in plain Python.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import r2_score

import table_files
from candidate import job_document
from command_line import answer, assert_clear, typed
from prediction_jobs import added_by_hand, contents
from table_files import written
from tasks.store import model_folder, predictions

Row = dict[str, Any]
Make = Callable[[Path], object]
pytestmark = pytest.mark.usefixtures("prefect_api")
DAY = "2024-03-04"


def houses(count: int, seed: int) -> list[Row]:
    """Rows of which ``area`` and ``city`` may be missing; ``zone`` and a day name levels."""
    zones = np.random.default_rng(100 + seed).integers(1, 4, count).tolist()
    drawn = table_files.houses(count, seed, cities=("Ulm", "Köln", DAY)).to_pylist()
    return [
        {"id": f"h{number}", **row, "zone": zone, "kind": "dear" if row["price"] > 450_000 else "cheap"}
        for number, (row, zone) in enumerate(zip(drawn, zones, strict=True))
    ]


def as_csv(rows: list[Row], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([[*rows[0]], *(row.values() for row in rows)])
    return stream.getvalue().encode()


WRITERS: dict[str, Callable[[list[Row], Path], object]] = {
    "a.csv": lambda rows, path: path.write_bytes(as_csv(rows)),
    "b.tsv": lambda rows, path: path.write_bytes(as_csv(rows, "\t")),
    "c.csv.gz": lambda rows, path: path.write_bytes(gzip.compress(as_csv(rows, ";"))),
    "d_idx1.parquet": lambda rows, path: pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7),
    **dict.fromkeys(("e.feather", "f.jsonl"), lambda rows, path: written(path, pa.Table.from_pylist(rows))),
    "g.ndjson.gz": lambda rows, path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
}


def by_hand(row: Row) -> float:
    """What ``houses`` must say: a gap in a number is its mean, a level that nobody knows the average of all."""
    manifest = model_folder.find_manifest("houses", 1)
    return sum(added_by_hand(row, manifest.metrics.model_dump(), manifest.recipe))


@pytest.fixture(scope="module")
def made(module_folder: Path) -> Path:
    """The store of a regression and a classifier of a table, made by the command line."""
    (module_folder / "houses.csv").write_bytes(as_csv(houses(600, seed=0)))
    own = f"--category zone --shape linear --data {module_folder / 'houses.csv'}"
    answer(f"retrain linear-regression --name houses --target price --ignore id,kind {own}")
    answer(f"retrain softmax-regression --name kinds --target kind --ignore id,price {own}")
    return module_folder / "artifacts"


@pytest.fixture
def store(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(made))
    return made


def predicted(path: Path | str, *options: str, name: str = "houses", said: Iterable[str] = ()) -> Any:
    """The document of a prediction that succeeds and says these words."""
    done = typed("predict", path, "--name", name, "--json", *options)
    assert done.returncode == 0, done.stderr
    assert not [words for words in said if words not in done.stderr]
    return json.loads(done.stdout)


def table(done: Any) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in sorted(Path(done["path"]).glob("part-*.parquet"))])


IN_EVERY_ROW = {"row", "source", "id_id", "rejected"}


def rejects(done: Any) -> dict[int, str]:
    """Reasons by row; quotes around a value are a matter of the format."""
    rows = table(done).filter(pc.field("rejected").is_valid()).to_pylist()
    assert not [row for row in rows for name in row.keys() - IN_EVERY_ROW if row[name] is not None]
    return {row["row"]: row["rejected"].replace("'", "") for row in rows}


def test_every_format_gives_the_same_predictions_ids_and_measures(store: Path, tmp_path: Path) -> None:
    rows = [dict(reversed(row.items())) for row in houses(60, seed=1)]
    for name, write in WRITERS.items():
        write(rows, tmp_path / name)
    said = "1 column that the model does not take: kind", "columns are in a different order"
    done = predicted(tmp_path, "--id-column", "id,zone", "--shard-rows", "25", said=said)
    found, every = table(done), rows * len(WRITERS)
    assert (done["rows"], done["rejects"], done["version"]) == (len(every), 0, 1)
    assert found.column_names == ["row", "source", "prediction", "id_id", "id_zone", "rejected"]
    assert found["row"].to_pylist() == list(range(len(every)))
    assert found["source"].to_pylist() == [str(tmp_path / name) for name in WRITERS for _ in rows]
    assert found["id_id"].to_pylist() == [row["id"] for row in every]
    assert found["id_zone"].to_pylist() == [str(row["zone"]) for row in every]
    assert_allclose(found["prediction"], [by_hand(row) for row in every], rtol=1e-5)
    assert done["metrics"]["r2"] == pytest.approx(r2_score([row["price"] for row in every], found["prediction"]))


# What a row may say instead: why --unknown reject rejects it, if it does, and whether it is predicted otherwise.
GOOD = {"id": "a", "area": 100.5, "city": "Ulm", "garden": True, "zone": 2, "price": 1, "kind": ""}
NEW, NO_TRUTH = "a level that the model has not seen", "neither true nor false"
VALUES: list[tuple[Row, str, bool]] = [
    ({}, "", True),
    ({"area": None, "city": None}, "", True),
    ({"garden": None}, "garden is missing", True),
    ({"zone": None}, "zone is missing", True),
    ({"city": "ulm"}, f"city is ulm, {NEW}", True),
    ({"zone": 9}, f"zone is 9, {NEW}", True),
    ({"price": None}, "", True),
]
TEXTS: list[tuple[Row, str, bool]] = [
    ({"area": " 1e2 ", "zone": "2.0", "garden": "TRUE"}, "", True),
    ({"area": "big"}, "area is big, not a number", False),
    ({"area": "1e39"}, "area is 1e39, not a finite number", False),
    ({"area": "-3.4028235e+38"}, "", True),
    ({"garden": "maybe"}, f"garden is maybe, {NO_TRUTH}", False),
    ({"garden": "2"}, f"garden is 2, {NO_TRUTH}", False),
]
PLAIN: dict[Any, Any] = {" 1e2 ": 100.0, "2.0": 2, "TRUE": True, "1": True, "NA": None, "N/A": None}


ROWS_OF_KINDS = {
    "a.csv": [*VALUES, *TEXTS, ({"area": "NA", "city": "N/A", "garden": "1"}, "", True)],
    "d_idx1.parquet": VALUES,
    "f.jsonl": VALUES,
}
STORED = {
    "text.parquet": pa.string(),
    "large.parquet": pa.large_string(),
    "coded.feather": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ROWS_OF_KINDS, *STORED])
def test_a_row_that_the_model_cannot_take_is_a_reject_with_its_reason_and_one_that_it_has_not_seen_on_request(
    name: str, store: Path, tmp_path: Path
) -> None:
    """Numbers and truth stored as text in typed files are read."""
    cases, path = ROWS_OF_KINDS.get(name, TEXTS), tmp_path / name
    rows = [GOOD | change for change, _, _ in cases]
    if name in STORED:
        columns = {column: pa.array([str(row[column]) for row in rows]).cast(STORED[name]) for column in GOOD}
        written(path, columns)
    else:
        WRITERS[name](rows, path)
    unseen = [at for at, (_, reason, passes) in enumerate(cases) if reason and passes]
    for options in (["--unknown", "reject"], list[str]()):
        note = f"{len(unseen)} of {len(rows)} rows with a level or a missing value that the model has not seen"
        done = predicted(path, "--max-rejects", "99", *options, said=[note] if unseen and not options else ())
        faults = {at: reason for at, (_, reason, _) in enumerate(cases) if reason and (options or at not in unseen)}
        assert (rejects(done), done["averaged"]) == (faults, 0 if options else len(unseen))
        good = [at for at in range(len(rows)) if at not in faults]
        assert (table(done)["row"].to_pylist(), done["rows"]) == ([*range(len(rows))], len(good))
        said = [{column: PLAIN.get(value, value) for column, value in rows[at].items()} for at in good]
        answers = table(done)["prediction"].take(good)
        assert_allclose(answers, [by_hand(row) for row in said], rtol=1e-5)


ZONES = {
    "a.parquet": pa.array([3.0, 1.0, 2.0]),
    "b.parquet": pa.array([3, 1, 2], pa.int8()),
    "c.feather": pa.array([3, 1, 2], pa.float32()),
    "d.csv": pa.array(["3.0", "1", "2.00"]),
    "e.feather": pa.array(["3", "1", "2"]).dictionary_encode(),
    "f.jsonl": pa.array([3, 1, 2]),
}
TYPES_OF_DAYS = dict(zip(ZONES, (pa.date32(), pa.timestamp("s"), pa.timestamp("ns", "UTC")), strict=False))


@pytest.mark.slow
def test_numbers_and_days_that_name_levels_are_found_however_they_are_written(store: Path, tmp_path: Path) -> None:
    """Text that looks like a day goes along as it is, and a target that became a day is no truth."""
    for name, zones in ZONES.items():
        day = datetime.fromisoformat(DAY) if name in TYPES_OF_DAYS else DAY
        days = pa.array([day] * 3, TYPES_OF_DAYS.get(name))
        changed(3, zone=zones, city=days, id=[DAY] * 3, price=days)(tmp_path / name)
    expected = [by_hand(GOOD | {"city": DAY, "zone": zone}) for zone in (3, 1, 2)]
    done = predicted(tmp_path, "--id-column", "id")
    assert_allclose(table(done)["prediction"], expected * len(ZONES), rtol=1e-5)
    assert set(table(done)["id_id"].to_pylist()) == {DAY}
    assert done["metrics"] == {}


CODES = [[80, 1, 1, 0], [80, 3, 1, 0], [80, 1, 0.5, 0], [80, 1, np.nan, 0], [np.inf, 1, 1, 0]]
OF_CODES = {
    1: f"city is 3.0, {NEW}",
    2: f"garden is 0.5, {NO_TRUTH}",
    3: "garden is missing",
    4: "area is inf, not a finite number",
}


@pytest.mark.slow
def test_encoded_arrays_are_taken_by_the_same_rule(store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(CODES, np.float32))
    for options, rejected in ((["--unknown", "reject"], [1, 2, 3, 4]), ([], [2, 4])):
        done = predicted(tmp_path / "t.npy", "--max-rejects", "9", *options)
        assert (rejects(done), done["averaged"]) == ({row: OF_CODES[row] for row in rejected}, 4 - len(rejected))


@pytest.mark.slow
def test_one_file_has_every_row_of_the_input_its_columns_first(store: Path, tmp_path: Path) -> None:
    """The users' text stands as it was, also where the model takes it for missing."""

    def as_rows(path: Path) -> list[Row]:
        return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))

    rows, path, output = houses(30, seed=8), tmp_path / "rows.txt", tmp_path / "out.csv"
    rows[4]["garden"], rows[5]["area"], rows[6]["price"] = None, "big, really", "1.50"
    for at, text in enumerate(['says "no", twice\nKöln; Ulm', "007", "NA", "null", "", "NaN", "N/A", " x "]):
        rows[6 + at]["id"] = text
    path.write_bytes(as_csv(rows) + b"h30,1\n")
    (tmp_path / ".gradmill-0123456789abcdef.partial").write_bytes(b"of a killed writer")
    options = ("--unknown", "reject", "--max-rejects", "3", "--shard-rows", "8")
    done = predicted(path, *options, "--output", str(output))
    given, found = as_rows(path), as_rows(output)
    assert [*found[0]] == [*given[0], "prediction", "rejected"]
    assert [{name: row[name] for name in given[0]} for row in found[:-1]] == given[:-1]
    reasons = {at: row["rejected"] for at, row in enumerate(found) if row["rejected"]}
    assert reasons == {4: "garden is missing", 5: "area is 'big, really', not a number", 30: "2 fields, expected 7"}
    assert not any(found[at]["prediction"] for at in reasons)
    good = [at for at in range(30) if at not in reasons]
    answers = [float(found[at]["prediction"]) for at in good]
    assert_allclose(answers, [by_hand(rows[at]) for at in good], rtol=1e-5)
    assert Path(done["path"]).parent == store / "predictions"
    assert {each.name for each in tmp_path.iterdir()} == {path.name, output.name}


@pytest.mark.slow
def test_a_target_is_compared_in_float64_and_one_that_does_not_fit_is_no_truth(store: Path, tmp_path: Path) -> None:
    rows = houses(50, seed=4)
    (tmp_path / "rows.csv").write_bytes(as_csv(rows))
    answers = table(predicted(tmp_path / "rows.csv"))["prediction"].to_pylist()
    near = [row | {"price": str(answer + 0.004)} for row, answer in zip(rows, answers, strict=True)]
    near[0]["price"], near[1]["price"] = "cheap", "1e300"
    written(tmp_path / "near.parquet", pa.Table.from_pylist(near))  # float32 has steps of 0.016 and more there
    done = predicted(tmp_path / "near.parquet", said=["1 of 50 rows with a target beyond float32, left out"])
    assert done["metrics"]["rmse"] == pytest.approx(0.004, rel=1e-4)


def changed(count: int = 2, **columns: Any) -> Make:
    """A file of so many good rows, with columns left out or in the place of its own."""
    whole = pa.Table.from_pylist([GOOD] * count)
    for name, values in columns.items():
        at = whole.column_names.index(name)
        whole = whole.remove_column(at) if values is None else whole.set_column(at, name, pa.array(values))
    return lambda path: written(path, whole)


def raw(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def damaged(path: Path) -> None:
    changed(500)(path)
    with path.open("r+b") as file:
        file.seek(4)
        file.write(bytes(200))


TEXT = as_csv([GOOD, GOOD])


# What is wrong, what is said of it (nothing: the path), and with which options.
UNFIT: dict[str, tuple[Make, str, str]] = {
    "missing.parquet": (changed(area=None, city=None), "area, city missing", ""),
    "missing.jsonl": (raw(b'{"city": "Ulm"}\n'), "area, garden, zone missing", ""),
    "unknown.parquet": (changed(city=["Rome", "Oslo"]), "row 1 of … city is 'Rome'", "--unknown reject"),
    "big.csv": (
        changed(area=["big"] * 2), "line 2 (id a, zone 2) of … area is 'big', not a number", "--id-column id,zone"
    ),
    "dates.parquet": (
        changed(area=pa.array([0, 1], pa.date32()), garden=[[True]] * 2),
        "area of type date32[day], which is not a number; garden of type list", "",
    ),
    "damaged.parquet": (damaged, "", ""),
    "zone=2/t.parquet": (changed(zone=None), "name the folder above zone=2", ""),
    "nested.parquet": (
        changed(id=[[1], [2]], price=[[1.0], []]), "not a single value; price of type", "--id-column id"
    ),
    "nested.jsonl": (changed(1, id=[[1]]), "nested.jsonl has columns", "--id-column id"),
    "clash.parquet": (changed(), "id", "--id-column id,id"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", UNFIT)
def test_an_input_that_does_not_fit_is_named_with_what_was_expected_and_leaves_no_part(
    name: str, store: Path, tmp_path: Path
) -> None:
    make, words, options = UNFIT[name]
    make(tmp_path / name)
    output = tmp_path / "out"
    done = typed("predict", tmp_path / name, "--name", "houses", "--output", output, *options.split())
    assert_clear(done, 2 if "clash" in name else 4, *(words or str(tmp_path / name)).split(" … "))
    assert ("--unknown average" in done.stderr) == (name == "unknown.parquet"), "where it would help"
    assert not list(output.glob("part-*"))


NO_JOBS = ("", "{", '{"job": "nightly", "request": "x"}', '{"status": "done", "shards": []}')


def test_a_folder_of_something_else_is_refused_and_left_byte_for_byte(store: Path, tmp_path: Path) -> None:
    """So is a part beside what is no job's document, or beside a link to a job's document or scratch folder."""
    (tmp_path / "rows.csv").write_bytes(TEXT)
    for name in ("x.partial", ".spool/b", ".cache/download.partial"):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text("mine")
    folders = [tmp_path / "home", store / "models/houses/1"]
    for number, document in enumerate(NO_JOBS):
        folders.append(written(tmp_path / f"{number}" / "part-00000.parquet", {"row": [0]}).parent)
        (folders[-1] / "_job.json").write_text(document)
    predictions.make_scratch(tmp_path / "theirs")
    (tmp_path / "theirs" / "_job.json").write_text(json.dumps(job_document("houses", status="done")))
    for name in ("_job.json", ".gradmill-scratch"):
        folders.append(written(tmp_path / f"link {name}" / "part-00000.parquet", {"row": [0]}).parent)
        (folders[-1] / name).symlink_to(tmp_path / "theirs" / name)
    for folder in folders:
        before = contents(folder)
        for options in ([], ["--restart"]):
            assert_clear(typed("predict", tmp_path / "rows.csv", "--name", "houses", "--output", folder, *options), 2)
            assert contents(folder) == before
    assert predictions.has_scratch(tmp_path / "theirs")


@pytest.mark.slow
def test_a_folder_says_what_it_leaves_out(store: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(TEXT)
    (tmp_path / "notes.md").touch()
    (tmp_path / "itself").symlink_to(tmp_path)
    for source in (tmp_path, f"{tmp_path}/?ows.csv"):
        done = typed("predict", source, "--name", "houses", "--json")
        assert json.loads(done.stdout)["rows"] == 2
        said = ("ignored 1 file of no known kind", "links to folders are not followed")
        assert [words in done.stderr for words in said] == [source == tmp_path] * 2


@pytest.mark.slow
def test_classes_are_told_by_name_with_their_probabilities_and_measured(store: Path, tmp_path: Path) -> None:
    rows = houses(200, seed=3)
    for row, kind in zip(rows, ("ruin", "ruin", "ruin", ""), strict=False):  # of the last nobody knows it yet
        row["kind"] = kind
    (tmp_path / "rows.csv").write_bytes(as_csv(rows))
    done = predicted(tmp_path / "rows.csv", "--shard-rows", "100", name="kinds")
    found = table(done)
    names = "row", "source", "label", "label_name", "probability_cheap", "probability_dear", "rejected"
    assert found.column_names == [*names]
    chances = np.stack([found["probability_cheap"], found["probability_dear"]], axis=1)
    assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    assert found["label"].to_pylist() == chances.argmax(axis=1).tolist()
    labels = np.take(["cheap", "dear"], found["label"])
    assert found["label_name"].to_pylist() == labels.tolist()
    truth = np.array([row["kind"] for row in rows])
    assert done["accuracy"] == pytest.approx((labels == truth)[truth != ""].mean()), "an unknown class is never right"
    assert done["unknown_class"] == 3
    again = typed("predict", tmp_path / "rows.csv", "--name", "kinds", "--shard-rows", "100")
    sentence = "3 of 200 rows of a class that the model does not know, counted as wrong"
    assert (again.stdout + again.stderr).count(sentence) == 1, "of a job that is done already, too"


def test_few_answers_are_printed_with_an_id_column_of_any_name(store: Path, tmp_path: Path) -> None:
    rows = [{"row": f"lot {at}"} | row for at, row in enumerate(houses(3, seed=8))]
    (tmp_path / "lots.csv").write_bytes(as_csv(rows))
    done = typed("predict", tmp_path / "lots.csv", "--name", "houses", "--id-column", "row")
    assert done.returncode == 0, done.stderr
    printed = [" ".join(line.split()[:4]) for line in done.stdout.splitlines()[:4]]
    assert printed == ["file row row answer", *(f"lots.csv {at} lot {at}" for at in range(3))]
