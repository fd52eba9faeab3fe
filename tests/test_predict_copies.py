"""What prediction does with bytes, counted: rows are read into one memory, and parts are on their way to the disk."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candidate import Candidate
from prediction_jobs import FEATURES
from tasks.batch import lanes, parts
from tasks.data.readers import npy
from tasks.parameters import Device
from tasks.serving import sessions

ROWS = np.random.default_rng(0).integers(0, 256, (1000, 7, 3), np.uint8)


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_batches_of_a_file_are_its_rows_from_any_row_on(order: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", order(ROWS))
    stored, memory = npy.read(tmp_path / "rows.npy").part(5, 905), np.empty((64, 7, 3), np.uint8)
    found = [memory[:size].copy() for size in stored.fill(memory)]
    assert [len(each) for each in found] == [64] * 14 + [4]
    np.testing.assert_array_equal(np.concatenate(found), ROWS[5:905])


@pytest.mark.parametrize("are_stored", [True, False])
def test_a_session_is_bound_once_to_memory_that_all_full_batches_lie_in(
    are_stored: bool, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features = FEATURES[:1000]
    rows: Any = features
    if are_stored:
        np.save(tmp_path / "rows.npy", features)
        rows = npy.read(tmp_path / "rows.npy")
    session = sessions.open_session(candidates[0].exported.onnx.path.read_bytes(), Device.CPU)
    alone = np.concatenate([session.run(None, {"features": batch})[0] for batch in np.array_split(features, 9)])
    lane, bound, bind = lanes.CpuLane(session, 128), [], lanes.CpuLane._bind

    def noting(self: lanes.CpuLane, size: int) -> None:
        bound.append(size)
        bind(self, size)

    monkeypatch.setattr(lanes.CpuLane, "_bind", noting)
    once, memory, places = lanes.Lanes([lane], lane.signature, 1), lanes.Memory(), set()
    for _ in range(2):
        found = once.run(rows, memory)["prediction"]
        np.testing.assert_array_equal(found, alone)
        places.add(found.ctypes.data)
    assert bound == [104, 128, 104]  # 1000 rows are 7 batches of 128 and one of 104
    assert len(places) == 1, "the answers of a chunk lie where those of the last one lay"


def test_the_disk_is_handed_every_byte_of_a_growing_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], os.posix_fadvise

    def noting(descriptor: int, start: int, size: int, advice: int) -> None:
        asked.append((start, size))
        real(descriptor, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", noting)
    path = tmp_path / "part"
    with path.open("wb", buffering=0) as stream, parts.written_back(path) as hand_to_disk:
        for size in (10_000, 0, 5_000):
            stream.write(bytes(size))
            hand_to_disk()
    assert asked == [(0, 10_000), (10_000, 0), (10_000, 5_000)]
