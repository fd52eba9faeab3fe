"""Data that grow, against those of the champion: which rows are new, and which nights are not like those before."""

from pathlib import Path

import numpy as np
import pytest

from tasks.data import mapped
from tasks.data.table import new_rows
from tasks.store.record import FileRef

RNG = np.random.default_rng(0)
HASHES = RNG.integers(0, 2**64, 5000, dtype=np.uint64)


def kept(path: Path, train: np.ndarray, other: np.ndarray) -> FileRef:
    """A file of row digests."""
    parts = {"train": np.sort(train), "other": np.sort(other)}
    sha256 = mapped.write(
        path,
        {name: (np.uint64, each.shape) for name, each in parts.items()},
        {name: [each] for name, each in parts.items()},
    )
    return FileRef(path=path, sha256=sha256)


@pytest.mark.parametrize("cut", [0, 1, 2000, 3000])
def test_new_rows_are_those_in_neither_part_whatever_their_order(cut: int, tmp_path: Path) -> None:
    before = kept(tmp_path / "before", HASHES[:cut], HASHES[cut:3000])
    shuffled = RNG.permutation(HASHES)
    expected = [each not in set(HASHES[:3000].tolist()) for each in shuffled.tolist()]
    assert new_rows.new_rows(shuffled, before).tolist() == expected
    now = kept(tmp_path / "now", shuffled[:1000], shuffled[1000:])
    assert new_rows.num_new(now, before) == 2000
    assert (new_rows.num_new(before, now), new_rows.num_rows(now)) == (0, 5000)
    assert new_rows.new_rows(shuffled, kept(tmp_path / "none", HASHES[:0], HASHES[:0])).all()
