"""Which rows are new: their digests are in neither part of data that an earlier version was made of (design 4.5)."""

import numpy as np
from numpy.typing import NDArray

from tasks.data.prepared_splits import read_arrays
from tasks.data.table.hashing import Words
from tasks.machine import side_by_side
from tasks.store.record import FileRef
from tasks.store.verified import RESTORE

BLOCK = 2**17  # rows
PARTS = "train", "other"  # of a file of row digests


def new_rows(digests: Words, known: FileRef) -> NDArray[np.bool_]:
    """Which of these row digests ``(n,)``, in any order, are not in the file ``known`` of an earlier version.

    Raises:
        DataError: the file is missing or damaged.
    """
    new = _new(np.sort(digests), known)
    return are_in(new, digests) if len(new) else np.zeros(len(digests), bool)


def num_new(rows: FileRef, known: FileRef) -> int:
    """How many rows of one file of row digests (``Splits.rows``) are not in the other.

    Raises:
        DataError: a file is missing or damaged.
    """
    return 0 if rows.sha256 == known.sha256 else sum(len(_new(part, known)) for part in _parts(rows))


def num_rows(rows: FileRef) -> int:
    """How many rows a file of row digests has.

    Raises:
        DataError: it is missing or damaged.
    """
    return sum(map(len, _parts(rows)))


def _parts(rows: FileRef) -> list[Words]:
    """The digests of training rows and of others, each sorted."""
    found = read_arrays(rows, RESTORE)
    return [found[part] for part in PARTS]


def _new(ordered: Words, known: FileRef) -> Words:
    """Those of sorted digests that are not known, in order: sorted ones are found fifteen times as fast as any."""
    is_known = np.zeros(len(ordered), bool)
    for part in _parts(known):
        is_known |= are_in(part, ordered)
    return ordered[~is_known]


def are_in(known: Words, digests: Words) -> NDArray[np.bool_]:
    """Which of the digests ``(n,)`` are among sorted ``known`` ones."""
    found = np.zeros(len(digests), bool)

    def look(start: int) -> None:
        wanted = digests[start : start + BLOCK]
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found[start : start + BLOCK] = known[at] == wanted

    if len(known):
        side_by_side.each(look, range(0, len(digests), BLOCK))
    return found
