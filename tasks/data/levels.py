"""The distinct values of a column: how they are named, counted and sorted."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MOST_LEVELS = 10_000
COUNTED = 2**20  # rows at once: to be counted, codes become eight times as large
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
        """The rows of each value; 0 of one that a file's own dictionary lists and no row has."""
        if not self.column.num_chunks:
            return np.zeros(len(self.values), np.int64)
        codes = [chunk.indices.drop_null().to_numpy() for chunk in self.column.chunks]
        return count_codes(np.concatenate(codes), len(self.values))  # at once: there are many chunks

    @property
    def used(self) -> pa.Array:
        """The values, null where no row has one."""
        return pc.if_else(pa.array(self.counts > 0), self.values, None)

    @property
    def num_used(self) -> int:
        """How many values some row has."""
        return int(np.count_nonzero(self.counts))

    def names(self) -> list[str]:
        """The names of the values that occur; two may have one name."""
        return format_values(self.used.drop_null())

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

    def encode(
        self, names: Iterable[str], other: float = np.nan, into: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The code of each row's value ``(n,)``: its place among ``names``, ``other`` for one that is not among them.

        NaN is missing. They are written to ``into`` if it is given.
        """
        places: dict[str | None, float] = {name: place for place, name in enumerate(names)} | {None: np.nan}
        known = self.values.to_pylist() if pa.types.is_string(self.values.type) else format_values(self.values)
        if others := [at for at, name in enumerate(known) if name not in places]:  # may be written in another way
            formatted = format_values(self.values.take(others))
            known = [*known]
            for at, name in zip(others, formatted, strict=True):
                known[at] = name
        return self.take(np.array([*(places.get(name, other) for name in known), np.nan], np.float32), into)


def count_codes(codes: NDArray[Any], size: int) -> NDArray[np.int64]:
    """How often each of ``size`` codes occurs ``(size,)`` among whole numbers ``(n,)`` from 0."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(codes) if size else 0, COUNTED):  # of a number there are none
        counts += np.bincount(codes[start : start + COUNTED], minlength=size)
    return counts


def find_levels(column: pa.ChunkedArray) -> Levels:
    """The levels of any column of text, numbers or booleans."""
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    column = column.unify_dictionaries()
    values = column.chunk(0).dictionary if column.num_chunks else pa.array([], column.type.value_type)
    return Levels(column, values)


def format_values(values: pa.Array) -> list[str]:
    """The names of values: as the data have them, but whole numbers without a decimal point, ``true`` and ``false``.

    Dates and times are as ISO 8601 has them, with a blank between the two, and midnight is the date alone.
    """
    if pa.types.is_floating(values.type):
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            return [_format_number(value) for value in values.to_pylist()]
    is_date = pa.types.is_timestamp(values.type)
    texts = values.cast(pa.string())
    texts = pc.replace_substring_regex(texts, *((FRACTION, "") if is_date else (WHOLE, r"\1")))
    names: list[str] = pc.if_else(pc.match_substring_regex(texts, TRUTH), pc.ascii_lower(texts), texts).to_pylist()
    return names


def _format_number(number: float) -> str:
    if number.is_integer():
        return str(int(number))
    single = np.float32(number)  # which is what a file may have had: 1.1 then has a long tail as float64
    return str(single if float(single) == number else number)


def sort_levels(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by value if all are numbers, else by code point."""
    distinct = sorted(set(names))
    try:
        return tuple(sorted(distinct, key=float))
    except ValueError:
        return tuple(distinct)


def extend_levels(known: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
    """Levels that are known, whose places never change, and after them what is new."""
    return known + sort_levels(set(names) - set(known))
