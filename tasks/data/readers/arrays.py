"""Arrays on disk: IDX, ``.npy``, ``.npz`` and safetensors. Every header is compared with the file's size first."""

import contextlib
import io
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from tasks.data import idx
from tasks.data.readers import formats
from tasks.data.readers.formats import Array, Format, Piece, Wanted, broken, check_fit, encoded, reading
from tasks.data.readers.labels import arrays_of, classes
from tasks.data.readers.stored import HeldFile, StoredRows
from tasks.data.readers.tensors import Tensors
from tasks.data.recipe import Pixels
from tasks.data.splits import SPLIT_KEY
from tasks.errors import DataError
from tasks.serving.task import Regression
from tasks.store import atomic, regular_files

COPY_BYTES = 2**20
NPY_HEADER_BYTES = 2**14  # numpy itself believes no header of more than 10,000
NPY_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}  # 3.0 has fields with names beyond Latin 1, which is no array of numbers
LABELS_SUFFIX = ".labels.npy"  # of what is unpacked beside the rows


class Opened(NamedTuple):
    """The rows of a file, and their labels where it brings them along: the classes' places, or what they are called."""

    rows: StoredRows
    labels: StoredRows | None = None
    are_places: bool = True

    def truth(self, first: int, last: int, wanted: Wanted) -> Array | None:
        """Of some rows."""
        if self.labels is None or self.are_places:
            return None if self.labels is None else self.labels[first:last]
        return classes(self.labels[first:last].reshape(-1), wanted)


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
        if found.labels is not None and wanted.truth:
            _check_labels(path, found, found.labels, wanted.truth)
        return len(array)

    def pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
        found = opened(path, wanted)
        array = found.rows
        step = max(1, min(wanted.chunk_rows, formats.CHUNK_BYTES // array.row_bytes))
        fits = wanted.recipe.input.dtype == "uint8" and array.shape[1:] == wanted.recipe.input.shape
        is_read_later = fits and array.column_bytes is None
        for first in range(start, stop, step):
            last = min(first + step, stop)
            truth = found.truth(first, last, wanted)
            if is_read_later:  # batch by batch, by the model; of numbers it must be seen which are finite
                yield Piece(first, last - first, array.part(first, last), truth=truth)
            else:
                yield encoded(first, array[first:last], wanted, truth)

    return Format(name, suffixes, count, pieces, **packing)


def _check_labels(path: Path, found: Opened, labels: StoredRows, name: str) -> None:
    rows, kinds = len(found.rows), "iuf" if name == Regression.target else "iu" if found.are_places else "iuU"
    shapes = [(rows,)] if found.are_places else [(rows,), (rows, 1)]
    if labels.shape not in shapes or labels.dtype.kind not in kinds:
        raise DataError(
            f"{path} holds {labels.dtype} labels of shape {list(labels.shape)}",
            f"a whole number for each of {rows} rows",
            f"write them again, or leave out the {name}",
        )


def npy_header(header: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype, from at most ``NPY_HEADER_BYTES`` of a file's beginning.

    Raises:
        ValueError: it is no array of numbers or text.
    """
    version = np.lib.format.read_magic(header)
    if version not in NPY_HEADERS:
        raise ValueError(f"its version {version} is none of an array of numbers")
    shape, is_fortran, dtype = NPY_HEADERS[version](header)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, not numbers")
    return shape, is_fortran, dtype


def _npy(path: Path, wanted: Wanted) -> Opened:
    file = HeldFile(path)
    with reading(path):
        header = io.BytesIO(file.read(NPY_HEADER_BYTES, 0))
        shape, is_fortran, dtype = npy_header(header)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or header.tell() + size > file.size:
            raise ValueError(f"it has {file.size} bytes, and its header promises shape {shape} of {dtype}")
    column_bytes = shape[0] * dtype.itemsize if is_fortran and shape else None
    return Opened(StoredRows(file, dtype, shape, header.tell(), column_bytes))


def _npz(path: Path, wanted: Wanted) -> Opened:
    """What ``_unzip`` made."""
    beside = path.with_suffix(LABELS_SUFFIX)
    labels = _npy(beside, wanted).rows if beside.exists() else None
    return Opened(_npy(path, wanted).rows, labels, are_places=not isinstance(wanted.recipe, Pixels))


def _idx(path: Path, wanted: Wanted) -> Opened:
    shape, offset = idx.images_layout(path)
    return Opened(StoredRows(HeldFile(path), np.dtype(np.uint8), shape, offset))


def _safetensors(path: Path, wanted: Wanted) -> Opened:
    found = Tensors(path)
    rows, labels = arrays_of(path, found.names, wanted)
    are_places = not isinstance(wanted.recipe, Pixels) or SPLIT_KEY in found.names  # of a prepared split
    return Opened(found[rows], found[labels] if labels else None, are_places)


def _gunzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack an IDX file, never more of it than its header promises."""
    size = idx.promised_size(path)
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
        for name, place in ((labels, target.with_suffix(LABELS_SUFFIX)), (rows, target)):
            if name:
                with reading(path):
                    packed = opened.enter_context(member(archive, f"{name}.npy"))
                _copy(packed, place, archive.getinfo(f"{name}.npy").file_size, path)


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
NPY = _array_format("npy", (".npy",), _npy)
NPZ = _array_format("npz", (".npz",), _npz, unpack=_unzip, unpacked_suffix=".npy")
SAFETENSORS = _array_format("safetensors", (".safetensors",), _safetensors)
