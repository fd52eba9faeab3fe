"""Picture files: each is a row."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.data import pictures
from tasks.data.readers.formats import Format, Piece, Wanted
from tasks.data.recipe import Pixels
from tasks.errors import DataError, UsageError


def _count(path: Path, wanted: Wanted) -> int:
    if not isinstance(wanted.recipe, Pixels):
        raise UsageError(f"{path} is a picture", f"{wanted.describe()}", "name a model of images with --name")
    return 1


def _pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
    shape = wanted.recipe.input.shape
    try:
        image, notes = pictures.decode(path, shape, "it")  # its path is told beside
    except DataError as error:
        yield Piece(0, 1, np.empty((0, *shape), np.uint8), kept=np.empty(0, np.int64), rejects=((0, error.found),))
    else:
        yield Piece(0, 1, image[np.newaxis], notes=notes)


PICTURE = Format("picture", pictures.SUFFIXES, _count, _pieces, tolerated_percent=1, most_shard_rows=2048)
