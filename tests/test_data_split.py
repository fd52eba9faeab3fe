"""Which rows are the test split: the same ones as data grow, and never equal rows on both sides."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.split import TEST, TRAINING, decode_times, encode_times
from written_tables import examined, recipe, rows, rules, written

ROWS = 600
RNG = np.random.default_rng(0)
TABLE = pa.table(
    {
        "x": RNG.normal(size=ROWS),
        "g": RNG.integers(0, 80, ROWS),
        "day": pa.array(RNG.integers(0, 60, ROWS) * 86400, pa.timestamp("s")),
        "y": RNG.normal(size=ROWS),
    }
)


def sides(found: Any) -> list[int]:
    listed: list[int] = rows(found).split.split_ids.tolist()
    return listed


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20))
def test_words_of_numbers_order_them_and_give_them_back(values: list[float]) -> None:
    words = encode_times(np.array(values))
    for a, left in zip(values, words.tolist(), strict=True):
        for b, right in zip(values, words.tolist(), strict=True):
            assert (a < b) == (left < right)
    assert decode_times(np.append(words, np.uint64(0))).tolist()[:-1] == values


def test_many_rare_classes_are_one_finding_which_says_what_to_do_if_they_are_numbers(tmp_path: Path) -> None:
    columns = TABLE.set_column(3, "y", [[f"€{row * 1.37:.2f}" for row in range(ROWS)]])
    found = examined(written(tmp_path / "t.csv", columns), task="classification")
    (error,) = found.report.errors
    assert (error.rule, error.column) == ("rare-class", "y")
    assert "numbers are written as 1234.5 and learned by linear-regression" in error.action
    assert error.found.startswith(f"{ROWS} of {ROWS} classes have hardly a row")
    assert "2 training rows" in error.expected


@pytest.mark.parametrize(
    ("typed", "answer"), [("DAY", "did you mean day?"), ("dya", "did you mean day?"), ("price", "")]
)
def test_a_mistyped_column_is_answered_with_the_nearest(typed: str, answer: str, tmp_path: Path) -> None:
    found = examined(written(tmp_path / "t.csv", TABLE), time_column=typed)
    (error,) = found.report.errors
    assert error.action == (answer or "take one of them")


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+02:00", "%Y%j"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_moments_that_are_text_split_as_dates_do(form: str, suffix: str, tmp_path: Path) -> None:
    days = [day.strftime(form) for day in TABLE["day"].to_pylist()]
    found = examined(written(tmp_path / f"t{suffix}", TABLE.set_column(2, "day", [days])), time_column="day")
    assert sides(found) == sides(examined(written(tmp_path / "dates.parquet", TABLE), time_column="day"))


def test_the_latest_folders_are_the_test_split(tmp_path: Path) -> None:
    for day in range(1, 11):
        written(tmp_path / f"day=2024-01-{day:02}" / "p.parquet", TABLE.drop_columns(["day"]).slice(60 * day - 60, 60))
    assert sides(examined(tmp_path, time_column="day")) == [TRAINING] * 480 + [TEST] * 120


@pytest.mark.parametrize("form", [".parquet", ".csv"])
@pytest.mark.parametrize("first", ["0001-01-01", "1500-06-01", "9990-01-01"])
def test_dates_far_from_1970_are_in_order_too(first: str, form: str, tmp_path: Path) -> None:
    days = np.datetime64(first) + np.arange(ROWS) % 60
    far = TABLE.set_column(2, "day", [[str(day) for day in days] if form == ".csv" else days.astype("datetime64[us]")])
    is_test = np.array(sides(examined(written(tmp_path / f"t{form}", far), time_column="day"))) == TEST
    assert is_test.sum() == 0.2 * ROWS
    assert days[is_test].min() > days[~is_test].max()


def test_nan_among_numbers_of_a_time_column_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,at,y\n" + "".join(f"{row % 7},{row},{row}\n" for row in range(99)) + "1,nan,1\n")
    found = examined(tmp_path / "t.csv", time_column="at")
    assert rules(found, "error") == {"split-missing": "at is missing in 1 row"}


@pytest.mark.parametrize("odd", ["13/01/2024", "soon", "2024-01-01T00:00:00Z", "5"])
def test_a_time_column_that_is_no_time_stops_the_run_and_says_where(odd: str, tmp_path: Path) -> None:
    days = [str(day.date()) for day in TABLE["day"].to_pylist()]
    days[7] = odd
    table = TABLE.set_column(2, "day", [days]).set_column(3, "y", pa.array([None, *TABLE["y"].to_pylist()[1:]]))
    found = examined(written(tmp_path / "t.parquet", table), time_column="day")
    assert found.schema is None
    said = rules(found, "error")["no-moment day"]
    assert "no date or time" in said
    if odd in ("13/01/2024", "soon"):
        assert said == f"day is no date or time, as {odd!r} in row 7 of {tmp_path / 't.parquet'}"


def test_a_group_stays_on_its_side_whatever_type_its_column_has(tmp_path: Path) -> None:
    first = examined(written(tmp_path / "t.parquet", TABLE), split_by="g")
    groups = TABLE["g"].to_pylist()
    forms = {"text.parquet": list(map(str, groups)), "float.parquet": list(map(float, groups)), "whole.csv": groups}
    for name, values in forms.items():
        table = TABLE.set_column(1, "g", pa.array(values))
        found = examined(written(tmp_path / name, table), split_by="g", kept=recipe(first))
        assert rows(found).digests.tolist() == rows(first).digests.tolist(), name
        assert sides(found) == sides(first)
    with (tmp_path / "whole.csv").open("a") as file:
        file.write("0.5,X17,2020-01-01,0.25\n")
    grown = examined(tmp_path / "whole.csv", split_by="g", kept=recipe(first))
    assert sides(grown)[:ROWS] == sides(first)
    assert rows(grown).digests.tolist()[:ROWS] == rows(first).digests.tolist()


def test_what_a_split_column_says_of_rows_without_a_target_is_of_no_account(tmp_path: Path) -> None:
    said, target = ["train", "train", "val"] * (ROWS // 3), TABLE["y"].to_pylist()
    for at, odd in enumerate(("pending", "test")):
        said[at], target[at] = odd, None
    columns = TABLE.set_column(3, "y", pa.array(target)).append_column("part", [said])
    found = examined(written(tmp_path / "t.parquet", columns), split_column="part")
    assert not rules(found, "error")
    assert sides(found).count(TEST) == ROWS // 3
