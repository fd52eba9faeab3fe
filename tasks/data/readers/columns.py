"""What becomes of a column of a table, batch by batch: a number, a boolean, text or a date."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.table import levels

Kind = Literal["number", "boolean", "text", "date", "null", "unfit"]
MOST_LEVELS = 2**17  # distinct texts beyond which a column is no dictionary
CODES = (pa.int8(), pa.int16(), pa.int32())  # types of levels' codes
EXACT = 2**53  # up to which float64 has all whole numbers
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?[iI]nf(inity)?$"


class Selection(NamedTuple):
    """Which columns of a table are read, and as what."""

    as_text: frozenset[str] = frozenset()  # whatever they look like
    as_boolean: frozenset[str] = frozenset()  # where all their values are 0 or 1
    ignore: frozenset[str] = frozenset()
    only: frozenset[str] | None = None  # all that are not to be ignored

    def takes(self, name: str) -> bool:
        """Whether a column is read."""
        return name not in self.ignore and (self.only is None or name in self.only)


def kind_of(kind: pa.DataType) -> Kind:
    """What a type of Arrow is to a model."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests: list[tuple[Kind, tuple[Any, ...]]] = [
        ("null", (pa.types.is_null,)),
        ("boolean", (pa.types.is_boolean,)),
        ("number", (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)),
        ("text", (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
        ("date", (pa.types.is_date, pa.types.is_timestamp, pa.types.is_time, pa.types.is_duration)),
    ]
    return next((name for name, each in tests if any(test(kind) for test in each)), "unfit")


def in_words(schema: pa.Schema) -> str:
    """The columns of a file with their types."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def plain(array: pa.Array) -> pa.Array:
    """An array of the one type that its kind has; of text a dictionary."""
    kind = kind_of(array.type)
    if pa.types.is_dictionary(array.type):
        if kind == "text":  # views of strings cannot be decoded
            array = pc.cast(array, pa.dictionary(pa.int32(), pa.string()))
        if kind != "text" or array.dictionary.null_count:
            array = array.dictionary_decode()
    if kind == "number":
        return pc.cast(array, pa.float64(), safe=False)
    if kind == "date":
        return _as_timestamp(array)
    if kind == "text":
        array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        return pc.cast(array, pa.dictionary(pa.int32(), pa.string()))
    return array


def text_without(array: pa.Array, words: Sequence[str]) -> pa.Array:
    """An array, null where it is text that is one of some words; of a dictionary that is asked of its levels alone."""
    if pa.types.is_string(array.type):
        return pc.if_else(pc.is_in(array, pa.array(words)), None, array)
    if not pa.types.is_dictionary(array.type):
        return array
    is_word = pc.is_in(array.dictionary, pa.array(words))
    if not pc.any(is_word).as_py():
        return array
    kept = array.dictionary.filter(pc.invert(is_word))
    return pa.DictionaryArray.from_arrays(pc.index_in(array.dictionary, kept).take(array.indices), kept)


def texts(array: pa.Array) -> pa.DictionaryArray:
    """Numbers or booleans as text: each distinct value as the level that it is, whole numbers with all digits."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        array = pc.cast(array, pa.float64(), safe=False)
        array = pc.if_else(pc.is_nan(array), None, array)
    found = array.dictionary_encode()
    return pa.DictionaryArray.from_arrays(found.indices, pa.array(levels.named(found.dictionary), pa.string()))


def booleans(array: pa.Array) -> pa.Array:
    """Numbers as booleans where all are 0 or 1, texts where all are that, ``true`` or ``false``; else as they are."""
    if kind_of(array.type) == "text":
        texts = pc.ascii_lower(pc.cast(array, pa.string()))
        found = pc.index_in(texts, value_set=pa.array(["0", "false", "1", "true"]))
        return pc.greater(found, 1) if found.null_count == texts.null_count else array
    values = plain(array)
    values = pc.if_else(pc.is_nan(values), None, values)
    is_boolean = pc.all(pc.is_in(values, value_set=pa.array([0.0, 1.0, None]))).as_py()
    return pc.equal(values, 1) if is_boolean else array


def _as_timestamp(array: pa.Array) -> pa.Array:
    """Microseconds since 1970, of times and durations since zero."""
    kind = array.type
    if pa.types.is_time(kind):
        array = pc.cast(pc.cast(array, pa.time64("us"), safe=False), pa.int64())
    elif pa.types.is_duration(kind):
        array = pc.cast(pc.cast(array, pa.duration("us"), safe=False), pa.int64())
    else:
        zone = getattr(kind, "tz", None)
        array = pc.cast(pc.cast(array, pa.timestamp("us", zone), safe=False), pa.int64())
    return pc.cast(array, pa.timestamp("us"))


def is_beyond_exact(array: pa.Array) -> bool:
    """Whether whole numbers are so large that float64 has not all of them."""
    if not pa.types.is_int64(array.type) and not pa.types.is_uint64(array.type):
        return False
    bounds = pc.min_max(array)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is not None and (low < -EXACT or high > EXACT)


def numbers(texts: pa.Array) -> pa.Array:
    """float64 of an array of text, null where it is no number; beyond the range infinite."""
    try:
        values = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(texts)
        return pc.cast(pc.if_else(pc.match_substring_regex(trimmed, NUMBER), trimmed, None), pa.float64())
    return pc.if_else(pc.is_nan(values), None, values)  # "nan" is a word


class Levels:
    """The distinct texts of a column so far, until they are too many."""

    def __init__(self) -> None:
        self.values = pa.array([], pa.string())
        self.are_too_many = False

    def codes(self, array: pa.DictionaryArray) -> pa.Array:
        """Codes of a batch by all levels, as small as these are few; its text itself once they are too many."""
        if not self.are_too_many:
            found = pc.index_in(array.dictionary, value_set=self.values)
            if found.null_count:
                new = array.dictionary.filter(found.is_null())
                self.values = pa.concat_arrays([self.values, new])
                found = pc.index_in(array.dictionary, value_set=self.values)
            self.are_too_many = len(self.values) > MOST_LEVELS
        if self.are_too_many:
            return array.dictionary_decode()
        found = found.cast(self._type)
        if array.null_count:
            return found.take(array.indices)
        return pc.take(found, array.indices, boundscheck=False)  # pyarrow's, or readers have looked

    def restored(self, array: pa.Array) -> pa.Array:
        """What ``codes`` gave, as all of the column is kept in the end."""
        is_codes = array.type in CODES
        if not self.are_too_many:
            return pa.DictionaryArray.from_arrays(array.cast(self._type), self.values, safe=False)  # codes of its own
        return self.values.take(array) if is_codes else array

    @property
    def _type(self) -> pa.DataType:
        """The smallest that has a code for each."""
        return next(each for each in CODES if len(self.values) <= 1 << (each.bit_width - 1))


def constant(value: str | None, rows: int, is_number: bool) -> pa.Array:
    """A column of one value."""
    if value is None:
        return pa.nulls(rows)
    if is_number:
        return pa.array(np.full(rows, float(value)))
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))
