"""The hash of a row, by which it is split and recognised, and the digests of all rows.

**Definition.** All arithmetic is on unsigned 64-bit integers, modulo 2**64. ``mix(x)`` is splitmix64's finaliser:
``x ^= x >> 30; x *= 0xbf58476d1ce4e5b9; x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31``. A hash ``h`` is updated
with an input ``w`` by ``h = mix((h ^ w) + 0x9e3779b97f4a7c15)``. It starts as 0 and takes one input from each column,
in the order of the columns' names by code point. The input is

- for a number, the bits of its float32 (rounded to nearest; -0 is 0), as an integer;
- for a boolean, those of 0 or 1 as a number;
- for a level or a class, the 8-byte BLAKE2b of its name in UTF-8, read as a little-endian number;
- for a missing value, ``0x7fc00000``, the bits of NaN, whatever the column.

The **row hash** covers the columns that version 1 used as features. The **row digest** continues from it: it takes the
target, then the column that splits, if there is one (``split.split_by_column``), then the number of the copy, counted
from 0 among rows that are equal so far. The tests have test vectors for both.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.prepared_splits import read_arrays
from tasks.data.recipe import Column
from tasks.machine import parallel
from tasks.machine.arrays import Array
from tasks.store.record_base import FileRef
from tasks.store.verified_files import RESTORE

Hashes = NDArray[np.uint64]
RowNumbers = NDArray[np.int64]  # the numbers of rows
HashInputs = Hashes | np.uint64 | Callable[[Any], Hashes]  # for each row, one for all rows, or a function of some rows
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST = np.uint64(31)
MISSING = np.uint64(0x7FC00000)
FIRST_COPY = np.uint64(0)
BLOCK = 2**15  # rows that fit the processor's cache
LOOKUP_BLOCK = 2**17  # rows that are looked up at once
SAMPLE = 20_000  # rows from which profiles are made
PARTS = "train", "other"  # of a file of row digests


def hash_levels(levels: Iterable[str]) -> Hashes:
    """The input of each code ``(levels + 1,)`` of a category or a class; the last is that of a missing value."""
    digests = (hashlib.blake2b(level.encode(), digest_size=8).digest() for level in levels)
    inputs = (int.from_bytes(each, "little") for each in itertools.chain(digests, [MISSING.tobytes()]))
    return np.fromiter(inputs, np.uint64)


def hash_inputs(values: Array, levels: Sequence[str]) -> Callable[[Any], Hashes]:
    """A function that makes the inputs of some rows of values ``(n,)``: those of all rows need not be in memory.

    The inputs come from the values' float32 bits, or from the ``levels`` whose codes the values are, as integers or
    float32; if there are no levels, all values are missing, and none is a code.
    """
    hashes = hash_levels(levels)

    def hash_some(rows: Any) -> Hashes:
        found = values[rows]
        if levels:
            if found.dtype.kind == "f":
                found = np.fmin(found, np.float32(len(levels))).astype(np.int64)  # NaN takes the last
            inputs: Hashes = hashes.take(found)
            return inputs
        with np.errstate(over="ignore"):
            numbers = found.astype(np.float32, copy=False) + np.float32(0)  # -0 + 0 is 0
        bits: Hashes = numbers.view(np.uint32).astype(np.uint64)
        bits[np.isnan(numbers)] = MISSING
        return bits

    return hash_some


def hash_rows(columns: Sequence[Column], encoded: Sequence[Array]) -> Hashes:
    """The hash of each row ``(n,)`` of encoded columns, ``(n,)`` each; codes of a category may be float32 too."""
    by_name = sorted(zip(columns, encoded, strict=True), key=lambda each: each[0].name)
    inputs = (hash_inputs(values, column.levels) for column, values in by_name)
    return update_hashes(np.broadcast_to(np.uint64(0), len(encoded[0])), *inputs)


def update_hashes(hashes: Hashes, *inputs: HashInputs) -> Hashes:
    """Hashes ``(n,)`` after taking the inputs one after the other; the given hashes are not changed."""
    result = np.empty(len(hashes), np.uint64)

    def update(start: int) -> None:
        block = slice(start, start + BLOCK)
        part = result[block]
        part[:] = hashes[block]
        for each in inputs:
            _mix(part, select_inputs(each, block))

    parallel.map_in_threads(update, range(0, len(hashes), BLOCK))
    return result


def select_inputs(inputs: HashInputs, rows: slice | RowNumbers) -> Hashes:
    """The inputs ``(m,)`` of some rows, or ``()`` where all rows have the same."""
    if callable(inputs):
        return inputs(rows)
    values = np.asarray(inputs)
    return values[rows] if values.ndim else values


def _mix(hashes: Hashes, inputs: Hashes) -> None:
    hashes ^= inputs
    hashes += GOLDEN
    shifted = np.empty_like(hashes)
    for shift, factor in STEPS:
        np.right_shift(hashes, shift, out=shifted)
        hashes ^= shifted
        hashes *= factor
    np.right_shift(hashes, LAST, out=shifted)
    hashes ^= shifted


def digest_rows(hashes: Hashes, inputs: Sequence[HashInputs]) -> tuple[Hashes, int, int]:
    """The digests of rows with these hashes ``(n,)``; ``inputs`` are those of the target and of a column that splits.

    Most rows are the only ones with their hash, so copies are counted only among the others. Besides the digests
    ``(n,)``, it returns the number of distinct feature rows, and the number of rows whose features also occur with
    another target.
    """
    finding = parallel.start(find_equal_rows, hashes)
    contents = update_hashes(hashes, inputs[0])
    digests = update_hashes(contents, *inputs[1:], FIRST_COPY)
    rows, sizes = finding.result()
    starts, equal = np.cumsum(sizes) - sizes, contents[rows]
    is_ambiguous = np.minimum.reduceat(equal, starts) != np.maximum.reduceat(equal, starts)
    equal = update_hashes(equal, *(select_inputs(each, rows) for each in inputs[1:]))
    digests[rows] = update_hashes(equal, duplicate_index(equal))
    return digests, len(hashes) - len(rows) + len(sizes), int(sizes[is_ambiguous].sum())


def find_equal_rows(hashes: Hashes) -> tuple[RowNumbers, RowNumbers]:
    """Rows whose hash ``(n,)`` also occurs in another row, equal ones adjacent and in order; the size of each group.

    The hashes' highest bits are sorted, with the rows' numbers in place of the lowest bits: this is as fast as sorting
    the hashes, and rows that may be equal become adjacent.
    """
    lowest = np.uint64(2 ** len(hashes).bit_length() - 1)
    keys = hashes & ~lowest
    keys |= np.arange(len(hashes), dtype=np.uint64)
    keys.sort()
    is_like_next = keys[1:] ^ keys[:-1] <= lowest
    is_alike = np.append(is_like_next, False)[: len(keys)]
    is_alike[1:] |= is_like_next
    rows = (keys[is_alike] & lowest).view(np.int64)
    order, sizes = _group(hashes[rows])
    is_repeated = sizes > 1
    return rows[order[np.repeat(is_repeated, sizes)]], sizes[is_repeated]


def _group(hashes: Hashes) -> tuple[RowNumbers, RowNumbers]:
    """An order of hashes ``(n,)`` with equal ones adjacent, in their original order; and the size of each group."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(hashes)])
    return order, np.diff(starts, append=len(hashes))


def duplicate_index(hashes: Hashes) -> Hashes:
    """The number of each row ``(n,)`` among those with an equal hash, counted from 0 in their order."""
    order, sizes = _group(hashes)
    index = np.empty(len(hashes), np.uint64)
    index[order] = np.arange(len(hashes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return index


def find_threshold(share: float) -> np.uint64:
    """The value below which a hash belongs to a share of all hashes."""
    return np.uint64(int(share * 2.0**64))


def sample_rows(digests: Hashes) -> RowNumbers:
    """At most some 20,000 of the rows ``(n,)``: those with the lowest digests, in whatever order rows come."""
    if len(digests) <= SAMPLE:
        return np.arange(len(digests))
    return np.flatnonzero(digests < find_threshold(SAMPLE / len(digests)))


def find_new_rows(digests: Hashes, known: FileRef) -> NDArray[np.bool_]:
    """Which of these row digests ``(n,)``, in any order, are not in the file ``known`` of an earlier version.

    Raises:
        DataError: the file is missing or damaged.
    """
    return is_in(_remove_known(np.sort(digests), known), digests)


def count_new_rows(rows: FileRef, known: FileRef) -> int:
    """How many rows of one file of row digests (``Splits.rows``) are not in the other.

    Raises:
        DataError: a file is missing or damaged.
    """
    parts = read_arrays(rows, RESTORE)
    return sum(len(_remove_known(parts[part], known)) for part in PARTS)


def _remove_known(digests: Hashes, known: FileRef) -> Hashes:
    """The sorted digests that are not known, in order: looking up sorted ones is fifteen times as fast."""
    parts = read_arrays(known, RESTORE)
    for part in PARTS:
        digests = digests[~is_in(parts[part], digests)]
    return digests


def is_in(known: Hashes, digests: Hashes) -> NDArray[np.bool_]:
    """Which of the digests ``(n,)`` are among sorted ``known`` ones."""
    found = np.zeros(len(digests), bool)

    def look_up(start: int) -> None:
        wanted = digests[start : start + LOOKUP_BLOCK]
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found[start : start + LOOKUP_BLOCK] = known[places] == wanted

    if len(known):
        parallel.map_in_threads(look_up, range(0, len(digests), LOOKUP_BLOCK))
    return found
