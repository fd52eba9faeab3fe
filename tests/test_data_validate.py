"""The stage between download and preprocess: all that is wrong at once, in words, and files for what is right."""

import contextlib
import os
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

import candidate
import image_folders
from table_files import houses
from tasks.data import quality_checks
from tasks.data.book_datasets import CLASS_NAMES, FashionMnist
from tasks.data.prepared_splits import Examples, ValidatedDataset, read_split, write_splits
from tasks.data.recipe import Column, Pixels
from tasks.data.report import DataReport, UnfitData
from tasks.data.target import TargetValues
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.preprocess import preprocess
from tasks.records import ChampionData, PreparedDataset
from tasks.store.run_folder import RunFolder
from written_tables import examined, recipe, rows, rules, written

ROWS = 400
RNG = np.random.default_rng(0)


def prepared(path: Path) -> PreparedDataset:
    return image_folders.prepared(path, task="regression", target="price")


@pytest.mark.parametrize("given", [".", "h.csv", "h*.csv"])
def test_what_a_version_will_say_of_data_names_files_without_their_folder(given: str, tmp_path: Path) -> None:
    paid = [f"{'$€'[row % 2]} {row % 9}.50" for row in range(ROWS)]
    written(tmp_path / "of klara" / "h.csv", houses().append_column("paid", [paid]))
    made = prepared(tmp_path / "of klara" / given)
    assert made.report is not None
    (found,) = [each.found for each in DataReport.read(made.report.path).findings if each.rule == "looks-like"]
    assert "in line 2 of h.csv" in found


def test_the_prepared_splits_have_every_row_in_raw_units_once(tmp_path: Path) -> None:
    table, codes = houses(), {"Bonn": 0.0, "Köln": 1.0, "Ulm": 2.0, None: -1.0}
    made = prepared(written(tmp_path / "h.csv", table))
    splits = [safetensors.numpy.load_file(file.path) for file in (made.train, made.test)]
    expected = sorted(
        (np.float32(-1 if row["area"] is None else row["area"]), codes[row["city"]], row["garden"], row["price"])
        for row in table.to_pylist()
    )
    found = [np.column_stack([np.nan_to_num(split["features"], nan=-1), split["target"]]) for split in splits]
    assert sorted(map(tuple, np.concatenate(found).tolist())) == expected


def test_the_report_is_there_for_programs_and_people_though_the_data_are_refused(tmp_path: Path) -> None:
    table = houses().append_column("bad", [[*map(str, range(ROWS - 1)), "x|y"]])
    path = written(tmp_path / "h.csv", table.set_column(3, "price", [[1.0] * ROWS]))
    with pytest.raises(UnfitData, match="2 faults in the data:"):
        prepared(path)
    report = image_folders.report_of(path)
    assert [each.rule for each in report.errors] == ["text-among-numbers", "constant-target"]
    assert report.rows == ROWS
    page = image_folders.run_of(path).file("data-report.md").read_text()
    assert "| garden | feature | boolean |" in page
    assert all(each.found in page.replace("\\", "") for each in report.errors)


def test_many_classes_and_many_levels_take_no_table_of_both() -> None:
    codes = np.arange(20_000) % 9_900
    columns = (Column(name="c", kind="category", levels=("",)),)
    features = codes.astype(np.float32)[None]
    tracemalloc.start()
    names, is_known = tuple(map(str, range(9_900))), np.ones(len(codes), bool)
    truths = [TargetValues(labels, is_known, names, ()) for labels in (codes, RNG.permutation(codes))]
    found = [list(quality_checks.check_leaks(columns, features, truth)) for truth in truths]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(each) for each in found] == [1, 0]
    assert peak < 20e6


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=8)
VALUES = (
    *(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.just(7), st.none(), TEXT),
    st.sampled_from(["1", "2.0", "x", "", "NaN", "true", "ü", "2020-01-01", "two\nlines"]),
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Any table at all: odd names, odd values, missing ones anywhere."""
    names = draw(st.lists(TEXT.filter(str.strip), min_size=1, max_size=4, unique=True))
    count, columns = draw(st.integers(1, 60)), {}
    for name in [*names, "y"]:
        values = draw(st.sampled_from(VALUES)) | st.none()
        columns[name] = draw(st.lists(values, min_size=count, max_size=count))
    return pa.table(columns)


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from(["regression", "classification", None]), st.sampled_from([".parquet", ".csv"]))
def test_whatever_the_table_there_is_a_report_and_never_a_traceback(
    tmp_path: Path, table: pa.Table, task: Any, suffix: str
) -> None:
    path, found = written(tmp_path / f"t{suffix}", table), None
    with contextlib.suppress(DataError):  # such as of 60 rows without a value
        found = examined(path, task=task)
    if found is None:
        return
    assert (found.schema is None) == bool(found.report.errors)
    assert found.report.page()
    DataReport.parse(found.report.model_dump_json().encode(), "report")


# Raw files to splits: nothing lost, nothing changed, the same content under the same name


def synthetic(seed: int) -> PreparedDataset:
    return candidate.synthetic(RunFolder(path=Path("unused")), seed)


def test_prepared_splits_hold_the_pixels_and_labels_that_torchvision_reads(
    fashion_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import FashionMNIST as Theirs  # takes seconds

    monkeypatch.setattr(Theirs, "raw_folder", str(fashion_mnist))
    validated = ValidatedDataset(raw=FashionMnist().fetch())
    prepared = candidate.plain(preprocess)(RunFolder(path=Path("unused")), validated, Data(), 0)
    for split, is_train in ((prepared.train, True), (prepared.test, False)):
        arrays, theirs = safetensors.numpy.load_file(split.path), Theirs("unused", train=is_train)
        assert_array_equal(arrays["images"], theirs.data.numpy(), strict=True)
        assert_array_equal(arrays["labels"], theirs.targets.numpy())
    assert prepared.class_names == CLASS_NAMES
    assert prepared.digest == "1c441722ee93294cd4f52b236c6e853641c2df0e63d87e6fd6e810bf6ef84818", "as ever"


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 3)], ids=["grey", "colour"])
def test_images_are_resized_as_torchvision_does_it_and_kept_as_they_came_for_others(shape: tuple[int, ...]) -> None:
    from torchvision.transforms import Resize  # takes seconds

    inputs = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    examples = Examples(inputs, np.zeros(5, np.uint8))
    recipe = Pixels(shape=(7, 7, *shape[2:]), scale=1 / 255, resize="bilinear")
    made = write_splits("rows", examples, examples, recipe, "classification", class_names=("a", "b"))
    theirs = [np.asarray(Resize(7)(Image.fromarray(image))) for image in inputs]
    assert_array_equal(read_split(made.test, made).inputs, theirs)
    assert_array_equal(read_split(made.raw_test, made).inputs, inputs)


def test_raw_files_that_changed_since_they_were_validated_are_refused(fashion_mnist: Path) -> None:
    raw = FashionMnist().fetch()
    labels = raw.files["t10k-labels-idx1-ubyte"].path
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"t10k-labels.* has changed"):
        FashionMnist().prepare(ValidatedDataset(raw=raw), Data(), 0)


def test_a_seed_gives_the_same_bytes_as_ever_and_another_seed_others() -> None:
    """Versions published before are compared by this digest."""
    prepared = synthetic(42)
    assert prepared.digest == "c7cefa9eace10162ff181c629a6d8ffce2b21334207c31663bb265f85470c467"
    assert synthetic(42) == prepared
    assert synthetic(2).digest != prepared.digest
    train, test = (
        {tuple(row) for row in safetensors.numpy.load_file(file.path)["features"].tolist()}
        for file in (prepared.train, prepared.test)
    )
    assert [len(train), len(test), len(train & test)] == [1000, 1000, 0]


def link_to_fifo(path: Path) -> None:
    os.mkfifo(fifo := path.with_suffix(".fifo"))
    path.symlink_to(fifo)


@pytest.mark.parametrize("put", [os.mkfifo, link_to_fifo, Path.touch, lambda path: path.symlink_to("/proc/kmsg")])
def test_what_lies_in_the_place_of_a_split_is_refused_at_once(put: Callable[[Path], object]) -> None:
    prepared = synthetic(1)
    prepared.train.path.unlink()
    put(prepared.train.path)
    refused: Future[str] = Future()

    def read() -> None:
        with pytest.raises(DataError) as caught:
            read_split(prepared.train, prepared)
        refused.set_result(caught.value.found)

    threading.Thread(target=read, daemon=True).start()
    assert str(prepared.train.path) in refused.result(timeout=10)
    assert synthetic(1).train == prepared.train, "and it is written anew"


# Data against those of the champion


@pytest.mark.parametrize(
    ("of_champion", "errors"),
    [({}, ["fewer-rows"]), ({"accepted": [{"rule": "fewer-rows"}]}, ["fewer-rows"]), ({"window": "90d"}, [])],
)
def test_rows_that_are_gone_are_accepted_for_one_night_and_by_another_window(
    of_champion: dict[str, Any], errors: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path / "h.csv", houses())
    found = examined(path, "price")
    champion = {"num_rows": 2 * ROWS + 1, "profiles": rows(found).profiles, "split": recipe(found).split, **of_champion}
    night = examined(path, "price", None, recipe(found), ChampionData.model_validate(champion))
    assert list(rules(night, "error")) == errors
