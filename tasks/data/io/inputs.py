"""Inputs of a prediction: their files counted, what has no middle to start from spilled, rows read from anywhere on."""

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.io import tabular
from tasks.data.io.batches import (
    CHUNK_BYTES,
    SINGLE_VALUES,
    TOLERATED_PERCENT,
    UNKNOWN,
    Batch,
    Format,
    InputFile,
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
    describes_labels,
    find_data,
    is_picture,
)
from tasks.data.io.file_errors import broken, changed
from tasks.data.io.image_formats import IDX, IMAGE_FORMATS, PICTURES, classes_of_folders
from tasks.data.io.tabular import MAX_ROWS, Selection, kind_of
from tasks.data.levels import find_levels
from tasks.data.recipe import Column, Columns
from tasks.errors import DataError, UsageError
from tasks.machine.arrays import Array
from tasks.machine.telling import tell
from tasks.machine.words import counted, listed
from tasks.store import atomic, regular_files
from tasks.store.fingerprints import Fingerprint

VALUE = "single value"  # of what is only copied or compared
FITS = {
    "number": {"number", "text", "null"},
    "boolean": {"boolean", "number", "text", "null"},
    "category": SINGLE_VALUES,
    VALUE: SINGLE_VALUES,
}  # a kind of the recipe: what a column of a file that keeps types may be
SHOWN = 40  # characters of a value
NESTED = "unsupported"  # the kind of a column of lists and the like


# Columns of a table as a recipe takes them


def recipe_of(spec: ReadSpec) -> Columns:
    """The recipe of columns that rows are read for."""
    return cast("Columns", spec.recipe)


def feature_columns(spec: ReadSpec) -> dict[str, Column]:
    """What the recipe says of each feature, by the name of its column in files.

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
    return dict(zip(names, recipe.columns, strict=True))


def select_columns(spec: ReadSpec) -> Selection:
    """What a file is read for: features, columns to copy, and the target, which need not be there."""
    columns, target = feature_columns(spec), recipe_of(spec).target
    targets = {target.name} if target else set[str]()
    categories = {name for name, column in columns.items() if column.kind == "category"}
    text = categories.union(spec.ids, targets if spec.class_names else ())
    return Selection(as_text=frozenset(text), only=frozenset(targets.union(columns, spec.ids)))


def check_columns(path: str, schema: pa.Schema, spec: ReadSpec, keeps_types: bool) -> None:
    """Whether a file has the columns to read, but for the target, each once and of a type that fits.

    Raises:
        DataError: some are missing, stand twice, or hold something else.
    """
    names, columns = schema.names, feature_columns(spec)
    kinds = {name: columns[name].kind if name in columns else VALUE for name in (*columns, *spec.ids)}
    types = {each.name: each.type for each in schema}
    found, action = "", "add, rename or convert them"
    if recipe_of(spec).target is None:
        action = "rename the columns, or name them in the model's order with --columns"
    if missing := [name for name in kinds if name not in types]:
        found = f"columns {listed(names, SHOWN)}: {', '.join(missing)} missing"
        if folders := [part for part in Path(path).parts if "=" in part and part.partition("=")[0] in missing]:
            action = f"name the folder above {folders[0]}: what folders tell is read below the input"
    else:
        selection = select_columns(spec)
        read = [name for name in dict.fromkeys(names) if selection.takes(name)]
        faults = [f"{name} twice" for name in read if names.count(name) > 1]
        for name in read:
            kind = kinds.get(name, VALUE)
            if kind_of(types[name]) not in (FITS[kind] if keeps_types else SINGLE_VALUES):
                faults.append(f"{name} of type {types[name]}, which is no {kind}")
        if faults:
            shown = tabular.describe_schema(schema) if keeps_types else listed(names, SHOWN)
            found = f"columns {shown}: {'; '.join(faults)}"
    if found:
        expected = [f"{name} ({kind if name in columns else '--id-column'})" for name, kind in kinds.items()]
        raise DataError(f"{path} has {found}", f"columns {', '.join(expected)}", action)


def tell_of_header(header: Collection[str], spec: ReadSpec) -> None:
    """Say what of a header is not used, and that the order of columns is of no account."""
    asked, selection = feature_columns(spec), select_columns(spec)
    if extra := [name for name in header if not selection.takes(name)]:
        tell(f"{counted(len(extra), 'column')} that the model does not take: {', '.join(extra[:SHOWN])}")
    if [name for name in header if name in asked] != [name for name in asked if name in header]:
        tell("columns stand in another order than at training: they are found by name")


def encode(file: InputFile, first: int, batch: pa.RecordBatch, spec: ReadSpec) -> Batch:
    """A batch of a table, whose first row is ``first`` of its file, as the model's input.

    Values that do not fit are rejects, with the column and the value.
    """
    columns = [*feature_columns(spec).items()]
    arrays = [_as_written(_column(batch, name), column) for name, column in columns]
    values = np.empty((batch.num_rows, len(columns)), np.float32)
    for at, (array, (_, column)) in enumerate(zip(arrays, columns, strict=True)):
        with np.errstate(over="ignore"):
            values[:, at] = _encode_column(array, column)
    told = _column(batch, FAULT)
    faults = {at: told[at].as_py() for at in np.flatnonzero(told.is_valid().to_numpy(zero_copy_only=False)).tolist()}
    valid = spec.is_valid(values)
    if not valid.all():
        for row in np.flatnonzero(~valid.all(axis=1)).tolist():
            at = int(np.argmin(valid[row]))
            name, column = columns[at]
            faults.setdefault(row, f"{name} is {_describe(arrays[at][row].as_py(), values[row, at], column)}")
    ids = {name: pc.cast(_column(batch, name), pa.string()) for name in spec.ids}
    known = values[np.delete(np.arange(len(values)), [*faults])] if faults else values
    return make_batch(file, first, known, faults, pa.table(ids) if ids else None, _encode_target(batch, spec))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of a batch, wholly missing where only other rows of a file have it, as in JSON."""
    return batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)


def _as_written(array: pa.Array, column: Column) -> pa.Array:
    """A column; as text where truth values or dates stand in one of numbers, for neither is a number."""
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
    column = Column(name=target.name, kind="category" if spec.class_names else "number", levels=spec.class_names)
    values = _encode_column(array, column).astype(np.float64)
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


# Parquet is read by row groups; the columns of all other tables are spilled, once and in order


def _count_parquet(path: Path, spec: ReadSpec) -> int:
    with tabular.open_parquet(path) as file:
        check_columns(str(path), file.schema_arrow, spec, keeps_types=True)
        return int(file.metadata.num_rows)


def _parquet_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    categories = [name for name, column in feature_columns(spec).items() if column.kind == "category"]
    names = [*(select_columns(spec).only or ())]  # of which the target need not be there
    how = names, start, stop, spec.chunk_rows, CHUNK_BYTES, categories
    for first, rows in tabular.read_parquet(Path(file.readable), *how):
        yield encode(file, first, rows, spec)


def spill_table(file: DataFile, target: Path, spec: ReadSpec) -> None:
    """Write the columns of a table that are read, and what is wrong with rows, to be read from anywhere on.

    Raises:
        DataError: the file is broken, or lacks a column.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    selection, seen, has_header = select_columns(spec), dict[str, pa.DataType](), file.suffix not in JSON_SUFFIXES
    with atomic.replacing(target) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        for batch in table_batches(file, selection, "reject"):
            for name, value in file.partition.items():
                others = batch.drop_columns([name]) if name in batch.schema.names else batch
                batch = others.append_column(name, pa.repeat(value, batch.num_rows))
            if has_header and not seen:
                check_columns(file.path, batch.schema, spec, file.suffix in TYPED_SUFFIXES)
            nested = {name for name, type_ in seen.items() if kind_of(type_) == NESTED}
            seen |= {each.name: each.type for each in batch.schema if each.name not in nested}
            tabular.write_batch(sink, batch.select([n for n in batch.schema.names if selection.takes(n) or n == FAULT]))
        if not has_header:  # of JSON it shows only at its end
            check_columns(file.path, pa.schema(list(seen.items())), spec, keeps_types=False)


def _count_spilled(path: Path, spec: ReadSpec) -> int:
    return sum(batch.num_rows for batch in tabular.map_batches(path))


def _spilled_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    first = 0
    for batch in tabular.map_batches(Path(file.readable)):
        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
        for at in range(low, high, spec.chunk_rows):
            yield encode(file, first + at, batch.slice(at, min(spec.chunk_rows, high - at)), spec)
        first += batch.num_rows


PARQUET = Format("parquet", (".parquet",), _count_parquet, _parquet_batches, TOLERATED_PERCENT)
SPILLED = Format(
    "table",
    tuple(f"{each}{packed}" for each in TABLE_SUFFIXES if each != ".parquet" for packed in ("", ".gz")),
    _count_spilled,
    _spilled_batches,
    TOLERATED_PERCENT,
    unpack=spill_table,
    unpacked_suffix=".arrows",
)
TABLES = (PARQUET, SPILLED)
FORMATS = {each.name: each for each in (*TABLES, *IMAGE_FORMATS)}
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}


def format_of(name: str) -> Format:
    """How to read a file, by the longest suffix of its ``name`` that is known; without one it is IDX."""
    known = [suffix for suffix in BY_SUFFIX if name.lower().endswith(suffix)]
    return BY_SUFFIX[max(known, key=len)] if known else IDX


def is_input(path: Path) -> bool:
    """Whether a file found in a folder is an input, by its name."""
    is_known = path.name.lower().endswith(tuple(BY_SUFFIX)) or "idx3" in path.name
    return is_known and not describes_labels(path)


def find_inputs(source: str, output: Path | None = None, full_digest: bool = False) -> DataFiles:
    """The files to predict that a path, a folder, a glob or a URL stands for, sorted by name.

    Raises:
        UsageError: nothing is there, all of it lies in ``output``, or a URL has credentials in it.
        DataError: no file can be read, or a host does not answer.
    """
    return find_data(source, is_input, BY_SUFFIX, output, full_digest)


# All files of an input


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
        check_unchanged([file.fingerprint])
        readable = path
        if kind.unpack is not None and kind.is_packed(path):
            readable = spill / f"{number:05d}{kind.unpacked_suffix}"
            if not readable.is_file():
                kind.unpack(file, readable, spec)
        if number == 0 and kind in TABLES and recipe_of(spec).target is not None:
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
    """The format of a file by its name, and by what is asked of it.

    Raises:
        UsageError: columns are to be copied of what is no table.
        DataError: it is a table, and the model takes images.
    """
    kind, is_of_columns = format_of(file.name), isinstance(spec.recipe, Columns)
    if kind is IDX and is_of_columns and recipe_of(spec).target is not None:
        kind = SPILLED  # CSV as in training, whatever its name
    elif kind is PARQUET:
        kind = PICTURES if not is_of_columns else SPILLED if file.is_remote or file.partition else PARQUET
    if kind in TABLES and not is_of_columns:
        found = f"{file.path} is a table of {file.suffix.removeprefix('.')}"
        action = "name a model of tables with --name, or convert it"
        raise DataError(found, "images (IDX, .npy, Parquet, PNG …)", action)
    if spec.ids and kind not in (*TABLES, PICTURES):
        raise UsageError(f"--id-column {spec.ids[0]} and {file.path}", "the rows of a table", "leave it out")
    return kind


def check_header(file: DataFile, spec: ReadSpec) -> None:
    """Check the names of a table's columns; JSON lines have no header, each may have names of its own.

    Raises:
        UsageError: columns are to be copied of what is no table, or are named otherwise than the model takes them.
        DataError: the header is broken, or columns are missing.
    """
    if _format_for(file, spec) in TABLES and not file.is_remote and file.suffix not in JSON_SUFFIXES:
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
        if "://" in file.path:
            continue
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
        for batch in FORMATS[file.format].batches(file, first - file.first_row, last - file.first_row, spec):
            size += batch.num_rows
            if size < spec.chunk_rows:  # no file stays open while its rows wait for those of others
                batch = batch._replace(X=np.asarray(batch.X))
            waiting.append(batch)
            if size >= spec.chunk_rows:
                yield _join(waiting)
                waiting, size = [], 0
    if waiting:
        yield _join(waiting)


def _join(parts: list[Batch]) -> Batch:
    """Batches of some files as one."""
    if len(parts) == 1:
        return parts[0]
    places = {path: at for at, path in enumerate(dict.fromkeys(path for part in parts for path in part.sources))}
    truths = [part.y_true for part in parts if part.y_true is not None]
    tables = [part.passthrough for part in parts]
    return Batch(
        X=np.concatenate([part.X for part in parts]),
        row_ids=np.concatenate([part.row_ids for part in parts]),
        rejects=tuple(reject for part in parts for reject in part.rejects),
        y_true=np.concatenate(truths) if len(truths) == len(parts) else None,
        notes=tuple(note for part in parts for note in part.notes),
        passthrough=None if tables[0] is None else pa.concat_tables(tables),
        sources=tuple(places),
        source_index=np.concatenate([part.source_index + places[part.sources[0]] for part in parts]),
    )
