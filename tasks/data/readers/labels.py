"""The classes of images that their files tell of: what they are called there, and which of a model's they are."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tasks.data.readers.formats import UNKNOWN, Array, Wanted
from tasks.data.recipe import Pixels
from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.store import regular_files
from tasks.store.regular_files import shown

CLASS_NAMES = "labels.txt"  # beside the files: a class a line
IDX_LABELS = "idx1-ubyte"  # in the names of the files of MNIST and its relatives
# What arrays of images and labels are called, before or after the word of their part.
NAMES = (("images", "labels"), ("x", "y"), ("X", "y"), ("image", "label"))


def called(parts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What arrays of images and labels of the parts of a split, such as ``test``, may be called."""
    for images, labels in NAMES:
        for part in parts:
            yield (f"{images}_{part}", f"{labels}_{part}") if part else (images, labels)
            if part:
                yield f"{part}_{images}", f"{part}_{labels}"


def arrays_of(path: Path, names: Iterable[str], wanted: Wanted) -> tuple[str, str | None]:
    """Which array of a file is its rows, and which, if any, their labels.

    The one called as the model's input, or as Keras calls test images, or the only one.

    Raises:
        DataError: none is.
    """
    there, name = list(names), wanted.recipe.input.name
    is_of_images = isinstance(wanted.recipe, Pixels)
    pairs = {name: wanted.truth or ""} | (dict(called(("", "test"))) if is_of_images else {})
    found = next((each for each in pairs if each in there), there[0] if len(there) == 1 else None)
    if found is None:
        expected = f"one named {name}{' or x_test' if is_of_images else ''}, or only one"
        raise DataError(f"{path} holds arrays {sorted(there)}", expected, "rename it")
    labels = pairs.get(found)
    return found, labels if wanted.truth and labels in there else None


def tells_of_labels(path: Path) -> bool:
    """Whether a file says of which classes the images beside it are, by its name."""
    return IDX_LABELS in path.name or path.name == CLASS_NAMES


def first_label(labels: Iterable[Array], num_classes: int) -> int:
    """The number of the first class: EMNIST counts its letters from 1."""
    of_numbers = [each for each in labels if each.dtype.kind in "iu" and len(each)]
    is_from_1 = of_numbers and min(map(np.min, of_numbers)) >= 1 and max(map(np.max, of_numbers)) == num_classes
    return 1 if is_from_1 else 0


def names_beside(path: Path) -> tuple[str, ...] | None:
    """The classes by ``labels.txt`` in the same folder; None where there is none.

    Raises:
        DataError: it is no list of classes.
    """
    file = (path if path.is_dir() else path.parent) / CLASS_NAMES
    if not file.is_file():
        return None
    with regular_files.opened(file) as stream:
        names = tuple(stream.read(2**20).decode("utf-8-sig", errors="replace").splitlines())
    require_names(str(file), names)
    return names


def require_names(place: str, names: tuple[str, ...]) -> None:
    """Let names of classes pass that are all different.

    Raises:
        DataError: they are not, or one is empty.
    """
    if len(set(names)) != len(names) or "" in names:
        raise DataError(f"{place} names a class twice, or not at all", "a name for each class", "mend it")


def classes(labels: Array, wanted: Wanted, names: tuple[str, ...] = (), first: int = 0) -> Array:
    """The class of each row ``(n,)`` float64 by its label: a name, or a whole number; NaN is none, -1 one of no model.

    Numbers, from ``first`` on, stand for ``names``, in order; without them they are the classes' own names, if those
    are whole numbers, or else their places.
    """
    if labels.dtype.kind in "iu" and names:
        at = labels.astype(np.int64) - first
        labels = np.array([*names, ""])[np.where((at >= 0) & (at < len(names)), at, -1)]
    elif labels.dtype.kind in "iu" and not (wanted.class_names and all(map(str.isdecimal, wanted.class_names))):
        return labels.astype(np.float64) - first
    kinds, at = np.unique(labels.astype(str), return_inverse=True)
    places = {name: float(place) for place, name in enumerate(wanted.class_names)} | {"": math.nan}
    return np.array([places.get(kind, UNKNOWN) for kind in kinds.tolist()])[at]


def of_folders(files: list[Path], base: Path, wanted: Wanted) -> list[float] | None:
    """The class of each file by the outermost folder below ``base``, or ``base`` itself, that is called like one.

    None where any lies in no such folder, which is said where others do.
    """
    places = {name: float(place) for place, name in enumerate(wanted.class_names)}
    names = ((*path.relative_to(base).parent.parts, base.name) for path in files)
    found = [next((places[name] for name in each if name in places), None) for each in names]
    if None not in found:
        return [place for place in found if place is not None]
    if len(others := [path for path, place in zip(files, found, strict=True) if place is None]) < len(files):
        where = f"{counted(len(others), 'picture')} in no folder of a class, the first is {shown(others[0])}"
        tell(f"accuracy is not told: {where}")
    return None
