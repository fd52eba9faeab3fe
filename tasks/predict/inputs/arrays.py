"""Arrays on disk: IDX, ``.npy``, ``.npz`` and safetensors, mapped into memory or read slice by slice."""

import contextlib
import gzip
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors

from tasks import atomic, idx
from tasks.errors import DataError
from tasks.predict.inputs.formats import Array, Format, Piece, Wanted, check_fit, finite_only, fitted

LABELS = "labels"  # the optional tensor of true labels in a safetensors file
COPY_BYTES = 2**20


def _array_format(name: str, suffixes: tuple[str, ...], opened: Any, **packing: Any) -> Format:
    """A format whose files open as something with a shape, a dtype and slices of rows."""

    def count(path: Path, wanted: Wanted) -> int:
        with opened(path, wanted) as (array, _):
            if not array.shape:
                raise _broken(path, "it holds a single number")
            check_fit(path, array.dtype, tuple(array.shape[1:]), wanted)
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


def _broken(path: Path, reason: object) -> DataError:
    return DataError(f"{path} cannot be read: {reason}", f"a whole {path.suffix or 'IDX'} file", "write it again")


@contextlib.contextmanager
def _npy(path: Path, wanted: Wanted) -> Iterator[tuple[Array, None]]:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _broken(path, error) from error
    yield np.asarray(mapped), None


@contextlib.contextmanager
def _idx(path: Path, wanted: Wanted) -> Iterator[tuple[Array, None]]:
    yield idx.map_images(path), None


class _Slices:
    """One tensor of a safetensors file; a slice reads its own rows only."""

    def __init__(self, stored: Any) -> None:
        self._stored = stored
        self.shape = tuple(stored.get_shape())
        self.dtype = stored[:0].dtype if self.shape else None

    def __getitem__(self, rows: slice) -> Array:
        values: Array = self._stored[rows.start : rows.stop]
        return values


@contextlib.contextmanager
def _safetensors(path: Path, wanted: Wanted) -> Iterator[tuple[_Slices, _Slices | None]]:
    try:
        file = safetensors.safe_open(path, framework="np")
    except safetensors.SafetensorError as error:
        raise _broken(path, error) from error
    with file as tensors:
        names = set(tensors.keys())
        if wanted.tensor.name not in names:
            raise DataError(
                f"{path} holds tensors {sorted(names)}", f"a tensor named {wanted.tensor.name}", "rename it"
            )
        yield (
            _Slices(tensors.get_slice(wanted.tensor.name)),
            _Slices(tensors.get_slice(LABELS)) if LABELS in names else None,
        )


def _gunzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack an IDX file, never more of it than its header promises."""
    size = idx.promised_size(path)
    with gzip.open(path) as packed:
        _copy(packed, target, size, path)


def _unzip(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack the array of an ``.npz`` file: the one named like the model's input, or the only one."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            name = wanted.tensor.name if wanted.tensor.name in arrays else next(iter(arrays), "")
            if not arrays or (len(arrays) > 1 and name != wanted.tensor.name):
                raise DataError(
                    f"{path} holds arrays {sorted(arrays)}", f"one named {wanted.tensor.name}, or only one", "rename it"
                )
            with archive.open(arrays[name]) as member:
                _copy(member, target, archive.getinfo(arrays[name]).file_size, path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise _broken(path, error) from error


def _copy(packed: IO[bytes] | gzip.GzipFile, target: Path, size: int, path: Path) -> None:
    """Write ``size`` bytes (and one more, which shows surplus) of an unpacked stream."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(target.parent).free):
        raise _broken(path, f"it unpacks to {size} bytes, and {target.parent} has room for {free}")
    left = size + 1
    with atomic.replacing(target) as temporary, temporary.open("wb") as stream:
        while left:
            try:
                block = packed.read(min(COPY_BYTES, left))
            except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
                raise _broken(path, error) from error
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
