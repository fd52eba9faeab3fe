"""Files of labelled arrays: IDX by MNIST's naming, ``.npz`` (as Keras has it, too), safetensors."""

import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from tasks.data import idx
from tasks.data.images.arrays import BLOCK_BYTES, Piece, checked, in_blocks, side_of, source_of
from tasks.data.images.source import JOB, Source
from tasks.data.readers import arrays, npy
from tasks.data.readers.formats import reading
from tasks.data.readers.labels import called
from tasks.data.readers.stored import StoredRows
from tasks.data.readers.tensors import Tensors
from tasks.data.report import note
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.store import regular_files

PARTS = ("", "train", "test", "val", "validation", "valid")
MOST_LABEL_BYTES = 2**30
TRANSPOSED = note(
    "transposed",
    None,
    "EMNIST's files hold images with rows and columns exchanged, and do not say so: they are taken as they are",
    "exchange those of a picture of your own before it is predicted",
)


def find_idx(folder: Path) -> Source | None:
    """The files of MNIST, and of what is called like it; None where there are none."""
    named = [path for path in sorted(folder.iterdir()) if "idx3" in path.name and "images" in path.name]
    found: dict[int | None, Path] = {}
    for path in filter(Path.is_file, named):
        first = found.setdefault(side_of(path.name), path)
        if path.name not in (first.name, first.name + idx.PACKED):  # torchvision keeps both
            expected = "one file of images for each part"
            raise DataError(f"{first} and {path.name} beside it", expected, "move those of other data elsewhere")
    if not found:
        return None
    files = [*found.values()]
    labels = [_labels_of(path) for path in files]
    pieces = [_idx_piece(*pair) for pair in zip(files, labels, strict=True)]
    source = source_of(folder, [*files, *labels], pieces, None)
    is_transposed = any("emnist" in path.name.lower() for path in files)
    return source._replace(findings=(TRANSPOSED,)) if is_transposed else source


def _labels_of(images: Path) -> Path:
    if found := idx.labels_of(images):
        return found
    expected = "labels for each file of images, called as it is but for labels and idx1"
    raise DataError(f"no labels beside {images}", expected, "put them there")


def _idx_piece(path: Path, labels: Path) -> Piece:
    shape, offset = idx.images_layout(path)
    checked(str(path), np.uint8, shape)

    def blocks() -> Iterator[Array]:
        with idx.unpacked(path) as stream:
            stream.read(offset)
            yield from in_blocks(stream, shape, path)

    return Piece(str(path), side_of(path.name), shape, blocks, idx.read_labels(labels, 256))


def find_npz(path: Path) -> Source:
    """The arrays of an ``.npz`` file: ``images`` and ``labels``, or as Keras has them: ``x_train``, ``y_train``."""
    with ExitStack() as opened, reading(path):
        archive = opened.enter_context(zipfile.ZipFile(opened.enter_context(regular_files.opened(path))))
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    pieces = []
    for images, labels in pairs(names, path):
        with _member(path, images) as (_, dtype, shape):
            checked(f"{images} in {path}", dtype, shape)
        blocks = partial(_member_blocks, path, images)
        found = _whole(path, labels)
        pieces.append(
            Piece(f"{path} {images}", side_of(images), shape, blocks, found[:, 0] if found.shape[1:] == (1,) else found)
        )
    class_names = _whole(path, "class_names") if "class_names" in names else None
    return source_of(path, [path], pieces, None if class_names is None else tuple(map(str, class_names)))


def pairs(names: Iterable[str], path: Path) -> list[tuple[str, str]]:
    """Which arrays are images, and which their labels.

    Raises:
        DataError: none are.
    """
    there = set(names)
    if found := [pair for pair in called(PARTS) if set(pair) <= there]:
        return found
    expected = "images and labels, or x_train, y_train, x_test and y_test"
    raise DataError(f"{path} holds arrays {sorted(there)}", expected, "rename them")


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]]:
    """An array in an archive: a stream of its values, their dtype, and its shape."""
    with ExitStack() as opened:
        with reading(path):
            archive = opened.enter_context(zipfile.ZipFile(opened.enter_context(regular_files.opened(path))))
            with arrays.member(archive, f"{name}.npy") as stream:
                header = io.BytesIO(stream.read(npy.HEADER_BYTES))
            shape, is_fortran, dtype = npy.header_of(header)
            if archive.getinfo(f"{name}.npy").file_size != header.tell() + math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} has not the size that its header promises, {shape} of {dtype}")
            if is_fortran and len(shape) > 1:
                raise ValueError(f"{name} is in Fortran order: write it with numpy.ascontiguousarray")
            stream = opened.enter_context(arrays.member(archive, f"{name}.npy"))
            stream.read(header.tell())
        yield stream, dtype, shape


def _member_blocks(path: Path, name: str) -> Iterator[Array]:
    with _member(path, name) as (stream, _, shape):
        yield from in_blocks(stream, shape, path)


def _whole(path: Path, name: str) -> Array:
    """An array of labels or names in memory."""
    with _member(path, name) as (stream, dtype, shape), reading(path):
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "iuU" or not shape or size > MOST_LABEL_BYTES:
            raise ValueError(f"{name} is {dtype} of shape {list(shape)}, and no whole numbers or text")
        content = stream.read(size)
        if len(content) != size:
            raise ValueError(f"it ends inside {name}")
        return np.frombuffer(content, dtype).reshape(shape)


def find_safetensors(path: Path) -> Source:
    """The tensors of a safetensors file, called as the arrays of an ``.npz`` file are."""
    tensors = Tensors(path)
    pieces = []
    for images, labels in pairs(tensors.names, path):
        rows, found = tensors[images], tensors[labels]
        checked(f"{images} in {path}", rows.dtype, rows.shape)
        if found.dtype.kind not in "iu":
            raise DataError(f"{labels} in {path} are {found.dtype}", "whole numbers", "convert them")
        pieces.append(
            Piece(f"{path} {images}", side_of(images), rows.shape, partial(_stored_blocks, rows), np.asarray(found))
        )
    return source_of(path, [path], pieces, None)


def _stored_blocks(rows: StoredRows) -> Iterator[Array]:
    of_image = rows.shape[1:3] if rows.shape[3:] == (1,) else rows.shape[1:]
    step = max(1, min(JOB, BLOCK_BYTES // rows.row_bytes))
    return (np.asarray(rows[at : at + step]).reshape(-1, *of_image) for at in range(0, len(rows), step))
