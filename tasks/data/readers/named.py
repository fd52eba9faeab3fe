"""Rows of a table by the names of its columns: as a recipe takes them, and what goes along with them to the output."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.readers import columns, copied, pixels
from tasks.data.readers.formats import UNKNOWN, Array, Piece, Wanted, encoded
from tasks.data.recipe import Column, Columns
from tasks.data.table.levels import levels
from tasks.errors import DataError, UsageError
from tasks.machine.telling import tell
from tasks.machine.words import counted, listed

VALUE = "single value"  # of what is only copied or compared
FITS = {
    "number": {"number", "text", "null"},
    "boolean": {"boolean", "number", "text", "null"},
    "category": {"text", "number", "boolean", "date", "null"},
    VALUE: copied.KINDS,
}  # a kind of the recipe: what a column of a file that keeps types may be
SHOWN = 40  # characters of a value


def recipe_of(wanted: Wanted) -> Columns:
    """The recipe of columns that rows are wanted for."""
    assert isinstance(wanted.recipe, Columns)  # noqa: S101  (the callers' branch)
    return wanted.recipe


def names(wanted: Wanted) -> tuple[str, ...]:
    """The column of each feature.

    Raises:
        UsageError: those of own data were to be others, or of the book's not as many as the model has features.
    """
    recipe = recipe_of(wanted)
    if recipe.target is not None and wanted.columns:
        known = ", ".join(recipe.names)
        raise UsageError("--columns", f"the columns that the model was trained on, by name: {known}", "leave it out")
    found = wanted.columns or recipe.names
    if len(set(found)) != len(found) or len(found) != len(recipe.columns):
        expected = f"{len(recipe.columns)} different ones"
        raise UsageError(f"columns {', '.join(found)}", expected, "name them with --columns")
    return found


def categories(wanted: Wanted) -> list[str]:
    """The columns that hold levels."""
    return [name for name, at in zip(names(wanted), recipe_of(wanted).columns, strict=True) if at.kind == "category"]


def wished(wanted: Wanted) -> list[str]:
    """The columns that a file is read for: features, those to copy, and last the target, which need not be there."""
    target = recipe_of(wanted).target
    return list(dict.fromkeys((*names(wanted), *wanted.ids, *([target.name] if target else []))))


def needed(path: Path, header: Collection[str], wanted: Wanted) -> list[str]:
    """Those of a file.

    Raises:
        DataError: some but the target are missing.
    """
    if missing := [name for name in (*names(wanted), *wanted.ids) if name not in header]:
        folders = [name for name in missing if any(part.startswith(f"{name}=") for part in path.parts)]
        action = f"write {', '.join(folders)} into the files: names of folders are not read here" if folders else ""
        raise _unfit(path, wanted, f"columns {listed(header, SHOWN)}: {', '.join(missing)} missing", action)
    return [name for name in wished(wanted) if name in header]


def check(path: Path, schema: pa.Schema, wanted: Wanted) -> list[str]:
    """The columns to read of a file that keeps types.

    Raises:
        DataError: some are missing, stand twice, or hold something else.
    """
    found = needed(path, schema.names, wanted)
    faults = [f"{name} twice" for name in found if schema.names.count(name) > 1]
    kinds = {name: column.kind for name, column in zip(names(wanted), recipe_of(wanted).columns, strict=True)}
    types = {field.name: field.type for field in schema}
    faults += [
        f"{name} of type {types[name]}, which is no {kinds.get(name, VALUE)}"
        for name in found
        if columns.kind_of(types[name]) not in FITS[kinds.get(name, VALUE)]
    ]
    if faults:
        raise _unfit(path, wanted, f"columns {pixels.named(schema)}: {'; '.join(faults)}")
    return found


def _unfit(path: Path, wanted: Wanted, found: str, action: str = "") -> DataError:
    is_own = recipe_of(wanted).target is not None
    kinds = {name: column.kind for name, column in zip(names(wanted), recipe_of(wanted).columns, strict=True)}
    expected = ", ".join(f"{name} ({kinds.get(name, '--id-column')})" for name in (*names(wanted), *wanted.ids))
    action = action or (
        "add, rename or convert them"
        if is_own
        else "rename the columns, or name them in the model's order with --columns"
    )
    return DataError(f"{path} has {found}", f"columns {expected}", action)


def tell_of(header: list[str], wanted: Wanted) -> None:
    """Say what of a header is not used, and that the order of columns is of no account."""
    asked, used = names(wanted), wished(wanted)
    if extra := [name for name in header if name not in used]:
        tell(f"{counted(len(extra), 'column')} that the model does not take: {', '.join(extra[:SHOWN])}")
    if [name for name in header if name in asked] != [name for name in asked if name in header]:
        tell("columns stand in another order than at training: they are found by name")


def piece(first: int, batch: pa.RecordBatch, wanted: Wanted, faults: pa.Array | None = None) -> Piece:
    """Rows from ``first`` on; those with a value that does not fit are rejected, with the column and the value."""
    recipe = recipe_of(wanted)
    arrays = [batch.column(name) for name in names(wanted)]
    values = np.empty((len(arrays), batch.num_rows), np.float32)
    for row, array, column in zip(values, arrays, recipe.columns, strict=True):
        _encode(array, column, row)
    if faults is not None and faults.null_count < len(faults):
        values[:, faults.is_valid().to_numpy(zero_copy_only=False)] = np.inf  # which no recipe takes
    done = encoded(first, values.T, wanted, _truth(batch, wanted))
    done = copied.along(done, batch, wanted)
    said = [None] * batch.num_rows if faults is None or not done.rejects else faults.to_pylist()
    reasons = (
        (offset, said[offset] or _reason(arrays, values[:, offset], offset, wanted)) for offset, _ in done.rejects
    )
    return done._replace(rejects=tuple(reasons))


def _encode(array: pa.Array, column: Column, into: Array) -> None:
    """Fill float32 ``(n,)``: NaN is missing, ``UNKNOWN`` a level that the recipe has not, infinite no number."""
    if column.kind == "category":
        if columns.kind_of(array.type) in ("date", "text"):
            array = columns.plain(array)
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        levels(pa.chunked_array([array])).of(column.levels, UNKNOWN, into=into)
        return
    if columns.kind_of(array.type) != "text":
        values = pc.cast(array, pa.float64(), safe=False)
        values = values.fill_null(np.nan) if values.null_count else values
    else:
        array = pc.cast(array, pa.string())  # which may be a dictionary or of another width
        is_blank = pc.equal(pc.utf8_trim_whitespace(array), "")
        values = columns.numbers(array)
        if column.kind == "boolean":
            values = pc.coalesce(
                values, pc.cast(pc.index_in(pc.ascii_lower(array), pa.array(["false", "true"])), pa.float64())
            )
        values = pc.if_else(pc.fill_null(is_blank, True), np.nan, pc.fill_null(values, np.inf))
    with np.errstate(over="ignore"):
        into[:] = values.to_numpy(zero_copy_only=False)


def _truth(batch: pa.RecordBatch, wanted: Wanted) -> Array | None:
    """The target's column ``(n,)`` float64: numbers, or codes of classes; NaN is missing. None where there is none."""
    target = recipe_of(wanted).target
    if target is None or target.name not in batch.schema.names:
        return None
    array = batch.column(target.name)
    if columns.kind_of(array.type) == "date":
        return None  # no number and no class
    column = Column(name=target.name, kind="category" if wanted.class_names else "number", levels=wanted.class_names)
    values = np.empty(len(array), np.float64)
    _encode(array, column, values)
    values[np.isinf(values)] = np.nan  # which is no number, and no truth either
    return values


def _reason(arrays: list[pa.Array], values: Array, offset: int, wanted: Wanted) -> str:
    fits = wanted.fits(values[np.newaxis])[0]
    at = int(np.argmin(fits))
    name, column, value = names(wanted)[at], recipe_of(wanted).columns[at], arrays[at][offset].as_py()
    return f"{name} is {_described(value, values[at], column)}"


def _described(value: Any, encoded: float, column: Column) -> str:
    if math.isnan(encoded):
        return "missing"
    shown = repr(value.strip()[:SHOWN]) if isinstance(value, str) else str(value)
    if column.kind == "category":
        return f"{shown}, a level that the model has not seen"
    if column.kind == "boolean":
        return f"{shown}, neither true nor false"
    is_number = not isinstance(value, str) or columns.numbers(pa.array([value]))[0].is_valid
    return f"{shown}, not a {'finite number' if is_number else 'number'}"
