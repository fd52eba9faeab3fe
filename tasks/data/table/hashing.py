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
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.machine import side_by_side
from tasks.machine.arrays import Array

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


def hashes(columns: Sequence[tuple[Array, Words | None]], rows: int) -> Words:
    """The hash of each row ``(n,)``; each column ``(n,)`` comes with the words of its codes if it is a category."""
    result = np.zeros(rows, np.uint64)

    def absorb_all(block: slice) -> None:
        for values, of_codes in columns:
            _absorb(result[block], words(values[block], of_codes))

    side_by_side.each(absorb_all, _blocks(rows))
    return result


def words(values: Array, of_codes: Words | None = None) -> Words:
    """The word of each value ``(n,)``: of its float32 bits, or by its code, a whole number or a float32."""
    if of_codes is not None and values.dtype.kind == "u":
        return np.take(of_codes, values)
    if of_codes is not None:
        return np.take(of_codes, np.fmin(values, np.float32(len(of_codes) - 1)).astype(np.int64))  # the last is of NaN
    bits = (values + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 + 0 is 0
    bits[np.isnan(values)] = MISSING
    return bits


def after(hashed: Words, each: Sequence[Callable[[slice], Words | np.uint64]]) -> Words:
    """What hashes ``(n,)`` are after they absorbed words; each of ``each`` makes the words of some rows."""
    result = np.empty_like(hashed)

    def absorb_all(block: slice) -> None:
        part = result[block]
        part[:] = hashed[block]
        for words_of in each:
            _absorb(part, words_of(block))

    side_by_side.each(absorb_all, _blocks(len(hashed)))
    return result


def absorb(hashed: Words, word: Words | np.uint64) -> None:
    """Let hashes ``(n,)`` absorb a word each, or all of them one, in place."""
    word = np.broadcast_to(word, hashed.shape)
    side_by_side.each(lambda block: _absorb(hashed[block], word[block]), _blocks(len(hashed)))


def _blocks(rows: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)]


def _absorb(hashed: Words, word: Words | np.uint64) -> None:
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
    order = np.argsort(hashed, kind="stable")
    ordered = hashed[order]
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(hashed)])
    numbers = np.empty(len(hashed), np.uint64)
    numbers[order] = np.arange(len(hashed)) - np.repeat(firsts, np.diff(firsts, append=len(hashed)))
    return numbers


def repeated(hashed: Words) -> NDArray[np.int64]:
    """The numbers of the rows whose hash ``(n,)`` another row has too, in order.

    Mostly these are few: those whose highest bits no other row has are left out first, by a sort of half the bytes.
    """
    highest, is_candidate = np.empty(len(hashed), np.uint32), np.empty(len(hashed), bool)

    def shift(block: slice) -> None:
        np.right_shift(hashed[block], np.uint64(32), out=highest[block], casting="unsafe")

    side_by_side.each(shift, _blocks(len(hashed)))
    ordered = np.sort(highest)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice) > len(hashed) // 8:
        return _repeated(hashed)
    bits = max(16, (8 * len(twice)).bit_length())  # of place, so that few others share one
    is_twice, place = np.zeros(2**bits, bool), np.uint32(2**bits - 1)
    is_twice[twice & place] = True

    def mark(block: slice) -> None:
        np.take(is_twice, highest[block] & place, out=is_candidate[block], mode="clip")

    side_by_side.each(mark, _blocks(len(hashed)))
    candidates = np.flatnonzero(is_candidate)
    return candidates[_repeated(hashed[candidates])]


def _repeated(hashed: Words) -> NDArray[np.int64]:
    """The same by one sort of all these hashes.

    What is sorted are the hashes' highest bits with the rows' numbers in place of the lowest: then equal hashes lie
    side by side, with few others, and their rows are known.
    """
    bits = np.uint64(len(hashed).bit_length())
    keys, is_near = np.empty_like(hashed), np.zeros(len(hashed), bool)

    def make(block: slice) -> None:
        np.left_shift(hashed[block] >> bits, bits, out=keys[block])
        keys[block] |= np.arange(block.start, block.stop, dtype=np.uint64)

    def compare(block: slice) -> None:
        """Each key with the next one; blocks have a key in common, of which both can only say that it is near."""
        some = keys[block.start : block.stop + 1]
        firsts = block.start + np.flatnonzero((some[1:] ^ some[:-1]) >> bits == 0)
        is_near[firsts] = is_near[firsts + 1] = True

    side_by_side.each(make, _blocks(len(keys)))
    keys.sort()
    side_by_side.each(compare, _blocks(len(keys)))
    rows = keys[is_near] & ((np.uint64(1) << bits) - np.uint64(1))
    near = hashed[rows]
    starts = np.flatnonzero(np.append(True, (near[1:] ^ near[:-1]) >> bits != 0)[: len(near)])
    is_mixed = np.zeros(len(starts), bool)  # of each group: whether its hashes differ below their highest bits
    differs = near[1:] != near[:-1]
    differs[starts[1:] - 1] = False
    is_mixed[np.searchsorted(starts, np.flatnonzero(differs), side="right") - 1] = True
    mixed = np.repeat(is_mixed, np.diff(starts, append=len(near)))
    _, which, counts = np.unique(near[mixed], return_inverse=True, return_counts=True)
    is_repeated = np.zeros(len(hashed), bool)
    is_repeated[rows[~mixed]] = True
    is_repeated[rows[mixed][counts[which] > 1]] = True
    return np.flatnonzero(is_repeated)


def num_distinct(hashed: Words) -> int:
    """How many different hashes there are."""
    ordered = np.sort(hashed)
    return int((ordered[1:] != ordered[:-1]).sum()) + min(1, len(ordered))


def num_ambiguous(hashed: Words, finer: Words) -> int:
    """How many rows have a hash ``(n,)`` that rows of another finer hash ``(n,)`` have too."""
    order = np.argsort(hashed)
    ordered, finer = hashed[order], finer[order]
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(hashed)])
    differ = np.minimum.reduceat(finer, firsts) != np.maximum.reduceat(finer, firsts)
    return int(np.diff(firsts, append=len(hashed))[differ].sum())
