"""The hash of a row: as defined in words, and blind to all that is not content."""

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
from tasks.data.table_rows import hash_rows
from written_tables import FORMATS, digest, examined, recipe, rows, written

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


def test_the_hash_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(0)
    number = rng.normal(size=500).astype(np.float32)
    number[:4] = [0.0, -0.0, np.nan, np.inf]
    levels = ("a", "ü", "", "long " * 50)
    codes = rng.integers(0, 4, 500).astype(np.float32)
    codes[5] = np.nan
    found = row_hash.hash_rows([(number, None), (codes, row_hash.hash_levels(levels))], 500)
    names = [None if np.isnan(code) else levels[int(code)] for code in codes]
    expected = [absorbed([word(float(a)), word(b)]) for a, b in zip(number, names, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0),
        ([1.0], 0xFD695A1B70DC1235),
        ([None], 0x597709B67EBB1C02),
        (["a"], 0x3A2D7250B6712577),
        ([0.1, "Köln", 1.0, None], 0x2546613460CF724B),
    ],
)
def test_the_hash_of_a_row_never_changes(values: list[Any], expected: int) -> None:
    columns = []
    for value in values:
        of_text = row_hash.hash_levels([value]) if isinstance(value, str) else None
        number = np.nan if value is None else 0.0 if isinstance(value, str) else value
        columns.append((np.array([number], np.float32), of_text))
    assert row_hash.hash_rows(columns, 1).tolist() == [expected]


@given(arrays(np.uint64, st.integers(0, 60), elements=st.integers(0, 8)))
def test_copies_are_counted_as_plain_python_counts_them(hashed: Any) -> None:
    seen: Counter[int] = Counter()
    expected = []
    for each in hashed.tolist():
        expected.append(seen[each])
        seen[each] += 1
    assert row_hash.duplicate_index(hashed).tolist() == expected
    assert row_hash.num_distinct(hashed) == len(seen)


@pytest.mark.parametrize("missing", [np.zeros(3, np.uint8), np.full(3, np.nan, np.float32)], ids=["codes", "floats"])
def test_a_category_without_a_level_is_missing_in_every_row(missing: Any) -> None:
    columns = Column(name="c", kind="category"), Column(name="x")
    found = hash_rows(columns, [missing, np.arange(3, dtype=np.float32)])
    assert found.tolist() == [absorbed([word(None), word(float(at))]) for at in range(3)]


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


@given(arrays(np.uint64, st.tuples(st.just(3), st.integers(0, 60)), elements=st.integers(0, 3)))
def test_row_digests_take_target_column_and_copy_and_count_what_is_equal(columns: Any) -> None:
    features, target, splits = columns
    hashes = row_hash.update_hashes(np.zeros_like(features), features)
    found = row_hash.digest_rows(hashes, [target, splits.__getitem__])
    copies: Counter[tuple[int, ...]] = Counter()
    targets: dict[int, set[int]] = {}
    for row, (each, y, by) in enumerate(np.array([hashes, target, splits]).T.tolist()):
        targets.setdefault(each, set()).add(y)
        assert found.contents[row] == absorbed([y], each)
        assert found.digests[row] == absorbed([y, by, copies[each, y, by]], each)
        copies[each, y, by] += 1
    assert found.num_distinct == len(targets)
    assert found.num_ambiguous == sum(len(targets[each]) > 1 for each in hashes.tolist())


def test_a_long_array_is_updated_as_its_rows_are_one_by_one() -> None:
    hashes = np.arange(row_hash.BLOCK + 2, dtype=np.uint64)
    inputs = hashes**2
    found = row_hash.update_hashes(hashes, inputs, inputs[-1])
    assert found[-2:].tolist() == [absorbed([each**2, int(inputs[-1])], each) for each in hashes[-2:].tolist()]
    assert hashes[-1] == row_hash.BLOCK + 1, "what is given stays"


def test_another_value_in_any_column_is_another_hash() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (20_000, 12)).astype(np.float32)
    found = row_hash.hash_rows([(values[:, at], None) for at in range(12)], len(values))
    assert len(set(found.tolist())) == len(set(map(tuple, values.tolist())))


def test_hashes_are_spread_evenly_whatever_the_values() -> None:
    found = row_hash.hash_rows([(np.arange(100_000, dtype=np.float32), None)], 100_000)
    share = (found < np.uint64(int(0.2 * 2.0**64))).mean()
    assert share == pytest.approx(0.2, abs=5 * (0.16 / 100_000) ** 0.5)


def table(count: int = 400, seed: int = 0) -> pa.Table:
    """All kinds of columns with values missing in each, numbers that float32 has not all digits of."""
    rng = np.random.default_rng(seed)

    def some(values: Any) -> pa.Array:
        return pa.array(values, mask=rng.random(count) < 0.1)

    return pa.table(
        {
            "Größe": some(rng.normal(100, 30, count).round(2)),
            "count": some(rng.integers(0, 50, count)),
            "city, town": some(rng.choice(["Rom", "Köln", 'the "Hague"', "東京"], count)),
            "new": some(rng.choice([True, False], count)),
            "y": rng.normal(size=count).round(3),
        }
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_order_of_rows_and_columns_and_the_format_change_nothing(suffix: str, tmp_path: Path) -> None:
    original = table()
    found = examined(written(tmp_path / "one.csv", original))
    order = np.random.default_rng(3).permutation(len(original))
    shuffled = original.take(pa.array(order)).select(original.column_names[::-1])
    other = examined(written(tmp_path / f"other{suffix}", shuffled))
    assert digest(other) == digest(found)
    assert rows(other).split.split_ids.tolist() == rows(found).split.split_ids[order].tolist()


def test_a_table_in_several_files_is_the_same_table(tmp_path: Path) -> None:
    original = table()
    for number, start in enumerate(range(0, 400, 150)):
        written(tmp_path / "many" / f"{9 - number}{FORMATS[number]}", original.slice(start, 150))
    assert digest(examined(tmp_path / "many")) == digest(examined(written(tmp_path / "one.csv", original)))


def test_how_a_number_is_written_changes_nothing(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-40, 40, 200) / 10
    plain = "x,y\n" + "".join(f"{value},{at}\n" for at, value in enumerate(values))
    odd = "y,x\n" + "".join(f"{at}.0,{value:+.5e}\n" for at, value in enumerate(values))
    (tmp_path / "plain.csv").write_text(plain)
    (tmp_path / "odd.csv").write_text(odd)
    single = {"x": values.astype(np.float32), "y": np.arange(200, dtype=np.float32)}
    found = {
        digest(examined(path))
        for path in (tmp_path / "plain.csv", tmp_path / "odd.csv", written(tmp_path / "single.parquet", single))
    }
    assert len(found) == 1


def test_whole_numbers_as_categories_are_levels_without_a_point_in_any_format(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 5, 300)
    tables = {
        "ints.csv": whole,
        "floats.csv": whole.astype(float),
        "ints.parquet": whole,
        "floats.parquet": whole * 1.0,
    }
    found = {}
    for name, values in tables.items():
        path = written(tmp_path / name, {"c": values, "x": np.arange(300) % 97, "y": np.arange(300) % 7})
        found[name] = examined(path, category=["c"])
    assert len(set(map(digest, found.values()))) == 1
    assert recipe(found["floats.csv"]).columns[0].levels == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("change", ["row", "target", "feature", "copy"])
def test_any_change_of_content_is_another_digest(change: str, tmp_path: Path) -> None:
    original = table()
    listed = original.to_pylist()
    if change == "row":
        listed = listed[:-1]
    elif change == "copy":
        listed.append(listed[0])
    else:
        listed[7]["y" if change == "target" else "count"] = 77
    changed = pa.Table.from_pylist(listed, original.schema)
    paths = [written(tmp_path / f"{at}.parquet", each) for at, each in enumerate((original, changed))]
    assert len({digest(examined(path)) for path in paths}) == 2


def test_row_digests_are_the_hash_the_target_and_the_number_of_the_copy(tmp_path: Path) -> None:
    drawn = [(at % 40, f"level {at % 3}", at % 40) for at in range(120)] + [(5, "level 2", 5)]
    columns = {"b": [row[0] for row in drawn], "a": [row[1] for row in drawn], "y": [row[2] for row in drawn]}
    found = rows(examined(written(tmp_path / "t.csv", columns)))
    copies: Counter[int] = Counter()
    expected = []
    for number, level, target in drawn:
        base = absorbed([word(level), word(number), word(target)])
        expected.append(absorbed([copies[base]], base))
        copies[base] += 1
    assert found.digests.tolist() == expected
    both = np.concatenate([found.digests_of(True), found.digests_of(False)])
    assert sorted(both.tolist()) == sorted(expected)
    assert (np.diff(found.digests_of(True).astype(object)) >= 0).all()


@pytest.mark.parametrize("names", [[str(at % 40) for at in range(120)], [at % 40 for at in range(120)]])
def test_row_digests_take_in_the_name_of_the_group_after_the_target(names: list[Any], tmp_path: Path) -> None:
    columns = {"x": [at / 8 for at in range(120)], "g": names, "y": [at % 7 for at in range(120)]}
    found = rows(examined(written(tmp_path / "t.parquet", columns), split_by="g"))
    expected = [absorbed([word(at / 8), word(at % 7), word(str(at % 40)), 0]) for at in range(120)]
    assert found.digests.tolist() == expected
    assert found.split.keys.tolist() == [absorbed([word(str(at % 40))]) for at in range(120)]
