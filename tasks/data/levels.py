"""The distinct values of a column: how they are named, counted and sorted."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gradmill.rows import name_level

MOST_LEVELS = 10_000
COUNTED = 2**20  # rows at once: codes are widened eightfold to be counted
WHOLE = r"^([+-]?\d+)\.0*$"
FRACTION = r"( 00:00:00)?\.0*$"  # of a second, or of all of midnight
TRUTH = r"(?i)^(true|false)$"


@dataclass(frozen=True)
class Levels:
    """The distinct values of a column, and how often each occurs."""

    column: pa.ChunkedArray  # a dictionary, the same one in every chunk
    values: pa.Array  # of that dictionary, each once

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The number of rows of each value; 0 for a value that a file's dictionary lists but no row has."""
        if not self.column.num_chunks:
            return np.zeros(len(self.values), np.int64)
        codes = [chunk.indices.drop_null().to_numpy() for chunk in self.column.chunks]
        return count_codes(np.concatenate(codes), len(self.values))  # all at once, since there are many chunks

    @property
    def used_levels(self) -> pa.Array:
        """The values, with null for those that no row has."""
        return pc.if_else(pa.array(self.counts > 0), self.values, None)

    @property
    def num_used(self) -> int:
        """How many values occur in a row."""
        return int(np.count_nonzero(self.counts))

    def names(self) -> list[str]:
        """The names of the values that occur; two may have one name."""
        return format_values(self.used_levels.drop_null())

    def take(self, words: NDArray[Any], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """For each row ``(n,)`` the word of its value; ``words`` ``(values + 1,)`` ends with that of a missing value.

        The words are written to ``into`` if it is given.
        """
        result = np.empty(len(self.column), words.dtype) if into is None else into
        row = 0
        for chunk in self.column.chunks:
            indices = chunk.indices.fill_null(-1) if chunk.null_count else chunk.indices
            np.take(words, indices.to_numpy(), out=result[row : row + len(chunk)], mode="wrap")  # -1 picks the last
            row += len(chunk)
        return result

    def encode(
        self, names: Iterable[str], other: float = np.nan, into: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The code of each row's value ``(n,)``: its position among ``names``, or ``other`` if it is not among them.

        NaN is missing. They are written to ``into`` if it is given.
        """
        places: dict[str, float] = {name: place for place, name in enumerate(names)}
        codes = [places.get(name, other) for name in format_values(self.values)]
        return self.take(np.array([*codes, np.nan], np.float32), into)


def count_codes(codes: NDArray[Any], size: int) -> NDArray[np.int64]:
    """How often each of ``size`` codes occurs ``(size,)`` among whole numbers ``(n,)`` from 0."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(codes) if size else 0, COUNTED):  # a number has no levels
        counts += np.bincount(codes[start : start + COUNTED], minlength=size)
    return counts


def find_levels(column: pa.ChunkedArray) -> Levels:
    """The levels of a column of text, numbers or booleans."""
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    column = column.unify_dictionaries()
    values = column.chunk(0).dictionary if column.num_chunks else pa.array([], column.type.value_type)
    return Levels(column, values)


def format_values(values: pa.Array) -> list[str]:
    """The names of values: as in the data, but whole numbers without a decimal point, and ``true`` and ``false``.

    Dates and times are in ISO 8601 with a space between the two, and midnight is the date alone.
    """
    if pa.types.is_floating(values.type):
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            return [name_level(value) for value in values.to_pylist()]
    is_date = pa.types.is_timestamp(values.type)
    texts = values.cast(pa.string())
    texts = pc.replace_substring_regex(texts, *((FRACTION, "") if is_date else (WHOLE, r"\1")))
    names: list[str] = pc.if_else(pc.match_substring_regex(texts, TRUTH), pc.ascii_lower(texts), texts).to_pylist()
    return names


def sort_levels(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, sorted by value if all are numbers, otherwise by code point."""
    distinct = sorted(set(names))
    try:
        return tuple(sorted(distinct, key=float))
    except ValueError:
        return tuple(distinct)


def extend_levels(known: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
    """The known levels, whose positions never change, followed by the new ones."""
    return known + sort_levels(set(names) - set(known))
