"""Data that grow, against those of the champion: which rows are new, and which nights are not like those before."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tasks.data import mapped
from tasks.data.table import new_rows, split_words
from tasks.store.record import FileRef
from written_tables import examined, rows, rules, written

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


def days(count: int, rows: int = 40) -> pa.Table:
    """So many days of hourly rows, of which every tenth has no target yet."""
    at = np.datetime64("2024-01-01T00:00:00") + np.arange(count * rows) * np.timedelta64(86400 // rows, "s")
    x = RNG.normal(size=len(at))
    return pa.table({"x": x, "at": at, "y": pa.array(x + RNG.normal(size=len(at)), mask=np.arange(len(at)) % 10 == 9)})


@pytest.mark.parametrize("form", [".parquet", ".csv"])
@pytest.mark.parametrize(("window", "kept_days"), [("7d", 7), ("1w", 7), ("36h", 1.5), ("500d", 30)])
def test_a_window_leaves_the_latest_rows_on_both_sides_and_counts_the_others(
    window: str, kept_days: float, form: str, tmp_path: Path
) -> None:
    table = days(30)
    found = examined(written(tmp_path / f"t{form}", table), time_column="at", window=window)
    known = table.filter(pc.is_valid(table["y"]))["at"].to_numpy()
    inside = known > known.max() - np.timedelta64(int(kept_days * 86400), "s")
    assert found.report.outside == (~inside).sum()
    assert found.report.unlabelled == len(table) - len(known)
    assert (f"{(~inside).sum():,} rows outside of the window" in found.report.summary) == (not inside.all())
    moments = split_words.moments(rows(found).split.keys)
    assert moments.tolist() == known[inside].astype("datetime64[us]").astype(float).tolist()
    assert found.report.num_test == pytest.approx(0.2 * inside.sum(), abs=1)
    assert (
        rows(found).features[0].tolist()
        == table["x"].to_numpy()[np.isin(table["at"], known[inside])].astype(np.float32).tolist()
    )


def test_a_window_of_numbers_or_of_equal_targets_stops_the_run(tmp_path: Path) -> None:
    table = days(30)
    numbers = table.set_column(1, "at", [np.arange(len(table))])
    found = examined(written(tmp_path / "n.csv", numbers), time_column="at", window="7d")
    assert list(rules(found, "error")) == ["window at"]
    late = table.set_column(2, "y", [np.where(np.arange(len(table)) < 600, np.arange(len(table)), 5.0)])
    found = examined(written(tmp_path / "c.csv", late), time_column="at", window="7d")
    assert list(rules(found, "error")) == ["constant-target y"]
    gaps = table.set_column(1, "at", pa.array(table["at"].to_numpy(), mask=np.arange(len(table)) == 3))
    found = examined(written(tmp_path / "g.parquet", gaps), time_column="at", window="7d")
    assert list(rules(found, "error")) == ["split-missing"]


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
