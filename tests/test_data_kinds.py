"""What a column is: inferred over all rows at first, and as version 1 fixed it ever after."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data import statistics
from tasks.data.io import tabular
from tasks.data.levels import count_codes, extend_levels, find_levels, format_values, sort_levels
from tasks.data.schema import Schema
from tasks.data.table_rows import map_split
from written_tables import FORMATS, digest, examined, recipe, rows, rules, written

ROWS = 300
RNG = np.random.default_rng(0)
Y = RNG.normal(size=ROWS)
X = RNG.normal(size=ROWS)


def kinds(found: Any) -> dict[str, str]:
    return {column.name: column.kind for column in recipe(found).columns}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("zone", ["Z", "+02:00"])
def test_texts_of_dates_with_a_zone_are_dates(zone: str, suffix: str, tmp_path: Path) -> None:
    when = [f"2024-01-{at % 20 + 1:02}T00:00:00{zone}" for at in range(ROWS)]
    assert recipe(examined(written(tmp_path / f"t{suffix}", {"when": when, "x": X, "y": Y}))).left_out == ("when",)


@pytest.mark.parametrize(
    ("singles", "num_rows", "is_id"), [(134, 150, False), (136, 150, True), (151, 300, True), (149, 300, False)]
)
def test_ids_are_told_by_the_share_of_rows_whose_level_occurs_once(
    singles: int, num_rows: int, is_id: bool, tmp_path: Path
) -> None:
    codes = [f"once {at}" for at in range(singles)] + ["often"] * (num_rows - singles)
    columns = {"c": codes, "x": X[:num_rows], "y": Y[:num_rows]}
    found = examined(written(tmp_path / "t.csv", columns))
    assert ("c" not in kinds(found)) == is_id
    assert kinds(examined(tmp_path / "t.csv", category=["c"]))["c"] == "category"


def test_levels_of_all_versions_together_are_bounded(tmp_path: Path) -> None:
    number = np.arange(24_000)
    columns = {"x": number % 991, "y": number % 7}
    first = examined(written(tmp_path / "t.parquet", {"c": number // 4, **columns}), category=["c"])
    later = written(tmp_path / "later.parquet", {"c": number // 4 + 5000, **columns})
    found = examined(later, category=["c"], kept=recipe(first))
    assert found.recipe is None
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


def test_dates_that_are_to_name_the_sides_are_refused_in_words(tmp_path: Path) -> None:
    days = pa.array(np.arange(ROWS) % 3, pa.timestamp("s"))
    found = examined(written(tmp_path / "t.parquet", {"when": days, "x": X, "y": Y}), split_column="when")
    assert "'1970-01-01 00:00:01'" in rules(found, "error")["split-column"]


def test_true_and_false_are_the_same_classes_in_every_format(tmp_path: Path) -> None:
    truth = Y > 0
    columns = {
        "t.csv": truth,
        "text.csv": list(map(str, truth)),
        "t.parquet": truth,
        "text.jsonl": list(map(str, truth)),
    }
    found = [
        examined(written(tmp_path / name, {"x": X, "y": values}), task="classification")
        for name, values in columns.items()
    ]
    assert {recipe(each).class_names for each in found} == {("false", "true")}
    for values in (["TRUE", "False", "truth"], [True, False, None]):
        codes = find_levels(pa.chunked_array([pa.array(values)])).encode(("false", "true"))
        np.testing.assert_array_equal(codes, [1, 0, np.nan])
    assert len(set(map(digest, found))) == 1


def test_levels_that_are_all_numbers_are_ordered_by_value_and_others_by_code_point() -> None:
    assert sort_levels(["10", "9", "-1", "2.5"]) == ("-1", "2.5", "9", "10")
    assert sort_levels(["10", "9", "b", "Ä", "a"]) == ("10", "9", "a", "b", "Ä")


@given(st.lists(st.lists(st.text(max_size=3), max_size=6), max_size=5))
def test_levels_are_only_ever_appended(nights: list[list[str]]) -> None:
    known: tuple[str, ...] = ()
    for night in nights:
        now = extend_levels(known, night)
        assert now[: len(known)] == known
        assert sorted(now) == sorted({*known, *night})
        known = now


def first_version(tmp_path: Path, **options: Any) -> tuple[pa.Table, Schema]:
    original = pa.table(
        {"x": X, "c": np.array(["b", "d", "d"])[np.arange(ROWS) % 3], "t": np.arange(ROWS) % 2 == 0, "y": Y}
    )
    found = examined(written(tmp_path / "first.csv", original), **options)
    return original, recipe(found)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_later_data_are_read_by_name_whatever_their_order_and_types_of_numbers(tmp_path: Path) -> None:
    original, kept = first_version(tmp_path)
    whole = replaced(original, "x", np.arange(ROWS)).select(["y", "t", "c", "x"])
    found = examined(written(tmp_path / "later.parquet", whole), kept=kept)
    assert [column.name for column in recipe(found).columns] == ["x", "c", "t"]
    same = examined(written(tmp_path / "same.jsonl", original.select(["t", "y", "x", "c"])), kept=kept)
    assert digest(same) == digest(examined(tmp_path / "first.csv"))


def test_a_new_column_is_ignored_where_the_user_says_so_and_from_then_on(tmp_path: Path) -> None:
    original, kept = first_version(tmp_path)
    path = written(tmp_path / "later.csv", original.append_column("z", [X]))
    found = examined(path, kept=kept, ignore=["z"])
    assert recipe(found).ignored == ("z",)
    assert not rules(examined(path, kept=recipe(found)), "error")


def test_features_choose_columns_and_the_others_are_ignored_later_too(tmp_path: Path) -> None:
    original, kept = first_version(tmp_path, features=["x", "t"])
    assert [column.name for column in kept.columns] == ["x", "t"]
    assert kept.ignored == ("c",)
    later = original.append_column("z", [X])
    assert not rules(examined(written(tmp_path / "later.csv", later), kept=kept, features=["x", "t"]), "error")


def test_classes_are_fixed_and_named_as_the_data_name_them(tmp_path: Path) -> None:
    columns = {"x": X, "y": np.array([10, 9, 10])[np.arange(ROWS) % 3]}
    first = examined(written(tmp_path / "t.csv", columns), task="classification")
    assert recipe(first).class_names == ("9", "10")
    assert rows(first).truth.values.tolist() == [1, 0, 1] * (ROWS // 3)
    kept = recipe(first)
    more = {"x": X, "y": np.array([10, 11, 10])[np.arange(ROWS) % 3]}
    found = examined(written(tmp_path / "more.csv", more), task="classification", kept=kept)
    assert "11" in rules(found, "error")["new-class y"]
    assert "9" in rules(found, "warning")["class-without-rows y"]


def test_rows_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    target = [None if at % 10 == 0 else value for at, value in enumerate(Y)]
    all_rows = pa.table({"x": X, "c": np.array(["a", "b"])[np.arange(ROWS) % 2], "y": target})
    found = examined(written(tmp_path / "t.csv", all_rows))
    assert found.report.unlabelled == ROWS // 10
    labelled = all_rows.filter(all_rows["y"].is_valid())
    assert digest(found) == digest(examined(written(tmp_path / "labelled.csv", labelled)))


def test_a_value_that_is_missing_in_validation_rows_alone_is_known_to_be_missing(tmp_path: Path) -> None:
    part = np.array(["train", "test", "val"])[np.arange(ROWS) % 3]
    columns = {"x": pa.array(X, mask=part == "val"), "z": X[::-1], "y": Y, "part": part}
    found = examined(written(tmp_path / "t.parquet", columns), split_column="part")
    train = map_split(rows(found), recipe(found), "train", tmp_path)
    fitted = statistics.fit_recipe(recipe(found).columns, "y", train, rows(found).has_missing)
    assert [(each.has_missing, each.num_missing) for each in fitted.columns] == [(True, 0), (False, 0)]


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7])
def test_a_large_mean_costs_the_deviation_no_digits(offset: float) -> None:
    values = np.random.default_rng(0).normal(offset, 1, 200_000)
    (found,) = statistics.measure_columns([None], len(values), lambda rows: values[None, rows])
    assert found.mean == pytest.approx(values.mean(), rel=1e-13)
    assert found.deviation == pytest.approx(values.std(), rel=1e-9)


def test_the_target_is_that_of_version_1_where_none_is_named(tmp_path: Path) -> None:
    original, kept = first_version(tmp_path)
    found = examined(written(tmp_path / "later.csv", original), kept=kept, target=None)
    assert recipe(found) == kept
    classes = {"x": X, "y": np.array(["01", "02"])[np.arange(ROWS) % 2]}
    kept = recipe(examined(written(tmp_path / "c.csv", classes), task="classification"))
    assert recipe(examined(tmp_path / "c.csv", task="classification", kept=kept, target=None)) == kept


@pytest.mark.parametrize("size", [2, 128, 256, 300])
@pytest.mark.parametrize("rows", [0, 1, 1001])
def test_codes_are_counted_as_they_are_one_by_one(size: int, rows: int) -> None:
    codes = np.random.default_rng(0).integers(0, size, rows).astype(np.min_scalar_type(size - 1))
    found = Counter(codes.tolist())
    assert count_codes(codes, size).tolist() == [found[code] for code in range(size)]


def test_a_column_that_does_not_split_any_more_is_left_out_and_not_new(tmp_path: Path) -> None:
    groups = pa.table({"x": X, "g": np.arange(ROWS) % 60, "y": Y})
    path = written(tmp_path / "t.csv", groups)
    by_group = recipe(examined(path, split_by="g"))
    by_row = recipe(examined(path, kept=by_group, new_recipe=True))
    assert by_row.split.rule == "rows"
    assert by_row.left_out == ("g",)
    assert recipe(examined(path, kept=by_row)) == by_row
    again = recipe(examined(path, kept=by_row, split_by="g", new_recipe=True))
    assert again == by_group


def test_a_group_is_called_as_its_file_has_it(tmp_path: Path) -> None:
    groups = [f"{at % 60:03}" for at in range(ROWS)]
    text = written(tmp_path / "t.parquet", {"x": X, "g": groups, "y": Y})
    first = examined(text, split_by="g")
    later = examined(written(tmp_path / "t.csv", {"x": X, "g": pa.array(groups), "y": Y}), kept=recipe(first))
    assert rows(later).digests.tolist() == rows(first).digests.tolist()


def test_numbers_that_are_ids_can_name_groups_after_they_were_ignored(tmp_path: Path) -> None:
    groups = pa.table({"x": X, "g": np.arange(ROWS) % 60, "y": Y})
    path = written(tmp_path / "t.csv", groups)
    kept = recipe(examined(path, ignore=["g"]))
    found = recipe(examined(path, kept=kept, split_by="g", new_recipe=True))
    assert (found.split.rule, found.ignored) == ("group", ())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_to_ignore_that_is_nowhere_is_a_warning(suffix: str, tmp_path: Path) -> None:
    written(tmp_path / "day=3" / f"t{suffix}", {"x": X, "c": X[::-1], "y": Y})
    found = examined(tmp_path, ignore=["Typo", "c", "day"])
    assert [rule for rule in rules(found, "warning") if "no-such-column" in rule] == ["no-such-column Typo"]
    assert recipe(found).ignored == ("Typo", "c", "day")
    assert "no-such-column Typo" not in rules(examined(tmp_path, kept=recipe(found), ignore=["Typo"]), "warning")


@pytest.mark.slow
def test_more_texts_than_a_dictionary_holds_are_ids_groups_or_too_many_levels(tmp_path: Path) -> None:
    number = np.arange(tabular.MAX_LEVELS + 5000)
    table = {"id": pc.binary_join_element_wise("id", pa.array(number).cast("string"), "-"), "x": number % 991}
    path = written(tmp_path / "t.parquet", {**table, "y": number % 7})
    assert recipe(examined(path)).left_out == ("id",)
    assert rules(examined(path, category=["id"]), "error") == {"too-many-levels id": f"id has {len(number):,} levels"}
    by_group = examined(path, split_by="id")
    assert (rows(by_group).split.split_ids == 2).mean() == pytest.approx(0.2, abs=0.01)


def test_a_column_that_version_1_left_out_stays_out_and_that_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", {"id": [f"row {at}" for at in range(ROWS)], "x": X, "y": Y})
    kept = recipe(examined(path))
    found = examined(path, kept=kept, category=["id"])
    assert recipe(found) == kept
    assert "id stays left out" in rules(found, "warning")["left-out id"]


def test_a_column_that_version_1_left_out_is_shown_with_its_own_kind(tmp_path: Path) -> None:
    days = pa.array(np.arange(ROWS).astype("datetime64[D]"))
    path = written(tmp_path / "t.parquet", {"day": days, "x": X, "y": Y})
    first = examined(path)
    later = examined(path, kept=recipe(first))
    for found in (first, later):
        assert [(each.role, each.kind) for each in found.report.columns if each.name == "day"] == [("left out", "date")]
