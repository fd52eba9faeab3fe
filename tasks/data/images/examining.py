"""One look at all images: their classes, their split, their digests, and all that is wrong with them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import drift, row_hash
from tasks.data.images import oddities
from tasks.data.images.fixed import FixedImages
from tasks.data.images.reading import Images
from tasks.data.images.source import Source
from tasks.data.recipe import Pixels, SplitRule
from tasks.data.report import DataReport, Finding, ImageReport, error, split_sizes
from tasks.data.row_hash import Hashes
from tasks.data.split import TEST, TRAINING, VALIDATION, Split, check_min_rows, split_by_hash
from tasks.data.table import rare_classes
from tasks.data.table.asked import described
from tasks.data.table.levels import in_order
from tasks.data.table.targets import Truth
from tasks.machine.words import counted
from tasks.parameters.own_data import OwnData
from tasks.records import ChampionData

MOST_SHOWN = 8  # sizes
REPLACED = "\ufffd"  # what stands for bytes that are not UTF-8
PARTS = ("validation", "train", "test")  # what the sides of a split are called in row digests


class Rows(NamedTuple):
    """The images that could be decoded, in the order of their source."""

    numbers: NDArray[np.int64]  # (n,) of each among all images
    truth: Truth
    split: Split
    digests: Hashes  # (n,)

    def digests_of(self, is_training: bool) -> Hashes:
        """Those of training rows, or of all others, sorted."""
        return np.sort(self.digests[(self.split.split_ids == TRAINING) == is_training])


class Examined(NamedTuple):
    """What was found. Without errors there is a recipe."""

    report: DataReport
    recipe: FixedImages | None
    rows: Rows


def examine(
    source: Source,
    images: Images,
    name: str,
    data: OwnData,
    kept: FixedImages | None,
    champion: ChampionData | None = None,
) -> Examined:
    """Look at images that are to be kept under ``name``."""
    numbers = np.flatnonzero(images.is_whole)
    truth = _truth(source, numbers, kept)
    hashed = images.facts.hashes[numbers]
    sides = None if source.sides is None else source.sides[numbers]
    rule = _rule(sides is not None, data, kept)
    split = split_by_hash(hashed, rule.test) if sides is None else Split(sides, hashed)
    rows = Rows(numbers, truth, split, _digests(hashed, truth, sides))
    findings = [*source.findings, *truth.findings, *_findings(source, images, rows, rule, data, kept)]
    if champion:
        fewer = drift.compare_num_rows(split, rule, data.window, champion)
        findings += drift.accept_findings(fewer, champion, data.accept_data)
    found = _alike(images, rows)
    report = _report(source, found, rows, rule, name, findings)
    recipe = FixedImages(
        class_names=truth.class_names,
        recipe=Pixels(shape=images.shape, scale=1 / 255, resize="bilinear"),
        split=rule,
        brightness=found.brightness,
    )
    return Examined(report, None if report.errors else recipe, rows)


def _rule(has_parts: bool, data: OwnData, kept: FixedImages | None) -> SplitRule:
    """The rule that holds: that of version 1, unless it is to be fixed anew."""
    if kept and not data.new_recipe:
        return kept.split
    return SplitRule(rule="folders" if has_parts else "rows", test=data.test)


def _truth(source: Source, numbers: NDArray[np.int64], kept: FixedImages | None) -> Truth:
    """The label of each image; a class whose folder is gone must not shift the others."""
    tonight = in_order(source.class_names)
    names = kept.class_names if kept else tonight
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places.get(name, 0) for name in source.class_names], np.int64)[source.labels[numbers]]
    smallest = np.min_scalar_type(max(len(names) - 1, 0))
    return Truth(labels.astype(smallest), np.ones(len(labels), bool), names, tuple(_classes(names, tonight)))


def _classes(names: tuple[str, ...], tonight: tuple[str, ...]) -> Iterator[Finding]:
    if len(tonight) < 2:
        found = f"the images are all of one class, {tonight[0]}" if tonight else "the images are of no class"
        yield error("one-class", None, found, "two or more: a folder for each", "see the folder that --data names")
    if odd := [name for name in tonight if name.splitlines() != [name] or REPLACED in name]:
        found = f"a class is called {odd[0]!r}"
        yield error("class-name", None, found, "names of one line in UTF-8", "rename it")
    other = "mend the folders, or keep the new images under another --name"
    if new := [name for name in tonight if name not in names]:
        found, known = f"new: the class {', '.join(new[:10])}", f"those that version 1 fixed: {', '.join(names[:20])}"
        yield error("new-class", None, found, known, other)
    if gone := [name for name in names if name not in tonight]:
        found = f"the class {', '.join(gone[:10])} is gone, folder and all"
        known = "every class of version 1, an empty folder where it has no images"
        yield error("class-gone", None, found, known, other)


def _digests(hashed: Hashes, truth: Truth, sides: NDArray[np.uint8] | None) -> Hashes:
    """The row digests: of the image, its class, its part if it has one, and the number of the copy."""
    digests = row_hash.update_hashes(hashed, truth.words())
    if sides is not None:
        digests = row_hash.update_hashes(digests, row_hash.hash_levels(PARTS)[sides])
    return row_hash.update_hashes(digests, row_hash.duplicate_index(digests))


def digests_in_training(hashed: Hashes, labels: NDArray[Any], class_names: Sequence[str]) -> Hashes:
    """The row digests ``(n,)`` that images of these hashes and labels have in a training folder, as first copies."""
    inputs = row_hash.hash_levels(class_names)[labels], row_hash.hash_levels(PARTS)[TRAINING], row_hash.FIRST_COPY
    return row_hash.update_hashes(hashed, *inputs)


def _findings(
    source: Source, images: Images, rows: Rows, rule: SplitRule, data: OwnData, kept: FixedImages | None
) -> Iterator[Finding]:
    """What is odd about images, one kind after the other."""
    has_parts = source.sides is not None
    if has_parts != (rule.rule == "folders"):
        found = "images in parts for training and testing" if has_parts else "images without such parts"
        expected, action = f"a split {described(rule)}, as version 1 fixed it", "fix the rule anew with --new-recipe"
        yield error("other-split", None, found, expected, action)
    yield from oddities.broken(source, images.facts.broken, data.max_rejects)
    yield from oddities.too_many_weights(images.shape, len(rows.truth.class_names))
    yield from check_min_rows(rows.split)
    yield from rare_classes.findings(rows.truth, rows.split.split_ids == TRAINING)
    yield from oddities.of_classes(rows.truth)
    yield from oddities.copies(source, images.facts.hashes[rows.numbers], rows.numbers, rows.truth, rows.split)
    yield from oddities.black(source, images.facts.brightness, rows.numbers)
    yield from oddities.brightness(images.facts.brightness[rows.numbers], rows.digests, kept)
    yield from oddities.forms(images)


def _alike(images: Images, rows: Rows) -> ImageReport:
    """What the images are like, all of them together."""
    facts = images.facts
    sizes = {f"{width} by {height}": count for (width, height), count in facts.sizes.most_common(MOST_SHOWN)}
    return ImageReport(
        shape=images.shape,
        sizes=sizes,
        num_sizes=len(facts.sizes),
        modes=dict(facts.modes.most_common()),
        broken=len(facts.broken),
        copies=len(rows.numbers) - row_hash.num_distinct(facts.hashes[rows.numbers]),
        brightness=round(float(facts.brightness[rows.numbers].mean()), 3) if len(rows.numbers) else 0.0,
    )


def _report(
    source: Source, found: ImageReport, rows: Rows, rule: SplitRule, name: str, findings: list[Finding]
) -> DataReport:
    truth = rows.truth
    counts = np.bincount(truth.values.astype(np.int64), minlength=len(truth.class_names)).tolist()
    train, validation, test = (rows.split.count(side) for side in (TRAINING, VALIDATION, TEST))
    height, width, *channels = found.shape
    shape = f"{height} by {width} {'colour' if channels else 'grey'}"
    classes = f"{len(truth.class_names)} class{'' if len(truth.class_names) == 1 else 'es'}"
    return DataReport(
        name=name,
        summary=f"{counted(len(rows.numbers), 'image')} of {classes}, as {shape}; "
        f"{split_sizes(train, validation, test)} ({described(rule)})",
        rows=len(rows.numbers),
        files=source.content.num_files,
        classes=dict(zip(truth.class_names, counts, strict=True)),
        split=rule,
        num_train=train,
        num_validation=validation,
        num_test=test,
        images=found,
        findings=tuple(findings),
    )
