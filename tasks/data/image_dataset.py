"""A user's own images as a data set: found, examined, and written as prepared splits."""

import glob
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tasks.data import drift, row_hash
from tasks.data.io import images
from tasks.data.io.discovery import PICTURE_SUFFIXES, is_table, is_url, local_path, refuse_partial
from tasks.data.io.images import LONGEST, USUAL_SIDE, DecodedImages, LabelledImages
from tasks.data.levels import sort_levels
from tasks.data.own_rows import Examination, OwnDataset, OwnRows, sort_digests
from tasks.data.recipe import Pixels, SplitRule
from tasks.data.report import DataReport, Finding, ImageReport, error, note, warning
from tasks.data.row_hash import Hashes
from tasks.data.schema import ImageSchema, describe_split
from tasks.data.split import TEST, TRAINING, VALIDATION, SplitAssignment, check_min_rows, split_by_hash
from tasks.data.target import TargetValues, check_rare_classes
from tasks.errors import DataError, UsageError
from tasks.machine import fonts, parallel
from tasks.machine.arrays import Array
from tasks.machine.words import pluralize
from tasks.parameters import Data
from tasks.parameters.addresses import split_source
from tasks.parameters.data import OwnData
from tasks.records import ChampionData, RawDataset
from tasks.serving.task import TaskName
from tasks.store import regular_files

ARCHIVES = (".npz", ".safetensors")
SPOOL = "pixels"
EXPECTED = "a folder of pictures for each class, .npz, .safetensors or Parquet of images"
TABLE_ACTION = "see the path; for a table, name the column to predict with --target"
IDX_ACTION = "write them as .npz with x_train, y_train, x_test and y_test; torchvision.datasets.mnist reads IDX"
MOST_SIZES = 8  # sizes that are listed
REPLACED = "\ufffd"  # stands for bytes that are not UTF-8
SPLIT_NAMES = ("validation", "train", "test")  # the names of the sides of a split in row digests
MOST_WEIGHTS = 20_000_000
MOST_COPIES = 0.01  # share of the test images that are in the training part too
EXAMPLES, MOST_CLASSES = 10, 40  # on the contact sheet
CELL, GAP, LABEL, FONT = 56, 4, 180, 14  # pixels of it
INK = "#7d7d7d"  # on no ground of its own: to be read on light and dark pages
IMBALANCE = 10.0  # times that a class is larger than another
LONGEST_NAME = 22  # characters of a class's name


def find_images(source: str) -> LabelledImages:
    """The images at a path.

    Raises:
        UsageError: there is a table, and for a table the target must be given.
        DataError: there is nothing, or there are no images.
    """
    source = split_source(source)[0]
    path, shown = None if is_url(source) else local_path(source), regular_files.format_path(source)
    found = _find(path) if path and path.exists() else None
    if path and found:
        refuse_partial(path, found.other_files)
    beside = [path, *map(Path, (found and found.other_files) or ())] if path else []
    if not path or (not (found and len(found.labels)) and any(map(is_table, beside))):
        action = "name it with --target" if path else "name it with --target; for images, download the folder first"
        raise UsageError(f"no --target for {shown}", "the column of the table to predict", action)
    if not path.exists():
        action = f"give --data another, or {TABLE_ACTION}"
        if glob.has_magic(source):
            action = "name the folder of images itself, no glob"
        raise DataError(f"no folder {shown}", EXPECTED, action)
    if found is None or not found.class_names:
        action = IDX_ACTION if any("idx3" in file.name for file in beside) else TABLE_ACTION
        raise DataError(f"{shown} holds no classes of images", EXPECTED, action)
    if not len(found.labels):
        named = ", ".join(sorted(found.class_names)[:LONGEST])
        raise DataError(f"no pictures in {shown} (folders {named})", EXPECTED, TABLE_ACTION)
    return found


def is_images(source: str) -> bool:
    """Whether a path holds images or is no table, so that ``gradmill inspect`` knows which of them is meant."""
    try:
        find_images(source)
    except UsageError:
        return False
    except DataError:
        path = local_path(source)
        matches = glob.glob(str(path))  # noqa: PTH207  (it may be absolute)
        is_folders = bool(matches) and all(map(os.path.isdir, matches))
        return is_folders or path.suffix.lower() in (*ARCHIVES, ".parquet", *PICTURE_SUFFIXES)
    return True


def _find(path: Path) -> LabelledImages | None:
    """What a path holds, if it holds anything."""
    if path.is_dir():
        return images.find_parquet(path) or images.find_pictures(path)
    if path.suffix.lower() in ARCHIVES:
        return images.find_arrays(path)
    return images.find_parquet(path) if path.suffix.lower() == ".parquet" else None


@dataclass(frozen=True, kw_only=True)
class ImageRows(OwnRows):
    """The images that could be decoded, split by the hashes of their pixels, which are the keys of the split."""

    images: DecodedImages  # all images of the source
    numbers: NDArray[np.int64]  # (n,) the number of each row's image among these

    block_rows: ClassVar[int] = 2**10
    most_ordered: ClassVar[int] = 0  # rows stay in the order of their names

    @property
    def counts(self) -> dict[str, int]:
        """The images of each class."""
        return dict(zip(self.targets.class_names, self.targets.count_classes().tolist(), strict=True))

    def draw_sheet(self) -> bytes:
        """A contact sheet (PNG) with one line for each of the first classes: its name, its size, some of its images.

        The space between the images is transparent.
        """
        classes, step = list(self.counts.items())[:MOST_CLASSES], CELL + GAP
        sheet = Image.new("RGBA", (LABEL + EXAMPLES * step, len(classes) * step + GAP))
        pen = ImageDraw.Draw(sheet)
        for line, (name, count) in enumerate(classes):
            top, spelt = GAP + line * step, fonts.escape_letters(name)
            font = ImageFont.truetype(fonts.font_file(spelt), FONT)
            pen.text((GAP, top + 10), f"{spelt[:LONGEST_NAME]}\n{count:,}", INK, font)
            spread = np.linspace(0, count - 1, min(EXAMPLES, count)).astype(int)
            for column, number in enumerate(self.numbers[self.targets.values == line][spread].tolist()):
                image = Image.fromarray(self.images.read(np.array([number]))[0])
                sheet.paste(ImageOps.contain(image, (CELL, CELL)), (LABEL + column * step, top))
        content = io.BytesIO()
        sheet.save(content, "PNG", optimize=True)
        return content.getvalue()

    def read_inputs(self, numbers: Any) -> Array:
        """The pixels ``(m, …)`` of some images, in order."""
        return self.images.read(self.numbers[numbers])


def inspect_images(
    source: LabelledImages,
    name: str,
    data: OwnData,
    previous_schema: ImageSchema | None,
    scratch: Path,
    champion: ChampionData | None = None,
) -> Examination:
    """Read all images to be kept under ``name``: their classes, their split, and everything that is wrong with them.

    The pixels are stored in a file in ``scratch``.

    Raises:
        UsageError: an option contradicts what version 1 fixed.
        DataError: the images cannot be read at all.
    """
    if previous_schema:
        previous_schema.require(data)
    shape = previous_schema.recipe.shape if previous_schema else None
    decoded = images.read_images(source, scratch / SPOOL, shape, data.side, data.channels)
    rows = _split_images(source, decoded, data, previous_schema)
    findings = [*source.findings, *rows.targets.findings]
    findings += _check_readable(source, decoded.unreadable, data.max_rejects)
    findings += check_num_weights(decoded.shape, len(rows.targets.class_names))
    findings += check_min_rows(rows.split)
    findings += check_rare_classes(rows.targets, rows.split.split_ids == TRAINING)
    findings += check_copies(source, rows)
    if empty := [name for name, count in rows.counts.items() if not count]:
        found = f"no image of the class {', '.join(empty[:LONGEST])}: the model will hardly ever predict it"
        findings.append(warning("class-without-images", None, found))
    sizes = [(name, count) for name, count in Counter(rows.counts).most_common() if count]
    if sizes and sizes[0][1] > IMBALANCE * sizes[-1][1]:
        (most, largest), (least, smallest) = sizes[0], sizes[-1]
        found = f"{pluralize(largest, 'image')} of {most} and {smallest:,} of {least}"
        findings.append(warning("imbalance", None, found, "get more of them, or see what --class-weight balanced does"))
    height, width = decoded.shape[:2]
    if others := sum(size != (width, height) for size in decoded.of_readable("width", "height")):
        action = "see what another --side does" if (height, width) == (USUAL_SIDE, USUAL_SIDE) else ""
        findings.append(note("resized", None, f"{pluralize(others, 'image')} resized to {width} by {height}", action))
    if champion:
        fewer = drift.compare_num_rows(rows, data.window, champion)
        findings += drift.accept_findings(fewer, champion, data.accept_data)
    report = _report(source, rows, name, findings)
    recipe = Pixels(shape=decoded.shape, scale=1 / 255, resize="bilinear")
    schema = ImageSchema(class_names=rows.targets.class_names, recipe=recipe, split=rows.rule)
    return Examination(report, None if report.errors else schema, rows)


def _split_images(
    source: LabelledImages, decoded: DecodedImages, data: OwnData, previous: ImageSchema | None
) -> ImageRows:
    """The images that could be read, with the classes and split that version 1 fixed."""
    numbers = np.flatnonzero(decoded.facts["is_readable"])
    hashes = decoded.facts["hash"][numbers]
    names = images.spell_classes(source.class_names, previous.class_names if previous else ())
    class_names = sort_levels(names)
    fixed_names = previous.class_names if previous else class_names
    codes = {each: code for code, each in enumerate(fixed_names)}
    labels = np.array([codes.get(each, 0) for each in names], np.int64)[source.labels[numbers]]
    labels = labels.astype(np.min_scalar_type(max(len(fixed_names) - 1, 0)))
    findings = [*_check_classes(fixed_names, class_names)]

    split_ids = None if source.split_ids is None else source.split_ids[numbers]
    rule = SplitRule(rule="rows" if split_ids is None else "folders", test=data.test)
    rule = previous.split if previous and not data.new_recipe else rule
    if (split_ids is None) == (rule.rule == "folders"):
        found = "images without such parts" if split_ids is None else "images in parts for training and testing"
        expected = f"a split {describe_split(rule)}, as version 1 fixed it"
        findings.append(error("other-split", None, found, expected, "fix the rule anew with --new-recipe"))
    split = split_by_hash(hashes, rule.test) if split_ids is None else SplitAssignment(split_ids, hashes)
    digests = row_digests(hashes, labels, fixed_names, split_ids)
    return ImageRows(
        images=decoded,
        numbers=numbers,
        targets=TargetValues(labels, np.ones(len(labels), bool), fixed_names, tuple(findings)),
        rule=rule,
        split=split,
        digests=digests,
        ordering=parallel.start(sort_digests, split, digests),
    )


def row_digests(
    hashes: Hashes,
    labels: Array,
    class_names: Sequence[str],
    split_ids: NDArray[np.uint8] | int | None,
    copies: np.uint64 | None = None,
) -> Hashes:
    """The row digests ``(n,)``: of the image, its class, its part if it has one, and the number of the copy.

    Copies are counted unless ``copies`` is the number of all.
    """
    digests = row_hash.update_hashes(hashes, row_hash.hash_levels(class_names)[labels])
    if split_ids is not None:
        digests = row_hash.update_hashes(digests, row_hash.hash_levels(SPLIT_NAMES)[split_ids])
    return row_hash.update_hashes(digests, row_hash.duplicate_index(digests) if copies is None else copies)


# Quality checks


def _check_classes(fixed_names: tuple[str, ...], class_names: tuple[str, ...]) -> Iterator[Finding]:
    """Check that the classes are those of version 1: one whose folder is gone must not shift the others."""
    if len(class_names) < 2:
        found = f"the images are all of one class, {class_names[0]}" if class_names else "the images are of no class"
        yield error("one-class", None, found, "two or more: a folder for each", "see the folder that --data names")
    if invalid := [name for name in class_names if name.splitlines() != [name] or REPLACED in name]:
        found = f"a class is called {invalid[0]!r}"
        yield error("class-name", None, found, "names of one line in UTF-8", "rename it")
    action = "correct the folders, or keep the new images under another --name"
    if new := [name for name in class_names if name not in fixed_names]:
        found = f"new: the class {', '.join(new[:10])}"
        yield error("new-class", None, found, f"those that version 1 fixed: {', '.join(fixed_names[:20])}", action)
    if gone := [name for name in fixed_names if name not in class_names]:
        found = f"the class {', '.join(gone[:10])} is gone, folder and all"
        yield error(
            "class-gone", None, found, "every class of version 1, an empty folder where it has no images", action
        )


def _check_readable(source: LabelledImages, reasons: dict[int, str], max_rejects: float) -> Iterator[Finding]:
    if not reasons:
        return
    first = "; ".join(f"{source.location(at)}: {reasons[at]}" for at in sorted(reasons)[:LONGEST])
    more = f"; and {len(reasons) - LONGEST:,} more" if len(reasons) > LONGEST else ""
    found = f"{pluralize(len(reasons), 'image')} of {len(source.labels):,} cannot be used: {first}{more}"
    if len(reasons) > max_rejects * len(source.labels):
        action = "repair or remove them, or tolerate more with --max-rejects"
        yield error("broken-images", None, found, f"at most {100 * max_rejects:g} % of them", action)
    else:
        yield warning("broken-images", None, f"{found}; left out")


def check_num_weights(shape: tuple[int, ...], num_classes: int) -> Iterator[Finding]:
    """Whether a model of images of this shape would exceed the allowed size."""
    inputs = math.prod(shape)
    if inputs * num_classes > MOST_WEIGHTS:
        side = math.isqrt(MOST_WEIGHTS // (num_classes * math.prod(shape[2:])))
        found = f"{inputs:,} pixel values and {num_classes:,} classes make {inputs * num_classes:,} weights"
        action = f"make the images smaller: --side {side} fits" if side else "use fewer classes"
        yield error("too-many-weights", None, found, f"at most {MOST_WEIGHTS:,}", action)


def check_copies(source: LabelledImages, rows: ImageRows) -> Iterator[Finding]:
    """Equal images: in the training and in the test part, and in two classes."""
    keys, sides = rows.split.keys, rows.split.split_ids

    def find_pairs(values: Array, among: Array) -> tuple[int, str]:
        """The number of sets of equal images that differ in ``values``; two images of each, ``LONGEST`` at most."""
        rows_alike, sizes = row_hash.find_equal_rows(keys[among])
        order = among[rows_alike]
        first = np.repeat(order[np.cumsum(sizes) - sizes], sizes)
        differs = values[order] != values[first]
        _, places = np.unique(first[differs], return_index=True)
        pairs = zip(first[differs][places], order[differs][places], strict=True)
        return len(places), "; ".join(
            " and ".join(source.location(int(rows.numbers[each])) for each in pair) for pair in islice(pairs, LONGEST)
        )

    is_copy = np.isin(keys, keys[sides == TRAINING]) & (sides == TEST)
    if num_copies := int(is_copy.sum()):
        _, pairs = find_pairs(sides, np.flatnonzero(sides != VALIDATION))
        found = f"{pluralize(num_copies, 'test image')} equal to a training image: {pairs}"
        if num_copies > MOST_COPIES * rows.split.count(TEST):
            expected = f"at most {100 * MOST_COPIES:g} % of the test images"
            yield error("copies-across-parts", None, found, expected, "remove them from one of the parts")
        else:
            yield warning("copies-across-parts", None, found)
    labels = rows.targets.values
    num_sets, pairs = find_pairs(labels, np.arange(len(labels)))
    if num_sets:
        yield warning("equal-images", None, f"{pluralize(num_sets, 'image')} found in more than one class: {pairs}")


# Report


def _report(source: LabelledImages, rows: ImageRows, name: str, findings: list[Finding]) -> DataReport:
    decoded, counts, num_rows = rows.images, rows.counts, len(rows.numbers)
    sizes, modes = Counter(decoded.of_readable("width", "height")), Counter(decoded.of_readable("mode"))
    height, width, *channels = decoded.shape
    shape = f"{height} by {width} {'colour' if channels else 'grey'}"
    classes = f"{len(counts)} class{'' if len(counts) == 1 else 'es'}"
    described_images = ImageReport(
        shape=decoded.shape,
        sizes={f"{across} by {down}": count for (across, down), count in sizes.most_common(MOST_SIZES)},
        num_sizes=len(sizes),
        modes={mode.decode(): count for mode, count in modes.most_common()},
        broken=len(decoded.unreadable),
        copies=num_rows - len(np.unique(rows.split.keys)),
        brightness=round(float(decoded.facts["brightness"][rows.numbers].mean()), 3) if num_rows else 0.0,
    )
    return DataReport(
        name=name,
        summary=f"{pluralize(num_rows, 'image')} of {classes}, as {shape}; {rows.describe_split()}",
        rows=num_rows,
        files=source.num_files,
        classes=counts,
        **rows.report_split(),
        images=described_images,
        findings=tuple(findings),
    )


class ImageDataset(OwnDataset):
    """The images at ``source``."""

    def fetch(self) -> RawDataset:
        """Where the images are and how they look; nothing is copied."""
        found = find_images(self.source)
        return RawDataset(name=self.name, source=found.source, files={}, look=found.fingerprint)

    def examine(
        self, data: Data, task: TaskName, previous: Any, champion: ChampionData | None, scratch: Path
    ) -> Examination:
        """Read all images, and determine their classes and split, and what is wrong."""
        return inspect_images(find_images(self.source), self.name, data, previous, scratch, champion)
