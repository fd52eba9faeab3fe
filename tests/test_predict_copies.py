"""What prediction does with bytes, counted: rows are read into one memory, and parts are on their way to the disk."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.batch import session_pool, shard
from tasks.data.io import arrays
from tasks.machine.arrays import Array

ROWS = np.random.default_rng(0).integers(0, 256, (1000, 7, 3), np.uint8)


def test_batches_of_a_file_are_its_rows_from_any_row_on(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    stored = arrays.open_npy(tmp_path / "rows.npy")[5:905]
    found = [batch.copy() for batch in stored.batches(64)]
    assert [len(each) for each in found] == [64] * 14 + [4]
    np.testing.assert_array_equal(np.concatenate(found), ROWS[5:905])


def test_a_session_is_fed_from_one_memory_whose_rows_lie_there_once(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    places = set()

    class Sums:
        """A session of a model that adds pixels."""

        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name="pixels", type="tensor(uint8)", shape=["batch", 7, 3])]

        def get_outputs(self) -> list[Any]:
            return [SimpleNamespace(name="sum", type="tensor(int64)", shape=["batch"])]

        def run(self, _: list[str], feeds: dict[str, Array]) -> list[Array]:
            places.add(feeds["pixels"].ctypes.data)
            return [feeds["pixels"].sum(axis=(1, 2), dtype=np.int64)]

    found = session_pool.SessionPool([Sums()], 1).run(arrays.open_npy(tmp_path / "rows.npy"), 64)
    np.testing.assert_array_equal(found["sum"], ROWS.sum(axis=(1, 2)))
    assert len(places) == 1


def test_the_disk_is_handed_every_byte_of_a_growing_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], os.posix_fadvise

    def noting(descriptor: int, start: int, size: int, advice: int) -> None:
        asked.append((start, size))
        real(descriptor, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", noting)
    path = tmp_path / "part"
    with path.open("wb", buffering=0) as stream, shard.written_back(path) as hand_to_disk:
        for size in (10_000, 0, 5_000):
            stream.write(bytes(size))
            hand_to_disk()
    assert asked == [(0, 10_000), (10_000, 0), (10_000, 5_000)]
