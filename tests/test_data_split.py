"""Which rows are the test split: the same ones as data grow, and never equal rows on both sides."""

import hashlib
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.data import row_hash
from tasks.data.recipe import Column
from tasks.data.split import TEST, TRAINING, decode_times, encode_times
from written_tables import examined, recipe, rows, rules, written

ROWS = 600
RNG = np.random.default_rng(0)
TABLE = pa.table(
    {
        "x": RNG.normal(size=ROWS),
        "g": RNG.integers(0, 80, ROWS),
        "day": pa.array(RNG.integers(0, 60, ROWS) * 86400, pa.timestamp("s")),
        "y": RNG.normal(size=ROWS),
    }
)


def sides(found: Any) -> list[int]:
    listed: list[int] = rows(found).split.split_ids.tolist()
    return listed


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20))
def test_words_of_numbers_order_them_and_give_them_back(values: list[float]) -> None:
    words = encode_times(np.array(values))
    for a, left in zip(values, words.tolist(), strict=True):
        for b, right in zip(values, words.tolist(), strict=True):
            assert (a < b) == (left < right)
    assert decode_times(np.append(words, np.uint64(0))).tolist()[:-1] == values


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+02:00", "%Y%j"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_moments_that_are_text_split_as_dates_do(form: str, suffix: str, tmp_path: Path) -> None:
    days = [day.strftime(form) for day in TABLE["day"].to_pylist()]
    found = examined(written(tmp_path / f"t{suffix}", TABLE.set_column(2, "day", [days])), time_column="day")
    assert sides(found) == sides(examined(written(tmp_path / "dates.parquet", TABLE), time_column="day"))


def test_the_latest_folders_are_the_test_split(tmp_path: Path) -> None:
    for day in range(1, 11):
        written(tmp_path / f"day=2024-01-{day:02}" / "p.parquet", TABLE.drop_columns(["day"]).slice(60 * day - 60, 60))
    assert sides(examined(tmp_path, time_column="day")) == [TRAINING] * 480 + [TEST] * 120


@pytest.mark.parametrize("form", [".parquet", ".csv"])
@pytest.mark.parametrize("first", ["0001-01-01", "1500-06-01", "9990-01-01"])
def test_dates_far_from_1970_are_in_order_too(first: str, form: str, tmp_path: Path) -> None:
    days = np.datetime64(first) + np.arange(ROWS) % 60
    far = TABLE.set_column(2, "day", [[str(day) for day in days] if form == ".csv" else days.astype("datetime64[us]")])
    is_test = np.array(sides(examined(written(tmp_path / f"t{form}", far), time_column="day"))) == TEST
    assert is_test.sum() == 0.2 * ROWS
    assert days[is_test].min() > days[~is_test].max()


def test_nan_among_numbers_of_a_time_column_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,at,y\n" + "".join(f"{row % 7},{row},{row}\n" for row in range(99)) + "1,nan,1\n")
    found = examined(tmp_path / "t.csv", time_column="at")
    assert rules(found, "error") == {"split-missing": "at is missing in 1 row"}


@pytest.mark.parametrize("odd", ["13/01/2024", "soon", "2024-01-01T00:00:00Z", "5"])
def test_a_time_column_that_is_no_time_stops_the_run_and_says_where(odd: str, tmp_path: Path) -> None:
    days = [str(day.date()) for day in TABLE["day"].to_pylist()]
    days[7] = odd
    table = TABLE.set_column(2, "day", [days]).set_column(3, "y", pa.array([None, *TABLE["y"].to_pylist()[1:]]))
    found = examined(written(tmp_path / "t.parquet", table), time_column="day")
    assert found.schema is None
    said = rules(found, "error")["no-moment day"]
    assert "no date or time" in said
    if odd in ("13/01/2024", "soon"):
        assert said == f"day is no date or time, as {odd!r} in row 7 of {tmp_path / 't.parquet'}"


def test_a_group_stays_on_its_side_whatever_type_its_column_has(tmp_path: Path) -> None:
    first = examined(written(tmp_path / "t.parquet", TABLE), split_by="g")
    groups = TABLE["g"].to_pylist()
    forms = {"text.parquet": list(map(str, groups)), "float.parquet": list(map(float, groups)), "whole.csv": groups}
    for name, values in forms.items():
        table = TABLE.set_column(1, "g", pa.array(values))
        found = examined(written(tmp_path / name, table), split_by="g", kept=recipe(first))
        assert rows(found).digests.tolist() == rows(first).digests.tolist(), name
        assert sides(found) == sides(first)
    with (tmp_path / "whole.csv").open("a") as file:
        file.write("0.5,X17,2020-01-01,0.25\n")
    grown = examined(tmp_path / "whole.csv", split_by="g", kept=recipe(first))
    assert sides(grown)[:ROWS] == sides(first)
    assert rows(grown).digests.tolist()[:ROWS] == rows(first).digests.tolist()


def test_what_a_split_column_says_of_rows_without_a_target_is_of_no_account(tmp_path: Path) -> None:
    said, target = ["train", "train", "val"] * (ROWS // 3), TABLE["y"].to_pylist()
    for at, odd in enumerate(("pending", "test")):
        said[at], target[at] = odd, None
    columns = TABLE.set_column(3, "y", pa.array(target)).append_column("part", [said])
    found = examined(written(tmp_path / "t.parquet", columns), split_column="part")
    assert not rules(found, "error")
    assert sides(found).count(TEST) == ROWS // 3


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


@pytest.mark.parametrize(
    ("kinds", "values", "expected"),
    [
        ("n", [1.0], 0xFD695A1B70DC1235),
        ("n", [np.nan], 0x597709B67EBB1C02),
        ("c", [0], 0x3A2D7250B6712577),
    ],
)
def test_the_hash_of_a_row_never_changes(kinds: str, values: list[float], expected: int) -> None:
    assert hashed(*(np.array([value], np.float32) for value in values), kinds=kinds) == [expected]


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
    drawn = [(at % 40, f"level {at % 3}", at % 40) for at in range(121)]
    columns: dict[str, Any] = {name: [row[at] for row in drawn] for at, name in enumerate("bay")}
    options: dict[str, Any] = {}
    if kind is not None:
        columns["g"], options = [kind(at % 40) for at in range(121)], {"split_by": "g"}
    found = rows(examined(written(tmp_path / "t.parquet", columns), **options))
    copies: Counter[int] = Counter()
    expected = []
    for at, (number, level, target) in enumerate(drawn):
        group = [] if kind is None else [word(str(at % 40))]
        base = absorbed([word(level), word(number), word(target), *group])
        expected.append(absorbed([copies[base]], base))
        copies[base] += 1
    assert found.digests.tolist() == expected
    both = np.concatenate([found.ordering.result()["train"], found.ordering.result()["other"]])
    assert sorted(both.tolist()) == sorted(expected)
    assert (np.diff(found.ordering.result()["train"].astype(object)) >= 0).all()
    if kind is not None:
        assert found.split.keys.tolist() == [absorbed([word(str(at % 40))]) for at in range(121)]
