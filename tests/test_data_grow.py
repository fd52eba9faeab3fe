"""Data that grow, against those of the champion: which rows are new, and which nights are not like those before."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tasks.data.own_rows import Examined, TableRows
from tasks.data.prepared_splits import write_arrays
from tasks.data.report import AcceptedFinding
from tasks.data.row_hash import Hashes
from tasks.data.split import decode_times
from tasks.errors import DataError
from tasks.records import ChampionData
from tasks.store.record import FileRef
from written_tables import examined, recipe, rows, rules, written

RNG = np.random.default_rng(0)


def kept(path: Path, train: Hashes, other: Hashes) -> FileRef:
    """A file of row digests."""
    parts = {"train": np.sort(train), "other": np.sort(other)}
    sha256 = write_arrays(
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


@pytest.mark.parametrize(("window", "kept_days"), [("7d", 7), ("1w", 7), ("36h", 1.5), ("500d", 30)])
def test_a_window_leaves_the_latest_rows_on_both_sides_and_counts_the_others(
    window: str, kept_days: float, tmp_path: Path
) -> None:
    table = days(30)
    found = examined(written(tmp_path / "t.csv", table), time_column="at", window=window)
    known = table.filter(pc.is_valid(table["y"]))["at"].to_numpy()
    inside = known > known.max() - np.timedelta64(int(kept_days * 86400), "s")
    assert found.report.outside == (~inside).sum()
    assert found.report.unlabelled == len(table) - len(known)
    assert (f"{(~inside).sum():,} rows outside of the window" in found.report.summary) == (not inside.all())
    moments = decode_times(rows(found).split.keys)
    assert moments.tolist() == known[inside].astype("datetime64[us]").astype(float).tolist()
    assert found.report.num_test == pytest.approx(0.2 * inside.sum(), abs=1)
    assert (
        rows(found).features[0].tolist()
        == table["x"].to_numpy()[np.isin(table["at"], known[inside])].astype(np.float32).tolist()
    )


def test_a_window_of_equal_targets_stops_the_run(tmp_path: Path) -> None:
    table = days(30)
    late = table.set_column(2, "y", [np.where(np.arange(len(table)) < 600, np.arange(len(table)), 5.0)])
    found = examined(written(tmp_path / "c.csv", late), time_column="at", window="7d")
    assert list(rules(found, "error")) == ["constant-target y"]


DAY, NIGHTS = 250, 5


def day(number: int, rows: int = DAY, **other: Any) -> pa.Table:
    """The rows of one day; ``other`` columns take the place of ordinary ones."""
    rng = np.random.default_rng(number)
    level = pa.array(rng.choice(["a", "b", "c"], rows), mask=rng.random(rows) < 0.2)
    size, share = rng.lognormal(3, 0.5, rows), rng.random(rows)
    columns = {"size": size, "share": share, "level": level, "day": np.full(rows, number), "y": size + share}
    return pa.table(columns | other)


def months(folder: Path) -> Path:
    for number in range(NIGHTS):
        written(folder / f"day-{number:03d}.parquet", day(number))
    return folder


def championed(found: Examined[TableRows | None], folder: Path) -> ChampionData:
    """What a version made of these data keeps of them."""
    folder.mkdir()
    digests = [rows(found).ordering.result()[part] for part in ("train", "other")]
    num_rows = found.report.num_train + found.report.num_test
    rows_before = kept(folder / "rows", *digests)
    return ChampionData(num_rows=num_rows, rows=rows_before, profiles=rows(found).profiles, split=recipe(found).split)


FAULTS = {
    "other-scale size": {"size": np.random.default_rng(99).lognormal(3, 0.5, DAY) * 1000},
    "other-scale share": {"share": np.random.default_rng(99).random(DAY) / 10},
    "other-scale y": {"y": np.random.default_rng(99).lognormal(3, 0.5, DAY) * 100},
    "turned-missing size": {"size": np.full(DAY, np.nan)},
    "turned-missing level": {"level": pa.nulls(DAY, pa.string())},
}

Month = tuple[Path, Examined[TableRows | None], ChampionData]


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Month:
    """A folder that has grown for some nights, and the champion of its last."""
    folder = tmp_path_factory.mktemp("month")
    found = examined(months(folder / "data"))
    return folder / "data", found, championed(found, folder / "kept")


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Month:
    """One that has grown for long."""
    folder = tmp_path_factory.mktemp("year")
    data = written(folder / "data" / "days.parquet", pa.concat_tables([day(number) for number in range(200)])).parent
    found = examined(data)
    return data, found, championed(found, folder / "kept")


def grown(month: Month, number: int, **other: Any) -> Path:
    """The folder with one more day, the only one that is not removed again."""
    return written(month[0] / "night.parquet", day(number, **other)).parent


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_day_stops_the_run_on_the_two_hundredth_night_too(fault: str, year: Month) -> None:
    _, found, champion = year
    broken = examined(grown(year, 777, **FAULTS[fault]), kept=recipe(found), champion=champion)
    assert list(rules(broken, "error")) == [fault]
    (said,) = broken.report.errors
    assert f"{DAY} new rows of night.parquet" in said.found
    assert "--accept-data" in said.action
    assert broken.schema is None


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_accepted_is_noted_and_stops_no_later_night_in_that_column(fault: str, month: Month) -> None:
    _, found, champion = month
    accepted = examined(grown(month, 777, **FAULTS[fault]), kept=recipe(found), champion=champion, accept_data=True)
    rule, column = fault.split()
    assert accepted.report.accepted == (AcceptedFinding(rule=rule, column=column),)
    assert fault in rules(accepted, "warning")
    later = champion.model_copy(update={"accepted": champion.accepting(*accepted.report.accepted)})
    again = examined(grown(month, 778, **FAULTS[fault]), kept=recipe(found), champion=later)
    assert not again.report.errors
    assert fault in rules(again, "note")
    assert not [each for each in again.report.changes if each.rule == rule], "known"
    other = next(each for each in FAULTS if each.split()[1] != column)
    both = FAULTS[fault] | FAULTS[other]
    assert list(rules(examined(grown(month, 779, **both), kept=recipe(found), champion=later), "error")) == [other]


def test_a_broken_day_is_found_though_good_ones_come_with_it(tmp_path: Path) -> None:
    folder = months(tmp_path / "data")
    found = examined(folder)
    champion = championed(found, tmp_path / "kept")
    for number in range(10, 16):
        faults = FAULTS["turned-missing size"] if number > 13 else {}
        written(folder / f"day-{number:03d}.parquet", day(number, **faults))
    hours = day(16, **FAULTS["other-scale share"])
    for hour in range(25):
        written(folder / f"hour-{hour:03d}.parquet", hours.slice(10 * hour, 10))
    night = examined(folder, kept=recipe(found), champion=champion)
    assert list(rules(night, "error")) == ["turned-missing size", "other-scale share"]
    missing, scale = (each.found for each in night.report.errors)
    assert f"all of {DAY} new rows of day-014.parquet; in the champion's data it was in 0 %; so in 1 more" in missing
    assert f"{DAY} new rows of hour-000.parquet to hour-024.parquet" in scale
    assert not [key for key in rules(night, "warning") if key.startswith("drift")], "a day is no drift"


def test_rows_that_are_gone_stop_every_run_that_does_not_accept_them(tmp_path: Path) -> None:
    folder = months(tmp_path / "data")
    found = examined(folder)
    champion = championed(found, tmp_path / "kept")
    for number in range(NIGHTS // 2 - 1, NIGHTS):
        (folder / f"day-{number:03d}.parquet").unlink()
    let_through = examined(folder, kept=recipe(found), champion=champion, accept_data=True)
    assert not let_through.report.errors
    lasting = champion.model_copy(update={"accepted": let_through.report.accepted})
    assert list(rules(examined(folder, kept=recipe(found), champion=lasting), "error")) == ["fewer-rows"], "no column"
    other = champion.model_copy(update={"window": "90d"})
    assert "fewer-rows" not in rules(examined(folder, kept=recipe(found), champion=other), "error")


def test_profiles_do_not_depend_on_the_order_of_rows_nor_on_their_number(tmp_path: Path) -> None:
    many = pa.concat_tables([day(number, 10_000) for number in range(4)])
    shuffled = many.take(pa.array(RNG.permutation(len(many))))
    found = [examined(written(tmp_path / f"{at}.parquet", each)) for at, each in enumerate((many, shuffled))]
    assert rows(found[0]).profiles == rows(found[1]).profiles
    by_name = {each.name: each for each in rows(found[0]).profiles}
    assert by_name["size"].magnitude == pytest.approx(np.median(many["size"]), rel=0.02)
    assert by_name["level"].missing == many["level"].null_count
    assert not any(each.is_constant for each in by_name.values())
    total = sum(by_name["size"].counts)
    assert 19_000 < total < 21_000
    assert all(count == pytest.approx(total / 10, rel=0.01) for count in by_name["size"].counts[:-1])


@pytest.mark.parametrize("harm", ["bit", "fifo", "folder", "cut"])
def test_damaged_digests_of_the_champions_rows_stop_the_run(harm: str, month: Month, tmp_path: Path) -> None:
    _, found, champion = month
    assert champion.rows is not None
    content, path = bytearray(champion.rows.path.read_bytes()), tmp_path / "rows"
    if harm == "fifo":
        os.mkfifo(path)
    elif harm == "folder":
        path.mkdir()
    else:
        content[-1] ^= 1
        path.write_bytes(content if harm == "bit" else content[:-9])
    damaged = champion.model_copy(update={"rows": champion.rows.model_copy(update={"path": path})})
    broken = grown(month, 777, **FAULTS["other-scale size"])
    with pytest.raises(DataError, match="restore it"):
        examined(broken, kept=recipe(found), champion=damaged)


def test_without_the_champions_row_digests_a_word_is_said_and_the_rest_is_judged(month: Month, tmp_path: Path) -> None:
    _, found, champion = month
    assert champion.rows is not None
    gone = champion.model_copy(update={"rows": champion.rows.model_copy(update={"path": tmp_path / "gone"})})
    night = examined(grown(month, 777), kept=recipe(found), champion=gone)
    assert "unknown-rows" in rules(night, "warning")
