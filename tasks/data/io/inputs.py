"""Inputs of a prediction: their files counted, what has no middle to start from spilled, rows read from anywhere on."""

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.data.io import tabular
from tasks.data.io.batches import (
    CHUNK_BYTES,
    UNKNOWN,
    Batch,
    Format,
    ReadSpec,
    make_batch,
    read_header,
    table_batches,
)
from tasks.data.io.csv import FAULT
from tasks.data.io.discovery import (
    JSON_SUFFIXES,
    TABLE_SUFFIXES,
    TYPED_SUFFIXES,
    DataFile,
    DataFiles,
    find_files,
    is_picture,
    is_url,
    list_remote,
    with_partitions,
)
from tasks.data.io.file_errors import broken, changed
from tasks.data.io.image_formats import IDX, IMAGE_FORMATS, PICTURES, classes_of_folders
from tasks.data.io.tabular import Selection, kind_of
from tasks.data.levels import find_levels
from tasks.data.recipe import Column, Columns
from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine import side_by_side
from tasks.machine.arrays import Array
from tasks.machine.telling import tell
from tasks.machine.words import counted, listed
from tasks.store import atomic, fingerprints, regular_files
from tasks.store.fingerprints import Fingerprint

VALUE = "single value"  # of what is only copied or compared
SINGLE_VALUES = {"text", "number", "boolean", "date", "null"}
FITS = {
    "number": {"number", "text", "null"},
    "boolean": {"boolean", "number", "text", "null"},
    "category": SINGLE_VALUES,
    VALUE: SINGLE_VALUES,
}  # a kind of the recipe: what a column of a file that keeps types may be
SHOWN = 40  # characters of a value
TOLERATED_PERCENT = 1  # rejects of tables and pictures
MAX_ROWS = 10**12  # that a header of a sparse file, or of Parquet, may promise; planning takes memory for each shard
BUFFER_BYTES = 2**16
FEATURES, Y_TRUE = "\0features", "\0y_true"  # columns of a spill


# Columns of a table as a recipe takes them


def recipe_of(spec: ReadSpec) -> Columns:
    """The recipe of columns that rows are read for."""
    assert isinstance(spec.recipe, Columns)  # noqa: S101  (the callers' branch)
    return spec.recipe


def feature_names(spec: ReadSpec) -> tuple[str, ...]:
    """The column of each feature.

    Raises:
        UsageError: those of own data were to be others, or of the book's not as many as the model has features.
    """
    recipe = recipe_of(spec)
    if recipe.target is not None and spec.columns:
        known = ", ".join(recipe.names)
        raise UsageError("--columns", f"the columns that the model was trained on, by name: {known}", "leave it out")
    names = spec.columns or recipe.names
    if len(set(names)) != len(names) or len(names) != len(recipe.columns):
        expected = f"{len(recipe.columns)} different ones"
        raise UsageError(f"columns {', '.join(names)}", expected, "name them with --columns")
    return names


def select_columns(spec: ReadSpec) -> Selection:
    """What a file is read for: features, columns to copy, and the target, which need not be there."""
    recipe, names = recipe_of(spec), feature_names(spec)
    target = [recipe.target.name] if recipe.target else []
    kinds = dict(zip(names, (column.kind for column in recipe.columns), strict=True))
    text = {name for name in names if kinds[name] == "category"} | {*spec.ids}
    text |= {*target} if spec.class_names else set()
    numbers = {name for name, kind in kinds.items() if kind == "number"} - text
    return Selection(
        as_text=frozenset(text), as_number=frozenset(numbers), only=frozenset((*names, *spec.ids, *target))
    )


def check_columns(path: str, schema: pa.Schema, spec: ReadSpec, keeps_types: bool) -> None:
    """Whether a file has the columns to read, but for the target, each once and, where it has types, of one that fits.

    Raises:
        DataError: some are missing, stand twice, or hold something else.
    """
    names, needed = schema.names, (*feature_names(spec), *spec.ids)
    if missing := [name for name in needed if name not in names]:
        folders = [part for part in Path(path).parts if part.partition("=")[0] in missing and "=" in part]
        action = f"name the folder above {folders[0]}: what folders tell is read below the input" if folders else ""
        raise _unsupported(path, spec, f"columns {listed(names, SHOWN)}: {', '.join(missing)} missing", action)
    target = recipe_of(spec).target
    read = [name for name in (*needed, *([target.name] if target else [])) if name in names]
    faults = [f"{name} twice" for name in dict.fromkeys(read) if names.count(name) > 1]
    if keeps_types:
        kinds = {name: each.kind for name, each in zip(feature_names(spec), recipe_of(spec).columns, strict=True)}
        types = {each.name: each.type for each in schema}
        faults += [
            f"{name} of type {types[name]}, which is no {kinds.get(name, VALUE)}"
            for name in read
            if kind_of(types[name]) not in FITS[kinds.get(name, VALUE)]
        ]
    if faults:
        shown = tabular.describe_schema(schema) if keeps_types else listed(names, SHOWN)
        raise _unsupported(path, spec, f"columns {shown}: {'; '.join(faults)}")


def _unsupported(path: str, spec: ReadSpec, found: str, action: str = "") -> DataError:
    kinds = {name: each.kind for name, each in zip(feature_names(spec), recipe_of(spec).columns, strict=True)}
    expected = ", ".join(f"{name} ({kinds.get(name, '--id-column')})" for name in (*feature_names(spec), *spec.ids))
    is_own = recipe_of(spec).target is not None
    action = action or (
        "add, rename or convert them"
        if is_own
        else "rename the columns, or name them in the model's order with --columns"
    )
    return DataError(f"{path} has {found}", f"columns {expected}", action)


def tell_of_header(header: Collection[str], spec: ReadSpec) -> None:
    """Say what of a header is not used, and that the order of columns is of no account."""
    asked = feature_names(spec)
    if extra := [name for name in header if not select_columns(spec).takes(name)]:
        tell(f"{counted(len(extra), 'column')} that the model does not take: {', '.join(extra[:SHOWN])}")
    if [name for name in header if name in asked] != [name for name in asked if name in header]:
        tell("columns stand in another order than at training: they are found by name")


class Encoded(NamedTuple):
    """Rows ``(n, …)`` as a recipe takes them, and why some cannot be."""

    X: Array  # (n, columns) float32
    faults: dict[int, str]  # reasons by row
    y_true: Array | None  # (n,) float64
    passthrough: pa.Table | None


def encode(batch: pa.RecordBatch, spec: ReadSpec) -> Encoded:
    """A batch of a table as the model's input: values that do not fit are faults, with the column and the value."""
    recipe, names = recipe_of(spec), feature_names(spec)
    arrays = [_as_written(_column(batch, name), each) for name, each in zip(names, recipe.columns, strict=True)]
    values = np.empty((batch.num_rows, len(names)), np.float32)
    for at, (array, column) in enumerate(zip(arrays, recipe.columns, strict=True)):
        with np.errstate(over="ignore"):
            values[:, at] = _encode_column(array, column)
    faults: dict[int, str] = {}
    told = batch.column(FAULT) if FAULT in batch.schema.names else None
    if told is not None and told.null_count < len(told):
        faults = {at: reason for at, reason in enumerate(told.to_pylist()) if reason is not None}
    valid = spec.is_valid(values)
    if not valid.all():
        for row in np.flatnonzero(~valid.all(axis=1)).tolist():
            at = int(np.argmin(valid[row]))
            value = arrays[at][row].as_py()
            faults.setdefault(row, f"{names[at]} is {_describe(value, values[row, at], recipe.columns[at])}")
    ids = {name: pc.cast(_column(batch, name), pa.string()) for name in spec.ids}
    return Encoded(values, faults, _encode_target(batch, spec), pa.table(ids) if ids else None)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of a batch, wholly missing where only other rows of a file have it, as in JSON."""
    return batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)


def _as_written(array: pa.Array, column: Column) -> pa.Array:
    """A column; as text where JSON has truth values or dates in one of numbers, for neither is a number."""
    kind = kind_of(array.type)
    is_other = (kind == "date" and column.kind != "category") or (kind == "boolean" and column.kind == "number")
    return tabular.to_text(array) if is_other else array


def _encode_column(array: pa.Array, column: Column) -> Array:
    """float64 ``(n,)``: NaN is missing, ``UNKNOWN`` a level that the recipe has not, infinite no number."""
    if column.kind != "category":
        return tabular.to_numbers(array, column.kind == "boolean", invalid=np.inf)
    if kind_of(array.type) in ("date", "text"):
        array = tabular.normalize(array)
    elif pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    codes: Array = find_levels(pa.chunked_array([array])).encode(column.levels, UNKNOWN)
    return codes


def _encode_target(batch: pa.RecordBatch, spec: ReadSpec) -> Array | None:
    """The target's column ``(n,)`` float64: numbers, or codes of classes; NaN is missing. None where there is none."""
    target = recipe_of(spec).target
    if target is None or target.name not in batch.schema.names:
        return None
    array = batch.column(target.name)
    if kind_of(array.type) not in SINGLE_VALUES - {"date"}:
        return None  # no number and no class
    if spec.class_names:
        column = Column(name=target.name, kind="category", levels=spec.class_names)
        return _encode_column(array, column).astype(np.float64)
    values = tabular.to_numbers(array)
    return np.where(np.isinf(values), np.nan, values)  # which is no number, and no truth either


def _describe(value: Any, code: float, column: Column) -> str:
    if np.isnan(code):
        return "missing"
    shown = repr(value.strip()[:SHOWN]) if isinstance(value, str) else str(value)
    if column.kind == "category":
        return f"{shown}, a level that the model has not seen"
    if column.kind == "boolean":
        return f"{shown}, neither true nor false"
    is_number = not isinstance(value, str) or tabular.parse_numbers(pa.array([value]))[0].is_valid
    return f"{shown}, not a {'finite number' if is_number else 'number'}"


def _to_batch(first: int, rows: Encoded) -> Batch:
    if not rows.faults:
        return make_batch(first, rows.X, passthrough=rows.passthrough, y_true=rows.y_true)
    is_valid = np.ones(len(rows.X), bool)
    is_valid[[*rows.faults]] = False
    valid = np.flatnonzero(is_valid)
    y_true = None if rows.y_true is None else rows.y_true[valid]
    return make_batch(first, rows.X[valid], valid, rows.faults, rows.passthrough, y_true=y_true)


# Parquet is read by row groups; of all other tables the encoded rows are spilled, once and in order


def _open_parquet(path: Path, spec: ReadSpec | None = None) -> pq.ParquetFile:
    """A file that is read a buffer at a time: neither mapped, nor by whole columns of a row group."""
    kinds = zip(feature_names(spec), recipe_of(spec).columns, strict=True) if spec else ()
    categories = [name for name, column in kinds if column.kind == "category"]
    with tabular.reading_whole(path, "Parquet"):
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False, read_dictionary=categories)


def _count_parquet(path: Path, spec: ReadSpec) -> int:
    with _open_parquet(path) as file:
        check_columns(str(path), file.schema_arrow, spec, keeps_types=True)
        metadata = file.metadata
        groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        if min(groups, default=0) < 0 or sum(groups) != metadata.num_rows:
            raise broken(path, f"it promises {metadata.num_rows} rows, and row groups of {sum(groups)}")
        return int(metadata.num_rows)


def _parquet_batches(path: Path, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    with _open_parquet(path, spec) as file:
        check_columns(str(path), file.schema_arrow, spec, keeps_types=True)
        columns = [name for name in file.schema_arrow.names if select_columns(spec).takes(name)]
        for first, rows in iterate_rows(path, file, columns, start, stop, spec.chunk_rows):
            with tabular.reading_whole(path, "Parquet"):
                tabular.validate_text(rows)
            yield _to_batch(first, encode(rows, spec))


def iterate_rows(
    path: Path, file: pq.ParquetFile, columns: list[str] | None, start: int, stop: int, at_most: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of Parquet from ``start`` to ``stop`` and the number of the first, so many and so large at a time.

    Raises:
        DataError: the file is broken, which for a damaged page shows only here.
    """
    groups, first = _find_row_groups(file.metadata, start, stop)
    sizes = (file.metadata.row_group(group) for group in groups)
    widest = max((group.total_byte_size / group.num_rows for group in sizes), default=0)
    at_most = min(at_most, max(1, int(CHUNK_BYTES / max(1, widest))))  # rows may be far larger than what is read
    with tabular.reading_whole(path, "Parquet"):
        batches = file.iter_batches(at_most, groups, columns, use_threads=False)
    while True:
        with tabular.reading_whole(path, "Parquet"):
            batch = next(batches, None)
        if batch is None:
            break
        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
        if low < high:
            yield first + low, batch.slice(low, high - low)
        first += batch.num_rows
    if first < stop:
        raise broken(path, f"it ends at row {first}, and its footer promises more")


def _find_row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows from ``start`` to ``stop``, none of them empty, and the number of the first row."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    bounds = np.cumsum([0, *sizes]).tolist()
    groups = [at for at, size in enumerate(sizes) if size and bounds[at] < stop and bounds[at + 1] > start]
    return groups, bounds[groups[0]] if groups else 0


def spill_table(file: DataFile, target: Path, spec: ReadSpec) -> None:
    """Write all rows of a table, encoded, to an Arrow file that is read from anywhere on.

    Raises:
        DataError: the file is broken, or lacks a column.
    """
    names = [*feature_names(spec), *spec.ids]
    keeps_types = file.suffix in TYPED_SUFFIXES
    target.parent.mkdir(parents=True, exist_ok=True)
    seen: dict[str, pa.DataType] = {}
    schema = _spill_schema(spec)
    selection = select_columns(spec)
    with atomic.replacing(target) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            batches = table_batches(file, selection, "reject")
            for batch in side_by_side.ahead(_checked(file, batches, seen, spec, keeps_types)):
                writer.write_batch(_spill(encode(batch, spec), schema))
        if any(name not in seen for name in names):  # of JSON, which shows only at its end
            check_columns(file.path, pa.schema(list(seen.items())), spec, keeps_types=False)


def _checked(
    file: DataFile, batches: Iterator[pa.RecordBatch], seen: dict[str, pa.DataType], spec: ReadSpec, keeps_types: bool
) -> Iterator[pa.RecordBatch]:
    """Batches with the columns that folders tell, once it is known that the file has what is needed."""
    for batch in batches:
        for name, value in file.partition.items():
            if select_columns(spec).takes(name):
                constant = tabular.make_constant(value, batch.num_rows, is_number=False)
                others = batch.drop_columns([name]) if name in batch.schema.names else batch
                batch = others.append_column(name, constant)
        if file.suffix in JSON_SUFFIXES:
            nested = [each for each in batch.schema if kind_of(each.type) == "unsupported"]
            for each in nested:
                if select_columns(spec).takes(each.name):
                    raise _unsupported(file.path, spec, f"columns {each.name} ({each.type})")
        elif not seen:
            check_columns(file.path, batch.schema, spec, keeps_types)
        seen.update(zip(batch.schema.names, batch.schema.types, strict=True))
        yield batch


def _spill_schema(spec: ReadSpec) -> pa.Schema:
    width = len(feature_names(spec))
    fields = [(FEATURES, pa.list_(pa.float32(), width)), (FAULT, pa.string())]
    fields += [(Y_TRUE, pa.float64())] if recipe_of(spec).target else []
    return pa.schema([*fields, *((name, pa.string()) for name in spec.ids)])


def _spill(rows: Encoded, schema: pa.Schema) -> pa.RecordBatch:
    width, count = schema.field(FEATURES).type.list_size, len(rows.X)
    arrays = {FEATURES: pa.FixedSizeListArray.from_arrays(pa.array(rows.X.reshape(-1)), width)}
    faults = pa.nulls(count, pa.string())
    if rows.faults:
        reasons = [rows.faults.get(at) for at in range(count)]
        faults = pa.array(reasons, pa.string())
    arrays[FAULT] = faults
    arrays[Y_TRUE] = pa.nulls(count, pa.float64()) if rows.y_true is None else pa.array(rows.y_true)
    if rows.passthrough is not None:
        arrays |= {name: rows.passthrough[name].combine_chunks() for name in rows.passthrough.column_names}
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _spilled_batches(path: Path, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    with _open_spill(path) as file:
        first = 0
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            for at in range(low, high, spec.chunk_rows):
                yield _to_batch(first + at, _unspill(batch.slice(at, min(spec.chunk_rows, high - at)), spec))
            first += batch.num_rows


def _unspill(batch: pa.RecordBatch, spec: ReadSpec) -> Encoded:
    values = batch.column(FEATURES).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
    told = batch.column(FAULT)
    faults = {}
    if told.null_count < len(told):
        faults = {at: reason for at, reason in enumerate(told.to_pylist()) if reason is not None}
    y_true = batch.column(Y_TRUE) if Y_TRUE in batch.schema.names else None
    if y_true is not None:
        y_true = None if len(y_true) and y_true.null_count == len(y_true) else y_true.to_numpy(zero_copy_only=False)
    ids = pa.table({name: batch.column(name) for name in spec.ids}) if spec.ids else None
    return Encoded(values, faults, y_true, ids)


@contextmanager
def _open_spill(path: Path) -> Iterator[Any]:
    """What this job has written for itself, mapped."""
    with tabular.reading_whole(path, "Arrow"), pa.memory_map(str(path)) as mapped:
        yield pa.ipc.open_file(mapped)


def _count_spilled(path: Path, spec: ReadSpec) -> int:
    with _open_spill(path) as file:
        return sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))


def _refuse_picture_models(file: DataFile, spec: ReadSpec) -> None:
    if not isinstance(spec.recipe, Columns):
        action = f"name a model of tables with --name{_table_models()}, or convert it"
        raise DataError(
            f"{file.path} is a table of {file.suffix.removeprefix('.')}", "images (IDX, .npy, Parquet, PNG …)", action
        )


def _table_models() -> str:
    """Which models of tables there are, in words; nothing where there are none, or one's documents are damaged."""
    from tasks.data.schema import Schema
    from tasks.store import own_data, reading

    with suppress(GradmillError):
        names = [name for name in reading.names() if isinstance(own_data.fixed(name), Schema)]
        return f" ({listed(names, 10)})" if names else ""
    return ""


PARQUET = Format("parquet", (".parquet",), _count_parquet, _parquet_batches, TOLERATED_PERCENT)
SPILLED = Format(
    "table",
    tuple(f"{each}{packed}" for each in TABLE_SUFFIXES if each != ".parquet" for packed in ("", ".gz")),
    _count_spilled,
    _spilled_batches,
    TOLERATED_PERCENT,
    unpack=spill_table,
    unpacked_suffix=".arrow",
)
FORMATS = {each.name: each for each in (PARQUET, SPILLED, *IMAGE_FORMATS)}
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}


def format_of(name: str) -> Format:
    """How to read a file, by the longest suffix of its ``name`` that is known; without one it is IDX."""
    known = [suffix for suffix in BY_SUFFIX if name.lower().endswith(suffix)]
    return BY_SUFFIX[max(known, key=len)] if known else IDX


def is_input(path: Path) -> bool:
    """Whether a file found in a folder is an input, by its name."""
    is_known = path.name.lower().endswith(tuple(BY_SUFFIX)) or "idx3" in path.name
    return is_known and "idx1" not in path.name


def find_inputs(source: str, output: Path | None = None, full_digest: bool = False) -> DataFiles:
    """The files to predict that a path, a folder, a glob or a URL stands for, sorted by name.

    Raises:
        UsageError: nothing is there, all of it lies in ``output``, or a URL has credentials in it.
        DataError: no file can be read, or a host does not answer.
    """
    if is_url(source):
        return with_partitions(source, list_remote(source, is_input))
    paths = find_files(source.removeprefix("file://"), is_input, BY_SUFFIX, output)
    prints = fingerprints.of(paths, full_digest)
    return with_partitions(str(regular_files.absolute(source.removeprefix("file://"))), prints)


# All files of an input


class InputFile(NamedTuple):
    """One file of an input: ``readable`` is the file itself, or what its rows were spilled or unpacked into.

    ``bytes`` and ``mtime_ns`` are the file's own, from before it was read.
    """

    path: str
    format: str
    readable: str
    first_row: int
    rows: int
    bytes: int
    mtime_ns: int
    label: float | None = None  # the class of all its rows, where the folder tells


def count_inputs(files: Sequence[DataFile], spec: ReadSpec, spill: Path, base: Path | None = None) -> list[InputFile]:
    """Count the rows of every file; spill into the folder ``spill`` what cannot be read from the middle.

    Pictures below the folder ``base`` have the class whose name a folder there has.

    Raises:
        DataError: a file is broken, does not fit the spec, or there is not a single row.
    """
    inputs: list[InputFile] = []
    first = 0
    paths = [Path(file.path) for file in files]
    labels = classes_of_folders(paths, base, spec) if base and all(map(is_picture, paths)) else None
    for number, file in enumerate(files):
        path, kind = Path(file.path), _format_for(file, spec)
        if not file.is_remote:
            _require_unchanged(file.fingerprint)
        is_table = kind in (PARQUET, SPILLED)
        if is_table:
            _refuse_picture_models(file, spec)
        elif spec.ids and not file.name.endswith(".parquet"):
            raise UsageError(f"--id-column {spec.ids[0]} and {file.path}", "the rows of a table", "leave it out")
        readable = path
        if kind.unpack is not None and kind.is_packed(path):
            readable = spill / f"{number:05d}{kind.unpacked_suffix}"
            if not readable.is_file():
                kind.unpack(file, readable, spec)
        if number == 0 and is_table and recipe_of(spec).target is not None:
            tell_of_header(read_header([file], "reject"), spec)
        rows = _count(path, kind, readable, spec)
        label = labels[number] if labels else None
        facts = file.fingerprint
        inputs.append(InputFile(file.path, kind.name, str(readable), first, rows, facts.bytes, facts.mtime_ns, label))
        first += rows
    if not first:
        raise DataError(f"{files[0].path} holds no rows", "at least one row", "name an input with rows")
    return inputs


def _format_for(file: DataFile, spec: ReadSpec) -> Format:
    """The format of a file by its name, and by what is asked of it."""
    kind = format_of(file.name)
    if kind is IDX and isinstance(spec.recipe, Columns) and spec.recipe.target is not None:
        return SPILLED  # CSV as in training, whatever its name
    if kind is PARQUET and not isinstance(spec.recipe, Columns):
        return PICTURES
    return SPILLED if kind is PARQUET and (file.is_remote or file.partition) else kind


def check_header(file: DataFile, spec: ReadSpec) -> None:
    """Check the names of a table's columns; JSON lines have no header, each may have names of its own.

    Raises:
        UsageError: columns are to be copied of what is no table, or are named otherwise than the model takes them.
        DataError: the header is broken, or columns are missing.
    """
    is_table = _format_for(file, spec) in (PARQUET, SPILLED)
    if spec.ids and not is_table and not file.name.endswith(".parquet"):
        raise UsageError(f"--id-column {spec.ids[0]} and {file.path}", "the rows of a table", "leave it out")
    if is_table and not file.is_remote and file.suffix not in JSON_SUFFIXES and isinstance(spec.recipe, Columns):
        schema = pa.schema([(name, pa.null()) for name in read_header([file], "reject")])
        check_columns(file.path, schema, spec, keeps_types=False)


def _count(path: Path, kind: Format, readable: Path, spec: ReadSpec) -> int:
    try:
        rows = kind.count(readable, spec)
    except DataError as error:  # the user knows nothing of what it was unpacked into
        expected = error.expected.replace(f"whole {readable.suffix}", f"whole {path.suffix}")
        raise DataError(error.found.replace(str(readable), str(path)), expected, error.action) from error
    if not 0 <= rows <= MAX_ROWS:
        raise broken(path, f"it promises {rows} rows")
    return rows


def check_unchanged(files: Iterable[InputFile | Fingerprint]) -> None:
    """Whether files on this machine are still as they were seen.

    Raises:
        DataError: one is gone, or has been written to.
    """
    for file in files:
        if "://" not in file.path:
            _require_unchanged(file)


def _require_unchanged(file: InputFile | Fingerprint) -> None:
    try:
        facts = os.stat(file.path)  # noqa: PTH116  (a folder of pictures has very many)
    except OSError as error:
        raise changed(file.path) from error
    if not stat.S_ISREG(facts.st_mode):
        raise regular_files.irregular(file.path)
    if (facts.st_size, facts.st_mtime_ns) != (file.bytes, file.mtime_ns):
        raise changed(file.path)


def max_shard_rows(inputs: list[InputFile], spec: ReadSpec) -> int:
    """The most rows of a shard: enough work to be worth a Prefect task, not so much that a kill would hurt."""
    return min(FORMATS[name].shard_rows(spec) for name in {file.format for file in inputs})


def tolerated_rejects(inputs: list[InputFile]) -> int:
    """How many rejected rows are no reason to stop: none of arrays, 1 % of tables and pictures."""
    return sum(FORMATS[file.format].tolerated_percent * file.rows for file in inputs) // 100


def batches(inputs: list[InputFile], start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    """The rows ``start`` to ``stop`` of all files, in order, a bounded number at a time."""
    waiting: list[Batch] = []
    size = 0
    for file in inputs:
        first, last = max(start, file.first_row), min(stop, file.first_row + file.rows)
        if first >= last:
            continue
        kind = FORMATS[file.format]
        for batch in kind.batches(Path(file.readable), first - file.first_row, last - file.first_row, spec):
            size += batch.num_rows
            if size < spec.chunk_rows:  # no file stays open while its rows wait for those of others
                batch = batch._replace(X=np.asarray(batch.X))
            waiting.append(_renumber(batch, file))
            if size >= spec.chunk_rows:
                yield _join(waiting)
                waiting, size = [], 0
    if waiting:
        yield _join(waiting)


def _renumber(batch: Batch, file: InputFile) -> Batch:
    """A batch whose rows are counted through all files, and are known by the path of theirs."""
    rejects = (each._replace(row=file.first_row + each.source_row, source=file.path) for each in batch.rejects)
    return batch._replace(
        row_ids=batch.row_ids + file.first_row,
        rejects=tuple(rejects),
        y_true=batch.y_true if file.label is None else np.full(len(batch.row_ids), file.label),
        sources=(file.path,),
        source_index=np.zeros(len(batch.row_ids), np.int32),
    )


def _join(parts: list[Batch]) -> Batch:
    """Some batches as one."""
    if len(parts) == 1:
        return parts[0]
    places = {path: at for at, path in enumerate(dict.fromkeys(part.sources[0] for part in parts))}  # each once
    has_truth = all(part.y_true is not None for part in parts)
    tables = [part.passthrough for part in parts]
    return Batch(
        X=np.concatenate([part.X for part in parts]),
        row_ids=np.concatenate([part.row_ids for part in parts]),
        rejects=tuple(each for part in parts for each in part.rejects),
        y_true=np.concatenate([part.y_true for part in parts]) if has_truth else None,
        notes=tuple(note for part in parts for note in part.notes),
        passthrough=None if tables[0] is None else pa.concat_tables(tables),
        sources=tuple(places),
        source_index=np.repeat(
            np.array([places[part.sources[0]] for part in parts], np.int32), [len(part.row_ids) for part in parts]
        ),
    )
