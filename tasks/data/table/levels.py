"""The levels of a category, and the classes of a target: how they are called, counted and ordered."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MOST_LEVELS = 10_000
FEW = 10  # that are counted one by one, a byte a row
COUNTED = 2**20  # rows at once
WHOLE = r"^([+-]?\d+)\.0*$"
FRACTION = r"( 00:00:00)?\.0*$"  # of a second, or all of midnight
TRUTH = r"(?i)^(true|false)$"


@dataclass(frozen=True)
class Levels:
    """The distinct values of a column, and how often each occurs."""

    column: pa.ChunkedArray  # a dictionary, the same one in every chunk
    values: pa.Array  # of that dictionary, each once

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The rows of each value; none of one that a file's own dictionary lists and no row has."""
        size = len(self.values)
        chunks = [chunk.indices.drop_null().to_numpy() for chunk in self.column.chunks]
        if any(codes.dtype != np.int8 for codes in chunks):
            return sum((np.bincount(codes, minlength=size) for codes in chunks), np.zeros(size, np.int64))
        return count_codes(np.concatenate([np.zeros(0, np.int8), *chunks]), size)  # at once: there are many chunks

    @property
    def used(self) -> pa.Array:
        """The values, null where no row has one."""
        return pc.if_else(pa.array(self.counts > 0), self.values, None)

    @property
    def num_used(self) -> int:
        """How many values some row has."""
        return int(np.count_nonzero(self.counts))

    def names(self) -> list[str]:
        """What the values that occur are called; two may have one name."""
        return named(self.values.filter(pa.array(self.counts > 0)))

    def take(self, words: NDArray[Any], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """For each row ``(n,)`` the word of its value; ``words`` ``(values + 1,)`` ends with that of a missing one.

        They are written to ``into`` if it is given.
        """
        result = np.empty(len(self.column), words.dtype) if into is None else into
        row = 0
        for chunk in self.column.chunks:
            indices = chunk.indices.fill_null(-1) if chunk.null_count else chunk.indices
            np.take(words, indices.to_numpy(), out=result[row : row + len(chunk)], mode="wrap")  # -1 is the last
            row += len(chunk)
        return result

    def of(
        self,
        names: Iterable[str],
        other: float = np.nan,
        missing: float = np.nan,
        into: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The code of each row's value ``(n,)``, its place among ``names``, or what stands for others and missing ones.

        They are float32, or of the type of ``into``, which they are written to.
        """
        places = {name: place for place, name in enumerate(names)}
        known = self.values.to_pylist()
        if not all(value in places for value in known):  # else all are called what they are
            known = named(self.values)
        codes = [missing if name is None else places.get(name, other) for name in known]
        return self.take(np.array([*codes, missing], np.float32 if into is None else into.dtype), into)


def count_codes(codes: NDArray[Any], size: int) -> NDArray[np.int64]:
    """How often each of ``size`` codes is there ``(size,)``, of whole numbers ``(n,)`` from 0.

    Few of them one by one; of bytes two are counted at a time, in half the time.
    """
    if size <= FEW:
        return np.array([np.count_nonzero(codes == code) for code in range(size)], np.int64)
    if codes.itemsize > 1 or size > 256:
        return np.bincount(codes, minlength=size)
    even, pairs = len(codes) // 2 * 2, np.zeros(2**16, np.int64)
    for start in range(0, even, COUNTED):  # which bincount makes eight times as large
        pairs += np.bincount(codes[start : min(start + COUNTED, even)].view(np.uint16), minlength=len(pairs))
    paired: NDArray[np.int64] = sum(pairs.reshape(256, 256).sum(axis=axis)[:size] for axis in (0, 1))
    return paired + np.bincount(codes[even:], minlength=size)


def levels(column: pa.ChunkedArray) -> Levels:
    """The levels of any column of text, numbers or booleans."""
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    column = column.unify_dictionaries()
    values = column.chunk(0).dictionary if column.num_chunks else pa.array([], column.type.value_type)
    return Levels(column, values)


def named(values: pa.Array) -> list[str]:
    """What values are called: as the data name them, but whole numbers without a decimal point, ``true`` and ``false``.

    Dates and times are called as ISO 8601 has them, with a blank between the two, and at midnight by the date alone.
    """
    if pa.types.is_floating(values.type):
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            return [_name(value) for value in values.to_pylist()]
    is_date = pa.types.is_timestamp(values.type)
    texts = values.cast(pa.string())
    texts = pc.replace_substring_regex(texts, *((FRACTION, "") if is_date else (WHOLE, r"\1")))
    listed: list[str] = pc.if_else(pc.match_substring_regex(texts, TRUTH), pc.ascii_lower(texts), texts).to_pylist()
    return listed


def _name(number: float) -> str:
    if number.is_integer():
        return str(int(number))
    single = np.float32(number)  # which is what a file may have had: 1.1 then has a long tail as float64
    return str(single if float(single) == number else number)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: if all are numbers by value, else by code point."""
    distinct = sorted(set(names))
    try:
        return tuple(sorted(distinct, key=float))
    except ValueError:
        return tuple(distinct)


def appended(known: tuple[str, ...], found: Iterable[str]) -> tuple[str, ...]:
    """Levels that are known, whose places never change, and after them what is new."""
    return known + in_order(set(found) - set(known))
