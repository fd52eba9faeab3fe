"""What prediction does with bytes, counted: rows are read into one memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tasks.batch import session_pool
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

    found = session_pool.SessionPool([Sums()], 1).run(arrays.open_npy(tmp_path / "rows.npy"), 64, {})
    np.testing.assert_array_equal(found["sum"], ROWS.sum(axis=(1, 2)))
    assert len(places) == 1
