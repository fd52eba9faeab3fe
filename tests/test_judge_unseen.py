"""Which test rows of tonight a kept version was trained on: by row digests, against the rows of its training part."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import image_folders
from candidate import plain
from tasks.data.prepared_splits import read_split
from tasks.data.schema import ImageSchema, Schema
from tasks.download import download
from tasks.judging.champion import RowsOfToday
from tasks.parameters import Data
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset
from tasks.store.run_folder import RunFolder
from tasks.validate import validate
from written_tables import written

Array = np.ndarray[Any, Any]
SHARE: dict[str, Any] = {"test": 0.2}
NEW: dict[str, Any] = {"new_recipe": True}
TIME: dict[str, Any] = {"time_column": "day"}
GROUP: dict[str, Any] = {"split_by": "shop"}
COLUMN: dict[str, Any] = {"split_column": "part"}


def sales(rows: int, first: int = 0, distinct: bool = True) -> pa.Table:
    """Rows by the day, oldest first, of which a fifth is for the test; few are ``distinct`` but for the day."""
    at = np.arange(first, first + rows)
    rng = np.random.default_rng(0)
    size = rng.normal(size=10_000)[at] if distinct else at % 4
    part = np.where(at % 5 == 0, "test", "Train")
    price = np.round(3 * size + rng.normal(size=10_000)[at] * distinct)
    columns = {"size": size, "kind": [f"kind {n % 3}" for n in at], "day": at // 10, "shop": at % 40, "part": part}
    return pa.table({**columns, "price": price})


def prepared(table: pa.Table, path: Path, before: PreparedDataset | None = None, **options: Any) -> PreparedDataset:
    run, ignored = RunFolder(path=path / "run", name="sales"), {"day", "shop", "part"} - set(options.values())
    asked = {"source": str(written(path / "sales.parquet", table)), "target": "price", "ignore": sorted(ignored)}
    data = Data.model_validate(asked | options)
    kept = Schema.from_manifest(before, before.recipe) if before else None
    validated = plain(validate)(run, plain(download)(run, "sales", data), data, "regression", kept)
    made: PreparedDataset = plain(preprocess)(run, validated, data, 0)
    return made


def known(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    """Which test rows are among those of a training part, value by value."""
    values = [read_split(file, before) for file in (before.train, tonight.test)]
    old, new = ([(*row.tolist(), y) for row, y in zip(each.inputs, each.y_true, strict=True)] for each in values)
    return [row in set(old) for row in new]


def found(before: PreparedDataset, tonight: PreparedDataset) -> list[bool]:
    unseen = RowsOfToday(tonight).find_new_rows(before)
    assert not isinstance(unseen, str), unseen
    return [False] * tonight.num_test if unseen is True else (~unseen).tolist()


slow = pytest.mark.slow  # together seconds, and each is much like another


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (SHARE, {"test": 0.5, **NEW}),
        (GROUP, {"test": 0.5, **GROUP, **NEW}),
        pytest.param(TIME, {"test": 0.5, **TIME, **NEW}, marks=slow),
        (SHARE, TIME | NEW),
        pytest.param(TIME, SHARE | NEW, marks=slow),
        (TIME, GROUP | NEW),
        pytest.param(GROUP, COLUMN | NEW, marks=slow),
        pytest.param(COLUMN, TIME | NEW, marks=slow),
    ],
)
def test_rows_are_known_that_were_in_the_training_part_whatever_rule_split_them_then_and_now(
    then: dict[str, Any], now: dict[str, Any], tmp_path: Path
) -> None:
    before = prepared(sales(900), tmp_path, **then)
    tonight = prepared(sales(1000), tmp_path, before, **now)
    assert found(before, tonight) == known(before, tonight)
    assert any(found(before, tonight))


@pytest.mark.parametrize("rule", [TIME, COLUMN, pytest.param(SHARE, marks=slow), pytest.param(GROUP, marks=slow)])
@pytest.mark.parametrize("distinct", [pytest.param(True, marks=slow), False])
def test_of_a_table_that_grows_no_test_row_is_known(rule: dict[str, Any], distinct: bool, tmp_path: Path) -> None:
    before = prepared(sales(900, distinct=distinct), tmp_path, **rule)
    tonight = prepared(sales(1000, distinct=distinct), tmp_path, before, **rule)
    assert not any(found(before, tonight))
    assert any(known(before, tonight)) is not distinct, "others are equal to rows for training, day or copy apart"


def test_with_older_rows_the_cut_in_time_moves_back_over_rows_that_are_known_then(tmp_path: Path) -> None:
    before = prepared(sales(500, first=500), tmp_path, **TIME)
    tonight = prepared(sales(1000), tmp_path, before, **TIME)
    assert found(before, tonight) == known(before, tonight)
    assert (tonight.num_test, sum(found(before, tonight))) == (200, 100)


def test_rows_that_go_from_one_side_to_the_other_are_known(tmp_path: Path) -> None:
    before = prepared(sales(900), tmp_path, **COLUMN)
    table = sales(900)
    moved = np.where(np.arange(900) % 30 == 1, "TEST", table["part"].to_numpy(zero_copy_only=False))
    tonight = prepared(table.set_column(table.column_names.index("part"), "part", [moved]), tmp_path, before, **COLUMN)
    assert found(before, tonight) == known(before, tonight)
    assert sum(found(before, tonight)) == 30


def test_copies_of_equal_rows_are_told_apart_by_their_number_while_they_are_split_by_it(tmp_path: Path) -> None:
    before = prepared(sales(900, distinct=False), tmp_path, **SHARE)
    assert before.split is not None
    assert before.split.rule == "copies"
    tonight = prepared(sales(1000, distinct=False), tmp_path, before, test=0.5, **NEW)
    keys = [read_split(file, before).key for file in (before.train, tonight.test)]
    assert found(before, tonight) == np.isin(keys[1], keys[0]).tolist()
    in_time = prepared(sales(1000, distinct=False), tmp_path, before, **TIME, **NEW)
    assert "by the number of the copy" in str(RowsOfToday(in_time).find_new_rows(before))


def test_of_a_version_without_row_digests_nobody_knows(tmp_path: Path) -> None:
    before = prepared(sales(900), tmp_path, **TIME)
    assert before.rows is not None
    tonight = RowsOfToday(prepared(sales(1000), tmp_path, before, **TIME))
    assert "has no row digests" in str(tonight.find_new_rows(before.model_copy(update={"rows": None})))
    before.rows.path.unlink()
    assert "has no row digests" in str(tonight.find_new_rows(before))


def test_of_folders_the_test_images_that_a_version_was_trained_on_are_known(tmp_path: Path) -> None:
    source = tmp_path / "pets"
    for part, count, first in (("train", 30, 0), ("test", 20, 100)):
        image_folders.write(source / part, {"cat": count, "dog": count}, first=first)
    before = image_folders.prepared(source)
    assert not any(found(before, before))
    moved = {source / "test" / "cat" / f"moved-{number}.png" for number in range(7)}
    for number, path in enumerate(sorted(moved)):
        (source / "train" / "cat" / f"{number:04d}.png").rename(path)
    image_folders.write(source / "test", {"cat": 3, "dog": 5}, first=200)
    tonight = image_folders.prepared(source, ImageSchema.from_manifest(before, before.recipe))
    assert (tonight.num_test, sum(found(before, tonight))) == (40 + 7 + 8, 7)
    trained_on = {each.tobytes() for each in read_split(before.train, before).inputs}
    rows = read_split(tonight.test, tonight).inputs
    assert [each.tobytes() in trained_on for each in rows] == found(before, tonight)
