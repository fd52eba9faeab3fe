"""A user's labelled images: a folder of pictures for each class, ``.npz``, safetensors, Parquet.

Whatever they are stored in, they become one ``LabelledImages``, and ``read_images`` makes a file of raw pixels with one
shape.
"""

import hashlib
import itertools
import json
import math
import os
import re
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gradmill.pictures import LARGEST_PIXELS
from tasks.data.io import arrays, pictures, tabular
from tasks.data.io.arrays import StoredArray
from tasks.data.io.discovery import (
    CLOSED_FOLDERS,
    LABELS_FILE,
    LINKS,
    PICTURE_SUFFIXES,
    LeftOut,
    explain_file_errors,
    walk_files,
)
from tasks.data.io.pictures import Item, Shape
from tasks.data.levels import sort_levels
from tasks.data.report import Finding, error, note
from tasks.data.split import SPLIT_WORDS, TEST, TRAINING, VALIDATION
from tasks.errors import DataError
from tasks.machine import parallel, progress, resources
from tasks.machine.arrays import Array
from tasks.machine.words import format_names
from tasks.store import regular_files, verified_files
from tasks.store.regular_files import format_path

LONGEST = 5  # names that a message lists
MAC_FOLDER = "__MACOSX"  # in archives made on a Mac
LEFT_OUT = {
    "stray-files": "what lies beside the folders of classes or of parts",
    "other-files": "files of other kinds",
    LINKS: "links to folders",
    CLOSED_FOLDERS: "folders that cannot be read",
}
# The names of arrays of images and labels, before or after the word for their part.
ARRAY_NAMES = (("images", "labels"), ("x", "y"), ("X", "y"), ("image", "label"))
ARRAY_PARTS = ("", "train", "test", "val", "validation", "valid")
METADATA = b"huggingface"
LABEL_COLUMNS = ("label", "labels", "class")
MOST_ROWS = 10**8  # of a Parquet file, whose footer may claim any number
JOB_IMAGES, JOB_BYTES = 256, 2**22  # images that are read together from a file with many
FILE_JOBS = 32  # for all picture files: the cores should finish at the same time
FEWEST_FILES, MOST_FILES = 16, 1024  # in a job: before each, a process waits for its parent's interpreter lock
SAMPLE = 64  # images from which the shape is guessed: if all others have it, each is read only once
LARGEST_SIDE, USUAL_SIDE = 256, 28
WAITING_JOBS = 32  # jobs that are being decoded before more are read
LONG_SECONDS = 0.2  # of decoding, beyond which processes are worth starting
to_nfc = partial(unicodedata.normalize, "NFC")


class LabelledImages(NamedTuple):
    """Labelled images as they were found, not decoded yet."""

    source: str  # an absolute path
    fingerprint: str  # a digest that changes where a file looks touched, comes or goes
    class_names: tuple[str, ...]  # as in the data, in any order
    labels: NDArray[np.int64]  # (n,) into them
    split_ids: NDArray[np.uint8] | None  # (n,) split ids; None if the source has no split
    num_files: int
    blocks: Callable[
        [], Iterator[Sequence[Item]]
    ]  # of all images, in order; those that are not paths are read on demand
    location: Callable[[int], str]  # where an image is, for people
    findings: tuple[Finding, ...] = ()
    other_files: tuple[str, ...] | None = None  # other files among the pictures; None: the images are not picture files


# Folders of pictures (torchvision's ``ImageFolder``), maybe below ``train/`` and ``test/``.


def find_pictures(folder: Path) -> LabelledImages:
    """The pictures below a folder, in the order of their own names, as numbers are where arrays were written out.

    Among equal names, the first class comes first, and within a class the deepest folder. A link to a class folder is
    followed, unless it leads to a folder that contains it.
    """
    left_out = LeftOut(list)
    folders, has_parts = _find_classes(folder, left_out)
    classes = {name: label for label, name in enumerate(dict.fromkeys(path.name for path, _ in folders))}
    digest = hashlib.sha256(str(folders).encode(errors="surrogateescape"))  # over all pictures: there may be millions
    found, walked = list[Any](), ((each, inside) for each in folders for inside in walk_files(each[0], left_out))
    for number, ((class_folder, split_id), (path, names)) in enumerate(walked):
        label = classes[class_folder.name]
        for name in names:  # there may be millions, for which even one context manager each takes a while
            file = f"{path}{os.sep}{name}"
            if not name.lower().endswith(PICTURE_SUFFIXES):
                left_out["other-files"].append(file)
                continue
            try:
                facts = os.stat(file)  # noqa: PTH116
            except OSError:
                continue
            digest.update(os.fsencode(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\0"))
            found.append((name, -number, file, label, split_id))
    _, _, paths, labels, split_ids = [*zip(*sorted(found), strict=True)] or [()] * 5
    step = min(MOST_FILES, max(FEWEST_FILES, math.ceil(len(paths) / FILE_JOBS)))
    return LabelledImages(
        source=str(folder),
        fingerprint=digest.hexdigest(),
        class_names=tuple(map(format_path, classes)),
        labels=np.array(labels, np.int64),
        split_ids=np.array(split_ids, np.uint8) if has_parts else None,
        num_files=len(paths),
        blocks=lambda: (paths[at : at + step] for at in range(0, len(paths), step)),
        location=lambda at: _in_a_line(paths[at]),
        findings=tuple(_findings(left_out)),
        other_files=(*left_out["other-files"], *left_out["stray-files"]),
    )


def _find_classes(folder: Path, left_out: LeftOut) -> tuple[list[tuple[Path, int]], bool]:
    """The folder of each class, the last first, with its split, and whether there are parts of a split above them.

    There are no parts without ``train/`` with folders in it: a class may be called ``train``.
    """

    def note_closed(fault: OSError) -> None:
        left_out[CLOSED_FOLDERS].append(f"{format_path(fault.filename)}: {fault.strerror}")

    def list_folders(folder: Path) -> list[Path]:
        _, names, files = next(os.walk(folder, onerror=note_closed), ("", [], []))
        left_out["stray-files"] += [str(folder / name) for name in files if name[0] != "."]
        found = [folder / name for name in sorted(names, reverse=True) if not name.startswith((".", MAC_FOLDER))]
        circles = {path for path in found if path.is_symlink() and folder.resolve().is_relative_to(path.resolve())}
        left_out[LINKS] += map(str, circles)
        return [path for path in found if path not in circles]

    inside = list_folders(folder)
    named = [path for path in inside if path.name.lower() in SPLIT_WORDS and next(os.walk(path), ("", []))[1]]
    split_ids = _with_test([SPLIT_WORDS[path.name.lower()] for path in named])
    if TRAINING not in split_ids:
        return [(path, TRAINING) for path in inside], False
    left_out["stray-files"] += [str(path) for path in inside if path not in named]
    both = zip(named, split_ids, strict=True)
    return [(path, split_id) for part, split_id in both for path in list_folders(part)], len(named) > 1


def _in_a_line(path: str) -> str:
    return " ".join(format_path(path).split())


def _findings(left_out: LeftOut) -> Iterator[Finding]:
    for rule, what in LEFT_OUT.items():
        if paths := left_out[rule]:
            found = f"{what} ({len(paths):,}): {_in_a_line(format_names(sorted(paths), LONGEST))}"
            if rule == CLOSED_FOLDERS:
                yield error(rule, None, found, "readable ones", "see permissions")
            else:
                yield note(rule, None, f"left out {found}")


def _with_test(split_ids: list[int]) -> list[int]:
    """Make a validation part the test part if there is no other."""
    return split_ids if TEST in split_ids else [TEST if each == VALIDATION else each for each in split_ids]


# Arrays of images, and Parquet.


class ImageArray(NamedTuple):
    """Images of one part of the split in one array, which is read when its ``blocks`` are iterated."""

    location: str  # for people
    split_id: int | None
    blocks: Callable[[], Iterator[Array | list[bytes]]]  # each at most ``JOB_IMAGES`` images
    labels: Array  # (n,) whole numbers or names


def find_arrays(path: Path) -> LabelledImages:
    """The arrays of an ``.npz`` or safetensors file: ``images`` and ``labels``, or those with Keras's names."""
    file = arrays.open_arrays(path)
    parts = [
        _image_array(f"{path} {name}", name, file[name](), file[labels]())
        for name, labels in label_pairs(ARRAY_PARTS)
        if {name, labels} <= file.keys()
    ]
    if not parts:
        expected = "images and labels, or x_train, y_train, x_test and y_test"
        raise DataError(f"{path} holds arrays {sorted(file)}", expected, "rename them")
    return _label_rows(path, [path], parts, read_class_names(path, file))


def label_pairs(parts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The possible names of arrays of images and labels for the parts of a split, such as ``test``."""
    for (images, labels), part in itertools.product(ARRAY_NAMES, parts):
        yield (f"{images}_{part}", f"{labels}_{part}") if part else (images, labels)
        if part:
            yield f"{part}_{images}", f"{part}_{labels}"


def _split_named(name: str) -> int | None:
    """The part of the split that a name indicates."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _image_array(location: str, name: str, array: StoredArray, labels: StoredArray) -> ImageArray:
    """Images stored in an array of bytes.

    Raises:
        DataError: it holds something else.
    """
    shape = array.shape
    is_one = array.dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
    if not is_one or 0 in shape[1:] or math.prod(shape[1:3]) > LARGEST_PIXELS:
        found = f"{location} holds {array.dtype} of shape {list(shape)}"
        expected = "uint8 pixels, 0 to 255, of shape [images, height, width], or with 3 channels last"
        raise DataError(found, expected, "convert the array: multiply shares of 1 by 255, put channels last")
    size = max(1, min(JOB_IMAGES, JOB_BYTES // math.prod(shape[1:])))

    def blocks() -> Iterator[Array]:
        pixels = array.read()
        for start in range(0, len(pixels), size):
            yield pixels[start : start + size]

    return ImageArray(location, _split_named(name), blocks, read_labels(labels, shape[0]))


def find_parquet(path: Path) -> LabelledImages | None:
    """The images of a Parquet file or a folder of these; None if the first file has no column of images.

    Raises:
        DataError: a file is broken, differs from the first one, or has no labels.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not files:
        return None
    with tabular.open_parquet(files[0], MOST_ROWS) as file:
        schema = file.schema_arrow
    image, label, names = find_columns(schema)
    if image is None:
        return None
    if label is None:
        expected = f"a column of classes, called {' or '.join(LABEL_COLUMNS)}"
        raise DataError(f"{files[0]} has columns {', '.join(schema.names)}", expected, "rename the column")
    return _label_rows(path, files, [_packed_images(each, image, label) for each in files], names)


def _packed_images(path: Path, image: str, label: str) -> ImageArray:
    with tabular.open_parquet(path, MOST_ROWS) as file, explain_file_errors(path):
        column, rows = file.read(columns=[label]).column(label).combine_chunks(), file.metadata.num_rows
    labels = label_values(column)
    if labels is None or column.null_count:
        found = f"{column.null_count} of {rows} rows in {path} have no {label} (type {column.type})"
        raise DataError(found, "a whole number or text in each", "fill them in, or leave these rows out")

    def blocks() -> Iterator[list[bytes]]:
        for _, batch in tabular.read_parquet(path, [f"{image}.bytes"], 0, rows, JOB_IMAGES, JOB_BYTES):
            yield [each or b"" for each in batch.column(0).field("bytes").to_pylist()]

    return ImageArray(str(path), _split_named(path.name), blocks, labels)


def find_columns(schema: pa.Schema, among: tuple[str, ...] = ()) -> tuple[str | None, str | None, tuple[str, ...]]:
    """The columns of pictures and of classes, and the names that ``datasets`` metadata give to whole-number classes.

    Pictures are structs of ``bytes`` and ``path``: the first such column, or the first of those ``among`` the names
    given.
    """
    structs = [each for each in schema if pa.types.is_struct(each.type) and (not among or each.name in among)]
    kinds = {column.name: {inner.type for inner in column.type if inner.name == "bytes"} for column in structs}
    image = next((name for name, types in kinds.items() if types & {pa.binary(), pa.large_binary()}), None)
    try:
        features = json.loads(schema.metadata[METADATA])["info"]["features"].items()
        classes = {name: tuple(map(str, each["names"])) for name, each in features if each["_type"] == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        classes = {}
    label = next((name for name in (*classes, *LABEL_COLUMNS) if name in schema.names), None)
    return image, label, classes.get(label or "", ())


# Labels: numbers or names that stand for classes.


def label_values(column: pa.Array) -> Array | None:
    """The labels in a column ``(n,)``: whole numbers (-1 if missing) or names ("" if missing); None if neither."""
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).fill_null(-1))
    if tabular.kind_of(column.type) in ("text", "boolean"):
        return np.array(["" if each is None else str(each) for each in column.to_pylist()], str)
    return None


def read_labels(labels: StoredArray, num_rows: int, kinds: str = "iuU") -> Array:
    """The label of each row ``(n,)`` in memory: whole numbers or names, or values of other numpy ``kinds``.

    Raises:
        DataError: the labels are of other kinds, or do not match the number of rows.
    """
    if labels.shape not in ((num_rows,), (num_rows, 1)) or labels.dtype.kind not in kinds:
        found = f"{labels.path} holds {labels.dtype} labels of shape {list(labels.shape)}"
        expected = f"a whole number{' or a name' if 'U' in kinds else ''} for each of {num_rows} rows"
        raise DataError(found, expected, "write them again, beside the rows that they are of")
    return labels.read().reshape(-1)


def classes_of_labels(labels: Array, names: tuple[str, ...] = ()) -> tuple[list[str], Array]:
    """The classes that the labels ``(n,)`` stand for, and the index ``(n,)`` of each label's class.

    Whole numbers stand for ``names``, if any; a number beyond these belongs to no class, which is called "".
    """
    values, codes = np.unique(labels, return_inverse=True)
    if values.dtype.kind in "iu" and names:
        return [names[value] if 0 <= value < len(names) else "" for value in values.tolist()], codes
    return values.astype(str).tolist(), codes


def spell_classes(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Names of classes, each spelled like the ``known`` one that it equals in all but its Unicode form, or else in NFC.

    A Mac and some archives write an accent as a character of its own (NFD).
    """
    spelling = {to_nfc(name): name for name in known} | {name: name for name in known}
    return [spelling.get(name) or spelling.get(to_nfc(name), to_nfc(name)) for name in names]


def are_numbers(class_names: Sequence[str]) -> bool:
    """Whether all classes are whole numbers; such labels are then the classes themselves, and not their positions."""
    return bool(class_names) and all(name.removeprefix("-").isdecimal() for name in class_names)


def read_class_names(path: Path, file: arrays.ArrayFile | None = None) -> tuple[str, ...]:
    """The classes from a file's array ``class_names``, or from ``labels.txt`` at or beside a path; empty if neither is.

    Raises:
        DataError: a name is empty or stands twice.
    """
    names, beside = tuple[str, ...](), (path if path.is_dir() else path.parent) / LABELS_FILE
    if file and "class_names" in file:
        array = file["class_names"]()
        names = tuple(map(str, read_labels(array, math.prod(array.shape))))
    elif beside.is_file():
        with regular_files.open_regular(beside) as stream:
            path, names = beside, tuple(stream.read(2**20).decode("utf-8-sig", errors="replace").splitlines())
    if len({*names}) != len(names) or "" in names:
        raise DataError(f"{path} names a class twice, or not at all", "a name for each class", "correct it")
    return names


def _label_rows(path: Path, files: list[Path], parts: list[ImageArray], names: tuple[str, ...] = ()) -> LabelledImages:
    """The labelled images in arrays; ``names`` are those of whole-number labels, from 0 on.

    If there is only one part, its images are split by their hashes, whatever the part is called.

    Raises:
        DataError: there are no images, or a label has no name.
    """
    names = names or read_class_names(path)
    found = [classes_of_labels(part.labels, names) for part in parts]
    for part, (classes, codes) in zip(parts, found, strict=True):
        if not len(part.labels):
            raise DataError(f"{part.location} holds no images", "at least one", "write them again")
        if names and (others := {*classes} - {*names}):
            row = int(np.argmax(codes == classes.index(min(others))))
            other = f"label {part.labels[row]} at row {row} of {part.location}"
            are_words = part.labels.dtype.kind == "U"
            expected = f"one of {format_names(names, LONGEST)}" if are_words else f"labels from 0 to {len(names) - 1}"
            raise DataError(other, expected, f"correct the label, or {LABELS_FILE}")
    class_names = names or sort_levels(itertools.chain.from_iterable(classes for classes, _ in found))
    numbers = {name: number for number, name in enumerate(class_names)}
    sizes, of_images = [len(part.labels) for part in parts], None
    split_ids = [part.split_id for part in parts if part.split_id is not None]
    if TRAINING in split_ids and len({*split_ids}) > 1:
        if other_part := next((part.location for part in parts if part.split_id is None), None):
            other = f"{other_part} beside those for training and testing"
            raise DataError(other, "names that say to which part each belongs", "rename it, or move it elsewhere")
        of_images = np.repeat(np.array(_with_test(split_ids), np.uint8), sizes)
    ends = np.cumsum(sizes)

    def locate(number: int) -> str:
        at = int(np.searchsorted(ends, number, side="right"))
        return f"{parts[at].location} row {number - ends[at] + sizes[at]}"

    return LabelledImages(
        source=str(path),
        fingerprint=hashlib.sha256(json.dumps(verified_files.fingerprint_files(files)).encode()).hexdigest(),
        class_names=class_names,
        labels=np.concatenate(
            [np.array([numbers[name] for name in classes], np.int64)[codes] for classes, codes in found]
        ),
        split_ids=of_images,
        num_files=len(files),
        blocks=lambda: (list(block) for part in parts for block in part.blocks()),
        location=locate,
    )


# Images to raw pixels of one shape, in a file: decoded in parallel, each written to its place.


class DecodedImages(NamedTuple):
    """All images of a source in one shape; unreadable images are black."""

    spill_file: Path
    shape: Shape
    facts: NDArray[np.void]  # (n,) ``pictures.FACTS``
    unreadable: dict[int, str]  # why each is unreadable, by number

    def of_readable(self, *names: str) -> list[Any]:
        """One fact, or a tuple of several, for each image that could be read."""
        found: list[Any] = self.facts[self.facts["is_readable"]][names[0] if len(names) == 1 else [*names]].tolist()
        return found

    def read(self, numbers: Array) -> Array:
        """The pixels ``(m, …)`` of some images, in order and near each other: read, for a map would count as memory."""
        size, first = math.prod(self.shape), int(numbers[0]) if len(numbers) else 0
        count = int(numbers[-1]) + 1 - first if len(numbers) else 0
        pixels: Array = np.fromfile(self.spill_file, np.uint8, count * size, offset=first * size)
        found: Array = pixels.reshape(count, *self.shape)[numbers - first]
        return found


def read_images(
    source: LabelledImages,
    spill_file: Path,
    fixed: Shape | None = None,
    side: int | None = None,
    channels: str | None = None,
) -> DecodedImages:
    """Read all images into the file ``spill_file``, again where their shape is not that of the first ones.

    The shape is the one that version 1 ``fixed``; otherwise only its ``side`` and its ``channels``, ``grey`` or
    ``rgb``, may be given.

    Raises:
        OSError: the disk has no room for them.
        DataError: a file that holds many images cannot be read.
        EnvironmentProblem: a decoding process was killed.
    """

    def shape_for(images: DecodedImages) -> Shape:
        if fixed:
            return fixed
        sizes = {*images.of_readable("width", "height")}
        width, height = sizes.pop() if len(sizes) == 1 else (0, 0)
        usual = width if width == height and 0 < width <= LARGEST_SIDE else USUAL_SIDE
        in_colour = channels == "rgb" if channels else not all(images.of_readable("is_grey"))
        return (side or usual, side or usual, *([3] if in_colour else []))

    spill_file.touch()
    sample, started = next(source.blocks())[:SAMPLE], time.perf_counter()
    first = DecodedImages(spill_file, (1, 1), *pictures.decode_job((0, sample), (1, 1), True, spill_file))
    seconds = 0 if isinstance(sample[0], np.ndarray) else time.perf_counter() - started
    is_long = seconds * len(source.labels) / len(sample) > LONG_SECONDS
    shape = shape_for(first)
    decoded = _decode_all(source, shape, not (fixed or channels), spill_file, is_long)
    better = shape_for(decoded)
    return decoded if better == shape else _decode_all(source, better, False, spill_file, is_long)


def _decode_all(
    source: LabelledImages, shape: Shape, looks_for_colour: bool, spill_file: Path, is_long: bool
) -> DecodedImages:
    """Decode in parallel and in order, reading only a few images ahead."""
    num_images = len(source.labels)
    with spill_file.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, num_images * math.prod(shape)))  # so that a full disk raises here
    decode = partial(pictures.decode_job, shape=shape, looks_for_colour=looks_for_colour, spill_file=spill_file)
    facts, unreadable, jobs = list[NDArray[np.void]](), dict[int, str](), _number_blocks(source)
    with parallel.run_on_cores(decode, resources.count_cores(), is_long) as begin, progress.make_bar() as bar:
        task = bar.add_task("decode", total=num_images)
        waiting = deque(map(begin, itertools.islice(jobs, WAITING_JOBS)))
        while waiting:
            found, reasons = waiting.popleft().result()
            waiting.extend(map(begin, itertools.islice(jobs, 1)))
            facts.append(found)
            unreadable |= reasons
            bar.advance(task, len(found))
    return DecodedImages(spill_file, shape, np.concatenate(facts), unreadable)


def _number_blocks(source: LabelledImages) -> Iterator[tuple[int, Sequence[Item]]]:
    first = 0
    for items in source.blocks():
        yield first, items
        first += len(items)
