"""Arrays on disk: IDX, ``.npy``, ``.npz`` and safetensors. Every header is compared with the file's size first."""

import contextlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from tasks.data import idx
from tasks.data.prepared_splits import SPLIT_KEY
from tasks.data.readers import formats, npy
from tasks.data.readers.formats import Array, Format, Piece, Wanted, broken, check_fit, encoded, reading
from tasks.data.readers.labels import arrays_of, classes, first_label, names_beside
from tasks.data.readers.stored import HeldFile, StoredRows
from tasks.data.readers.tensors import Tensors
from tasks.data.recipe import Pixels
from tasks.errors import DataError
from tasks.serving.task import Regression
from tasks.store import atomic, regular_files

COPY_BYTES = 2**20
LABELS_SUFFIX, NAMES_SUFFIX = ".labels.npy", ".names.npy"  # of what is unpacked beside the rows
MOST_LABEL_BYTES = 2**30


class Opened(NamedTuple):
    """The rows of a file, and their truth ``(n,)`` where it brings labels along."""

    rows: StoredRows
    truth: StoredRows | Array | None = None


def _array_format(
    name: str, suffixes: tuple[str, ...], opened: Callable[[Path, Wanted], Opened], **packing: Any
) -> Format:
    """A format whose files hold arrays one after another."""

    def count(path: Path, wanted: Wanted) -> int:
        found = opened(path, wanted)
        array = found.rows
        if not array.shape:
            raise broken(path, "it holds a single number")
        check_fit(path, array.dtype, array.shape[1:], wanted)
        return len(array)

    def pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
        found = opened(path, wanted)
        array = found.rows
        step = max(1, min(wanted.chunk_rows, formats.CHUNK_BYTES // array.row_bytes))
        fits = wanted.recipe.input.dtype == "uint8" and array.shape[1:] == wanted.recipe.input.shape
        is_read_later = fits and array.column_bytes is None
        for first in range(start, stop, step):
            last = min(first + step, stop)
            truth = None if found.truth is None else found.truth[first:last]
            if is_read_later:  # batch by batch, by the model; of numbers it must be seen which are finite
                yield Piece(first, last - first, array.part(first, last), truth=truth)
            else:
                yield encoded(first, array[first:last], wanted, truth)

    return Format(name, suffixes, count, pieces, **packing)


def _truth(
    path: Path,
    rows: StoredRows,
    labels: StoredRows | Array,
    wanted: Wanted,
    names: tuple[str, ...] | None = None,
    are_places: bool = False,
) -> StoredRows | Array | None:
    """What labels say: numbers and places of classes as they are, else classes by their names; None if all are others.

    Raises:
        DataError: they are no labels of these rows.
    """
    is_own_word = are_places or not isinstance(wanted.recipe, Pixels)
    kinds = "iuf" if wanted.truth == Regression.target else "iu" if is_own_word else "iuU"
    shapes = [rows.shape[:1]] if is_own_word else [rows.shape[:1], (*rows.shape[:1], 1)]
    if labels.shape not in shapes or labels.dtype.kind not in kinds:
        raise DataError(
            f"{path} holds {labels.dtype} labels of shape {list(labels.shape)}",
            f"a whole number for each of {len(rows)} rows",
            f"write them again, or leave out the {wanted.truth}",
        )
    if is_own_word:
        return labels
    whole, names = _whole(path, labels), names or ()
    found = classes(whole, wanted, names, first_label([whole], len(names or wanted.class_names)))
    return found if (found >= 0).any() else None


def _whole(path: Path, labels: StoredRows | Array) -> Array:
    """Labels or names ``(n,)`` in memory."""
    size = len(labels) * labels.dtype.itemsize
    if labels.dtype.kind not in "iuU" or size > MOST_LABEL_BYTES:
        raise broken(path, f"its labels or their names are {labels.dtype}, {size} bytes of them")
    return np.asarray(labels).reshape(-1)


def _with_unpacked(path: Path, wanted: Wanted, array: StoredRows | None = None) -> Opened:
    """Rows that were unpacked, ``array`` or else as numpy writes them, and what was unpacked beside them."""
    rows = npy.read(path) if array is None else array
    labels, names = (path.with_suffix(suffix) for suffix in (LABELS_SUFFIX, NAMES_SUFFIX))
    if not labels.exists():
        return Opened(rows)
    called = tuple(map(str, _whole(path, npy.read(names)))) if names.exists() else None
    return Opened(rows, _truth(path, rows, npy.read(labels), wanted, called))


def _idx(path: Path, wanted: Wanted) -> Opened:
    shape, offset = idx.images_layout(path)
    rows = StoredRows(HeldFile(path), np.dtype(np.uint8), shape, offset)
    if (labels := idx.labels_of(path)) is None or not wanted.truth:
        return _with_unpacked(path, wanted, rows)
    return Opened(rows, _truth(labels, rows, idx.read_labels(labels, 256), wanted, names_beside(path)))


def _safetensors(path: Path, wanted: Wanted) -> Opened:
    found = Tensors(path)
    rows, labels = arrays_of(path, found.names, wanted)
    if labels is None:
        return Opened(found[rows])
    are_places = SPLIT_KEY in found.names  # of a prepared split
    return Opened(found[rows], _truth(path, found[rows], found[labels], wanted, are_places=are_places))


def _gunzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack an IDX file, never more of it than its header promises."""
    size, labels = idx.promised_size(path), idx.labels_of(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if labels and wanted.truth:
        np.save(target.with_suffix(LABELS_SUFFIX), idx.read_labels(labels, 256))
        _save_names(path, target)
    with idx.unpacked(path) as packed:
        _copy(packed, target, size, path)


def _unzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack the rows of an ``.npz`` file, and before them their labels, if it has some."""
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(regular_files.opened(path))
        with reading(path):
            archive = opened.enter_context(zipfile.ZipFile(stream))
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        rows, labels = arrays_of(path, names, wanted)
        called = "class_names" if labels and "class_names" in names else None
        if not called:
            _save_names(path, target)
        beside = (labels, target.with_suffix(LABELS_SUFFIX)), (called, target.with_suffix(NAMES_SUFFIX))
        for name, place in (*beside, (rows, target)):
            if name:
                with reading(path):
                    packed = opened.enter_context(member(archive, f"{name}.npy"))
                _copy(packed, place, archive.getinfo(f"{name}.npy").file_size, path)


def _save_names(path: Path, target: Path) -> None:
    """Write what a file's whole-numbered labels stand for, where ``labels.txt`` beside it says so."""
    if names := names_beside(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target.with_suffix(NAMES_SUFFIX), np.array(names))


def member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A file in an archive as numpy writes them.

    Raises:
        ValueError: it is packed otherwise: bzip2 is unpacked without bound.
    """
    facts = archive.getinfo(name)
    if facts.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compression {facts.compress_type}, which numpy does not write")
    return archive.open(facts)


def _copy(packed: IO[bytes], target: Path, size: int, path: Path) -> None:
    """Write ``size`` bytes (and one more, which shows surplus) of an unpacked stream."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(target.parent).free):
        raise broken(path, f"it unpacks to {size} bytes, and {target.parent} has room for {free}")
    left = size + 1
    with atomic.replacing(target) as temporary, temporary.open("wb") as stream:
        while left:
            with reading(path):
                block = packed.read(min(COPY_BYTES, left))
            if not block:
                break
            stream.write(block)
            left -= len(block)


IDX = _array_format(
    "idx", (".idx", ".gz"), _idx, unpack=_gunzip, unpacked_suffix=".idx", is_packed=idx.is_gzip
)  # fmt: skip
NPY = _array_format("npy", (".npy",), lambda path, wanted: Opened(npy.read(path)))
NPZ = _array_format("npz", (".npz",), _with_unpacked, unpack=_unzip, unpacked_suffix=".npy")
SAFETENSORS = _array_format("safetensors", (".safetensors",), _safetensors)
