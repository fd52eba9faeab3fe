"""Arrays on disk: IDX, ``.npy``, ``.npz`` and safetensors, mapped into memory or read slice by slice."""

import contextlib
import gzip
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors

from tasks import atomic, idx
from tasks.errors import DataError, GradmillError
from tasks.predict.inputs.formats import Array, Format, Piece, Wanted, check_fit, finite_only, fitted

LABELS = "labels"  # the optional tensor of true labels in a safetensors file
COPY_BYTES = 2**20
DTYPES = {
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip  # of safetensors; numpy has no others, such as BF16


def _array_format(name: str, suffixes: tuple[str, ...], opened: Any, **packing: Any) -> Format:
    """A format whose files open as something with a shape, a dtype and slices of rows."""

    def count(path: Path, wanted: Wanted) -> int:
        with opened(path, wanted) as (array, labels):
            if not array.shape:
                raise _broken(path, "it holds a single number")
            check_fit(path, array.dtype, tuple(array.shape[1:]), wanted)
            if labels is not None:
                _check_labels(path, labels, array.shape[0])
            return int(array.shape[0])

    def pieces(path: Path, start: int, stop: int, at_most: int, wanted: Wanted) -> Iterator[Piece]:
        with opened(path, wanted) as (array, labels):
            for first in range(start, stop, at_most):
                last = min(first + at_most, stop)
                values, notes = fitted(array[first:last], wanted)
                truth = None if labels is None else labels[first:last]
                if wanted.is_image:
                    yield Piece(first, last - first, values, truth=truth, notes=notes)
                else:
                    yield finite_only(first, values, truth=truth)

    return Format(name, suffixes, count, pieces, **packing)


def _check_labels(path: Path, labels: Any, rows: int) -> None:
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds {labels.dtype} labels of shape {list(labels.shape)}",
            f"a whole number for each of {rows} rows",
            f"write them again, or leave out the tensor {LABELS}",
        )


def _broken(path: Path, reason: object) -> DataError:
    return DataError(f"{path} cannot be read: {reason}", f"a whole {path.suffix or 'IDX'} file", "write it again")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Take whatever is raised for the file's fault: what parsers and decompressors raise has no end of kinds."""
    try:
        yield
    except GradmillError:
        raise
    except Exception as error:
        raise _broken(path, error) from error


@contextlib.contextmanager
def _npy(path: Path, wanted: Wanted) -> Iterator[tuple[Array, None]]:
    with _reading(path), np.errstate(over="ignore"):  # of a shape that no memory could hold
        mapped = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    yield mapped, None


@contextlib.contextmanager
def _idx(path: Path, wanted: Wanted) -> Iterator[tuple[Array, None]]:
    yield idx.map_images(path), None


class _Slices:
    """One tensor of a safetensors file; a slice reads its own rows only."""

    def __init__(self, path: Path, stored: Any) -> None:
        self._stored = stored
        self.shape = tuple(stored.get_shape())
        if stored.get_dtype() not in DTYPES:
            raise _broken(path, f"numpy has no {stored.get_dtype()}")
        self.dtype = np.dtype(DTYPES[stored.get_dtype()])

    def __getitem__(self, rows: slice) -> Array:
        values: Array = self._stored[rows.start : rows.stop]
        return values


@contextlib.contextmanager
def _safetensors(path: Path, wanted: Wanted) -> Iterator[tuple[_Slices, _Slices | None]]:
    with _reading(path):
        file = safetensors.safe_open(path, framework="np")
    with file as tensors:
        names = set(tensors.keys())
        if wanted.tensor.name not in names:
            raise DataError(
                f"{path} holds tensors {sorted(names)}", f"a tensor named {wanted.tensor.name}", "rename it"
            )
        yield (
            _Slices(path, tensors.get_slice(wanted.tensor.name)),
            _Slices(path, tensors.get_slice(LABELS)) if LABELS in names and wanted.classified else None,
        )


def _gunzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack an IDX file, never more of it than its header promises."""
    size = idx.promised_size(path)
    with gzip.open(path) as packed:
        _copy(packed, target, size, path)


def _unzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack the array of an ``.npz`` file: the one named like the model's input, or the only one."""
    with contextlib.ExitStack() as opened:
        with _reading(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
            arrays = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            name = wanted.tensor.name if wanted.tensor.name in arrays else next(iter(arrays), "")
            if not arrays or (len(arrays) > 1 and name != wanted.tensor.name):
                raise DataError(
                    f"{path} holds arrays {sorted(arrays)}", f"one named {wanted.tensor.name}, or only one", "rename it"
                )
            member = opened.enter_context(archive.open(arrays[name]))
        _copy(member, target, archive.getinfo(arrays[name]).file_size, path)


def _copy(packed: IO[bytes] | gzip.GzipFile, target: Path, size: int, path: Path) -> None:
    """Write ``size`` bytes (and one more, which shows surplus) of an unpacked stream."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(target.parent).free):
        raise _broken(path, f"it unpacks to {size} bytes, and {target.parent} has room for {free}")
    left = size + 1
    with atomic.replacing(target) as temporary, temporary.open("wb") as stream:
        while left:
            with _reading(path):
                block = packed.read(min(COPY_BYTES, left))
            if not block:
                break
            stream.write(block)
            left -= len(block)


IDX = _array_format(
    "idx", (".idx", ".gz"), _idx, unpack=_gunzip, unpacked_suffix=".idx", is_packed=idx.is_gzip
)  # fmt: skip
NPY = _array_format("npy", (".npy",), _npy)
NPZ = _array_format("npz", (".npz",), _npy, unpack=_unzip, unpacked_suffix=".npy")
SAFETENSORS = _array_format("safetensors", (".safetensors",), _safetensors)
