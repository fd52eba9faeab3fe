"""Inputs of a prediction: how each format is counted and read, and the rows of all files from anywhere on.

Formats that can only be read from their beginning are spilled first. All are read as for training.
"""

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradmill.rows import UNKNOWN, describe_fault
from tasks.data.io import arrays, date_parts, images, pictures, tabular
from tasks.data.io.arrays import ARRAY_SUFFIXES, StoredArray
from tasks.data.io.batches import (
    CHUNK_BYTES,
    SINGLE_VALUES,
    Batch,
    InputFile,
    ReadSpec,
    make_batch,
    read_header,
    table_batches,
)
from tasks.data.io.csv import FAULT
from tasks.data.io.discovery import (
    GZIP,
    JSON_SUFFIXES,
    LABELS_FILE,
    PICTURE_SUFFIXES,
    TABLE_SUFFIXES,
    DataFile,
    DataFiles,
    broken_file,
    changed_file,
    find_data,
    is_picture,
    select_sheet,
)
from tasks.data.io.headers import HEADERLESS, headerless_error
from tasks.data.io.queries import keep_answer
from tasks.data.io.tabular import MAX_ROWS, Selection, kind_of
from tasks.data.levels import find_levels
from tasks.data.prepared_splits import SPLIT_KEY
from tasks.data.recipe import Column
from tasks.errors import DataError, UsageError
from tasks.machine.arrays import Array
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_names, pluralize
from tasks.parameters.addresses import is_database, split_source
from tasks.store import atomic, verified_files
from tasks.store.regular_files import format_path
from tasks.store.verified_files import Fingerprint

VALUE = "single value"  # for columns that are only copied or compared
DATE = "date"  # for columns whose parts are used
FITS = {
    "number": {"number", "text", "null"},
    "boolean": {"boolean", "number", "text", "null"},
    "category": SINGLE_VALUES,
    DATE: {"date", "text", "number", "null"},  # numbers that are all missing, as pandas writes it
    VALUE: SINGLE_VALUES,
}  # for each kind in the recipe: the kinds that a column of a typed file may have
SHOWN = 40  # columns that a message lists
TOLERATED_PERCENT = 1  # rejects of tables and pictures that are tolerated
SHARD_BYTES = 2**31
MOST_PICTURES, MOST_PACKED_PICTURES = 2**11, 2**13  # in a shard
AVERAGED = "with a level or a missing value that the model has not seen, which counts as the average"
NO_FAULTS: Mapping[int, str] = {}
NESTED = "unsupported"  # the kind of a column of lists and the like


Prepared: TypeAlias = tuple[Path, int]  # the file that rows are read from, or its spill file, and their number


class Format(NamedTuple):
    """How to read one kind of file for a prediction.

    ``prepare`` checks that the file as a whole fits the spec, and spills it to a path if it cannot be read from the
    middle. ``batches`` reads the rows from ``start`` to ``stop``, at most ``chunk_rows`` at a time.
    """

    name: str
    suffixes: tuple[str, ...]
    prepare: Callable[[DataFile, Path, ReadSpec], Prepared]
    batches: Callable[[InputFile, int, int, ReadSpec], Iterator[Batch]]
    tolerated_percent: int = 0  # percent of its rows that may be rejected
    max_shard_rows: int = 2**22


# Columns of a table as a recipe takes them


def feature_columns(spec: ReadSpec) -> dict[str, Column]:
    """What the recipe says about each feature, by the name of its column in files.

    Raises:
        UsageError: other columns were named for own data, or for the book's data not as many as the model has features.
    """
    recipe = spec.recipe
    if recipe.is_by_name and spec.columns:
        known = ", ".join(recipe.names)
        raise UsageError("--columns", f"the columns that the model was trained on, by name: {known}", "leave it out")
    names = spec.columns or recipe.names
    if len(set(names)) != len(names) or len(names) != len(recipe.columns):
        expected = f"{len(recipe.columns)} different ones"
        raise UsageError(f"columns {', '.join(names)}", expected, "name them with --columns")
    return dict(zip(names, recipe.columns, strict=True))


def select_columns(spec: ReadSpec) -> Selection:
    """What to read from a file: features, columns to copy, and the target, which may be missing."""
    columns, target = feature_columns(spec), spec.recipe.target
    targets = {target.name} if target else set[str]()
    dates = {column.source for column in columns.values() if column.part}
    others = {name: column for name, column in columns.items() if not column.part}
    categories = {name for name, column in others.items() if column.kind == "category"}
    text = categories.union(spec.ids, targets if spec.class_names else ())
    forms = {name: column.form for name, column in others.items() if column.form}
    if target and target.form:
        forms[target.name] = target.form
    only = frozenset(targets.union(dates, spec.ids, others))
    return Selection(
        as_text=frozenset(text),
        only=only,
        also_missing=spec.recipe.missing,
        forms=forms,
        raw=frozenset(dates),
        header=spec.recipe.header,
        names=spec.recipe.header_names,
        encoding=spec.recipe.encoding,
    )


def check_columns(path: str, schema: pa.Schema, spec: ReadSpec) -> None:
    """Check that a file has the columns to read, except the target, each of them once and with a type that fits.

    A column whose values are all judged individually has the type null, which fits.

    Raises:
        DataError: columns are missing, occur twice, or hold something else.
    """
    names, columns, selection = schema.names, feature_columns(spec), select_columns(spec)
    kinds = {column.source or name: DATE if column.part else column.kind for name, column in columns.items()}
    kinds = dict.fromkeys(spec.ids, VALUE) | kinds
    found, action = "", "add, rename or convert them"
    if not spec.recipe.is_by_name:
        action = "rename the columns, or name them in the model's order with --columns"
    if missing := [name for name in kinds if name not in names]:
        found = f"columns {format_names(names, SHOWN)}: {', '.join(missing)} missing"
        if folders := [part for part in Path(path).parts if "=" in part and part.partition("=")[0] in missing]:
            action = f"name the folder above {folders[0]}: values in folder names are read only below the input"
    else:
        faults = [f"{name} twice" for name in dict.fromkeys(filter(selection.takes, names)) if names.count(name) > 1]
        for name, type_ in {each.name: each.type for each in schema if selection.takes(each.name)}.items():
            if kind_of(type_) not in FITS[kind := kinds.get(name, VALUE)]:
                faults.append(f"{name} of type {type_}, which is not a {kind}")
        if faults:
            found = f"columns {tabular.describe_schema(schema)}: {'; '.join(faults)}"
    if missing and HEADERLESS in (schema.metadata or {}):
        raise headerless_error(path, schema.metadata[HEADERLESS], has_options=False)
    if found:
        expected = [f"{name} ({'--id-column' if kind == VALUE else kind})" for name, kind in kinds.items()]
        raise DataError(f"{path} has {found}", f"columns {', '.join(expected)}", action)


def encode(file: InputFile, first: int, batch: pa.RecordBatch, spec: ReadSpec) -> Batch:
    """A batch of a table, whose first row is row ``first`` of its file, as the model's input.

    Values that do not fit are rejects, with the column and the value.
    """
    columns = [*feature_columns(spec).items()]
    arrays, values = list[pa.Array](), np.empty((len(columns), batch.num_rows), np.float32).T  # column by column
    for at, (name, column) in enumerate(columns):
        array = _column(batch, column.source or name)
        # read as text if booleans or dates stand among numbers, since neither is a number
        is_fit = column.part or kind_of(array.type) in FITS[column.kind]
        arrays.append(array if is_fit else tabular.to_text(array))
        _encode_column(arrays[at], column, values[:, at], spec.recipe.missing)
    told = _column(batch, FAULT)
    faults = dict(zip(pc.indices_nonzero(told.is_valid()).to_pylist(), told.drop_null().to_pylist(), strict=True))

    def describe(row: int, at: int) -> str:
        name, column = columns[at]
        fault = describe_fault(column.kind, arrays[at][row].as_py(), values[row, at], column.form, column.part)
        return f"{column.source or name} is {fault}"

    faults, notes = _judge_rows(values, spec, describe, faults)
    return make_batch(file, first, values, faults, _copy_columns(batch, spec), _encode_target(batch, spec), notes)


def _judge_rows(
    values: Array, spec: ReadSpec, describe: Callable[[int, int], str], faults: Mapping[int, str] = NO_FAULTS
) -> tuple[dict[int, str], tuple[str, ...]]:
    """Why rows may not be fed to the model, by number, besides ``faults``; and a note on each that has an average.

    ``describe`` words the first invalid value (row, column).
    """
    valid, unseen = spec.is_valid(values), spec.is_unseen(values)
    if spec.unknown == "reject":
        valid &= ~unseen
    rows = [] if valid.all() else np.flatnonzero(~valid.all(axis=1)).tolist()
    faults = {row: describe(row, int(np.argmin(valid[row]))) for row in rows} | dict(faults)
    averaged = set(np.flatnonzero(unseen.any(axis=1)).tolist()) - faults.keys() if unseen.any() else ()
    return faults, (AVERAGED,) * len(averaged)


def _copy_columns(batch: pa.RecordBatch, spec: ReadSpec) -> pa.Table | None:
    """The columns that are passed through, as text."""
    ids = {name: pc.cast(_column(batch, name), pa.string()) for name in spec.ids}
    return pa.table(ids) if ids else None


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of a batch, entirely missing if only other rows of the file have it, as in JSON."""
    return batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)


def _encode_column(array: pa.Array, column: Column, into: Array, missing: tuple[str, ...] = ()) -> None:
    """Fill ``(n,)``: NaN means missing, ``UNKNOWN`` a level that is not in the recipe, infinity not a number."""
    if column.part:
        into[:] = date_parts.read_dates(array, date_parts.form_of([column]), missing).take(column.part)
        return
    if column.kind == "category":
        find_levels(pa.chunked_array([tabular.to_text(array)])).encode(column.levels, UNKNOWN, into)
        return
    with np.errstate(over="ignore"):
        into[:] = tabular.to_numbers(array, column.kind == "boolean", np.inf, column.form, missing)


def _encode_target(batch: pa.RecordBatch, spec: ReadSpec) -> Array | None:
    """The target's column ``(n,)`` float64: numbers, or codes of classes; NaN if missing. None without a target."""
    target = spec.recipe.target
    if target is None or target.name not in batch.schema.names:
        return None
    array = batch.column(target.name)
    if kind_of(array.type) not in SINGLE_VALUES - {"date"}:
        return None  # neither a number nor a class
    kind = "category" if spec.class_names else "number"
    column = Column(name=target.name, kind=kind, levels=spec.class_names, form=target.form)
    values = np.empty(len(array), np.float32 if spec.class_names else np.float64)
    _encode_column(array, column, values, spec.recipe.missing)
    values[np.isinf(values)] = np.nan  # infinity is not a number, and not a truth either
    return values.astype(np.float64)


# Parquet is read by row groups; the columns of all other tables are spilled, once and in order


def _count_parquet(file: DataFile, spilled: Path, spec: ReadSpec) -> Prepared:
    check, most = (check_columns, MAX_ROWS) if spec.recipe.columns else (_check_pictures, images.MOST_ROWS)
    with tabular.open_parquet(path := Path(file.path), most) as parquet:
        check(file.path, parquet.schema_arrow, spec)
        return path, int(parquet.metadata.num_rows)


def _parquet_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    selection = select_columns(spec)
    categories = [name for name in feature_columns(spec) if name in selection.as_text]
    names = [*(selection.only or ())]  # these may include a target that is not there
    how = names, start, stop, spec.chunk_rows, CHUNK_BYTES, categories
    for first, rows in tabular.read_parquet(Path(file.readable), *how):
        rows = tabular.drop_errors(rows)
        yield encode(file, first, tabular.drop_missing(rows, selection) if selection.also_missing else rows, spec)


def _spill_table(file: DataFile, spilled: Path, spec: ReadSpec) -> Prepared:
    """Write a table's columns to read, and the faults of its rows, so that they can be read from any position.

    Raises:
        DataError: the file is broken, or lacks a column.
    """
    if not spilled.is_file():
        selection, seen, has_header = select_columns(spec), dict[str, pa.DataType](), file.suffix not in JSON_SUFFIXES
        with atomic.replace_file(spilled) as temporary, pa.OSFile(str(temporary), "wb") as sink:
            for batch in table_batches(file, selection, "reject"):
                if has_header and not seen:
                    check_columns(file.path, batch.schema, spec)
                for each in batch.schema:
                    seen[each.name] = each.type if kind_of(each.type) == NESTED else seen.get(each.name, pa.null())
                names = [name for name in batch.schema.names if selection.takes(name) or name == FAULT]
                tabular.write_batch(sink, batch.select(names))
            if not has_header:  # for JSON this is only known at the end
                check_columns(file.path, pa.schema([*seen.items()]), spec)
    return spilled, sum(batch.num_rows for batch in tabular.map_batches(spilled))


def _spilled_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    first = 0
    for batch in tabular.map_batches(Path(file.readable)):
        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
        for at in range(low, high, spec.chunk_rows):
            yield encode(file, first + at, batch.slice(at, min(spec.chunk_rows, high - at)), spec)
        first += batch.num_rows


PARQUET = Format("parquet", (".parquet",), _count_parquet, _parquet_batches, TOLERATED_PERCENT)
SPILLED_SUFFIXES = tuple(each for each in TABLE_SUFFIXES if each not in PARQUET.suffixes)
SPILLED = Format("table", SPILLED_SUFFIXES, _spill_table, _spilled_batches, TOLERATED_PERCENT)


# Images and raw rows, whose truth is in labels beside them


def y_true(labels: Array, spec: ReadSpec, names: tuple[str, ...] = ()) -> Array:
    """The class of each row ``(n,)`` float64 from its label, a name or a whole number; NaN if none, -1 if unknown.

    Numbers stand for ``names``, in order; without ``names`` they are the names of classes, if those are whole numbers,
    or else their indices.
    """
    if labels.dtype.kind in "iu" and not names and not images.are_numbers(spec.class_names):
        return np.where(labels < 0, math.nan, labels)
    classes, codes = images.classes_of_labels(labels, names)
    places = {"": math.nan, "-1": math.nan} | {name: float(place) for place, name in enumerate(spec.class_names)}
    classes = images.spell_classes(classes, spec.class_names)
    return np.array([places.get(name, UNKNOWN) for name in classes])[codes]


def classes_of_folders(files: list[Path], base: Path, spec: ReadSpec) -> list[float] | None:
    """The class of each file by the outermost folder below ``base``, or ``base`` itself, that is called like one.

    None if any file lies in no such folder; this is reported if others do.
    """
    folders = ((*path.relative_to(base).parent.parts, base.name) for path in files)
    known = {*map(images.to_nfc, spec.class_names)}
    names = [next((folder for folder in each if images.to_nfc(folder) in known), "") for each in folders]
    others = [path for path, name in zip(files, names, strict=True) if not name]
    if not others:
        return cast("list[float]", y_true(np.array(names), spec).tolist())
    if len(others) < len(files):
        where = f"{pluralize(len(others), 'picture')} outside any class folder; the first is {format_path(others[0])}"
        print_message(f"accuracy is not reported: {where}")
    return None


# Arrays


def _open_rows(path: Path, spec: ReadSpec) -> tuple[StoredArray, Array | None]:
    """The rows of a user's file, and their truth ``(n,)`` if it contains labels.

    In an archive, the rows have the name of the model's input or of Keras's test images, or are the only array.

    Raises:
        DataError: the recipe does not take such rows, or the labels do not fit them.
    """
    file, has_names = arrays.open_arrays(path), not spec.recipe.columns  # images have classes with names
    pairs = {spec.recipe.input.name: spec.y_name} | (dict(images.label_pairs(("", "test"))) if has_names else {})
    found = next((each for each in (*pairs, *(file if len(file) == 1 else ())) if each in file), None)
    if found is None:
        expected = f"one named {spec.recipe.input.name}{' or x_test' if has_names else ''}, or only one"
        raise DataError(f"{path} holds arrays {sorted(file)}", expected, "rename it")
    rows, labels = file[found](), file.get(pairs.get(found) or "")
    if not rows.shape:
        raise broken_file(path, "it holds a single number")
    if not spec.recipe.accepts(rows.dtype, rows.shape[1:]):
        found = f"{path} holds {rows.dtype} rows of shape {list(rows.shape[1:])}"
        raise DataError(found, spec.describe(), "convert the file, or name the model that it is for with --name")
    if not spec.y_name or not labels:
        return rows, None
    has_names &= SPLIT_KEY not in file  # in a prepared split, labels are indices of classes
    kinds = "iuU" if has_names else "iu" if spec.class_names else "iuf"
    values = images.read_labels(labels(), rows.shape[0], kinds)
    if not has_names:
        return rows, values
    known = y_true(values, spec, images.read_class_names(path, file))
    return rows, known if (known >= 0).any() else None


def _unpack_rows(file: DataFile, spilled: Path, spec: ReadSpec) -> Prepared:
    rows, _ = _open_rows(path := Path(file.path), spec)
    if not rows.member:
        return path, rows.shape[0]
    if not spilled.is_file():
        rows.unpack(spilled)
    return spilled, rows.shape[0]


def _array_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    stored, y_true = _open_rows(Path(file.path), spec)
    if file.readable != file.path:
        stored = arrays.open_npy(Path(file.readable))
    array, recipe = stored.read(), spec.recipe
    row_bytes = math.prod(array.shape[1:]) * array.itemsize
    step = max(1, min(spec.chunk_rows, CHUNK_BYTES // row_bytes))
    for first in range(start, stop, step):
        rows = array[first : min(first + step, stop)]
        y = None if y_true is None else y_true[first : first + len(rows)]
        if recipe.columns:
            values = recipe.encode(rows)
            faults, notes = _judge_rows(values, spec, partial(_describe_code, recipe.columns, values))
            yield make_batch(file, first, values, faults, y_true=y, notes=notes)
        elif array.shape[1:] == recipe.input.shape:  # read later, batch by batch, by the model
            yield make_batch(file, first, rows, y_true=y)
        else:
            yield _decode(file, first, [*rows], [], spec, y_true=y)


def _describe_code(columns: Sequence[Column], values: Array, row: int, at: int) -> str:
    """Why a value of an array, in which levels are codes, may not be fed to the model."""
    code, column = values[row, at], columns[at]
    return f"{column.name} is {describe_fault(column.kind, code, code, '', '')}"


ARRAY = Format("array", ARRAY_SUFFIXES, _unpack_rows, _array_batches)


# Pictures


def _decode(
    file: InputFile,
    first: int,
    items: Sequence[pictures.Item],
    names: list[str],
    spec: ReadSpec,
    passthrough: pa.Table | None = None,
    y_true: Array | None = None,
) -> Batch:
    """A batch of pictures, of the name that each has in a reason, and of what is known about each ``(n,)``."""
    pixels, _, reasons, notes = pictures.decode_pictures(items, spec.recipe.input.shape)
    rejects = {at: f"{names[at]} cannot be used: {reason}" for at, reason in reasons.items()}
    return make_batch(file, first, pixels, rejects, passthrough, y_true, notes)


def _picture_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    yield _decode(file, 0, [file.path], ["it"], spec)  # its path is shown beside the reason


def _check_pictures(path: str, schema: pa.Schema, spec: ReadSpec) -> None:
    """Check that Parquet has a column of pictures, and the columns to copy.

    Raises:
        DataError: a column is missing.
    """
    expected, action, kinds = "", "name another with --id-column", {each.name: kind_of(each.type) for each in schema}
    for name in spec.ids:
        if schema.names.count(name) != 1 or kinds[name] not in SINGLE_VALUES:
            expected = f"one column {name} of single values"
    if images.find_columns(schema, spec.columns)[0] is None:
        expected = "a column of pictures: structs of bytes and path, as the library datasets writes them"
        action = "write the images as .npy or as picture files, or name the column with --columns"
    if expected:
        raise DataError(f"{path} has columns {tabular.describe_schema(schema)}", expected, action)


def _packed_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    path = Path(file.path)
    with tabular.open_parquet(path) as parquet:
        image, label, names = images.find_columns(parquet.schema_arrow, spec.columns)
    has_labels = label and spec.y_name and {*images.spell_classes(names, spec.class_names)} <= {*spec.class_names}
    used = dict.fromkeys(filter(None, [image, *spec.ids, label if has_labels else None]))
    for first, batch in tabular.read_parquet(path, [*used], start, stop, spec.chunk_rows, CHUNK_BYTES):
        structs = [each or {} for each in batch.column(image).to_pylist()]
        known = images.label_values(batch.column(label)) if has_labels else None
        yield _decode(
            file,
            first,
            [each.get("bytes") or b"" for each in structs],
            [each.get("path") or "it" for each in structs],
            spec,
            _copy_columns(batch, spec),
            None if known is None else y_true(known, spec, names),
        )


PICTURE = Format(
    "picture",
    PICTURE_SUFFIXES,
    lambda file, *_: (Path(file.path), 1),
    _picture_batches,
    TOLERATED_PERCENT,
    MOST_PICTURES,
)
PICTURES = Format("pictures in parquet", (), _count_parquet, _packed_batches, TOLERATED_PERCENT, MOST_PACKED_PICTURES)


# All formats


TABLES = (PARQUET, SPILLED)
FORMATS = {each.name: each for each in (*TABLES, ARRAY, PICTURE, PICTURES)}
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}


def is_input(path: Path) -> bool:
    """Whether a file found in a folder is an input, by its name; none that tools write for themselves."""
    is_known = path.name.lower().removesuffix(GZIP).endswith(tuple(BY_SUFFIX))
    return is_known and not path.name.startswith("_") and path.name != LABELS_FILE


def find_inputs(source: str, output: Path | None = None, full_digest: bool = False) -> DataFiles:
    """The files to predict for which a path, folder, glob or URL stands, sorted by name; a query is run.

    Raises:
        UsageError: nothing is there, all of it lies in ``output``, or a URL has credentials in it.
        DataError: no file can be read, or a host does not answer.
    """
    if is_database(source):
        path = keep_answer(*split_source(source))
        return DataFiles(source, tuple(map(DataFile, verified_files.fingerprint_files([path], full_digest))))
    return select_sheet(find_data(source, is_input, (*BY_SUFFIX, GZIP), output, full_digest), source)


# All files of an input


def count_inputs(files: Sequence[DataFile], spec: ReadSpec, spill: Path, base: Path | None = None) -> list[InputFile]:
    """Count the rows of every file; spill into the folder ``spill`` what cannot be read from the middle.

    Pictures below the folder ``base`` have the class whose name is that of a folder there.

    Raises:
        DataError: a file is broken, does not fit the spec, or there is not a single row.
    """
    inputs, first, paths = list[InputFile](), 0, [Path(file.path) for file in files]
    spill.mkdir(parents=True, exist_ok=True)
    labels = classes_of_folders(paths, base, spec) if base and all(map(is_picture, paths)) else None
    for number, file in enumerate(files):
        kind, facts = _format_for(file, spec), file.fingerprint
        check_unchanged([facts])
        readable, rows = kind.prepare(file, spill / f"{number:05d}", spec)
        if not number and kind in TABLES and spec.recipe.is_by_name:
            _tell_of_header(read_header([file], select_columns(spec), "reject", has_options=False), spec)
        if rows > MAX_ROWS:
            raise broken_file(file.path, f"it promises {rows} rows")
        label = labels[number] if labels else None
        inputs.append(InputFile(file.path, kind.name, str(readable), first, rows, facts.bytes, facts.mtime_ns, label))
        first += rows
    if not first:
        raise DataError(f"{files[0].path} holds no rows", "at least one row", "name an input with rows")
    return inputs


def _tell_of_header(header: Collection[str], spec: ReadSpec) -> None:
    """Report what in a header is not used, and that the order of columns does not matter."""
    asked, selection = feature_columns(spec), select_columns(spec)
    if extra := [name for name in header if not selection.takes(name)]:
        print_message(f"{pluralize(len(extra), 'column')} that the model does not take: {', '.join(extra[:SHOWN])}")
    if [name for name in header if name in asked] != [name for name in asked if name in header]:
        print_message("columns are in a different order from training; they are matched by name")


def _format_for(file: DataFile, spec: ReadSpec) -> Format:
    """The format of a file by its suffix, and by what is requested of it.

    Raises:
        UsageError: columns are to be copied from something that is no table, or it is a picture and the model takes
            none.
        DataError: it is a table, but the model takes images.
    """
    # Only here it is decided which formats are read for which models; the code that reads them does not check again.
    is_of_columns = bool(spec.recipe.columns)
    kind = BY_SUFFIX.get(file.suffix)
    if kind is ARRAY and not file.name.endswith(ARRAY_SUFFIXES):
        kind = None  # compressed
    if kind is None and not spec.recipe.is_by_name:
        action = "write them as .npy; torchvision.datasets.mnist reads IDX" if "idx" in file.name else "convert it"
        raise DataError(f"{file.path} is of no known kind", f"files named *{' *'.join(BY_SUFFIX)}", action)
    if kind is None:
        kind = SPILLED  # CSV as in training, whatever its name
    elif kind is PARQUET:
        kind = PICTURES if not is_of_columns else SPILLED if file.is_remote or file.partition else PARQUET
    if kind in TABLES and not is_of_columns:
        found = f"{file.path} is a table of {file.suffix.removeprefix('.')}"
        action = "name a model of tables with --name, or convert it"
        raise DataError(found, "images (.npy, Parquet, PNG …)", action)
    if spec.ids and kind not in (*TABLES, PICTURES):
        raise UsageError(f"--id-column {spec.ids[0]} and {file.path}", "the rows of a table", "leave it out")
    if kind is PICTURE and is_of_columns:
        raise UsageError(f"{file.path} is a picture", f"{spec.describe()}", "name a model of images with --name")
    return kind


def check_header(file: DataFile, spec: ReadSpec) -> None:
    """Check the names of a table's columns; JSON lines have no header, and each line may have other names.

    Raises:
        UsageError: columns are to be copied from something that is no table, or have other names than the model's.
        DataError: the header is broken, or columns are missing.
    """
    if _format_for(file, spec) in TABLES and not file.is_remote and file.suffix not in JSON_SUFFIXES:
        selection = select_columns(spec)._replace(only=frozenset())
        check_columns(file.path, next(table_batches(file, selection, "reject")).schema, spec)


def check_unchanged(files: Iterable[InputFile | Fingerprint]) -> None:
    """Check that files on this machine are still as they were.

    Raises:
        DataError: one is gone, or has been written to.
    """
    for file in files:
        if "://" in file.path:
            continue
        try:
            facts = os.stat(file.path)  # noqa: PTH116  (a folder of pictures has very many)
        except OSError as error:
            raise changed_file(file.path) from error
        if (facts.st_size, facts.st_mtime_ns) != (file.bytes, file.mtime_ns):
            raise changed_file(file.path)


def max_shard_rows(inputs: list[InputFile], spec: ReadSpec) -> int:
    """The most rows of a shard: enough work to be worth a Prefect task, not so much that a kill would hurt."""
    at_most = min(FORMATS[name].max_shard_rows for name in {file.format for file in inputs})
    return max(1, min(at_most, SHARD_BYTES // spec.row_bytes))


def tolerated_rejects(inputs: list[InputFile]) -> int:
    """How many rejected rows are tolerated: none for arrays, 1 % for tables and pictures."""
    return sum(FORMATS[file.format].tolerated_percent * file.rows for file in inputs) // 100


def read_batches(inputs: list[InputFile], start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    """The rows ``start`` to ``stop`` of all files, in order, a bounded number at a time."""
    waiting: list[Batch] = []
    size = 0
    for file in inputs:
        first, last = max(start, file.first_row), min(stop, file.first_row + file.rows)
        if first >= last:
            continue
        for batch in FORMATS[file.format].batches(file, first - file.first_row, last - file.first_row, spec):
            size += batch.num_rows
            if size < spec.chunk_rows:  # no file stays mapped while its rows wait for those of others
                batch = batch._replace(X=np.array(batch.X))
            waiting.append(batch)
            if size >= spec.chunk_rows:
                yield _join(waiting)
                waiting, size = [], 0
    if waiting:
        yield _join(waiting)


def _join(parts: list[Batch]) -> Batch:
    """Several files' batches as one."""
    if len(parts) == 1:
        return parts[0]
    sources = {path: first for part in parts for path, first in part.sources.items()}
    places = {path: at for at, path in enumerate(sources)}
    truths = [part.y_true for part in parts if part.y_true is not None]
    tables, first_row = [part.passthrough for part in parts], parts[0].first_row
    return Batch(
        X=np.concatenate([part.X for part in parts]),
        first_row=first_row,
        reasons={part.first_row - first_row + at: why for part in parts for at, why in part.reasons.items()},
        y_true=np.concatenate(truths) if len(truths) == len(parts) else None,
        notes=tuple(note for part in parts for note in part.notes),
        passthrough=None if tables[0] is None else pa.concat_tables(tables),
        sources=sources,
        source_index=np.concatenate([part.source_index + places[next(iter(part.sources))] for part in parts]),
    )
