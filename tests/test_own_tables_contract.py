"""Own tables from outside: what ``gradmill inspect --json`` says of kinds, missing values, splits and faults.

Cases of the contract, which name nothing of the inside. Membership of the split is seen by counts alone: what is split
by a hash of each row adds up over any parts of a table, and whole groups give multiples of their size.
"""

import gzip
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from command_line import assert_clear, typed
from prefect_api import use_server
from table_files import FORMATS, written

if TYPE_CHECKING:
    from prefect.settings import Settings

ROWS = 400
RNG = np.random.default_rng(0)
N = np.arange(ROWS)
X = RNG.normal(size=ROWS)
Y = X + RNG.normal(size=ROWS)
Columns = dict[str, Any]


def every(*values: Any, rows: int = ROWS) -> list[Any]:
    """These values again and again."""
    return [values[at % len(values)] for at in range(rows)]


def inspected(path: Path | str, *options: str) -> tuple[int, Any]:
    """Exit code and document of the command; a failure's has the error too, in three parts."""
    done = typed("inspect", path, *options, "--json")
    code, found = done.returncode, json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    assert ("error" in found) == (code != 0)
    if code:
        assert all(found["error"][part] for part in ("found", "expected", "action"))
        assert found["error"]["exit_code"] == code
    return code, found


def column(found: Any, name: str) -> Any:
    (one,) = [each for each in found["columns"] if each["name"] == name]
    return one


def rules(found: Any, severity: str) -> dict[str, str]:
    """What was found, by rule and column."""
    return {
        " ".join(filter(None, (each["rule"], each["column"]))): each["found"]
        for each in found["findings"]
        if each["severity"] == severity
    }


# Kinds and levels of a column that stands beside a number and the target.
KINDS: dict[str, tuple[list[Any], str, Columns]] = {
    "text": (every("b", "a", "b"), "", {"role": "feature", "kind": "category", "levels": ["b", "a"]}),
    "numbers": (every(7, 2), "", {"role": "feature", "kind": "number", "minimum": 2, "maximum": 7}),
    "0 and 1": (every(0, 1), "", {"role": "feature", "kind": "number"}),
    "truth": (every(True, False), "", {"role": "feature", "kind": "boolean"}),
    "numbers as levels": (
        every(8, 9, 10, 11), "--category c", {"kind": "category", "levels": ["8", "9", "10", "11"], "num_levels": 4}
    ),
    "fractions as levels": (every(0.5, 2.25), "--category c", {"kind": "category", "levels": ["0.5", "2.25"]}),
    "ids": ([f"row {at}" for at in N], "", {"role": "left out", "kind": "id"}),
    "ids insisted on": ([f"row {at}" for at in N], "--category c", {"role": "feature", "kind": "category"}),
    "over half occur once": ([*map(str, [f"r{at}" for at in range(201)]), *every("s", rows=199)], "", {"kind": "id"}),
    "half occur once": ([*[f"r{at}" for at in range(200)], *every("s", rows=200)], "", {"kind": "category"}),
    "more than a tenth is text": ([*every("?", rows=41), *every("1", "2", rows=359)], "", {"kind": "category"}),
    "gaps": (every(1.5, None, None, 2.5), "", {"kind": "number", "missing": 200, "minimum": 1.5}),
    "gaps of text": (every("a", None), "", {"kind": "category", "missing": 200, "num_levels": 1}),
    "gaps of truth": (every(True, False, None, True), "", {"kind": "boolean", "missing": 100}),
    "ignored": (every(1, 2), "--ignore c", {}),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather", ".jsonl"])
@pytest.mark.parametrize("case", KINDS)
def test_a_columns_kind_is_inferred_alike_in_every_format(case: str, suffix: str, tmp_path: Path) -> None:
    values, options, expected = KINDS[case]
    path = written(tmp_path / f"t{suffix}", {"x": X, "c": values, "y": Y})
    code, found = inspected(path, "--target", "y", *options.split())
    assert code == 0, found["error"]
    if case == "ignored":
        assert [each["name"] for each in found["columns"]] == ["x", "y"]
        return
    described = column(found, "c")
    assert {name: described[name] for name in expected} == expected
    assert ("c" in found["split"]["features"]) == (described["role"] == "feature")


@pytest.mark.parametrize(
    ("singles", "rows", "role"),
    [(134, 150, "feature"), (136, 150, "left out"), (149, 300, "feature"), (151, 300, "left out")],
)
def test_below_200_rows_text_is_an_id_where_nine_tenths_occur_once(
    singles: int, rows: int, role: str, tmp_path: Path
) -> None:
    levels = [*(f"once {at}" for at in range(singles)), *["often"] * (rows - singles)]
    path = written(tmp_path / "t.csv", {"x": X[:rows], "c": levels, "y": Y[:rows]})
    assert column(inspected(path, "--target", "y")[1], "c")["role"] == role
    assert column(inspected(path, "--target", "y", "--category", "c")[1], "c")["role"] == "feature"


@pytest.mark.parametrize("source", ["data", "data/year=*/kind=*/*.csv"])
def test_folders_are_read_in_order_and_have_their_partitions_as_columns(source: str, tmp_path: Path) -> None:
    parts = [(2023, "a%20b"), (2024, "__HIVE_DEFAULT_PARTITION__")]
    files = [tmp_path / f"data/year={year}/kind={kind}/t.csv" for year, kind in parts]
    for path in files:
        written(path, {"x": X[:100], "y": Y[:100]})
    (tmp_path / "data/_SUCCESS.csv").write_text("what tools write")
    code, found = inspected(tmp_path / source, "--target", "y")
    year, kind = column(found, "year"), column(found, "kind")
    assert (code, found["rows"]) == (0, 200)
    assert (year["kind"], year["minimum"], year["maximum"], year["missing"]) == ("number", 2023, 2024, 0)
    assert (kind["kind"], kind["levels"], kind["missing"]) == ("category", ["a b"], 100)
    files[1].write_text(files[1].read_text().replace(f"{X[7]}", "seven", 1))
    _, found = inspected(tmp_path / source, "--target", "y")
    (fault,) = rules(found, "error").values()
    assert f"'seven' in row 7 of {files[1]}" in fault


class Silent(SimpleHTTPRequestHandler):
    """Tells nobody what it was asked."""

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where a server of this folder is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_tables_are_read_by_url_with_nothing_but_public_keys_in_its_query(
    address: str, prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    table = {"x": X, "c": every("a", "b"), "y": Y}
    files = [written(tmp_path / f"t{suffix}", table) for suffix in FORMATS]
    files.append(tmp_path / "packed.csv.gz")
    files[-1].write_bytes(gzip.compress(files[0].read_bytes()))
    for path, query in zip(
        files, ["", "?dl=1", "?raw=true&download=1", "?version=2.1&rev=main", "?format=csv"], strict=True
    ):
        _, local = inspected(path, "--target", "y")
        code, found = inspected(f"{address}/{path.name}{query}", "--target", "y")
        assert (code, found["columns"], counts(found)) == (0, local["columns"], counts(local))
    for source in (f"{address}/missing.csv", "http://127.0.0.1:9/t.csv"):
        assert inspected(source, "--target", "y")[0] == 4
    options = ["--target", "y", "--no-predict", "--json"]
    done = typed("retrain", "linear-regression", "--name", "own", "--data", f"{address}/t.csv?raw=true", *options)
    assert done.returncode == 0, done.stderr
    source = json.loads((artifacts / "datasets/own/source.json").read_text())["source"]
    assert source == f"{address}/t.csv?raw=true"


MISSING = ["", "NA", "N/A", "NaN", "null"]


@pytest.mark.parametrize(
    ("token", "known", "kind"),
    [*((each, "1.5", "number") for each in (*MISSING, "nan")), *((each, "word", "category") for each in MISSING)],
)
def test_what_stands_for_missing_in_text_files_is_missing_in_any_column(
    token: str, known: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("x,c,y\n" + "".join(f"{X[at]},{known if at % 4 else token},{Y[at]}\n" for at in N))
    code, found = inspected(tmp_path / "t.csv", "--target", "y")
    described = column(found, "c")
    assert (code, described["kind"], described["missing"]) == (0, kind, 100)
    assert described["num_levels"] == (1 if kind == "category" else 0)


def with_y(**columns: Any) -> Columns:
    return {"x": X, **columns, "y": Y}


def once(values: Any, at: int, odd: Any) -> list[Any]:
    """The values, one of which is another."""
    return [*values[:at], odd, *values[at + 1 :]]


FAULTS: dict[str, tuple[Columns, str, str, str]] = {
    "text among numbers": (with_y(c=once(list(map(str, N)), 17, "twelve")), "", "text-among-numbers c", "'twelve'"),
    "its row": (with_y(c=once(list(map(str, N)), 17, "twelve")), "", "text-among-numbers c", "row 17"),
    "its file": (with_y(c=once(list(map(str, N)), 17, "twelve")), "", "text-among-numbers c", "t.parquet"),
    "no features": ({"id": [f"row {at}" for at in N], "y": Y}, "", "no-features", ""),
    "a constant target": ({"x": X, "y": every(5.0)}, "", "constant-target y", "5"),
    "one class": ({"x": X, "y": every("a")}, "", "constant-target y", "a"),
    "an infinite target": ({"x": X, "y": once(Y, 399, float("inf"))}, "", "infinite-target y", "inf"),
    "a target beyond float32": ({"x": X, "y": once(Y, 399, -1e39)}, "", "infinite-target y", ""),
    "an infinite value": (with_y(c=once(X, 7, 1e39)), "", "infinite-value c", ""),
    "a far target": ({"x": X, "y": Y * 14 + 1.7e9}, "", "offset y", ""),
    "no target at all": ({"x": X, "y": [None] * ROWS}, "", "no-target y", ""),
    "lists": (with_y(c=[[1]] * ROWS), "", "nested-column c", ""),
    "a rare class": ({"x": X, "y": once(every("a", "b"), 3, "rare")}, "", "rare-class", "'rare' has 1 row"),
    "a class of two lines": ({"x": X, "y": every("two\nlines", "b")}, "", "class-name y", "two"),
    "a class without letters": ({"x": X, "y": every("", "b")}, "", "class-name y", "''"),
    "too few rows": ({"x": X[:12], "y": Y[:12]}, "", "too-few-rows", "2 test rows and 10 training rows"),
    "a small share": ({"x": X[:60], "y": Y[:60]}, "--test 0.02", "too-few-rows", ""),
    "nine groups": (with_y(g=every(*range(9))), "--split-by g", "too-few-rows", "9"),
    "a row without a group": (with_y(g=once(every(*range(40)), 7, None)), "--split-by g", "split-missing", "1 row"),
    "a row without a time": (with_y(g=once(list(N), 7, None)), "--time-column g", "split-missing", "1 row"),
    "a row without a part": (with_y(g=once(every("train", "test"), 7, None)), "--split-column g", "split-missing", ""),
    "an odd part": (with_y(g=every("train", "test", "perhaps")), "--split-column g", "split-column", "'perhaps'"),
    "no time": (with_y(g=once(every("2024-01-01"), 7, "soon")), "--time-column g", "no-moment g", "row 7"),
    "a window of numbers": (with_y(g=list(N)), "--time-column g --window 7d", "window g", ""),
    "too many levels": (
        {"c": [f"level {at // 2}" for at in range(22_000)], "x": np.arange(22_000) % 991, "y": np.arange(22_000) % 7},
        "", "too-many-levels c", "11,000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_table_that_cannot_be_learned_is_exit_4_and_says_what_to_do(case: str, tmp_path: Path) -> None:
    columns, options, rule, words = FAULTS[case]
    code, found = inspected(written(tmp_path / "t.parquet", columns), "--target", "y", *options.split())
    assert code == 4
    assert words in rules(found, "error")[rule]
    assert all(each["expected"] and each["action"] for each in found["findings"] if each["severity"] == "error")


WARNINGS: dict[str, tuple[Columns, str, str]] = {
    "one value": (with_y(c=every(3)), "warning", "constant-column c"),
    "no value": (with_y(c=pa.nulls(ROWS)), "warning", "constant-column c"),
    "a column twice": (with_y(c=X), "warning", "duplicate-column c"),
    "half missing": (with_y(c=[*X[:200], *[None] * 200]), "warning", "missing-values c"),
    "the target in other units": (with_y(c=3 * Y + 1), "warning", "predicts-alone c"),
    "a far mean": (with_y(c=1.7e9 + 3 * X), "warning", "offset c"),
    "rows at odds": ({"x": N // 2, "y": Y}, "warning", "equal-rows"),
    "one pair at odds": ({"x": once(X, 399, X[0]), "y": Y}, "note", "equal-rows"),
    "a class given away": ({"x": X, "c": every("is a", "is b"), "y": every("a", "b")}, "warning", "predicts-alone c"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_is_odd_is_said_and_stops_nothing(case: str, tmp_path: Path) -> None:
    columns, severity, rule = WARNINGS[case]
    code, found = inspected(written(tmp_path / "t.parquet", columns), "--target", "y")
    assert code == 0
    assert rule in rules(found, severity)


def test_an_ordinary_table_has_no_warning(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 1, ROWS)
    path = written(tmp_path / "t.csv", {"x": X, "t": X > 0.5, "y": X + noise})
    code, found = inspected(path, "--target", "y")
    assert (code, found["findings"]) == (0, [])


ASKED_TWICE = {
    "target ignored": ("--ignore y", "y is the target and is to be ignored"),
    "group ignored": ("--ignore c --split-by c", "c is to split by and is to be ignored"),
    "feature ignored": ("--ignore c --features x,c", "c is a feature and is to be ignored"),
    "groups of the target": ("--split-by y", "y is the target and is to split the rows"),
    "time of the target": ("--time-column y", "y is the target and is to split the rows"),
    "part of the target": ("--split-column y", "y is the target and is to split the rows"),
    "two rules": ("--split-by c --time-column x", "one of --split-by, --time-column and --split-column"),
    "a window without a time": ("--window 7d", "needs --time-column"),
}


@pytest.mark.parametrize("case", ASKED_TWICE)
def test_options_that_contradict_each_other_are_exit_2(case: str, tmp_path: Path) -> None:
    options, words = ASKED_TWICE[case]
    path = written(tmp_path / "t.csv", with_y(c=every("a", "b", "c")))
    code, found = inspected(path, "--target", "y", *options.split())
    assert code == 2
    assert words in json.dumps(found["error"])


BOOKS = ["", "--name linear-regression", "--name softmax-regression"]


@pytest.mark.parametrize("name", BOOKS)
@pytest.mark.parametrize("model", ["linear-regression", "softmax-regression"])
def test_own_data_are_never_kept_under_the_books_names(model: str, name: str, artifacts: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", with_y())
    done = typed("retrain", model, *name.split(), "--data", path, "--target", "y")
    assert_clear(done, 2)
    assert "--name" in done.stderr
    assert not artifacts.exists()


def counts(found: Any) -> tuple[int, int, int]:
    return found["num_train"], found["num_validation"], found["num_test"]


DAYS = [f"2024-01-{at % 20 + 1:02}" for at in N]
BY_COLUMN = "--split-column p"
SPLITS: dict[str, tuple[Columns, str, str, tuple[int, int, int]]] = {
    "days": (with_y(d=DAYS), "--time-column d", "time", (320, 0, 80)),
    "no cut within a day": (with_y(d=every(*DAYS[:3])), "--time-column d", "time", (267, 0, 133)),
    "nearest to another share": (with_y(d=DAYS), "--time-column d --test 0.33", "time", (260, 0, 140)),
    "numbers in order": (with_y(d=list(N)), "--time-column d", "time", (320, 0, 80)),
    "words": (with_y(p=every("Train", "TEST", "validation", "training")), BY_COLUMN, "column", (200, 100, 100)),
    "val without a test": (with_y(p=every("train", "train", "train", "val")), BY_COLUMN, "column", (300, 0, 100)),
    "truth": (with_y(p=every(False, False, True, False)), BY_COLUMN, "column", (300, 0, 100)),
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("case", SPLITS)
def test_a_split_by_time_or_column_has_the_rows_that_the_column_says(case: str, suffix: str, tmp_path: Path) -> None:
    columns, options, rule, expected = SPLITS[case]
    code, found = inspected(written(tmp_path / f"t{suffix}", columns), "--target", "y", *options.split())
    assert (code, found["split"]["rule"], counts(found)) == (0, rule, expected)
    assert found["split"]["features"] == ["x"], "what splits is no feature"


def test_rows_of_a_group_are_on_one_side(tmp_path: Path) -> None:
    groups = np.arange(31 * 60) // 31
    x = RNG.normal(size=len(groups))
    for suffix, group in ((".csv", groups), (".parquet", groups.astype(float)), (".jsonl", list(map(str, groups)))):
        path = written(tmp_path / f"t{suffix}", {"x": x, "g": group, "y": x + RNG.normal(size=len(x))})
        _, found = inspected(path, "--target", "y", "--split-by", "g")
        assert found["split"]["rule"] == "group"
        assert found["num_test"] % 31 == 0
        assert 5 <= found["num_test"] // 31 <= 20, "near to a fifth of 60 groups"
        assert "g" not in found["split"]["features"]


def test_rows_split_by_hash_stay_on_their_side_whatever_else_is_there(tmp_path: Path) -> None:
    """What each row's own values decide adds up over every way to cut a table, in any order and format."""
    table = pa.table({"x": X, "c": every("a", "ü", None), "k": every(0.0, -0.0, None, 2.5), "y": Y})

    def tests_of(name: str, part: pa.Table) -> int:
        code, found = inspected(written(tmp_path / name, part), "--target", "y")
        assert (code, found["split"]["rule"]) == (0, "rows")
        assert sum(counts(found)) == len(part)
        number: int = found["num_test"]
        return number

    whole = tests_of("whole.csv", table)
    assert whole == pytest.approx(0.2 * ROWS, abs=30)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(ROWS)
        parts = [table.take(order[:150]), table.take(order[150:])]
        assert sum(tests_of(f"{seed}{at}{FORMATS[seed + at]}", part) for at, part in enumerate(parts)) == whole
    assert tests_of("columns.jsonl", table.select(["y", "k", "c", "x"])) == whole
    assert tests_of("target.csv", table.set_column(3, "y", [Y[::-1]])) == whole, "the target moves no row"
    assert tests_of("twice.csv", pa.concat_tables([table, table])) == 2 * whole, "equal rows do not straddle"


def test_a_table_of_few_combinations_is_split_by_copies(tmp_path: Path) -> None:
    columns = {"sex": every("f", "m"), "class": every(*"abcdefg"), "y": every("no", "no", "no", "no", "yes")}
    _, found = inspected(written(tmp_path / "t.csv", columns), "--target", "y")
    assert found["split"]["rule"] == "copies"
    assert found["num_test"] == pytest.approx(0.2 * ROWS, abs=40)
    assert "number of the copy" in found["summary"]
    assert found["classes"] == {"no": 320, "yes": 80}


def test_rows_without_a_target_and_before_the_window_are_counted(tmp_path: Path) -> None:
    columns = {"x": X, "d": DAYS, "y": [None if at % 20 == 19 else value for at, value in enumerate(Y)]}
    for suffix in FORMATS:
        path = written(tmp_path / f"t{suffix}", columns)
        _, found = inspected(path, "--target", "y", "--time-column", "d", "--window", "10d")
        assert found["unlabelled"] == 20, "those of the twentieth"
        assert found["outside"] == 180, "counted back from the nineteenth, the newest with a target"
        assert counts(found) == (160, 0, 40)


# What was fixed by version 1, and what later data may be.
LATER_ROWS = 1500


def first_rows(rows: int = LATER_ROWS, seed: int = 5) -> pa.Table:
    rng = np.random.default_rng(seed)
    size = rng.lognormal(3, 0.5, rows)
    level = rng.choice(["b", "d"], rows)
    x = rng.normal(size=rows)
    y = x + size / 20 + (level == "d") + rng.normal(0, 0.5, rows)
    code = rng.choice([1, 2, 10], rows)
    return pa.table({"x": x, "size": size, "c": level, "t": rng.random(rows) < 0.4, "k": code, "y": y})


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.fixture(scope="module")
def kept(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifacts folder with a version of a table and one of classes, made by the command line."""
    folder = tmp_path_factory.mktemp("kept")
    rows = first_rows()
    written(folder / "first.parquet", rows)
    kinds = np.array([10, 9, 7])[np.digitize(rows["x"].to_numpy(), [-0.5, 0.5])]
    written(folder / "kinds.csv", {"x": rows["x"], "kind": kinds})
    commands = (
        ["retrain", "linear-regression", "--name", "own", "--data", f"{folder}/first.parquet", "--target", "y",
         "--category", "k"],
        ["retrain", "softmax-regression", "--name", "kinds", "--data", f"{folder}/kinds.csv", "--target", "kind"],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, use_server(server_settings):
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        for command in commands:
            done = typed(*command, "--no-predict", "--json")
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def store(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(kept / "artifacts"))
    return kept


ALL = LATER_ROWS
MISFITS: dict[str, tuple[Any, str, list[str]]] = {
    "a column gone": (lambda table: table.drop_columns(["c"]), "", ["missing-column c"]),
    "a new column": (lambda table: table.append_column("z", table["x"]), "", ["new-column z"]),
    "text for numbers": (lambda table: replaced(table, "x", ["many"] * ALL), "", ["text-among-numbers x"]),
    "numbers for truth": (lambda table: replaced(table, "t", table["x"]), "", ["retyped-column t"]),
    "truth for numbers": (lambda table: replaced(table, "x", [True, False] * (ALL // 2)), "", ["retyped-column x"]),
    "times for text": (
        lambda table: replaced(table, "c", pa.array(range(ALL), pa.timestamp("s"))), "", ["retyped-column c"]
    ),
    "all at once": (
        lambda table: replaced(table.drop_columns(["c"]).append_column("z", table["x"]), "t", table["x"]),
        "", ["missing-column c", "new-column z", "retyped-column t"],
    ),
    "another order": (lambda table: table.select(["y", "k", "t", "c", "size", "x"]), "", []),
    "whole numbers": (lambda table: replaced(table, "x", np.arange(ALL) % 97), "--accept-data", []),
    "a new column, ignored": (lambda table: table.append_column("z", table["x"]), "--ignore z", []),
    "more rows": (lambda table: pa.concat_tables([table, first_rows(150, seed=6)]), "", []),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("case", MISFITS)
def test_later_data_fit_what_version_1_took_by_name_or_say_all_that_is_wrong(
    case: str, suffix: str, store: Path, tmp_path: Path
) -> None:
    change, options, expected = MISFITS[case]
    path = written(tmp_path / f"later{suffix}", change(first_rows()))
    code, found = inspected(path, "--name", "own", *options.split())
    if case == "times for text" and suffix == ".jsonl":
        expected = []  # there they are text
    assert sorted(rules(found, "error")) == sorted(expected)
    assert code == (4 if expected else 0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", ["x", "c", "t", "k"])
def test_a_column_without_a_value_fits_every_kind_but_not_unnoticed(
    name: str, suffix: str, store: Path, tmp_path: Path
) -> None:
    nothing = replaced(first_rows(), name, pa.nulls(LATER_ROWS))
    path = written(tmp_path / f"later{suffix}", nothing)
    code, found = inspected(path, "--name", "own")
    assert (code, set(rules(found, "error"))) == (4, {f"turned-missing {name}"})
    assert inspected(path, "--name", "own", "--accept-data")[0] == 0


REFUSED_LATER = {
    "another split": ("--split-by k", "--new-recipe"),
    "fewer features": ("--features x", "another --name"),
    "another kind": ("--category x", "another --name"),
    "another target": ("--target x", "another --name"),
}


@pytest.mark.parametrize("case", REFUSED_LATER)
def test_what_version_1_has_fixed_is_exit_2_to_change(case: str, store: Path) -> None:
    options, way_out = REFUSED_LATER[case]
    code, found = inspected(store / "first.parquet", "--name", "own", *options.split())
    assert (code, way_out in found["error"]["action"]) == (2, True)


def test_another_share_stays_as_it_was_unless_the_recipe_is_new(store: Path) -> None:
    _, same = inspected(store / "first.parquet", "--name", "own", "--test", "0.4")
    assert same["split"]["test"] == 0.2
    assert "stays 0.2" in rules(same, "note")["test-share"]
    _, other = inspected(store / "first.parquet", "--name", "own", "--test", "0.4", "--new-recipe")
    assert other["split"]["test"] == 0.4
    assert other["num_test"] > 1.5 * same["num_test"]


def test_new_levels_are_a_warning_and_new_classes_stop_the_run(store: Path, tmp_path: Path) -> None:
    rows = first_rows()
    levels = pa.array(every("b", "d", "a", "c", rows=LATER_ROWS))
    code, found = inspected(written(tmp_path / "t.csv", replaced(rows, "c", levels)), "--name", "own")
    assert code == 0
    assert "a, c" in rules(found, "warning")["new-levels c"]
    kinds = {"x": rows["x"], "kind": every(10, 11, rows=LATER_ROWS)}
    code, found = inspected(written(tmp_path / "k.csv", kinds), "--name", "kinds")
    assert code == 4
    assert "11" in rules(found, "error")["new-class kind"]
    assert {"7", "9"} <= set(rules(found, "warning")["class-without-rows kind"].replace(",", " ").split())


BROKEN = {
    "other-scale size": lambda day: replaced(day, "size", day["size"].to_numpy() * 1000),
    "turned-missing size": lambda day: replaced(day, "size", pa.nulls(len(day), pa.float64())),
    "turned-missing c": lambda day: replaced(day, "c", pa.nulls(len(day), pa.string())),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_day_in_a_folder_that_grows_is_exit_4_until_it_is_accepted(
    rule: str, store: Path, tmp_path: Path
) -> None:
    folder = written(tmp_path / "days" / "a.parquet", first_rows()).parent
    written(folder / "b.parquet", first_rows(300, seed=8))
    assert inspected(folder, "--name", "own")[0] == 0, "an ordinary day"
    written(folder / "b.parquet", BROKEN[rule](first_rows(300, seed=8)))
    code, found = inspected(folder, "--name", "own")
    assert (code, set(rules(found, "error"))) == (4, {rule})
    assert "300 new rows of b.parquet" in rules(found, "error")[rule]
    assert "--accept-data" in found["error"]["action"]
    code, found = inspected(folder, "--name", "own", "--accept-data")
    assert (code, rule in rules(found, "warning")) == (0, True)
    written(folder / "b.parquet", BROKEN[rule](first_rows(199, seed=8)))
    assert inspected(folder, "--name", "own")[0] == 0, "from 200 new rows on"


def test_a_column_turned_constant_and_half_the_rows_gone_stop_the_run(store: Path, tmp_path: Path) -> None:
    constant = replaced(first_rows(), "size", [1.0] * LATER_ROWS)
    _, found = inspected(written(tmp_path / "c.parquet", constant), "--name", "own")
    assert "turned-constant size" in rules(found, "error")
    few = written(tmp_path / "f.parquet", first_rows().slice(0, LATER_ROWS // 2 - 1))
    _, found = inspected(few, "--name", "own")
    assert list(rules(found, "error")) == ["fewer-rows"]


def test_drift_is_a_warning_from_a_thousand_new_rows(store: Path, tmp_path: Path) -> None:
    for rows, is_said in ((1200, True), (700, False)):
        day = first_rows(rows, seed=9)
        day = replaced(day, "size", day["size"].to_numpy() * 1.5)
        path = written(tmp_path / "t.parquet", pa.concat_tables([first_rows(), day]))
        code, found = inspected(path, "--name", "own")
        assert (code, "drift size" in rules(found, "warning")) == (0, is_said)


@pytest.mark.slow
def test_the_version_keeps_kinds_levels_and_the_training_parts_statistics(
    prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    """Documents on disk, against numpy on the rows that a column calls training."""
    rng = np.random.default_rng(3)
    part = np.array(every("train", "train", "test", "train"))
    x = rng.normal(1000, 30, ROWS)
    level = rng.choice(["b", "a"], ROWS)
    price = 2 * x + 40 * (level == "a") + rng.normal(0, 9, ROWS)
    gaps = np.where(N % 10 == 0, np.nan, x)
    columns = {"x": pa.array(gaps, from_pandas=True), "c": level, "k": rng.choice([10, 9], ROWS), "p": part, "y": price}
    path = written(tmp_path / "t.parquet", columns)
    options = ["--target", "y", "--category", "k", "--split-column", "p", "--no-predict", "--json"]
    done = typed("retrain", "linear-regression", "--name", "own", "--data", path, *options)
    assert done.returncode == 0, done.stderr
    metadata = json.loads((artifacts / "models/own/1/metadata.json").read_text())
    assert metadata["parameters"]["columns"] == [
        {"name": "x", "kind": "number", "levels": []},
        {"name": "c", "kind": "category", "levels": ["a", "b"]},
        {"name": "k", "kind": "category", "levels": ["9", "10"]},
    ]
    manifest = json.loads((artifacts / "models/own/1/manifest.json").read_text())
    fitted = {each["name"]: each for each in manifest["recipe"]["columns"]}
    training = part == "train"
    assert fitted["x"]["mean"] == pytest.approx(np.nanmean(gaps[training]), rel=1e-7)
    assert fitted["x"]["scale"] == pytest.approx(np.nanstd(gaps[training]), rel=1e-6)
    assert fitted["c"]["counts"] == [int((level[training] == each).sum()) for each in "ab"]
    assert manifest["recipe"]["target"]["mean"] == pytest.approx(price[training].mean(), rel=1e-7)
    assert str(tmp_path) not in json.dumps([manifest, metadata])
    assert json.loads((artifacts / "datasets/own/source.json").read_text())["source"] == str(path)


class Grown(NamedTuple):
    """The night after: more rows, some of them copies, new and rare levels, and a column that is to be ignored."""

    artifacts: Path
    later: Path
    report: Any
    added: int

    def document(self, version: int, name: str) -> Any:
        return json.loads((self.artifacts / f"models/own/{version}/{name}.json").read_text())

    def digests(self, version: int) -> dict[str, Any]:
        """Of the training rows and of the others, as they are kept."""
        kept = self.document(version, "manifest")["dataset"]["rows"]["path"]
        return safetensors.numpy.load_file(self.artifacts / kept)


@pytest.fixture(scope="module")
def grown(kept: Path, server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(kept / "artifacts", folder / "artifacts")
    more = replaced(first_rows(150, seed=6), "c", every("e", *["a"] * 4, "b", "d", "b", "d", "b", rows=30) * 5)
    rare = replaced(first_rows(9, seed=7), "c", [f"rare {at % 3}" for at in range(9)])
    rows = pa.concat_tables([first_rows(), more, rare, first_rows().slice(0, 5)])
    later = written(folder / "later.parquet", rows.append_column("z", rows["x"]))
    with pytest.MonkeyPatch.context() as patch, use_server(server_settings):
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        done = typed("retrain", "own", "--data", later, "--ignore", "z", "--no-predict", "--json")
    assert done.returncode == 0, done.stderr
    return Grown(folder / "artifacts", later, json.loads(done.stdout), 150 + 9 + 5)


@pytest.mark.slow
def test_a_new_column_that_was_ignored_once_is_ignored_from_then_on(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(grown.artifacts))
    code, found = inspected(grown.later, "--name", "own")
    assert (code, rules(found, "error")) == (0, {})
    assert "z" not in found["split"]["features"]


def test_new_levels_follow_the_old_ones_whose_codes_stay(grown: Grown) -> None:
    before, tonight = (grown.document(version, "metadata")["parameters"]["columns"] for version in (1, 2))
    assert [each["levels"] for each in before if each["name"] == "c"] == [["b", "d"]]
    assert [each["levels"] for each in tonight if each["name"] == "c"] == [
        ["b", "d", "a", "e", "rare 0", "rare 1", "rare 2"]
    ]
    assert [each for each in before if each["name"] != "c"] == [each for each in tonight if each["name"] != "c"]
    (gate,) = [each for each in grown.report["gates"] if each["name"] == "champion_signature"]
    assert (gate["value"], gate["passed"]) == (0, True)


def test_levels_of_fewer_than_10_training_rows_share_one_weight(grown: Grown) -> None:
    weights = grown.report["metrics"]["weights"]["c"]
    assert len({weights[f"rare {at}"] for at in range(3)}) == 1
    assert len({weights[level] for level in ("a", "b", "d", "e", "rare 0")}) == 5


def test_digests_of_training_rows_and_of_the_others_are_kept_apart_one_for_every_row(grown: Grown) -> None:
    first, second = grown.digests(1), grown.digests(2)
    for version, digests in ((1, first), (2, second)):
        dataset = grown.document(version, "manifest")["dataset"]
        train, other = digests["train"], digests["other"]
        assert (len(train), len(other)) == (dataset["num_train"], dataset["num_test"])
        assert len(np.unique(np.concatenate([train, other]))) == len(train) + len(other), "copies are told apart"
        for part in (train, other):
            assert (part[1:] > part[:-1]).all(), "they lie in order"
    assert all(set(first[part].tolist()) <= set(second[part].tolist()) for part in ("train", "other"))
    assert sum(map(len, second.values())) == sum(map(len, first.values())) + grown.added


def test_order_files_and_format_change_no_digest_and_no_byte_of_the_model(prefect_api: str, tmp_path: Path) -> None:
    rows = first_rows(600)
    shuffled = rows.take(np.random.default_rng(0).permutation(600))
    once_more = tmp_path / "parts"
    for at, suffix in enumerate(FORMATS):
        written(once_more / f"{at}{suffix}", shuffled.slice(150 * at, 150))
    made = []
    for source in (written(tmp_path / "t.parquet", rows), once_more):
        store = tmp_path / f"store of {source.name}"
        options = ["--target", "y", "--category", "k", "--no-predict", "--artifacts", str(store)]
        done = typed("retrain", "linear-regression", "--name", "own", "--data", source, *options)
        assert done.returncode == 0, done.stderr
        version = store / "models/own/1"
        digest = json.loads((version / "manifest.json").read_text())["dataset"]["digest"]
        made.append((digest, (version / "model.onnx").read_bytes()))
    assert made[0] == made[1]


@pytest.mark.slow
def test_whether_a_column_had_missing_values_is_taken_from_every_row(
    prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    part = np.array(every("train", "test", "val", "train"))
    columns = {"x": pa.array(X, mask=part == "val"), "z": X[::-1], "p": part, "y": Y}
    path = written(tmp_path / "t.parquet", columns)
    options = ["--target", "y", "--split-column", "p", "--no-predict"]
    done = typed("retrain", "linear-regression", "--name", "own", "--data", path, *options)
    assert done.returncode == 0, done.stderr
    rows = written(tmp_path / "rows.parquet", {"x": [None, 1.0, 1.0], "z": [1.0, None, 1.0]})
    done = typed("predict", rows, "--name", "own", "--max-rejects", "2", "--json")
    (reject,) = pq.read_table(Path(json.loads(done.stdout)["path"]) / "_rejects.parquet").to_pylist()
    assert (reject["row"], reject["reason"]) == (1, "z is missing")


def test_a_column_of_folders_stands_where_the_files_have_it_also_where_they_have_it_twice(tmp_path: Path) -> None:
    arrays = {"c": ["q"] * ROWS, "x": X, "y": Y}
    (tmp_path / "c=a").mkdir()
    written(tmp_path / "c=a" / "p.parquet", arrays)
    _, found = inspected(tmp_path, "--target", "y")
    assert [each["name"] for each in found["columns"]] == ["c", "x", "y"]
    assert column(found, "c")["levels"] == ["a"]
    table = pa.Table.from_arrays([pa.array(each) for each in (["q"] * ROWS, X, ["r"] * ROWS, Y)], ["c", "x", "c", "y"])
    pq.write_table(table, tmp_path / "c=a" / "p.parquet")
    code, found = inspected(tmp_path, "--target", "y", "--ignore", "c")
    assert code == 0


def test_a_column_of_numbers_in_one_file_and_of_their_digits_in_another_is_told_without_an_example(
    tmp_path: Path,
) -> None:
    written(tmp_path / "a.parquet", {"b": once(X, 0, None), "y": Y})
    written(tmp_path / "b.parquet", {"b": [str(each) for each in N], "y": Y})
    code, found = inspected(tmp_path, "--target", "y")
    assert code == 4
    said = rules(found, "error")["retyped-column b"]
    assert said.endswith("b.parquet"), "no value reads as no number"


def test_a_duplicate_is_found_though_an_earlier_column_differs_from_it_in_rows_that_are_not_sampled(
    tmp_path: Path,
) -> None:
    rows = 60_000
    a = np.random.default_rng(0).normal(size=rows)
    b = a.copy()
    b[1] += 1
    y = a + np.random.default_rng(1).normal(size=rows)
    _, found = inspected(written(tmp_path / "t.parquet", {"a": a, "b": b, "c": b, "y": y}), "--target", "y")
    assert rules(found, "warning")["duplicate-column c"] == "c equals b in every row"
