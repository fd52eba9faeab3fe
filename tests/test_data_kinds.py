"""What a column is: inferred over all rows at first, and as version 1 fixed it ever after."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.data import statistics
from tasks.data.levels import find_levels, format_values
from tasks.data.recipe import Column
from written_tables import digest, examined, recipe, rows, rules, written

ROWS = 300
RNG = np.random.default_rng(0)
Y = RNG.normal(size=ROWS)
X = RNG.normal(size=ROWS)


def test_levels_of_all_versions_together_are_bounded(tmp_path: Path) -> None:
    number = np.arange(24_000)
    columns = {"x": number % 991, "y": number % 7}
    first = examined(written(tmp_path / "t.parquet", {"c": number // 4, **columns}), category=["c"])
    later = written(tmp_path / "later.parquet", {"c": number // 4 + 5000, **columns})
    found = examined(later, category=["c"], kept=recipe(first))
    assert found.schema is None
    assert "c has 11,000 levels" in rules(found, "error")["too-many-levels c"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([1.0, 2.5, -3.0, 1e3]), ["1", "2.5", "-3", "1000"]),
        (pa.array([1.1], pa.float32()).cast(pa.float64()), ["1.1"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["1.0", "01", "1.50", "a.0", ""]), ["1", "01", "1.50", "a.0", ""]),
        (pa.array([2**62]), [str(2**62)]),
        (pa.array([0.5, float("inf"), 2.0**60]), ["0.5", "inf", str(2**60)]),
        (pa.array(["True", "FALSE", "truer"]), ["true", "false", "truer"]),
        (
            pa.array([0, 86_400, 3661], pa.timestamp("s")).cast("timestamp[us]"),
            ["1970-01-01", "1970-01-02", "1970-01-01 01:01:01"],
        ),
    ],
)
def test_levels_are_called_as_the_data_call_them(values: pa.Array, names: list[str]) -> None:
    assert format_values(values) == names


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_dates_are_levels_where_the_user_says_so_tonight_and_later(suffix: str, tmp_path: Path) -> None:
    days = pa.array(np.arange(ROWS) % 3 * 86_400, pa.timestamp("s")).cast(pa.timestamp("us"))
    path = written(tmp_path / f"t{suffix}", {"when": days.cast(pa.date32()), "x": X, "y": Y})
    first = recipe(examined(path, category=["when"]))
    assert first.columns[0].levels == ("1970-01-01", "1970-01-02", "1970-01-03")
    assert not rules(examined(path, kept=first, category=["when"]), "error")


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7])
def test_a_large_mean_costs_the_deviation_no_digits(offset: float) -> None:
    values = np.random.default_rng(0).normal(offset, 1, 200_000)
    (found,) = statistics.measure_columns([Column(name="x")], len(values), lambda rows: values[None, rows])
    assert found.mean == pytest.approx(values.mean(), rel=1e-13)
    assert found.deviation == pytest.approx(values.std(), rel=1e-9)


Night = tuple[dict[str, Any], dict[str, Any], tuple[str, str, str, str]]
BY_TURNS = np.arange(ROWS)
TABLE = {"x": X, "c": np.array(["b", "d", "d"])[BY_TURNS % 3], "t": BY_TURNS % 2 == 0, "y": Y}
GROUPS = {"x": X, "g": BY_TURNS % 60, "y": Y}
COPIES = {"sex": BY_TURNS % 2, "class": BY_TURNS % 7, "y": BY_TURNS % 5}
CLASSES = {"x": X, "y": np.array(["01", "02"])[BY_TURNS % 2]}
# What lies there night after night, what is asked for, and what the version fixes: rule of the split, features, columns
# left out, columns ignored.
NIGHTS: dict[str, list[Night]] = {
    "chosen features": [
        (TABLE, {"features": ["x", "t"]}, ("rows", "x t", "", "c")),
        (TABLE | {"z": X}, {"features": ["x", "t"]}, ("rows", "x t", "", "c z")),
    ],
    "groups that split no more are left out and not new": [
        (GROUPS, {"split_by": "g"}, ("group", "x", "", "")),
        (GROUPS, {"new_recipe": True}, ("rows", "x", "g", "")),
        (GROUPS, {}, ("rows", "x", "g", "")),
        (GROUPS, {"split_by": "g", "new_recipe": True}, ("group", "x", "", "")),
    ],
    "numbers that were ignored can name groups": [
        (GROUPS, {"ignore": ["g"]}, ("rows", "x", "", "g")),
        (GROUPS, {"split_by": "g", "new_recipe": True}, ("group", "x", "", "")),
    ],
    "a split by copies stays although rows become distinct": [
        (COPIES, {}, ("copies", "sex class", "", "")),
        (COPIES | {"class": BY_TURNS}, {}, ("copies", "sex class", "", "")),
    ],
    "the target of version 1, whose classes have zeros in front": [
        (CLASSES, {"task": "classification"}, ("rows", "x", "", "")),
        (CLASSES, {"task": "classification", "target": None}, ("rows", "x", "", "")),
    ],
}


@pytest.mark.parametrize("case", NIGHTS)
def test_later_nights_have_what_was_fixed_before_but_for_what_is_asked(case: str, tmp_path: Path) -> None:
    made: dict[tuple[str, str, str, str], Any] = {}
    kept = None
    for columns, options, expected in NIGHTS[case]:
        kept = recipe(examined(written(tmp_path / "t.csv", columns), kept=kept, **options))
        features = [column.name for column in kept.columns]
        assert (kept.split.rule, *map(" ".join, (features, kept.left_out, kept.ignored))) == expected
        assert made.setdefault(expected, kept) == kept


def test_columns_that_version_1_left_out_stay_out_a_date_with_its_own_kind_and_that_is_said(tmp_path: Path) -> None:
    columns = {"id": [f"row {at}" for at in range(ROWS)], "day": BY_TURNS.astype("datetime64[D]"), "x": X, "y": Y}
    path = written(tmp_path / "t.parquet", columns)
    first = examined(path, no_date_parts=True)
    later = examined(path, kept=recipe(first), category=["id"], no_date_parts=True)
    assert recipe(later) == recipe(first)
    assert "id stays left out" in rules(later, "warning")["left-out id"]
    for found in (first, later):
        left_out = {each.name: each.kind for each in found.report.columns if each.role == "left out"}
        assert (set(left_out), left_out["day"]) == ({"id", "day"}, "date")


def test_true_and_false_are_the_same_classes_in_every_format(tmp_path: Path) -> None:
    truth = Y > 0
    forms = {"t.csv": truth, "text.csv": list(map(str, truth)), "t.parquet": truth, "text.jsonl": list(map(str, truth))}
    found = [
        examined(written(tmp_path / name, {"x": X, "y": values}), task="classification")
        for name, values in forms.items()
    ]
    assert {recipe(each).class_names for each in found} == {("false", "true")}
    for values in (["TRUE", "False", "truth"], [True, False, None]):
        codes = find_levels(pa.chunked_array([pa.array(values)])).encode(("false", "true"))
        np.testing.assert_array_equal(codes, [1, 0, np.nan])
    assert len(set(map(digest, found))) == 1


def test_a_group_is_called_as_its_file_has_it(tmp_path: Path) -> None:
    groups = [f"{at % 60:03}" for at in range(ROWS)]
    text = written(tmp_path / "t.parquet", {"x": X, "g": groups, "y": Y})
    first = examined(text, split_by="g")
    later = examined(written(tmp_path / "t.csv", {"x": X, "g": pa.array(groups), "y": Y}), kept=recipe(first))
    assert rows(later).digests.tolist() == rows(first).digests.tolist()


def test_a_column_of_intervals_is_no_date_and_can_be_left_out(tmp_path: Path) -> None:
    spans = pa.array([pa.MonthDayNano([1, 2, 3])] * ROWS)
    path = written(tmp_path / "t.feather", {"span": spans, "x": X, "y": Y})
    assert "month_day_nano_interval" in str(rules(examined(path), "error"))
    assert [each.name for each in recipe(examined(path, ignore=["span"])).columns] == ["x"]
