"""Which rows are the test split: the same ones as data grow, and never equal rows on both sides."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.data.split import TEST, TRAINING, VALIDATION, decode_times, encode_times, split_by_time
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


def test_a_row_stays_on_its_side_as_data_grow_and_change_order(tmp_path: Path) -> None:
    first = examined(written(tmp_path / "first.csv", TABLE.slice(0, 300)))
    order = RNG.permutation(ROWS)
    grown = examined(written(tmp_path / "grown.csv", TABLE.take(pa.array(order))), kept=recipe(first))
    now = dict(zip(order.tolist(), sides(grown), strict=True))
    assert [now[row] for row in range(300)] == sides(first)
    assert sides(grown).count(TEST) == pytest.approx(0.2 * ROWS, abs=40)


def test_the_target_does_not_move_a_row(tmp_path: Path) -> None:
    other = TABLE.set_column(3, "y", [RNG.normal(size=ROWS)])
    found = [examined(written(tmp_path / f"{at}.csv", each)) for at, each in enumerate((TABLE, other))]
    assert sides(found[0]) == sides(found[1])


def test_equal_rows_are_on_one_side_however_often_they_stand(tmp_path: Path) -> None:
    twice = pa.concat_tables([TABLE, TABLE.slice(0, 200)])
    found = examined(written(tmp_path / "t.csv", twice))
    assert recipe(found).split.rule == "rows"
    assert sides(found)[ROWS:] == sides(found)[:200]


def test_a_table_of_a_few_combinations_is_split_by_copies_and_the_rule_stays(tmp_path: Path) -> None:
    combinations = pa.table(
        {
            "sex": np.array(["f", "m"])[np.arange(ROWS) % 2],
            "class": np.arange(ROWS) % 7,
            "y": np.array(["no", "yes"])[(np.arange(ROWS) % 5 == 0).astype(int)],
        }
    )
    found = examined(written(tmp_path / "t.csv", combinations), task="classification")
    assert recipe(found).split.rule == "copies"
    assert sides(found).count(TEST) == pytest.approx(0.2 * ROWS, abs=40)
    assert "number of the copy" in found.report.summary
    distinct = (
        combinations.append_column("z", [np.arange(ROWS)]).drop_columns(["class"]).rename_columns(["sex", "y", "class"])
    )
    later = examined(written(tmp_path / "later.csv", distinct), kept=recipe(found), task="classification")
    assert recipe(later).split == recipe(found).split


def test_groups_are_on_one_side_and_are_no_feature(tmp_path: Path) -> None:
    found = examined(written(tmp_path / "t.csv", TABLE), split_by="g")
    groups: dict[int, set[int]] = {}
    for group, side in zip(TABLE["g"].to_pylist(), sides(found), strict=True):
        groups.setdefault(group, set()).add(side)
    assert all(len(each) == 1 for each in groups.values())
    assert "g" not in [column.name for column in recipe(found).columns]
    as_text = TABLE.set_column(1, "g", TABLE["g"].cast(pa.string()))
    assert rows(examined(written(tmp_path / "text.parquet", as_text), split_by="g")).split.keys is not None


def test_the_latest_rows_are_the_test_split_cut_between_two_moments(tmp_path: Path) -> None:
    found = examined(written(tmp_path / "t.csv", TABLE), time_column="day")
    days = np.array(TABLE["day"].cast(pa.int64()).to_pylist())
    is_test = np.array(sides(found)) == TEST
    assert days[is_test].min() > days[~is_test].max()
    nearest = min((abs((days >= day).mean() - 0.2), day) for day in np.unique(days))[1]
    assert days[is_test].min() == nearest
    assert (np.argsort(rows(found).split.keys, kind="stable") == np.argsort(days, kind="stable")).all()


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-9, 9)), st.floats(0.05, 0.95))
def test_a_cut_in_time_is_as_near_to_the_share_as_any(times: Any, share: float) -> None:
    words = encode_times(pa.chunked_array([times]))
    found = split_by_time(words, share).split_ids == TEST
    counts = {int((times >= moment).sum()) for moment in times} | {0}
    assert abs(found.sum() - share * len(times)) == pytest.approx(min(abs(c - share * len(times)) for c in counts))
    assert not (set(times[found].tolist()) & set(times[~found].tolist()))


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20))
def test_words_of_numbers_order_them_and_give_them_back(values: list[float]) -> None:
    words = encode_times(pa.chunked_array([pa.array(values, pa.float64())]))
    for a, left in zip(values, words.tolist(), strict=True):
        for b, right in zip(values, words.tolist(), strict=True):
            assert (a < b) == (left < right)
    assert decode_times(np.append(words, np.uint64(0))).tolist()[:-1] == values


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["Train", "TEST", "validation"], [TRAINING, TEST, VALIDATION]),
        (["training", "train", "val"], [TRAINING, TRAINING, TEST]),
        ([False, True, False], [TRAINING, TEST, TRAINING]),
    ],
)
def test_a_split_column_says_which_rows_are_which(said: list[Any], expected: list[int], tmp_path: Path) -> None:
    columns = TABLE.append_column("part", [pa.array(said * (ROWS // 3))])
    found = examined(written(tmp_path / "t.csv", columns), split_column="part")
    assert sides(found) == expected * (ROWS // 3)
    assert "part" not in [column.name for column in recipe(found).columns]
    others = rows(found).digests_of(is_training=False)
    assert len(others) == sides(found).count(TEST) + sides(found).count(VALIDATION)


def test_a_split_column_that_says_something_else_is_refused(tmp_path: Path) -> None:
    columns = TABLE.append_column("part", [pa.array(["train", "test", "perhaps"] * (ROWS // 3))])
    found = examined(written(tmp_path / "t.csv", columns), split_column="part")
    assert "'perhaps'" in rules(found, "error")["split-column"]


@pytest.mark.parametrize("option", ["split_by", "time_column", "split_column"])
def test_rows_that_cannot_be_split_stop_the_run(option: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {option: "by"}
    values = pa.array([None if at == 7 else at % 2 == 0 for at in range(ROWS)])
    found = examined(written(tmp_path / "t.parquet", TABLE.append_column("by", [values])), **options)
    assert rules(found, "error")["split-missing"] == "by is missing in 1 row"


@pytest.mark.parametrize(
    ("count", "options", "rule"),
    [(12, {}, "10 and 20"), (60, {"test": 0.02}, "10 and 20"), (ROWS, {"split_by": "few"}, "at least 10")],
)
def test_too_little_to_learn_or_to_judge_says_how_much_is_needed(
    count: int, options: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    few = TABLE.append_column("few", [np.arange(ROWS) % 9]).slice(0, count)
    found = examined(written(tmp_path / "t.csv", few), **options)
    (error,) = [each for each in found.report.errors if each.rule == "too-few-rows"]
    assert rule in error.expected


def test_a_class_that_cannot_be_learned_is_named(tmp_path: Path) -> None:
    classes = ["a", "b"] * (ROWS // 2)
    classes[3] = "rare"
    columns = TABLE.drop_columns(["y"]).append_column("y", [classes])
    found = examined(written(tmp_path / "t.csv", columns), task="classification")
    assert "'rare' has 1 row" in rules(found, "error")["rare-class"]


@pytest.mark.parametrize(
    ("form", "action"),
    [
        ("€{:.2f}", "y looks like numbers: write them as 1234.5 and take linear-regression"),
        ("{:.2f}", "y looks like numbers: write them as 1234.5 and take linear-regression"),
        ("Mr. {:.2f}", "get more of them, or remove these rows"),
    ],
)
def test_many_rare_classes_are_one_finding_which_says_whether_they_are_numbers(
    form: str, action: str, tmp_path: Path
) -> None:
    columns = TABLE.set_column(3, "y", [[form.format(row * 1.37) for row in range(ROWS)]])
    found = examined(written(tmp_path / "t.csv", columns), task="classification")
    (error,) = found.report.errors
    assert (error.rule, error.column, error.action) == ("rare-class", "y", action)
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
    assert found.recipe is None
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
