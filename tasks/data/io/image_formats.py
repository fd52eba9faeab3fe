"""The formats of images and arrays that a prediction reads: pictures, Parquet of pictures, IDX, numpy's, safetensors.

What is in them is read by ``tasks.data.io``, as for training.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.io import arrays, images, pictures, tabular
from tasks.data.io.arrays import StoredArray
from tasks.data.io.batches import (
    CHUNK_BYTES,
    SINGLE_VALUES,
    TOLERATED_PERCENT,
    UNKNOWN,
    Batch,
    Format,
    InputFile,
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

MOST_PICTURES, MOST_PACKED_PICTURES = 2**11, 2**13  # of a shard


def y_true(labels: Array, spec: ReadSpec, names: tuple[str, ...] = ()) -> Array:
    """The class of each row ``(n,)`` float64 by its label: a name, or a whole number; NaN is none, -1 one of no model.

    Numbers stand for ``names``, in order; without them they are the classes' own names, if those are whole numbers, or
    else their places.
    """
    if labels.dtype.kind in "iu" and not names and not all(map(str.isdecimal, spec.class_names or ("",))):
        return np.where(labels < 0, math.nan, labels)
    classes, codes = images.classes_of_labels(labels, names)
    places = {"": math.nan, "-1": math.nan} | {name: float(place) for place, name in enumerate(spec.class_names)}
    return np.array([places.get(name, UNKNOWN) for name in classes])[codes]


def classes_of_folders(files: list[Path], base: Path, spec: ReadSpec) -> list[float] | None:
    """The class of each file by the outermost folder below ``base``, or ``base`` itself, that is called like one.

    None where any lies in no such folder, which is said where others do.
    """
    places = {name: float(place) for place, name in enumerate(spec.class_names)}
    names = ((*path.relative_to(base).parent.parts, base.name) for path in files)
    found = [next((places[name] for name in each if name in places), UNKNOWN) for each in names]
    if UNKNOWN not in found:
        return found
    others = [path for path, place in zip(files, found, strict=True) if place == UNKNOWN]
    if len(others) < len(files):
        where = f"{counted(len(others), 'picture')} in no folder of a class, the first is {shown(others[0])}"
        tell(f"accuracy is not told: {where}")
    return None


# Arrays


def _open_rows(path: Path, spec: ReadSpec) -> tuple[StoredArray, Array | None]:
    """The rows of a user's file, and their truth ``(n,)`` where it brings labels along.

    In an archive they are called as the model's input, or as Keras calls test images, or are the only array.

    Raises:
        DataError: the recipe does not take such rows, or labels are none of them.
    """
    suffix, is_of_images, labels, names = path.suffix.lower(), isinstance(spec.recipe, Pixels), None, tuple[str, ...]()
    if suffix == ".npy":
        rows, is_of_images = arrays.open_npy(path), False
    elif suffix in (".npz", ".safetensors"):
        file, name = arrays.open_arrays(path), spec.recipe.input.name
        pairs = {name: spec.y_name} | (dict(images.label_pairs(("", "test"))) if is_of_images else {})
        found = next((each for each in (*pairs, *(file if len(file) == 1 else ())) if each in file), None)
        if found is None:
            expected = f"one named {name}{' or x_test' if is_of_images else ''}, or only one"
            raise DataError(f"{path} holds arrays {sorted(file)}", expected, "rename it")
        rows = file[found]()
        if (of_rows := pairs.get(found)) in file:
            labels = path, file[of_rows]()
        is_of_images = is_of_images and SPLIT_KEY not in file  # in a prepared split are the places of classes
        names = images.read_class_names(path, file) if is_of_images else ()
    else:
        rows, is_of_images, names = arrays.open_idx(path), True, images.read_class_names(path)
        if beside := arrays.idx_labels_beside(path):
            labels = beside, arrays.open_idx(beside, 1)
    if not rows.shape:
        raise broken(path, "it holds a single number")
    check_fit(path, rows.dtype, rows.shape[1:], spec)
    if not spec.y_name or not labels:
        return rows, None
    kinds = "iuf" if spec.y_name == Regression.target else "iuU" if is_of_images else "iu"
    values = images.read_labels(*labels, len(rows), kinds)
    if not is_of_images:
        return rows, values
    known = y_true(values, spec, names)
    return rows, known if (known >= 0).any() else None


def _unpack(file: DataFile, target: Path, spec: ReadSpec) -> None:
    arrays.unpack(_open_rows(Path(file.path), spec)[0], target)


def _count_rows(path: Path, spec: ReadSpec) -> int:
    return len(_open_rows(path, spec)[0])


def _array_batches(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    array, truth = _open_rows(Path(file.path), spec)
    if file.readable != file.path:
        array = arrays.open_npy(Path(file.readable))
    step = max(1, min(spec.chunk_rows, CHUNK_BYTES // array.row_bytes))
    is_as_taken = spec.recipe.input.dtype == "uint8" and array.shape[1:] == spec.recipe.input.shape
    for first in range(start, stop, step):
        rows = array[first : min(first + step, stop)]
        y = None if truth is None else truth[first : first + len(rows)]
        if is_as_taken:  # read later, batch by batch, by the model
            yield make_batch(file, first, rows, y_true=y)
        else:  # of numbers it must be seen which are finite
            yield encode_array(file, first, np.asarray(rows), spec, y)


ARRAY = partial(Format, count=_count_rows, batches=_array_batches, unpack=_unpack, unpacked_suffix=".npy")
IDX = ARRAY("idx", (".idx", ".gz"), is_packed=arrays.is_gzip)
NPY = ARRAY("npy", (".npy",), is_packed=lambda path: arrays.open_npy(path).is_fortran)
NPZ = ARRAY("npz", (".npz",))
SAFETENSORS = ARRAY("safetensors", (".safetensors",), is_packed=lambda path: False)


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
    """Pictures, what each is called in a reason, and what is known of each ``(n,)``, as a batch."""
    shape = spec.recipe.input.shape
    pixels, facts, reasons = pictures.decode_pictures(items, shape)
    notes = tuple(
        note
        for _, _, width, height, mode, _, _ in facts[facts["is_readable"]].tolist()
        for note in pictures.changes((width, height), mode.decode(), shape)
    )
    rejects = {at: f"{names[at]} is no picture: {reason}" for at, reason in reasons.items()}
    return make_batch(
        file, first, pixels[facts["is_readable"]] if rejects else pixels, rejects, passthrough, y_true, notes
    )


def _count_picture(path: Path, spec: ReadSpec) -> int:
    if not isinstance(spec.recipe, Pixels):
        raise UsageError(f"{path} is a picture", f"{spec.describe()}", "name a model of images with --name")
    return 1


def _picture(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    yield _decode(file, 0, [file.path], ["it"], spec)  # its path is told beside


def _count_packed(path: Path, spec: ReadSpec) -> int:
    with images.open_parquet(path) as file:
        schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    expected, action = "", "name another with --id-column"
    if faults := [
        name
        for name in spec.ids
        if schema.names.count(name) != 1 or tabular.kind_of(schema.field(name).type) not in SINGLE_VALUES
    ]:
        expected = f"one column {faults[0]} of single values"
    if images.image_column(schema, spec.columns) is None:
        expected = "a column of pictures: structs of bytes and path, as the library datasets writes them"
        action = "write the images as .npy or as picture files, or name the column with --columns"
    if expected:
        raise DataError(f"{path} has columns {tabular.describe_schema(schema)}", expected, action)
    return rows


def _packed(file: InputFile, start: int, stop: int, spec: ReadSpec) -> Iterator[Batch]:
    path = Path(file.path)
    with images.open_parquet(path) as parquet:
        schema = parquet.schema_arrow
    image, (label, names) = str(images.image_column(schema, spec.columns)), images.class_column(schema)
    labels = [label] if label and spec.y_name and {*names} <= {*spec.class_names} else []
    used = list(dict.fromkeys([image, *spec.ids, *labels]))
    for first, batch in tabular.read_parquet(path, used, start, stop, spec.chunk_rows, CHUNK_BYTES):
        structs = [each or {} for each in batch.column(image).to_pylist()]
        ids = {name: pc.cast(batch.column(name), pa.string()) for name in spec.ids}
        known = images.label_values(batch.column(label)) if labels else None
        yield _decode(
            file,
            first,
            [each.get("bytes") or b"" for each in structs],
            [each.get("path") or "it" for each in structs],
            spec,
            pa.table(ids) if ids else None,
            None if known is None else y_true(known, spec, names),
        )


PICTURE = Format("picture", pictures.SUFFIXES, _count_picture, _picture, TOLERATED_PERCENT, MOST_PICTURES)
PICTURES = Format("pictures in parquet", (), _count_packed, _packed, TOLERATED_PERCENT, MOST_PACKED_PICTURES)
IMAGE_FORMATS = (IDX, NPY, NPZ, SAFETENSORS, PICTURE, PICTURES)
