"""The hash of a row, by which it is split and known again, and the digests of all rows.

**Definition.** All arithmetic is of unsigned 64-bit whole numbers, modulo 2**64. ``mix(x)`` is splitmix64's finaliser:
``x ^= x >> 30; x *= 0xbf58476d1ce4e5b9; x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31``. A hash ``h`` absorbs a
word ``w`` so: ``h = mix((h ^ w) + 0x9e3779b97f4a7c15)``. It starts as 0 and absorbs one word of each column, columns in
the order of their names by code point. The word of a value is

- of a number the bits of its float32 (rounded to nearest; -0 is 0), as a whole number;
- of a boolean those of 0 or 1 as a number;
- of a level or a class BLAKE2b of 8 bytes of its name in UTF-8, read as a little-endian number;
- of a missing value ``0x7fc00000``, the bits of NaN, whatever the column.

The **row hash** absorbs the columns that version 1 took as features. The **row digest** goes on from it: it absorbs the
target, then the column that splits, if there is one (its words are those of ``split_words``), then the number
of the copy, counted from 0 among rows that are equal so far. Tests have vectors of both.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.machine import side_by_side

Words = NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST = np.uint64(31)
MISSING = np.uint64(0x7FC00000)
BLOCK = 2**15  # rows that stay in the processor's cache


def of_text(text: str) -> int:
    """The word of a level."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def words_of_levels(levels: Sequence[str]) -> Words:
    """The word of each code ``(levels + 1,)``, and last that of a missing value."""
    return np.array([*map(of_text, levels), int(MISSING)], np.uint64)


def hashes(columns: Sequence[tuple[NDArray[np.float32], Words | None]], rows: int) -> Words:
    """The hash of each row ``(n,)``; each column ``(n,)`` comes with the words of its codes if it is a category."""
    result = np.zeros(rows, np.uint64)

    def absorb_all(block: slice) -> None:
        for values, of_codes in columns:
            _absorb(result[block], words(values[block], of_codes))

    side_by_side.each(absorb_all, _blocks(rows))
    return result


def words(values: NDArray[np.float32], of_codes: Words | None = None) -> Words:
    """The word of each value ``(n,)``: of its float32 bits, or by its code."""
    is_missing = np.isnan(values)
    if of_codes is not None:
        return of_codes[np.where(is_missing, len(of_codes) - 1, values).astype(np.int64)]
    bits = (values + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 + 0 is 0
    bits[is_missing] = MISSING
    return bits


def absorb(hashed: Words, word: Words | np.uint64) -> None:
    """Let hashes ``(n,)`` absorb a word each, or all of them one, in place."""
    word = np.broadcast_to(word, hashed.shape)
    side_by_side.each(lambda block: _absorb(hashed[block], word[block]), _blocks(len(hashed)))


def _blocks(rows: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, rows, BLOCK)]


def _absorb(hashed: Words, word: Words) -> None:
    hashed ^= word
    hashed += GOLDEN
    shifted = np.empty_like(hashed)
    for shift, factor in STEPS:
        np.right_shift(hashed, shift, out=shifted)
        hashed ^= shifted
        hashed *= factor
    np.right_shift(hashed, LAST, out=shifted)
    hashed ^= shifted


def copies(hashed: Words) -> Words:
    """The number of each row ``(n,)`` among those with an equal hash, counted from 0 in their order."""
    ordered = np.sort(hashed)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    numbers = np.zeros(len(hashed), np.uint64)
    if not len(repeated):
        return numbers
    at = np.minimum(np.searchsorted(repeated, hashed), len(repeated) - 1)
    rows = np.flatnonzero(repeated[at] == hashed)
    rows = rows[np.argsort(hashed[rows], kind="stable")]
    is_first = np.append(True, hashed[rows][1:] != hashed[rows][:-1])
    firsts = np.flatnonzero(is_first)
    numbers[rows] = np.arange(len(rows)) - np.repeat(firsts, np.diff(np.append(firsts, len(rows))))
    return numbers


def repeated(hashed: Words) -> NDArray[np.int64]:
    """The numbers of the rows whose hash another row has too, in order.

    Each row takes a place in a table from whoever had it. One that lost its place equals the row that has it in the
    end, or only their hashes' parts were equal by which they came there; it then looks again by another part, among
    fewer. That takes a fraction of the time of sorting.
    """
    is_repeated = np.zeros(len(hashed), bool)
    rows, rest, shift = np.arange(len(hashed), dtype=np.uint32), hashed, 0
    while len(rest):
        lost, winners = _lost_places(rest >> np.uint64(shift) if shift else rest)
        are_equal = rest[lost] == rest[winners]
        is_repeated[rows[lost[are_equal]]] = is_repeated[rows[winners[are_equal]]] = True
        rows, rest = rows[lost[~are_equal]], rest[lost[~are_equal]]
        shift = 24 - shift
    return np.flatnonzero(is_repeated)


def _lost_places(words: Words) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Rows whose place another took, and for each of them that other; the place is said by a word's lowest bits."""
    table = np.empty(1 << len(words).bit_length(), np.uint32)
    lowest = np.uint64(len(table) - 1)
    rows, lost, winners = np.arange(len(words), dtype=np.uint32), [], []
    for block in _blocks(len(words)):
        table[(words[block] & lowest).view(np.int64)] = rows[block]
    for block in _blocks(len(words)):
        last = np.take(table, (words[block] & lowest).view(np.int64))
        without = np.flatnonzero(last != rows[block])
        lost.append(block.start + without)
        winners.append(last[without])
    return np.concatenate(lost), np.concatenate(winners)


def num_distinct(hashed: Words) -> int:
    """How many different hashes there are."""
    ordered = np.sort(hashed)
    return int((ordered[1:] != ordered[:-1]).sum()) + min(1, len(ordered))
