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


@given(arrays(np.uint64, st.integers(0, 60), elements=st.integers(0, 8)))
def test_copies_are_counted_as_plain_python_counts_them(hashed: Any) -> None:
    seen: Counter[int] = Counter()
    expected = []
    for each in hashed.tolist():
        expected.append(seen[each])
        seen[each] += 1
    assert row_hash.duplicate_index(hashed).tolist() == expected


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


def ways_to_write(folder: Path, way: str) -> list[Path]:
    """Files of one table."""
    values = np.random.default_rng(0).integers(-40, 40, 200) / 10
    rows, whole = np.arange(200), np.random.default_rng(0).integers(0, 5, 200)
    if way == "files":
        for number, start in enumerate(range(0, 400, 150)):
            written(folder / "many" / f"{9 - number}{FORMATS[number]}", table().slice(start, 150))
        return [folder / "many", written(folder / "one.csv", table())]
    if way == "numbers":
        (folder / "plain.csv").write_text("x,y\n" + "".join(f"{value},{at}\n" for at, value in enumerate(values)))
        (folder / "odd.csv").write_text("y,x\n" + "".join(f"{at}.0,{value:+.5e}\n" for at, value in enumerate(values)))
        single = written(folder / "single.parquet", {"x": values.astype(np.float32), "y": rows.astype(np.float32)})
        return [folder / "plain.csv", folder / "odd.csv", single]
    return [
        written(folder / f"{kind.__name__}{suffix}", {"c": whole.astype(kind), "x": rows % 97, "y": rows % 7})
        for kind in (int, float)
        for suffix in (".csv", ".parquet")
    ]


@pytest.mark.parametrize("way", ["files", "numbers", "levels"])
def test_how_a_table_is_written_changes_nothing(way: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"category": ["c"]} if way == "levels" else {}
    found = [examined(path, **options) for path in ways_to_write(tmp_path, way)]
    assert len(set(map(digest, found))) == 1
    if way == "levels":
        assert recipe(found[0]).columns[0].levels == ("0", "1", "2", "3", "4"), "without a decimal point"


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
