"""Labelled images of a user: a folder of pictures for each class, MNIST's files, ``.npz``, safetensors, Parquet.

Whatever they lie in, they come to one ``LabelledImages``, and ``read_images`` to raw pixels of one shape in a file.
"""

import hashlib
import itertools
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.io import arrays, pictures, tabular
from tasks.data.io.arrays import StoredArray
from tasks.data.io.file_errors import broken, reading
from tasks.data.io.pictures import DecodeStats, Item, Job, Shape
from tasks.data.levels import sort_levels
from tasks.data.report import Finding, error, note
from tasks.data.split import TEST, TRAINING, VALIDATION
from tasks.errors import DataError
from tasks.machine import cores, processes, progress
from tasks.machine.arrays import Array
from tasks.store import fingerprints, regular_files
from tasks.store.regular_files import holds, shown

SPLIT_WORDS = {
    "train": TRAINING, "training": TRAINING, "test": TEST, "testing": TEST, "t10k": TEST,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
}  # fmt: skip
LONGEST = 5  # names that a message has
CLASS_NAMES = "labels.txt"  # beside the files: a class a line
# What arrays of images and labels are called, before or after the word of their part.
ARRAY_NAMES = (("images", "labels"), ("x", "y"), ("X", "y"), ("image", "label"))
ARRAY_PARTS = ("", "train", "test", "val", "validation", "valid")
METADATA = b"huggingface"
LABEL_COLUMNS = ("label", "labels", "class")
MOST_ROWS = 10**8  # of a Parquet file: a footer may promise any number
JOB_IMAGES, JOB_BYTES = 256, 2**22  # images that are read together from a file of many
FILE_JOBS = 32  # of all picture files: the cores are to end at one time
FEWEST_FILES, MOST_FILES = 16, 1024  # of a job: a process waits for the interpreter's lock of its parent before each
SAMPLE = 64  # images by which the shape is guessed: where all others are alike, they are read once
LARGEST_SIDE, USUAL_SIDE = 256, 28
WAITING_JOBS = 8  # that have been read and not decoded yet
LONG_SECONDS = 0.2  # of decoding, beyond which processes are worth their start


class LabelledImages(NamedTuple):
    """Labelled images as they were found; nothing is decoded yet."""

    source: str  # an absolute path
    fingerprint: str  # a digest that changes where a file looks touched, comes or goes
    class_names: tuple[str, ...]  # as the data have them, in any order
    labels: NDArray[np.int64]  # (n,) into them
    split_ids: NDArray[np.uint8] | None  # (n,) of the split; None where the source has none
    num_files: int
    blocks: Callable[
        [], Iterator[Sequence[Item]]
    ]  # of all images, in order; what is no path is read as it is asked for
    sample: Callable[[], Iterator[Item]]  # a few images, from here and there
    place: Callable[[int], str]  # where an image is, for people
    findings: tuple[Finding, ...] = ()
    other_files: tuple[str, ...] = ()  # among picture files


# Folders of pictures (torchvision's ``ImageFolder``), maybe below ``train/`` and ``test/``.


class _Folder(NamedTuple):
    """Pictures of one class that lie side by side."""

    path: str
    label: int
    split_id: int
    names: NDArray[np.bytes_]


@dataclass
class _FolderSearch:
    """What lies below a folder."""

    classes: dict[str, int] = field(default_factory=dict)  # each with its number, in the order they were found
    folders: list[_Folder] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)  # of all pictures so far: there may be millions
    strays: list[str] = field(default_factory=list)  # files among the folders of classes
    others: list[str] = field(default_factory=list)  # files of other kinds
    links: list[str] = field(default_factory=list)  # to folders
    unreadable: list[str] = field(default_factory=list)

    def add_part(self, folder: str, split_id: int) -> None:
        """Folders of classes; a link to one is followed, unless it leads to what it lies in."""
        for entry in self._entries(folder):
            if not holds(entry.is_dir):
                self.strays += [] if entry.name.startswith(".") else [entry.path]
            elif entry.is_symlink() and Path(folder).resolve().is_relative_to(Path(entry.path).resolve()):
                self.links.append(entry.path)
            elif not entry.name.startswith((".", "__MACOSX")):
                self._add_class(entry.path, self.classes.setdefault(entry.name, len(self.classes)), split_id)

    def _add_class(self, folder: str, label: int, split_id: int) -> None:
        """The pictures of one class, however deep: a folder's own after those of the folders in it."""
        open_folders = [(folder, iter(self._entries(folder)), list[bytes]())]
        while open_folders:
            path, entries, names = open_folders[-1]
            if inner := next(filter(None, (self._add_entry(entry, names) for entry in entries)), None):
                open_folders.append((inner, iter(self._entries(inner)), []))
            else:
                self.folders.append(_Folder(path, label, split_id, np.array(names, np.bytes_)))
                open_folders.pop()

    def _add_entry(self, entry: os.DirEntry[str], names: list[bytes]) -> str | None:
        """Note what lies in a folder of a class; a folder is returned, to be looked into next."""
        if holds(entry.is_dir):
            if not entry.is_symlink():
                return None if entry.name.startswith(".") else entry.path
            self.links.append(entry.path)
        elif entry.name.startswith(".") or not holds(entry.is_file):
            pass
        elif entry.name.lower().endswith(pictures.SUFFIXES):
            facts = os.stat(entry.path)  # noqa: PTH116  (an entry would keep its own)
            self.digest.update(os.fsencode(f"{entry.path}\0{facts.st_size}\0{facts.st_mtime_ns}\0"))
            names.append(os.fsencode(entry.name))
        else:
            self.others.append(entry.path)
        return None

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append(f"{shown(folder)} ({error.strerror})")
            return []

    def findings(self) -> Iterator[Finding]:
        """What was left out."""
        for rule, words, paths in (
            ("stray-files", "what lies beside the folders of classes or of parts", self.strays),
            ("other-files", "files of other kinds", self.others),
            ("links", "links to folders", self.links),
        ):
            if paths:
                more = f" and {len(paths) - LONGEST:,} more" if len(paths) > LONGEST else ""
                first = ", ".join(" ".join(shown(path).split()) for path in paths[:LONGEST])
                yield note(rule, None, f"left out {words} ({len(paths):,}): {first}{more}")
        if self.unreadable:
            found = f"folders that cannot be read: {', '.join(self.unreadable[:LONGEST])}"
            yield error("closed-folder", None, found, "readable ones", "see permissions")


def find_pictures(folder: Path) -> LabelledImages:
    """The pictures below a folder, in the order of their own names, as numbers are where arrays were written out."""
    search, parts = _FolderSearch(), _split_folders(folder)
    for part, split_id in parts.items():
        search.add_part(str(part), split_id)
    if folder not in parts:
        search.strays += [str(each) for each in sorted(folder.iterdir()) if each not in parts and each.name[0] != "."]
    search.digest.update(str([parts, sorted(search.classes)]).encode(errors="surrogateescape"))
    found = [each for each in search.folders if len(each.names)]
    names = np.concatenate([np.array([], np.bytes_), *(each.names for each in found)])
    order = np.argsort(names, kind="stable")  # as strings, the paths would be as large as small images
    names, number = (
        names[order],
        np.repeat(np.arange(len(found), dtype=np.int32), [len(each.names) for each in found])[order],
    )
    step = min(MOST_FILES, max(FEWEST_FILES, len(names) // FILE_JOBS))

    def path(at: int) -> str:
        return f"{found[number[at]].path}{os.sep}{os.fsdecode(names[at])}"

    return LabelledImages(
        source=str(folder),
        fingerprint=search.digest.hexdigest(),
        class_names=tuple(map(shown, search.classes)),
        labels=np.array([each.label for each in found], np.int64)[number],
        split_ids=np.array([each.split_id for each in found], np.uint8)[number] if len(parts) > 1 else None,
        num_files=len(names),
        blocks=lambda: ([*map(path, range(len(names))[at : at + step])] for at in range(0, len(names), step)),
        sample=lambda: map(path, range(0, len(names), max(1, len(names) // SAMPLE))),
        place=lambda at: " ".join(shown(path(at)).split()),
        findings=tuple(search.findings()),
        other_files=(*search.others, *search.strays),
    )


def _split_folders(folder: Path) -> dict[Path, int]:
    """The folders of the splits; the folder itself where it has none, or ``train/`` alone.

    A folder of pictures and no folders is none of a split: a class may be called ``train``.
    """
    try:
        named = sorted(each for each in folder.iterdir() if each.name.lower() in SPLIT_WORDS)
        found = {each: SPLIT_WORDS[each.name.lower()] for each in named if each.is_dir() and not _is_class(each)}
    except OSError:
        found = {}
    if TRAINING not in found.values():
        return {folder: TRAINING}
    return dict(zip(found, _with_test([*found.values()]), strict=True))


def _with_test(split_ids: list[int]) -> list[int]:
    """A validation part is the test part where there is no other."""
    return split_ids if TEST in split_ids else [TEST if each == VALIDATION else each for each in split_ids]


def _is_class(folder: Path) -> bool:
    """Whether a folder has pictures and no folders."""
    with os.scandir(folder) as entries:
        found = list(entries)
    has_pictures = any(entry.name.lower().endswith(pictures.SUFFIXES) for entry in found)
    return has_pictures and not any(holds(entry.is_dir) for entry in found)


# Arrays of images, and Parquet.


class ImageArray(NamedTuple):
    """Images of one part of the split in one array; they are read when it is asked for ``blocks``."""

    place: str  # for people
    split_id: int | None
    num_images: int
    blocks: Callable[[], Iterator[Array | list[bytes]]]  # each at most ``JOB_IMAGES`` images
    labels: Array  # (n,) whole numbers or names


def find_idx(folder: Path) -> LabelledImages | None:
    """The files of MNIST, and of what is called like it; None where there are none."""
    found: dict[int | None, Path] = {}
    for path in sorted(folder.iterdir()):
        if "idx3" not in path.name or "images" not in path.name or not path.is_file():
            continue
        first = found.setdefault(_split_named(path.name), path)
        if path.name not in (first.name, first.name + arrays.PACKED):  # torchvision keeps both
            expected = "one file of images for each part"
            raise DataError(f"{first} and {path.name} beside it", expected, "move those of other data elsewhere")
    files, parts = [*found.values()], []
    for path in found.values():
        if (labels := arrays.idx_labels_beside(path)) is None:
            expected = "labels for each file of images, called as it is but for labels and idx1"
            raise DataError(f"no labels beside {path}", expected, "put them there")
        files.append(labels)
        parts.append(_image_array(str(path), path.name, arrays.open_idx(path), arrays.read_idx_labels(labels)))
    return _labelled(folder, files, parts) if found else None


def find_arrays(path: Path) -> LabelledImages:
    """The arrays of an ``.npz`` or safetensors file: ``images`` and ``labels``, or those that Keras has."""
    file = arrays.open_arrays(path)
    parts = [
        _image_array(f"{path} {name}", name, file.open_array(name), read_labels(path, labels, file.open_array(labels)))
        for name, labels in label_pairs(ARRAY_PARTS)
        if {name, labels} <= {*file.names}
    ]
    if not parts:
        expected = "images and labels, or x_train, y_train, x_test and y_test"
        raise DataError(f"{path} holds arrays {sorted(file.names)}", expected, "rename them")
    return _labelled(path, [path], parts, class_names_in(file))


def label_pairs(parts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What arrays of images and labels of the parts of a split, such as ``test``, may be called."""
    for images, labels in ARRAY_NAMES:
        for part in parts:
            yield (f"{images}_{part}", f"{labels}_{part}") if part else (images, labels)
            if part:
                yield f"{part}_{images}", f"{part}_{labels}"


def _split_named(name: str) -> int | None:
    """The part of the split that a name tells of."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _image_array(place: str, name: str, array: StoredArray, labels: Array) -> ImageArray:
    """Images that lie in an array of bytes; a last axis of one channel is left out.

    Raises:
        DataError: it holds something else.
    """
    shape = array.shape
    is_one = array.dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
    if not is_one or 0 in shape[1:] or math.prod(shape[1:3]) > pictures.LARGEST_PIXELS:
        found = f"{place} holds {array.dtype} of shape {list(shape)}"
        expected = "uint8 pixels, 0 to 255, of shape [images, height, width], or with 3 channels last"
        raise DataError(found, expected, "convert the array: multiply shares of 1 by 255, put channels last")
    if array.column_bytes is not None:
        raise broken(array.path, f"{place} is in Fortran order: write it with numpy.ascontiguousarray")
    of_image, size = shape[1:3] if shape[3:] == (1,) else shape[1:], min(JOB_IMAGES, JOB_BYTES // array.row_bytes)

    def blocks() -> Iterator[Array]:
        for batch in array.batches(max(1, size)):
            yield batch.reshape(-1, *of_image).copy()  # the next is read while it waits

    return ImageArray(place, _split_named(name), shape[0], blocks, labels)


def find_parquet(path: Path) -> LabelledImages | None:
    """The images of a Parquet file or a folder of such; None where the first of them has no column of images.

    Raises:
        DataError: a file is broken, differs from the first one, or has no labels.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not files:
        return None
    with open_parquet(files[0]) as file:
        schema = file.schema_arrow
    image, (label, names) = image_column(schema), class_column(schema)
    if image is None:
        return None
    if label is None:
        expected = f"a column of classes, called {' or '.join(LABEL_COLUMNS)}"
        raise DataError(f"{files[0]} has columns {', '.join(schema.names)}", expected, "rename the column")
    return _labelled(path, files, [_packed_images(each, image, label) for each in files], names)


open_parquet = partial(tabular.open_parquet, max_rows=MOST_ROWS)


def image_column(schema: pa.Schema, among: tuple[str, ...] = ()) -> str | None:
    """The first column of pictures, structs of ``bytes`` and ``path``, or the first of those that are named."""
    for column in schema:
        kinds = {inner.name: inner.type for inner in column.type} if pa.types.is_struct(column.type) else {}
        if kinds.get("bytes") in (pa.binary(), pa.large_binary()) and (not among or column.name in among):
            return str(column.name)
    return None


def class_column(schema: pa.Schema) -> tuple[str | None, tuple[str, ...]]:
    """The column of classes, and what its whole numbers stand for, as far as the library ``datasets`` says either."""
    try:
        features = json.loads(schema.metadata[METADATA])["info"]["features"].items()
        classes = {name: tuple(map(str, each["names"])) for name, each in features if each["_type"] == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        classes = {}
    name = next((name for name in (*classes, *LABEL_COLUMNS) if name in schema.names), None)
    return name, classes.get(name or "", ())


def _packed_images(path: Path, image: str, label: str) -> ImageArray:
    with open_parquet(path) as file, reading(path):
        column, rows = file.read(columns=[label]).column(label), file.metadata.num_rows
        labels = np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))
    if not {*map(type, labels.tolist())} <= {int, bool, str}:
        found = f"{path} has {column.null_count} of {rows} rows without a {label}, which is {column.type}"
        raise DataError(found, "a whole number or text in each", "fill them in, or leave these rows out")

    def blocks() -> Iterator[list[bytes]]:
        for _, batch in tabular.read_parquet(path, [f"{image}.bytes"], 0, rows, JOB_IMAGES, JOB_BYTES):
            yield [each or b"" for each in batch.column(0).field("bytes").to_pylist()]

    return ImageArray(str(path), _split_named(path.name), rows, blocks, labels)


# Labels: numbers or names, which stand for classes.


def read_labels(path: Path, name: str, labels: StoredArray) -> Array:
    """Labels or names ``(n,)`` in memory.

    Raises:
        DataError: they are neither whole numbers nor text, or far too many.
    """
    if labels.dtype.kind not in "iuU" or not labels.shape or labels.num_bytes > arrays.MOST_LABEL_BYTES:
        found = f"{name} is {labels.dtype} of shape {list(labels.shape)}, and no whole numbers or text"
        raise broken(path, found)
    values = np.asarray(labels)
    return values[:, 0] if values.shape[1:] == (1,) else values


def classes_of_labels(labels: Array, names: tuple[str, ...] = ()) -> tuple[list[str], Array]:
    """The classes that labels ``(n,)`` mean, and which of these each label means ``(n,)``.

    Whole numbers stand for ``names``, if there are any; one beyond them is of no class, which is called "".
    """
    values, codes = np.unique(labels, return_inverse=True)
    if values.dtype.kind in "iu" and names:
        return [names[value] if 0 <= value < len(names) else "" for value in values.tolist()], codes
    return values.astype(str).tolist(), codes


def class_names_in(file: arrays.ArrayFile) -> tuple[str, ...]:
    """What the array ``class_names`` of a file says; nothing where there is none.

    Raises:
        DataError: a name is empty or stands twice.
    """
    if "class_names" not in file.names:
        return ()
    names = read_labels(file.path, "class_names", file.open_array("class_names"))
    return _require_distinct(file.path, tuple(map(str, names)))


def names_beside(path: Path) -> tuple[str, ...]:
    """The classes by ``labels.txt`` in the same folder; nothing where there is none.

    Raises:
        DataError: a name is empty or stands twice.
    """
    file = (path if path.is_dir() else path.parent) / CLASS_NAMES
    if not file.is_file():
        return ()
    with regular_files.opened(file) as stream:
        text = stream.read(2**20).decode("utf-8-sig", errors="replace")
    return _require_distinct(file, tuple(text.splitlines()))


def _require_distinct(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) != len(names) or "" in names:
        raise DataError(f"{path} names a class twice, or not at all", "a name for each class", "mend it")
    return names


def _labelled(path: Path, files: list[Path], parts: list[ImageArray], names: tuple[str, ...] = ()) -> LabelledImages:
    """What arrays come to; ``names`` are those of whole-numbered labels, from 0 on.

    Where there is one part only, its images are split by their hashes, whatever it is called.

    Raises:
        DataError: images and labels differ in number, are none, or a label has no name.
    """
    names = names or names_beside(path)
    found = [_classes_of_part(part, names) for part in parts]
    class_names = names or sort_levels(itertools.chain.from_iterable(classes for classes, _ in found))
    numbers = {name: number for number, name in enumerate(class_names)}
    split_ids, of_images = [part.split_id for part in parts], None
    if TRAINING in split_ids and len({*split_ids} - {None}) > 1:
        if None in split_ids:
            other = f"{parts[split_ids.index(None)].place} beside those for training and testing"
            raise DataError(other, "names that say to which part each belongs", "rename it, or move it elsewhere")
        of_parts = np.array(_with_test(cast("list[int]", split_ids)), np.uint8)
        of_images = np.repeat(of_parts, [part.num_images for part in parts])

    def place(number: int) -> str:
        for part in parts:
            if number < part.num_images:
                return f"{part.place} row {number}"
            number -= part.num_images
        raise IndexError(number)

    return LabelledImages(
        source=str(path),
        fingerprint=hashlib.sha256(json.dumps(fingerprints.of(files)).encode()).hexdigest(),
        class_names=class_names,
        labels=np.concatenate(
            [np.array([numbers[name] for name in classes], np.int64)[codes] for classes, codes in found]
        ),
        split_ids=of_images,
        num_files=len(files),
        blocks=lambda: (list(block) for part in parts for block in part.blocks()),
        sample=lambda: (item for part in parts for item in next(part.blocks())[: SAMPLE // len(parts) + 1]),
        place=place,
    )


def _classes_of_part(part: ImageArray, names: tuple[str, ...]) -> tuple[list[str], Array]:
    labels = part.labels
    if not part.num_images:
        raise DataError(f"{part.place} holds no images", "at least one", "write them again")
    if labels.shape != (part.num_images,):
        found = f"{part.num_images} images and {labels.shape} labels in {part.place}"
        raise DataError(found, "one label for each image", "see that both belong to the same part")
    classes, codes = classes_of_labels(labels, names)
    if names and labels.dtype.kind in "iu" and "" in classes:
        row = int(np.argmax((labels < 0) | (labels >= len(names))))
        found = f"label {labels[row]} at row {row} of {part.place}"
        raise DataError(found, f"labels from 0 to {len(names) - 1}", f"mend it, or {CLASS_NAMES}")
    return classes, codes


# Images to raw pixels of one shape, in a file: decoded side by side, each written to its place.


class ReadOptions(NamedTuple):
    """What is known of the shape before anything is read."""

    side: int | None = None
    channels: str | None = None  # grey or rgb
    shape: Shape | None = None  # that version 1 fixed

    def shape_for(self, sizes: Iterable[tuple[int, int]], is_grey: bool) -> Shape:
        """The shape for images of these sizes, all grey or not."""
        if self.shape:
            return self.shape
        found = set(sizes)
        width, height = found.pop() if len(found) == 1 else (0, 0)
        side = self.side or (width if width == height and 0 < width <= LARGEST_SIDE else USUAL_SIDE)
        in_colour = self.channels == "rgb" if self.channels else not is_grey
        return (side, side, 3) if in_colour else (side, side)


class DecodedImages(NamedTuple):
    """All images of a source in one shape; those that are unreadable are black."""

    spool: Path
    shape: Shape
    stats: DecodeStats

    @property
    def is_readable(self) -> NDArray[np.bool_]:
        """Which images could be decoded, ``(n,)``."""
        readable = np.ones(len(self.stats.hashes), bool)
        readable[list(self.stats.unreadable)] = False
        return readable

    def blocks(self, rows: int = 2**10) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """The pixels ``(n, …)``, so many images at a time, read and not mapped: a map would count as memory."""
        size, total = math.prod(self.shape), len(self.stats.hashes)
        with self.spool.open("rb") as file:
            for start in range(0, total, rows):
                count = min(rows, total - start)
                block = np.fromfile(file, np.uint8, count * size).reshape(count, *self.shape)
                yield slice(start, start + count), block

    def pick(self, numbers: Iterable[int]) -> list[NDArray[np.uint8]]:
        """The pixels of a few images, each of ``shape``."""
        size = math.prod(self.shape)
        return [np.fromfile(self.spool, np.uint8, size, offset=number * size).reshape(self.shape) for number in numbers]


def read_images(source: LabelledImages, options: ReadOptions, spool: Path) -> DecodedImages:
    """Read all images into the file ``spool``, again where their shape is not that of the first ones.

    Raises:
        OSError: the disk has no room for them.
        DataError: a file that holds many of them cannot be read.
        EnvironmentProblem: a process that decodes them was ended.
    """
    looks_for_colour = not (options.shape or options.channels)
    sizes, is_grey, seconds, count = set(), True, 0.0, 0
    for item in source.sample():
        count += 1
        started = time.perf_counter()
        with suppress(Exception):  # Pillow's are of any kind; unreadable ones are found later
            picture = pictures.read_item(item, (1, 1), True)
            sizes.add(picture.size)
            is_grey = is_grey and picture.is_grey
        seconds += 0 if isinstance(item, np.ndarray) else time.perf_counter() - started
    is_long = seconds * len(source.labels) / count > LONG_SECONDS
    shape = options.shape_for(sizes, is_grey)
    found = _decode_all(source, shape, looks_for_colour, spool, is_long)
    better = options.shape_for(found.stats.sizes, found.stats.is_grey)
    if better == shape or not found.stats.sizes:
        return found
    return _decode_all(source, better, False, spool, is_long)


def _decode_all(
    source: LabelledImages, shape: Shape, looks_for_colour: bool, spool: Path, is_long: bool
) -> DecodedImages:
    """Decode side by side and in order; few are read ahead."""
    stats = DecodeStats.create(0, len(source.labels))
    with spool.open("wb") as file:
        os.posix_fallocate(
            file.fileno(), 0, max(1, len(source.labels) * math.prod(shape))
        )  # a full disk is an error here
    decode = partial(pictures.decode_job, shape=shape, looks_for_colour=looks_for_colour, spool=spool)
    with processes.by_all_cores(decode, cores.available(), is_long) as begin, progress.bar() as bar:
        task, waiting, first = bar.add_task("decode", total=len(source.labels)), deque[Future[DecodeStats]](), 0

        def finish_one() -> None:
            part = waiting.popleft().result()
            bar.advance(task, len(part.hashes))
            stats.update(part)

        for items in source.blocks():
            waiting.append(begin(Job(first, items)))
            first += len(items)
            if len(waiting) > WAITING_JOBS:
                finish_one()
        while waiting:
            finish_one()
    return DecodedImages(spool, shape, stats)
