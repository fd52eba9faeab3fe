"""The formats of images and arrays that a prediction reads: pictures, Parquet of pictures, IDX, numpy's, safetensors.

What is in them is read by ``tasks.data.io``, as for training.
"""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.io import arrays, images, pictures, tabular
from tasks.data.io.arrays import StoredArray
from tasks.data.io.batches import (
    CHUNK_BYTES,
    UNKNOWN,
    Batch,
    Format,
    ReadSpec,
    check_fit,
    encode_array,
    make_batch,
)
from tasks.data.io.discovery import DataFile
from tasks.data.io.file_errors import broken
from tasks.data.prepared_splits import SPLIT_KEY
from tasks.data.recipe import Pixels
from tasks.errors import DataError, UsageError
from tasks.machine.arrays import Array
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.serving.task import Regression
from tasks.store.regular_files import shown

TRUTH_SUFFIX = ".truth.npy"  # of what was unpacked beside rows
IDX_LABELS = "idx1-ubyte"  # in the names of the files of MNIST and its relatives
COPIED_KINDS = {"text", "number", "boolean", "date", "null"}  # of columns that go along
TOLERATED_PERCENT = 1
MOST_PICTURES, MOST_PACKED_PICTURES = 2**11, 2**13  # of a shard


def y_true(labels: Array, spec: ReadSpec, names: tuple[str, ...] = ()) -> Array:
    """The class of each row ``(n,)`` float64 by its label: a name, or a whole number; NaN is none, -1 one of no model.

    Numbers stand for ``names``, in order; without them they are the classes' own names, if those are whole numbers, or
    else their places.
    """
    are_own_names = bool(spec.class_names) and all(map(str.isdecimal, spec.class_names))
    if labels.dtype.kind in "iu" and not names and not are_own_names:
        return labels.astype(np.float64)
    classes, codes = images.classes_of_labels(labels, names)
    places = {name: float(place) for place, name in enumerate(spec.class_names)} | {"": math.nan}
    return np.array([places.get(name, UNKNOWN) for name in classes])[codes]


def classes_of_folders(files: list[Path], base: Path, spec: ReadSpec) -> list[float] | None:
    """The class of each file by the outermost folder below ``base``, or ``base`` itself, that is called like one.

    None where any lies in no such folder, which is said where others do.
    """
    places = {name: float(place) for place, name in enumerate(spec.class_names)}
    names = ((*path.relative_to(base).parent.parts, base.name) for path in files)
    found = [next((places[name] for name in each if name in places), None) for each in names]
    if None not in found:
        return [place for place in found if place is not None]
    if len(others := [path for path, place in zip(files, found, strict=True) if place is None]) < len(files):
        where = f"{counted(len(others), 'picture')} in no folder of a class, the first is {shown(others[0])}"
        tell(f"accuracy is not told: {where}")
    return None


# Arrays


class _Rows(NamedTuple):
    """The rows of a file, and their truth ``(n,)`` where it brings labels along."""

    values: StoredArray
    truth: StoredArray | Array | None = None


def _idx(path: Path, spec: ReadSpec) -> _Rows:
    rows, labels = arrays.open_idx(path), arrays.idx_labels_beside(path)
    if labels is None or not spec.y_name:
        return _Rows(rows)
    return _Rows(rows, _truth(labels, rows, arrays.open_idx(labels, 1), spec, images.names_beside(path)))


def _named(path: Path, spec: ReadSpec) -> _Rows:
    """The array that is called as the model's input, or as Keras calls test images, or the only one."""
    file, name, is_of_images = arrays.open_arrays(path), spec.recipe.input.name, isinstance(spec.recipe, Pixels)
    pairs = {name: spec.y_name} | (dict(images.label_pairs(("", "test"))) if is_of_images else {})
    found = next((each for each in pairs if each in file.names), file.names[0] if len(file.names) == 1 else None)
    if found is None:
        expected = f"one named {name}{' or x_test' if is_of_images else ''}, or only one"
        raise DataError(f"{path} holds arrays {sorted(file.names)}", expected, "rename it")
    rows, labels = file.open_array(found), pairs.get(found)
    if not spec.y_name or labels not in file.names:
        return _Rows(rows)
    are_named = is_of_images and SPLIT_KEY not in file.names  # in a prepared split are the places of classes
    names = images.class_names_in(file) or images.names_beside(path) if are_named else None
    return _Rows(rows, _truth(path, rows, file.open_array(str(labels)), spec, names))


def _truth(
    path: Path, rows: StoredArray, labels: StoredArray, spec: ReadSpec, names: tuple[str, ...] | None
) -> StoredArray | Array | None:
    """What labels say: classes by their names, None if all are others; where ``names`` is None, labels as they are.

    Raises:
        DataError: they are no labels of these rows.
    """
    kinds = "iuf" if spec.y_name == Regression.target else "iu" if names is None else "iuU"
    shape = labels.shape if names is None or labels.shape[1:] != (1,) else labels.shape[:1]
    if shape != rows.shape[:1] or labels.dtype.kind not in kinds:
        raise DataError(
            f"{path} holds {labels.dtype} labels of shape {list(labels.shape)}",
            f"a whole number for each of {len(rows)} rows",
            f"write them again, or leave out the {spec.y_name}",
        )
    if names is None:
        return labels
    found = y_true(images.read_labels(path, "labels", labels), spec, names)
    return found if (found >= 0).any() else None


def _array_format(
    name: str, suffixes: tuple[str, ...], open_rows: Callable[[Path, ReadSpec], _Rows], **packing: Any
) -> Format:
    """A format whose files hold arrays one after another; what was unpacked is ``.npy``, with its truth beside it."""

    def unpack(file: DataFile, target: Path, spec: ReadSpec) -> None:
        rows, truth = open_rows(Path(file.path), spec)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(truth, StoredArray):
            arrays.unpack(truth, target.with_suffix(TRUTH_SUFFIX))
        elif truth is not None:
            np.save(target.with_suffix(TRUTH_SUFFIX), truth)
        arrays.unpack(rows, target)  # last: where it is, all is there

    def opened(path: Path, spec: ReadSpec) -> _Rows:
        if not packing or path.suffix != ".npy":
            return open_rows(path, spec)
        truth = path.with_suffix(TRUTH_SUFFIX)
        return _Rows(arrays.open_npy(path), arrays.open_npy(truth) if truth.exists() else None)

    def count(path: Path, spec: ReadSpec) -> int:
        array = opened(path, spec).values
        if not array.shape:
            raise broken(path, "it holds a single number")
        check_fit(path, array.dtype, array.shape[1:], spec)
        return len(array)

    def batches(path: Path, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
        array, truth = opened(path, spec)
        step = max(1, min(spec.chunk_rows, CHUNK_BYTES // array.row_bytes))
        is_as_taken = spec.recipe.input.dtype == "uint8" and array.shape[1:] == spec.recipe.input.shape
        for first in range(start, stop, step):
            rows = array[first : min(first + step, stop)]
            y = None if truth is None else np.asarray(truth[first : first + len(rows)])
            if is_as_taken and array.column_bytes is None:  # read later, batch by batch, by the model
                yield make_batch(first, rows, y_true=y)
            else:  # of numbers it must be seen which are finite
                yield encode_array(first, np.asarray(rows), spec, y)

    return Format(name, suffixes, count, batches, unpack=unpack if packing else None, **packing)


IDX = _array_format("idx", (".idx", ".gz"), _idx, unpacked_suffix=".npy", is_packed=arrays.is_gzip)
NPY = _array_format("npy", (".npy",), lambda path, spec: _Rows(arrays.open_npy(path)))
NPZ = _array_format("npz", (".npz",), _named, unpacked_suffix=".npy")
SAFETENSORS = _array_format("safetensors", (".safetensors",), _named)


# Pictures


class _Decoded(NamedTuple):
    """Pictures of one shape, and those that are unreadable."""

    images: Array  # (n, …) uint8
    valid_indices: Array  # (n,) of them among all
    rejects: dict[int, str]
    notes: tuple[str, ...]


def _decode(items: list[tuple[Any, str]], spec: ReadSpec) -> _Decoded:
    """Pictures, each with what it is called in a reason."""
    shape = spec.recipe.input.shape
    images_, valid, notes, rejects = (
        np.empty((len(items), *shape), np.uint8),
        list[int](),
        list[str](),
        dict[int, str](),
    )
    for at, (file, name) in enumerate(items):
        try:
            images_[len(valid)], done = pictures.decode(file, shape, name)
        except DataError as error:
            rejects[at] = error.found
        else:
            valid.append(at)
            notes += done
    return _Decoded(images_[: len(valid)], np.array(valid, np.int64), rejects, tuple(notes))


def _count_picture(path: Path, spec: ReadSpec) -> int:
    if not isinstance(spec.recipe, Pixels):
        raise UsageError(f"{path} is a picture", f"{spec.describe()}", "name a model of images with --name")
    return 1


def _picture(path: Path, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    found = _decode([(path, "it")], spec)  # its path is told beside
    yield make_batch(0, found.images, found.valid_indices, found.rejects, notes=found.notes)


def _count_packed(path: Path, spec: ReadSpec) -> int:
    with images.open_parquet(path) as file:
        schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    if images.image_column(schema, spec.columns) is None:
        raise DataError(
            f"{path} has columns {tabular.describe_schema(schema)}",
            "a column of pictures: structs of bytes and path, as the library datasets writes them",
            "write the images as .npy or as picture files, or name the column with --columns",
        )
    kinds = {field.name: tabular.kind_of(field.type) for field in schema}
    if faults := [name for name in spec.ids if schema.names.count(name) != 1 or kinds[name] not in COPIED_KINDS]:
        found = f"{path} has columns {tabular.describe_schema(schema)}"
        raise DataError(found, f"one column {faults[0]} of single values", "name another with --id-column")
    return rows


def _packed(path: Path, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    with images.open_parquet(path) as file:
        image = str(images.image_column(file.schema_arrow, spec.columns))
        label, names = images.class_column(file.schema_arrow)
        kind = file.schema_arrow.field(label).type if label else pa.null()
    is_known = pa.types.is_integer(kind) or tabular.kind_of(kind) == "text"
    labels = [label] if label and spec.y_name and is_known and {*names} <= {*spec.class_names} else []
    used = list(dict.fromkeys([image, *spec.ids, *labels]))
    for first, batch in tabular.read_parquet(path, used, start, stop, spec.chunk_rows, CHUNK_BYTES):
        structs = [each or {} for each in batch.column(image).to_pylist()]
        found = _decode([(io.BytesIO(each.get("bytes") or b""), each.get("path") or "it") for each in structs], spec)
        valid = found.valid_indices
        ids = {name: pc.cast(batch.column(name), pa.string()) for name in spec.ids}
        yield make_batch(
            first,
            found.images,
            valid,
            found.rejects,
            pa.table(ids) if ids else None,
            notes=found.notes,
            y_true=_labels_of(batch.column(label), spec, names)[valid] if labels else None,
        )


def _labels_of(labels: pa.Array, spec: ReadSpec, names: tuple[str, ...]) -> Array:
    if not pa.types.is_integer(labels.type):
        return y_true(np.array(pc.cast(labels, pa.string()).fill_null("").to_pylist(), str), spec)
    found = labels.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.where(found < 0, math.nan, y_true(found, spec, names))  # where there is none, -1 is written


PICTURE = Format("picture", pictures.SUFFIXES, _count_picture, _picture, TOLERATED_PERCENT, MOST_PICTURES)
PICTURES = Format("pictures in parquet", (), _count_packed, _packed, TOLERATED_PERCENT, MOST_PACKED_PICTURES)
IMAGE_FORMATS = (IDX, NPY, NPZ, SAFETENSORS, PICTURE, PICTURES)
