"""Tables to train on: whatever their files are, the same rows; whatever is wrong with them, a word that helps."""

import hashlib
import io
import json
import os
import re
import struct
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from command_line import typed
from documents import column, inspect
from gradmill.rows import name_level
from http_stand_ins import answered, played
from tasks.data import row_hash, statistics
from tasks.data.io import discovery, table_builder, tabular
from tasks.data.io.csv import csv_batches
from tasks.data.io.discovery import find_table
from tasks.data.io.table_builder import Table, build_table
from tasks.data.io.tabular import Selection, json_batches
from tasks.data.levels import format_values
from tasks.data.prepared_splits import SPLIT_KEY
from tasks.data.recipe import Column, Columns
from tasks.data.split import TEST
from tasks.errors import DataError
from tasks.fitting.cross_validation import assign_folds
from tasks.parameters.data import OwnData
from written_tables import digest, examined, recipe, rows, rules, written


def read(source: Path | str, folder: Path, *as_text: str) -> Table:
    selection = Selection(as_text=frozenset(as_text))
    return build_table(find_table(str(source)), selection, folder / "spool")


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=False).map(repr),
            st.integers(-(10**30), 10**30).map(str),
            st.sampled_from(
                [
                    " 1",
                    "2 ",
                    "nan",
                    "NaN",
                    "inf",
                    "-Infinity",
                    "+.5",
                    "5.",
                    "1e400",
                    "",
                    "-",
                    "1,5",
                    "0x10",
                    "-0x10",
                    "+0x10",
                ]
            ),
            st.text("0123456789.eE+-naif ", max_size=6),
        )
    )
)
def test_text_reads_as_a_number_where_python_says_so_or_it_is_hexadecimal_and_alone_as_in_company(
    texts: list[str],
) -> None:
    found = tabular.parse_numbers(pa.array(texts, pa.string()))
    alone = [tabular.parse_numbers(pa.array([each], pa.string())) for each in texts]
    assert str(found.to_pylist()) == str([each[0].as_py() for each in alone])
    for each, value in zip(texts, found.to_pylist(), strict=True):
        try:
            expected: float | None = float(each)
        except ValueError:  # Arrow reads hexadecimal in CSV, so text is read like it
            expected = float(int(each, 16)) if re.fullmatch(r"\s*0x[0-9a-f]+\s*", each) else None
        assert (value == expected) or (expected is not None and np.isnan([value, expected]).all())


def test_everything_that_is_wrong_in_a_folder_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "y,size,only,n\n1,2,3,\n")
    write(tmp_path / "2.csv", "y,size,n\n5,6,1\ncheap,2,2\n")
    write(tmp_path / "3.parquet", b"no Parquet at all")
    written(tmp_path / "4.parquet", {"y": [1.0], "size": ["big"], "only": [[1, 2]], "n": ["3"]})
    write(tmp_path / "5.csv", "")
    findings = inspect(tmp_path, code=4)["findings"]
    told = {(each["rule"], each["column"]): each["found"] for each in findings if each["column"]}
    for key, words in (
        (("nested-column", "only"), "list"),
        (("missing-column", "only"), "2.csv"),
        (("retyped-column", "size"), "4.parquet"),
        (("retyped-column", "y"), f"'cheap' in line 3 of {tmp_path}/2.csv"),
    ):
        assert words in told[key]
    assert told["retyped-column", "n"].endswith("4.parquet"), "none of its values reads as no number"
    broken = sorted(each["found"] for each in findings if each["rule"] == "unreadable-file")
    assert [words in said for words, said in zip(("3.parquet", "5.csv is empty"), broken, strict=True)] == [True] * 2
    told_less = {each["rule"] for each in inspect(tmp_path, "--ignore", "only,size", code=4)["findings"]}
    assert {"unreadable-file", "retyped-column"} <= told_less
    assert told_less.isdisjoint({"nested-column", "missing-column"})


def test_a_column_without_a_name_is_told_unless_it_is_not_asked_for(tmp_path: Path) -> None:
    for suffix in (".parquet", ".feather", ".jsonl"):
        file = written(tmp_path / f"t{suffix}", {"a": range(200), " ": range(200), "y": range(200)})
        assert "column 2 has no name" in inspect(file, code=4)["error"]["found"]
        assert column(inspect(file, "--features", "a"), "a")["role"] == "feature"


def test_the_row_in_which_json_lines_change_their_kind_is_that_of_the_file(tmp_path: Path) -> None:
    lines = [json.dumps({"a": f"{row:60}", "y": row if row != 150_000 else "x"}) for row in range(160_000)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))  # several of the pieces that Arrow parses
    error = inspect(tmp_path / "t.jsonl", code=4)["error"]
    assert "changed from number to string in row 150001" in error["found"]


def test_columns_that_are_not_asked_for_cannot_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_builder, "MAX_COLUMNS", 4)
    rows = {"a": np.arange(200.0), "b": np.arange(200) % 7, "y": np.arange(200.0) % 13}
    wide = {f"c{number}": np.zeros(200) for number in range(4)}
    more: dict[str, dict[str, Any]] = {
        "1.parquet": {"c": [[1]] * 200, "d": [1] * 200},
        "2.parquet": {"d": ["x"] * 200},
        "3.csv": wide,
        "4.jsonl": {"c": [{"e": 1}] * 200},
    }
    for name, columns in more.items():
        written(tmp_path / name, rows | columns)
    found = recipe(examined(tmp_path, features=["a", "b"]))
    assert [column.name for column in found.columns] == ["a", "b"]
    assert set(found.ignored) == {"c", "d", *wide}  # which a version trained on more must know
    assert rules(examined(tmp_path, features=["a", "b", "d"]), "error")


def test_twenty_values_are_needed_for_their_usual_size() -> None:
    values = np.array([0.0, np.nan, np.inf, *range(-20, 0)])
    assert (statistics.median_magnitude(values[1:]), statistics.median_magnitude(values[:-1])) == (10.5, None)


def test_a_download_that_is_cut_off_says_how_much_came(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    answer = answered(200, b"a,b\n1,x\n", Content_Length="108")
    with played(answer, "/t.csv") as url, pytest.raises(DataError, match=r"\(received 8 of 108 bytes\)"):
        read(url, tmp_path)


@pytest.mark.parametrize("named", [(), ("code",)])
def test_no_value_of_json_lines_vanishes_where_numbers_turn_into_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", 512)
    values = [number % 5 for number in range(300)] + [None] * 100 + ["A", "B"] * 100
    lines = "".join(json.dumps({"row": row, "code": value}) + "\n" for row, value in enumerate(values))
    found = read(write(tmp_path / "t.jsonl", lines), tmp_path, *named)
    assert found.data["code"].to_pylist() == [None if value is None else str(value) for value in values]


@pytest.mark.parametrize(("name", "head"), [("t.csv", b"a,b "), ("t.json", b"\n [1 ")])
def test_a_file_without_ends_of_lines_is_not_read_whole(
    monkeypatch: pytest.MonkeyPatch, name: str, head: bytes
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(tabular, "BUFFER_BYTES", 2**10)
    monkeypatch.setattr(tabular, "MAX_ROW_BYTES", 2**12)
    stream = io.BytesIO(head + b"x" * 2**20)
    read_some = json_batches if name == "t.json" else csv_batches
    with pytest.raises(DataError, match="a row of more"):
        list(read_some(stream, name, Selection()))
    assert stream.tell() <= 2**13


def test_dictionaries_of_any_kind_are_read(tmp_path: Path) -> None:
    values: dict[str, pa.Array] = {
        "text": pa.array(["a", "b", None], pa.string_view()),
        "moments": pa.array([0, 1, None], pa.timestamp("s")),
        "numbers": pa.array([2.5, 1, None]),
    }
    codes = pa.array([0, 1, None, 2], pa.int8())
    table = pa.table({name: pa.DictionaryArray.from_arrays(codes, each) for name, each in values.items()})
    write_arrow(tmp_path / "t.arrow", table)
    assert read(tmp_path / "t.arrow", tmp_path).data.to_pydict() == table.to_pydict()


def test_a_file_that_changed_at_equal_size_is_noticed(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    content = b"a,b\n" + b"1,2\n" * 400_000
    for source, put in (
        ("memory://equal/t.csv", partial(files.pipe, "/equal/t.csv")),
        (f"{tmp_path}/t.csv", (tmp_path / "t.csv").write_bytes),
    ):
        put(content)
        first = find_table(source).digest
        assert find_table(source).digest == first
        put(content[:80_004] + b"3" + content[80_005:])
        assert find_table(source).digest != first
    files.rm("/equal", recursive=True)


def test_one_large_batch_is_read_in_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_BUFFERED", 2**20)
    monkeypatch.setattr(tabular, "BATCH_ROWS", 2**12)
    level = pa.array([f"t{row % 9}" for row in range(2**18)])
    rows = pa.table({"x": np.arange(2.0**18), "t": level, "level": level.dictionary_encode()})
    write_arrow(tmp_path / "t.arrow", rows)
    before, held, total = pa.total_allocated_bytes(), [0], 0.0
    with find_table(str(tmp_path / "t.arrow")).files[0].open() as stream:
        for batch in tabular.arrow_batches(stream, "t.arrow", Selection()):
            held.append(pa.total_allocated_bytes() - before)
            total += np.asarray(batch["x"]).sum()
    assert max(held) < rows.nbytes / 10
    assert total == np.asarray(rows["x"]).sum()


HONEST = [
    "abfs://container@account.dfs.core.windows.net/t.csv",
    "hf://datasets/user/repo@main/t.csv",
    "https://cdn.jsdelivr.net/npm/vega-datasets@2/data/cars.csv",
    "sftp://bob@host/t.csv",
    "https://host/t.csv?raw=true&format=csv&version=2.1&rev=refs/heads/main&download",
    "http://[::1]:8000/t.csv",
    "simplecache::https://host/t.csv?dl=1",
    "/data/t@2?token=1.csv",
]


@pytest.mark.parametrize("url", HONEST)
def test_a_url_without_credentials_is_taken_as_it_is(url: str) -> None:
    assert OwnData(source=url).source == url


# What a column is: inferred over all rows at first, and as version 1 fixed it ever after


ROWS = 300
Y, X = np.random.default_rng(0).normal(size=(2, ROWS))


def test_levels_of_all_versions_together_are_bounded(tmp_path: Path) -> None:
    number = np.arange(24_000)
    first, later = (
        written(tmp_path / name, {"c": number // 4 + more, "x": number % 991, "y": number % 7})
        for name, more in (("t.parquet", 0), ("later.parquet", 5000))
    )
    found = examined(later, category=["c"], kept=recipe(examined(first, category=["c"])))
    assert "c has 11,000 levels" in rules(found, "error")["too-many-levels c"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (
            pa.array([1.0, 2.5, -3.0, 1e3, 0.5, float("inf"), 2.0**60, -0.0, 1e20]),
            ["1", "2.5", "-3", "1000", "0.5", "inf", str(2**60), "0", str(10**20)],
        ),
        (pa.array([1.1], pa.float32()).cast(pa.float64()), ["1.1"]),
        (pa.array([True, False]), ["true", "false"]),
        (
            pa.array(["1.0", "01", "1.50", "a.0", "", "True", "FALSE", "truer", "+7.", " 7", "1e3"]),
            ["1", "01", "1.50", "a.0", "", "true", "false", "truer", "+7", " 7", "1e3"],
        ),
        (pa.array([1, -7, 2**62]), ["1", "-7", str(2**62)]),
        (pa.array([datetime(2026, 1, 2, 3, 4, 5, 600)]), ["2026-01-02 03:04:05.000600"]),
        (pa.array([datetime(2026, 1, 2, 3, 4, tzinfo=UTC)]), ["2026-01-02 03:04:00.000000Z"]),
        (
            pa.array([0, 86_400, 3661], pa.timestamp("s")).cast("timestamp[us]"),
            ["1970-01-01", "1970-01-02", "1970-01-01 01:01:01"],
        ),
    ],
)
def test_levels_are_called_as_the_data_call_them(values: pa.Array, names: list[str]) -> None:
    """By training, and by what other programs call for one value."""
    assert format_values(values) == names == [name_level(value) for value in values.to_pylist()]
    if values.type != pa.timestamp("us", "UTC"):
        assert [name_level(value) for value in values.to_numpy(zero_copy_only=False)] == names


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7])
def test_a_large_mean_costs_the_deviation_no_digits(offset: float) -> None:
    values = np.random.default_rng(0).normal(offset, 1, 200_000)
    (found,) = statistics.measure_columns([Column(name="x")], len(values), lambda rows: values[None, rows])
    assert found.mean == pytest.approx(values.mean(), rel=1e-13)
    assert found.deviation == pytest.approx(values.std(), rel=1e-9)


def test_a_number_may_exceed_its_training_range_by_a_quarter_and_a_year_not_at_all() -> None:
    columns = Column(name="x"), Column(name="day.year", source="day", part="year")
    rows = np.column_stack([np.arange(2, 7), np.arange(2020, 2025)]).astype(np.float32)
    fitted = statistics.fit_recipe(Columns(columns=columns), {"features": rows})
    assert [column.limits for column in fitted.columns] == [(1, 7), (2020, 2024)]


def test_equal_rows_are_in_different_folds_where_few_rows_are_distinct(tmp_path: Path) -> None:
    """Else whole levels would be in one fold, and every fit be tested on levels that it has never seen."""
    columns = COPIES | {"part": np.where(BY_TURNS % 3 == 0, "test", "train")}
    found = examined(written(tmp_path / "t.csv", columns), split_column="part")
    train = rows(found).map_side("train", recipe(found), tmp_path)
    folds = assign_folds(train[SPLIT_KEY], is_by_time=False).numbers
    sexes, classes = train["features"].T
    assert all(len(np.unique(folds[(sexes == sex) & (classes == level)])) > 1 for sex in (0, 1) for level in range(7))


Night = tuple[dict[str, Any], dict[str, Any], tuple[str, str, str, str]]
BY_TURNS = np.arange(ROWS)
TABLE = {"x": X, "c": np.array(["b", "d", "d"])[BY_TURNS % 3], "t": BY_TURNS % 2 == 0, "y": Y}
GROUPS = {"x": X, "g": BY_TURNS % 60, "y": Y}
COPIES = {"sex": BY_TURNS % 2, "class": BY_TURNS % 7, "y": BY_TURNS % 5}
IDS = {"id": [f"row {at}" for at in range(ROWS)], "day": BY_TURNS.astype("datetime64[D]"), "x": X, "y": Y}
CLASSES = {"x": X, "y": np.array(["01", "02"])[BY_TURNS % 2]}
# What lies there night after night, what is asked for, and what the version fixes: rule of the split, features, columns
# left out, columns ignored.
NIGHTS: dict[str, list[Night]] = {
    "chosen features": [
        (TABLE, {"features": ["x", "t"]}, ("rows", "x t", "", "c")),
        (TABLE | {"z": X}, {"features": ["x", "t"]}, ("rows", "x t", "", "c z")),
    ],
    "groups that split no more are left out and not new": [
        (GROUPS, {"split_by": "g"}, ("group", "x", "", "")),
        (GROUPS, {"new_recipe": True}, ("rows", "x", "g", "")),
        (GROUPS, {}, ("rows", "x", "g", "")),
        (GROUPS, {"split_by": "g", "new_recipe": True}, ("group", "x", "", "")),
    ],
    "numbers that were ignored can name groups": [
        (GROUPS, {"ignore": ["g"]}, ("rows", "x", "", "g")),
        (GROUPS, {"split_by": "g", "new_recipe": True}, ("group", "x", "", "")),
    ],
    "a split by copies stays although rows become distinct": [
        (COPIES, {}, ("copies", "sex class", "", "")),
        (COPIES | {"class": BY_TURNS}, {}, ("copies", "sex class", "", "")),
    ],
    "what version 1 left out": [
        (IDS, {"no_date_parts": True}, ("rows", "x", "day id", "")),
        (IDS, {"no_date_parts": True, "category": ["id"]}, ("rows", "x", "day id", "")),
        (IDS | {"id": [f"1,{at:03}" for at in range(ROWS)]}, {}, ("rows", "x", "day id", "")),
    ],
    "the target of version 1, whose classes have zeros in front": [
        (CLASSES, {"task": "classification"}, ("rows", "x", "", "")),
        (CLASSES, {"task": "classification", "target": None}, ("rows", "x", "", "")),
    ],
}


@pytest.mark.parametrize("case", NIGHTS)
def test_later_nights_have_what_was_fixed_before_but_for_what_is_asked(case: str, tmp_path: Path) -> None:
    made: dict[tuple[str, str, str, str], Any] = {}
    kept = None
    for columns, options, expected in NIGHTS[case]:
        kept = recipe(examined(written(tmp_path / "t.csv", columns), kept=kept, **options))
        features = [column.name for column in kept.columns]
        assert (kept.split.rule, *map(" ".join, (features, kept.left_out, kept.ignored))) == expected
        assert made.setdefault(expected, kept) == kept


def test_dates_that_version_1_left_out_are_named(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", IDS)
    kept = recipe(examined(table, no_date_parts=True))
    assert {*kept.columns[0].model_dump(mode="json")}.isdisjoint({"source", "part", "zone", "limits"})
    assert "day held dates and stayed left out" in rules(examined(table, kept=kept), "note")["date-parts"]


# Which rows are the test split: the same ones as data grow, and never equal rows on both sides

DATES, DAY = 600, np.timedelta64(1, "D")
RNG = np.random.default_rng(0)
DATED = pa.table(
    {
        "x": RNG.normal(size=DATES),
        "day": pa.array(RNG.integers(0, 60, DATES) * 86400, pa.timestamp("s")),
        "y": RNG.normal(size=DATES),
    }
)


def assert_latest(path: Path, times: Any, values: Any) -> None:
    """The test rows are the latest, where these values stand for the times."""
    split = rows(examined(written(path, DATED.set_column(1, "day", [values])), time_column="day")).split
    is_test = split.split_ids == TEST
    assert (is_test.sum(), split.has_dates) == (0.2 * DATES, times.dtype.kind == "M")
    assert times[is_test].min() > times[~is_test].max()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", "Z.csv"])
@pytest.mark.parametrize("first", ["0001-01-01", "1500-06-01", "9990-01-01", 1e-300, 1e300])
def test_dates_far_from_1970_and_numbers_of_any_size_and_sign_are_in_order(
    first: Any, suffix: str, tmp_path: Path
) -> None:
    order = np.arange(DATES) % 60
    times = first * (order - 30.0) if isinstance(first, float) else np.datetime64(first, "s") + order * DAY
    zone = "" if isinstance(first, float) else suffix.removesuffix(".csv")
    values = times if suffix == ".parquet" else [f"{time}{zone}" for time in times]
    assert_latest(tmp_path / f"t{suffix}", times, values)


@pytest.mark.parametrize(
    "form",
    ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M Z", "%Y-%m-%d %H:%M +01:00"],
)
def test_the_latest_rows_are_found_by_dates_in_any_form(form: str, tmp_path: Path) -> None:
    days = np.datetime64("2023-12-01", "s") + RNG.permutation(DATES) // 10 * DAY
    assert_latest(tmp_path / "t.csv", days, [day.strftime(form) for day in days.astype(object)])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_months_written_like_numbers_are_in_the_order_of_time_and_stay_so(suffix: str, tmp_path: Path) -> None:
    months = np.datetime64("2015-01", "M") + RNG.permutation(DATES) // 5
    texts = [month.strftime("%m.%Y") for month in months.astype(object)]
    table = DATED.set_column(1, "day", [texts])
    path = written(tmp_path / f"t{suffix.replace('tsv', 'csv')}", table)
    if suffix == ".tsv":
        path.write_text(path.read_text().replace(",", "\t").replace('"', ""))
    found = examined(path, time_column="day", window="9000d")
    is_test = rows(found).split.split_ids == TEST
    assert (is_test.sum(), rows(found).split.has_dates) == (0.2 * DATES, True)
    assert months[is_test].min() > months[~is_test].max()
    assert digest(examined(path, kept=recipe(found))) == digest(found)


# The hash of a row: as defined in words, and blind to all that is not content


WORD = 2**64


def mix(x: int) -> int:
    """splitmix64's finaliser, after its paper and not after our code."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


def word(value: float | str | None) -> int:
    if value is None or value != value:
        return 0x7FC00000
    if isinstance(value, str):
        return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
    (bits,) = struct.unpack("<I", struct.pack("<f", value if value else 0.0))
    return int(bits)


def absorbed(words: list[int], start: int = 0) -> int:
    for each in words:
        start = mix(((start ^ each) + 0x9E3779B97F4A7C15) % WORD)
    return start


LEVELS = ("a", "ü", "", "long " * 50)


def hashed(*values: Any, kinds: str) -> list[int]:
    """The hashes of rows of numbers and of codes of ``LEVELS``, as ``kinds`` says by ``n`` and ``c``."""
    columns = [
        Column(name=str(at), kind="category", levels=LEVELS) if kind == "c" else Column(name=str(at))
        for at, kind in enumerate(kinds)
    ]
    found: list[int] = row_hash.hash_rows(columns[::-1], values[::-1]).tolist()
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_the_hash_is_what_its_definition_says(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    number = rng.normal(size=row_hash.BLOCK + 500).astype(np.float32)
    number[:4] = [0.0, -0.0, np.nan, np.inf]
    codes = rng.integers(0, 5, len(number)).astype(dtype)  # 4 is missing
    names = [None if code == 4 else LEVELS[int(code)] for code in codes]
    if dtype == np.float32:
        codes[codes == 4] = np.nan
    expected = [absorbed([word(float(a)), word(b)]) for a, b in zip(number, names, strict=True)]
    assert hashed(number, codes, kinds="nc") == expected
    assert hashed(np.ones(1, np.float32), kinds="n") == [0xFD695A1B70DC1235], "as ever"


@pytest.mark.parametrize("others", [0, 1000])
@given(
    hashed=arrays(np.uint64, st.integers(0, 60), elements=st.sampled_from([0, 1, 2**32, 2**32 + 1, 2**50, 2**64 - 1]))
)
def test_rows_of_equal_hash_are_those_that_plain_python_finds(hashed: Any, others: int) -> None:
    distinct = np.arange(2, others + 2, dtype=np.uint64) << np.uint64(45)  # some have bits of the above in common
    hashed = np.concatenate([distinct[::2], hashed, distinct[1::2]])
    groups: dict[int, list[int]] = {}
    for row, each in enumerate(hashed.tolist()):
        groups.setdefault(each, []).append(row)
    rows, sizes = row_hash.find_equal_rows(hashed)
    found = [part.tolist() for part in np.split(rows, np.cumsum(sizes)[:-1])] if len(rows) else []
    assert sorted(found) == sorted(group for group in groups.values() if len(group) > 1), "none that share half a hash"


@pytest.mark.parametrize("kind", [None, str, int], ids=["no group", "groups of text", "groups of numbers"])
def test_row_digests_are_the_hash_the_target_the_group_and_the_number_of_the_copy(kind: Any, tmp_path: Path) -> None:
    place = range(121)
    columns = {"b": [at % 40 for at in place], "a": [f"level {at % 3}" for at in place], "y": [at % 40 for at in place]}
    if kind is not None:
        columns["g"] = [kind(at % 40) for at in place]
    found = rows(examined(written(tmp_path / "t.csv", columns), split_by="g" if kind else None))
    copies: Counter[int] = Counter()
    groups, expected = [[word(str(at % 40))] if kind else [] for at in place], []
    for at in place:
        base = absorbed([word(f"level {at % 3}"), word(at % 40), word(at % 40), *groups[at]])
        expected.append(absorbed([copies[base]], base))
        copies[base] += 1
    assert found.digests.tolist() == expected
    train, other = (found.ordering.result()[part].tolist() for part in ("train", "other"))
    assert sorted(train + other) == sorted(expected)
    assert train == sorted(train)
    assert not kind or found.split.keys.tolist() == [absorbed(group) for group in groups]


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read every folder, except one whose path is too long."""
    (tmp_path / "x" / "a").mkdir(parents=True)
    (tmp_path / "x" / "a" / "t.csv").write_text("area,price\n" + "".join(f"{at}.5,{2 * at}\n" for at in range(300)))
    monkeypatch.chdir(tmp_path / "x")
    for _ in range(20):
        Path("z" * 250).mkdir()
        os.chdir("z" * 250)
    os.chdir(tmp_path)
    done = typed("inspect", "x/**/*.csv", "--target", "price")
    assert (done.returncode, "300 rows in 1 file" in done.stdout) == (0, True)
    assert "left out folders that cannot be read: 1" in done.stdout + done.stderr


def test_a_comma_in_every_row_of_a_table_with_semicolons_is_part_of_a_value(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "Name, Vorname;y\n" + "Meier, Eva;1\nBeck, Ute;2\n" * 60)
    assert [each["name"] for each in inspect(file)["columns"]] == ["Name, Vorname", "y"]


def test_text_that_is_not_utf_8_is_read_as_windows_1252_and_that_is_said(tmp_path: Path) -> None:
    rows = "".join(f"{('Köln', 'Bonn € Süd')[at % 2]},{at % 7}\n" for at in range(300))
    (tmp_path / "t.csv").write_bytes(f"city,price\n{rows}".encode("cp1252"))
    done = typed("inspect", tmp_path / "t.csv", "--target", "price")
    assert "is not UTF-8 and is read as Windows-1252" in done.stdout + done.stderr
    assert "Köln" in done.stdout
    for rows in "1,5;2\n2,5;3\n", "1,5\xa0€;2\n2,5\xa0€;3\n":
        (tmp_path / "t.csv").write_bytes(("Größe;price\n" + rows * 100).encode("cp1252"))
        size = column(inspect(tmp_path / "t.csv", "--target", "price"), "Größe")
        assert (size["minimum"], size["maximum"]) == (1.5, 2.5)
