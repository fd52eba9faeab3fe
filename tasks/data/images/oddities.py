"""What is odd about images: some of it stops the run, most is said and no more."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.data.images.fixed import FixedImages
from tasks.data.images.reading import USUAL_SIDE, Images
from tasks.data.images.source import Source
from tasks.data.report import Finding, error, note, warning
from tasks.data.row_hash import Hashes, count_rows, find_new_rows
from tasks.data.split import TEST, TRAINING, Split
from tasks.data.table.targets import Truth
from tasks.errors import DataError
from tasks.machine.words import counted

MOST_WEIGHTS = 20_000_000
LONGEST = 5  # names that a message has
MUCH = 10.0  # times that a class is larger than another
MANY_COPIES = 0.01  # of the test images that are in the training part too
DARKER = 12.8  # of 255: a change of the mean brightness that is said
MANY_SEEN, MANY_NEW = 1000, 200  # images of which the new ones are judged by themselves
NEGATIVE = 4.0  # times nearer to the negative's brightness than to what it was


def broken(source: Source, reasons: dict[int, str], tolerated: float) -> Iterator[Finding]:
    """Images that could not be read."""
    if not reasons:
        return
    first = "; ".join(f"{source.content.place(at)}: {reasons[at]}" for at in sorted(reasons)[:LONGEST])
    more = f"; and {len(reasons) - LONGEST:,} more" if len(reasons) > LONGEST else ""
    found = f"{counted(len(reasons), 'image')} of {len(source.labels):,} cannot be read: {first}{more}"
    if len(reasons) > tolerated * len(source.labels):
        action = "repair or remove them, or tolerate more with --max-rejects"
        yield error("broken-images", None, found, f"at most {100 * tolerated:g} % of them", action)
    else:
        yield warning("broken-images", None, f"{found}; left out")


def too_many_weights(shape: tuple[int, ...], classes: int) -> Iterator[Finding]:
    """Whether a model of images of this shape would be larger than it may."""
    inputs = math.prod(shape)
    if inputs * classes > MOST_WEIGHTS:
        fits = math.isqrt(MOST_WEIGHTS // (classes * math.prod(shape[2:])))
        found = f"{inputs:,} pixel values and {classes:,} classes make {inputs * classes:,} weights"
        action = f"make the images smaller: --side {fits} fits" if fits else "take fewer classes"
        yield error("too-many-weights", None, found, f"at most {MOST_WEIGHTS:,}", action)


def of_classes(truth: Truth) -> Iterator[Finding]:
    """Classes without images, and those far smaller than others."""
    counts = np.bincount(truth.values.astype(np.int64), minlength=len(truth.class_names)).tolist()
    by_name = dict(zip(truth.class_names, counts, strict=True))
    if empty := [name for name, count in by_name.items() if not count]:
        found = f"no image of the class {', '.join(empty[:LONGEST])}: the model will hardly ever say it"
        yield warning("class-without-images", None, found)
    if there := {name: count for name, count in by_name.items() if count}:
        most, least = max(there, key=there.__getitem__), min(there, key=there.__getitem__)
        if there[most] > MUCH * there[least]:
            found = f"{counted(there[most], 'image')} of {most} and {there[least]:,} of {least}"
            action = "get more of them, or see what --class-weight balanced does"
            yield warning("imbalance", None, found, action)


def copies(source: Source, hashed: Hashes, numbers: NDArray[np.int64], truth: Truth, split: Split) -> Iterator[Finding]:
    """Equal images: in the training and in the test part, and in two classes."""
    order = np.argsort(hashed, kind="stable")
    starts = np.flatnonzero(np.diff(hashed[order], prepend=hashed[order[:1]] + np.uint64(1)))
    sizes = np.diff(starts, append=len(order))
    bounds = zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True)
    groups = [order[start : start + size] for start, size in bounds]
    place = source.content.place
    across = [group for group in groups if {TRAINING, TEST} <= set(split.split_ids[group].tolist())]
    if across:
        in_test = sum(int((split.split_ids[group] == TEST).sum()) for group in across)
        pairs = [[group[split.split_ids[group] == side][0] for side in (TRAINING, TEST)] for group in across[:LONGEST]]
        said = "; ".join(" and ".join(place(int(numbers[at])) for at in pair) for pair in pairs)
        found = f"{counted(in_test, 'test image')} equal to a training image: {said}"
        if in_test > MANY_COPIES * split.count(TEST):
            expected = f"at most {100 * MANY_COPIES:g} % of the test images"
            yield error("copies-across-parts", None, found, expected, "remove them from one of the parts")
        else:
            yield warning("copies-across-parts", None, found)
    disagreeing = [group for group in groups if len(set(truth.values[group].tolist())) > 1]
    if disagreeing:
        first = disagreeing[0]
        other = first[truth.values[first] != truth.values[first[0]]][0]
        said = " and ".join(place(int(numbers[at])) for at in (first[0], other))
        found = f"{counted(len(disagreeing), 'image')} in more than one class: {said}"
        yield warning("equal-images", None, found)


def black(source: Source, brightness: NDArray[np.float32], numbers: NDArray[np.int64]) -> Iterator[Finding]:
    """Images in which nothing is to be seen."""
    dark = numbers[brightness[numbers] == 0]
    if len(dark):
        said = ", ".join(source.content.place(int(at)) for at in dark[:LONGEST])
        more = ", …" if len(dark) > LONGEST else ""
        yield warning("black-images", None, f"{counted(len(dark), 'image')} all black: {said}{more}")


def brightness(means: NDArray[np.float32], digests: Hashes, kept: FixedImages | None) -> Iterator[Finding]:
    """Whether images are far darker or brighter than those of the newest version, as a negative of them is.

    Judged are those that are new since then, if there are many: in a folder that grows they drown among the others.
    """
    if kept is None or kept.brightness is None or not len(means):
        return
    is_new = _new(digests, kept)
    which = f"of {counted(int(is_new.sum()), 'new image')} " if is_new.any() else ""
    tonight = float(means[is_new].mean() if is_new.any() else means.mean())
    change, from_negative = abs(tonight - kept.brightness), abs(tonight - (255 - kept.brightness))
    found = f"the mean brightness {which}is {tonight:.1f} of 255, and was {kept.brightness:.1f} in the newest version"
    if change > DARKER and change > NEGATIVE * from_negative:
        found += ": these look like negatives, dark on light for light on dark"
        action = "invert the images, or keep them under another --name"
        yield error("negative", None, found, "images as bright as those before", action)
    elif change > DARKER:
        yield warning("brightness", None, found)


def _new(digests: Hashes, kept: FixedImages) -> NDArray[np.bool_]:
    """Which images the newest version has not seen, ``(n,)``; none where they are few, or not known."""
    none = np.zeros(len(digests), bool)
    try:
        if kept.rows is None or count_rows(kept.rows) < MANY_SEEN:
            return none
        is_new = find_new_rows(digests, kept.rows)
    except DataError:  # what is compared is no more than a help
        return none
    return is_new if is_new.sum() >= MANY_NEW else none


def forms(images: Images) -> Iterator[Finding]:
    """What was done to images to bring them to one form."""
    sizes, modes = images.facts.sizes, images.facts.modes
    height, width = images.shape[:2]
    others = sum(count for size, count in sizes.items() if size != (width, height))
    if others:
        squeezed = sum(count for (across, down), count in sizes.items() if across * height != down * width)
        found = f"{counted(others, 'image')} resized to {width} by {height}"
        found += f", {squeezed:,} of them squeezed, for their sides have another ratio" if squeezed else ""
        action = "see what another --side does" if (height, width) == (USUAL_SIDE, USUAL_SIDE) else ""
        yield note("resized", None, found, action)
    if transparent := sum(count for mode, count in modes.items() if mode.endswith(("A", "a"))):
        yield note("transparency", None, f"{counted(transparent, 'image')} whose transparency is ignored")
