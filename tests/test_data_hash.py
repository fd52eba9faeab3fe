"""The hash of a row: as defined in words, and blind to all that is not content."""

import hashlib
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.data import row_hash
from tasks.data.recipe import Column
from written_tables import examined, rows, written

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
    both = np.concatenate([found.digests_of(True), found.digests_of(False)])
    assert sorted(both.tolist()) == sorted(expected)
    assert (np.diff(found.digests_of(True).astype(object)) >= 0).all()
    if kind is not None:
        assert found.split.keys.tolist() == [absorbed([word(str(at % 40))]) for at in range(121)]
