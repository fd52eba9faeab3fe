"""The column that splits as words: of moments such as order them, of all else those of its levels' names."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data.findings import error
from tasks.data.io import tabular
from tasks.data.levels import find_levels, format_values
from tasks.data.report import Finding
from tasks.data.table import encoding, hashing
from tasks.data.table.hashing import Words
from tasks.data.table.split_rule import SplitRule

SHOWN = 40  # characters of a value


def split_words(rule: SplitRule, column: pa.ChunkedArray) -> Words:
    """A word ``(n,)`` of each value of the column of a rule; what is missing, or for ``time`` no moment, is 0.

    For ``time`` it is made of the bits of the float64 (of a date: microseconds since 1970): all flipped of a negative
    one, of others the highest, so that words are in the order of moments. For other rules the name is hashed as a
    level's is, so that 7 is one group whether a file has it as a whole number, a float or text.
    """
    kind = tabular.kind_of(column.type)
    if rule.rule == "time" and kind != "text":
        return _ordered(encoding.numbers(column.cast(pa.int64()) if kind == "date" else column))
    if rule.rule == "time":
        found = find_levels(column)
        return found.take(np.append(_ordered(_moments(found.used)), np.uint64(0)))
    return words_of_levels(column)(slice(None))


def words_of_levels(column: pa.ChunkedArray) -> Callable[[Any], Words]:
    """What makes the same words of some rows for a rule that needs no more of them: so they are never all held."""
    found = find_levels(column)
    of_values = np.append(_of_names(found.values), np.uint64(0))
    codes = found.take(np.arange(len(of_values), dtype=np.min_scalar_type(len(of_values))))
    return lambda rows: np.take(of_values, codes[rows])


def _of_names(values: pa.Array) -> Words:
    """The words of values' names ``(n,)``; of ids there may be as many as rows, so not all are held at once."""
    pieces = (values.slice(start, hashing.BLOCK) for start in range(0, len(values), hashing.BLOCK))
    return np.fromiter(
        (hashing.of_text(name) for piece in pieces for name in format_values(piece)), np.uint64, len(values)
    )


def _ordered(values: NDArray[np.float64]) -> Words:
    bits = (values + 0.0).view(np.uint64)
    highest = np.uint64(1 << 63)
    ordered = np.where(bits >= highest, ~bits, bits | highest)
    ordered[np.isnan(values)] = 0
    return ordered


def moments(words: Words) -> NDArray[np.float64]:
    """What words ``(n,)`` of the rule ``time`` were made of, such as the split keys of a prepared split; NaN of 0.

    Of dates these are microseconds since 1970 (``Splits.has_dates`` says whether they are dates).
    """
    highest = np.uint64(1 << 63)
    values = np.where(words >= highest, words ^ highest, ~words).view(np.float64)
    values[words == 0] = np.nan
    return values


def _moments(texts: pa.Array) -> NDArray[np.float64]:
    """Texts ``(n,)`` as numbers, or else microseconds since 1970; NaN where there is neither for all of them."""
    found = tabular.parse_numbers(texts)
    if found.null_count > texts.null_count:
        dates = encoding.as_dates(texts)
        found = pa.nulls(len(texts), pa.float64()) if dates is None else dates.cast(pa.int64()).cast(pa.float64())
    values: NDArray[np.float64] = found.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return values


def no_moment(rule: SplitRule, column: pa.ChunkedArray, words: Words, place: Callable[[int], str]) -> Finding | None:
    """What is wrong with a time column of text that is no time; ``place`` says where a row of the column is."""
    if rule.rule != "time" or not ((words == 0) & pc.is_valid(column).to_numpy()).any():
        return None
    texts = find_levels(column).used.drop_null()
    text = next((each for each in texts if np.isnan(_moments(pa.array([each]))).any()), texts[-1])  # else of two kinds
    row = pc.index(column.cast(pa.string()), text).as_py()
    found = f"{rule.column} is no date or time, as {text.as_py()[:SHOWN]!r} in {place(row)}"
    expected = "numbers, or dates such as 2024-12-31 or 2024-12-31T23:59:59, with a zone in all or in none"
    action = f"rewrite them, or split without --time-column {rule.column}"
    return error("no-moment", rule.column, found, expected, action)
