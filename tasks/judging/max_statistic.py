"""Is a drop real? One p-value for each kept version and each class, corrected for how many are looked at.

A candidate is compared with every kept version, in accuracy and in the recall of every class: among so many comparisons
some drop is large by chance. What is asked is therefore how large the *largest* statistic gets when the candidate is as
good as the versions (Westfall and Young 1993). On a row, a version is then as likely to be right where the candidate is
wrong as the other way round, so the rows' differences change sign at random, all comparisons together: versions that
agree with each other count as one, and a comparison that cannot exceed its margin costs the others nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tasks.machine.words import readable

Array = NDArray[Any]

DRAWS = 9_999  # so that every p is a whole number of ten thousandths
NORMAL_FROM = 10_000  # rows; from there a sum of signs is replaced by a normal variable of its variance
NO_RISE = 0.2  # of its margin: so little more loss is none, and equal models are refused less often than the bound says
CHUNK = 500  # draws at a time: bounds memory


class Drops(NamedTuple):
    """Of accuracy (first row) and of the recall of each class, by kept version: ``(1 + classes, versions)``."""

    drop: Array  # as a fraction; of counts, so that a drop as large as its margin is equal to it
    beyond: Array  # the drop exceeds its margin
    p: Array  # one-sided, corrected; 1 where the drop is within its margin

    def reason(self, at: Any, change: str, margin: float, max_p: float) -> str:
        """Why one of them is refused or not; ``change`` is what it is: a drop or a rise."""
        if not self.beyond[at]:
            return f"a {change} of at most {readable(margin)} is allowed"
        more, corrected = f"a {change} of more than {readable(margin)}", f"corrected p {readable(self.p[at])}"
        if self.p[at] < max_p:
            return f"{more} that chance does not explain ({corrected}, below {max_p:g})"
        return f"{more}, but one that chance may explain ({corrected}, not below {max_p:g})"


def drops(
    ours: Array, kept: Array, classes: list[Array], margins: tuple[float, float], draws: int = DRAWS, seed: int = 0
) -> Drops:
    """Compare a candidate with kept versions on the same rows.

    ``ours`` ``(rows,)`` and ``kept`` ``(versions, rows)`` say where each is right, ``classes`` are the rows of each
    class (disjoint, together all rows), ``margins`` the allowed drops of accuracy and of recall.
    The statistic is McNemar's, (lost - won) / sqrt(lost + won), whose variance under random signs is 1. The p of a
    comparison is the share of draws in which any comparison exceeds its margin with a statistic as large.
    """
    lost = kept.astype(np.int8) - ours.astype(np.int8)  # 1: the version is right, the candidate wrong; -1: vice versa
    is_moved = np.asarray(lost.any(axis=0))
    moved = [lost[:, rows[is_moved[rows]]].T.astype(np.float32) for rows in classes]
    size = np.array([[ours.size], *([rows.size] for rows in classes)])
    margin = np.array([[margins[0]], *([margins[1]] for _ in classes)])
    drop = _with_total([each.sum(axis=0) for each in moved]) / size
    beyond, p = drop > margin, np.ones(drop.shape)
    if beyond.any():
        normal = ours.size >= NORMAL_FROM
        # Sums of signs are two apart. One, half a step, is the candidate's: so equal models are refused less often than
        # the bound says, never more. Another makes the normal tail that of the sum.
        p[beyond] = _corrected(moved, size, margin, draws, seed, normal, np.array(2.0 if normal else 1.0))[beyond]
    return Drops(drop, beyond, p)


def rises(parts: Array, margins: Array, draws: int = DRAWS, seed: int = 0) -> Drops:
    """The same of losses: parts ``(versions, units)`` of the rise of each mean, one of every row or group.

    All results are ``(versions,)``, and so are ``margins``, the allowed rises of the mean.
    """
    rise = parts.sum(axis=1)
    beyond, p = rise > margins, np.ones(len(margins))
    if beyond.any():
        unit = np.abs(parts).max()  # so that float32, which is twice as fast, holds them and their squares
        moved, margin = (parts / unit).T.astype(np.float32), margins / unit
        of_both = np.stack([margin, np.full(len(margin), np.inf)])  # all rows are one class, which nobody asks for
        normal, none = len(moved) >= NORMAL_FROM, NO_RISE * margin
        p[beyond] = _corrected([moved], np.ones((2, 1)), of_both, draws, seed, normal, none)[0][beyond]
    return Drops(rise, beyond, p)


def _corrected(
    moved: list[Array], size: Array, margin: Array, draws: int, seed: int, normal: bool, none: Array
) -> Array:
    """The p of every comparison; ``moved`` ``(rows, versions)``: of each class the rows that some version decides.

    ``none`` is what of a net loss counts as none.
    """
    net, most, squares = (
        _with_total([each.sum(axis=0, dtype=float) for each in parts])
        for parts in (moved, map(np.abs, moved), map(np.square, moved))
    )
    possible, scale = most / size > margin, np.sqrt(np.where(squares > 0, squares, 1))
    moved, tests = _merged(moved, np.asarray(possible[1:].any(axis=1)))
    if normal:
        moved = [_with_few_rows(each) for each in moved]
    asked, largest = possible[tests], list[Array]()  # of each draw
    sizes, margins, scales = (np.broadcast_to(each, possible.shape)[tests][asked] for each in (size, margin, scale))
    for parts in _under_chance(moved, normal, draws, seed):
        sums = _with_total(parts)[:, : len(tests)][:, asked]
        largest.append(np.where(sums / sizes > margins, sums / scales, -np.inf).max(axis=1, initial=-np.inf))
    found = (net - none) / scale
    found -= 1e-6  # rounding must not tell equal sums apart
    at_least = draws - np.searchsorted(np.sort(np.concatenate(largest)), found)
    return np.asarray((1 + at_least) / (1 + draws))


def _merged(moved: list[Array], is_asked: Array) -> tuple[list[Array], Array]:
    """The classes that are asked for, and the others as one, which only the total has; and which tests remain."""
    others = [rows for rows, asked in zip(moved, is_asked, strict=True) if not asked]
    asked = [rows for rows, asked in zip(moved, is_asked, strict=True) if asked]
    return [*asked, *([np.concatenate(others)] if others else [])], np.flatnonzero([True, *is_asked])


def _with_few_rows(moved: Array) -> Array:
    """As many rows as versions with the same covariance; a QR decomposition is slow where other work has the cores."""
    values, vectors = np.linalg.eigh((moved.T @ moved).astype(float))
    return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T, moved.dtype)


def _with_total(parts: list[Array]) -> Array:
    return np.stack([np.sum(parts, axis=0), *parts], axis=-2).astype(float)


def _under_chance(moved: list[Array], normal: bool, draws: int, seed: int) -> Iterator[list[Array]]:
    """Net losses of each class ``(draws, versions)`` in chunks, when every row's sign is drawn at random."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        shapes = [(min(CHUNK, draws - start), len(each)) for each in moved]
        signs = [rng.standard_normal(shape, np.float32) if normal else _signs(rng, shape) for shape in shapes]
        yield [sign @ each for sign, each in zip(signs, moved, strict=True)]


def _signs(rng: Generator, shape: tuple[int, int]) -> Array:
    """-1 or 1, either as likely; eight of a random byte, which is several times as fast as one by one."""
    count = shape[0] * shape[1]
    bits = np.unpackbits(rng.integers(256, size=-(-count // 8), dtype=np.uint8), count=count)
    return (2 * bits.view(np.int8) - 1).astype(np.float32).reshape(shape)
