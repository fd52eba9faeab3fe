"""The stage between download and preprocess: all that is wrong at once, in words, and files for what is right."""

import contextlib
import os
import re
import threading
import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import candidate
from tasks.data import quality_checks
from tasks.data.book_datasets import CLASS_NAMES, FashionMnist, synthetic_data
from tasks.data.io.arrays import open_idx
from tasks.data.io.discovery import DataFiles
from tasks.data.io.table import Table
from tasks.data.prepared_splits import Examples, ValidatedDataset, read_split, write_split, write_splits
from tasks.data.recipe import Column, Pixels
from tasks.data.report import DataReport, UnfitData
from tasks.data.schema import Request
from tasks.data.table_dataset import examine_table
from tasks.data.target import Truth
from tasks.download import download
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.parameters.data import OwnData
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset
from tasks.store.run_folder import RunFolder
from tasks.validate import validate
from written_tables import examined, written

ROWS = 400
RNG = np.random.default_rng(0)


def houses(rows: int = ROWS) -> pa.Table:
    area = RNG.normal(100, 30, rows).round(1)
    return pa.table(
        {
            "area": area,
            "city": pa.array(RNG.choice(["Rom", "Köln"], rows), mask=RNG.random(rows) < 0.1),
            "garden": RNG.choice([True, False], rows),
            "price": (3000 * area + RNG.normal(0, 1e4, rows)).round(0),
        }
    )


def prepared(path: Path, **options: Any) -> PreparedDataset:
    run = RunFolder(path=path.parent / "run", name="houses")
    data = Data.model_validate({"source": str(path), "target": "price", **options})
    raw = candidate.plain(download)(run, "houses", data)
    validated: ValidatedDataset = candidate.plain(validate)(run, raw, data, "regression", None)
    made: PreparedDataset = candidate.plain(preprocess)(run, validated, data, 0)
    return made


@pytest.mark.parametrize("given", [".", "h.csv", "h*.csv"])
def test_what_a_version_will_say_of_data_names_files_without_their_folder(given: str, tmp_path: Path) -> None:
    paid = pa.array([f"{'$€'[row % 2]} {row % 9}.50" for row in range(ROWS)])
    folder = tmp_path / "of klara"
    folder.mkdir()
    written(folder / "h.csv", houses().append_column("paid", paid))
    made = prepared(folder / given)
    assert made.report is not None
    (found,) = [each.found for each in DataReport.read(made.report.path).findings if each.rule == "looks-like"]
    assert "in row 0 of h.csv" in found


def test_the_prepared_splits_have_every_row_in_raw_units_once(tmp_path: Path) -> None:
    table = houses()
    made = prepared(written(tmp_path / "h.csv", table))
    splits = [safetensors.numpy.load_file(file.path) for file in (made.train, made.test)]
    codes = {"Köln": 0.0, "Rom": 1.0, None: -1.0}
    expected = sorted(
        (np.float32(row["area"]), codes[row["city"]], float(row["garden"]), row["price"]) for row in table.to_pylist()
    )
    found = [np.column_stack([np.nan_to_num(split["features"], nan=-1), split["target"]]) for split in splits]
    assert sorted(map(tuple, np.concatenate(found).tolist())) == expected
    assert [split["features"].dtype for split in splits] == [np.float32, np.float32]
    assert [split["target"].dtype for split in splits] == [np.float64, np.float64]
    assert (len(splits[0]["split_key"]), len(splits[1]["split_key"])) == (made.num_train, made.num_test)
    exact = safetensors.numpy.load_file(made.raw_test.path)["features"][:, 0]
    assert set(exact.tolist()) <= set(table["area"].to_pylist()), "digits that float32 has not"


def test_the_report_is_there_for_programs_and_people_though_the_data_are_refused(tmp_path: Path) -> None:
    table = houses().append_column("bad", [[str(at) for at in range(ROWS - 1)] + ["x|y"]])
    broken = table.set_column(3, "price", [[1.0] * ROWS])
    with pytest.raises(UnfitData) as caught:
        prepared(written(tmp_path / "h.csv", broken))
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 faults in the data:"
    assert caught.value.exit_code == 4
    assert any("'x|y' in row 399" in line for line in lines)
    assert any("price is 1 in every row" in line for line in lines)
    report = DataReport.read(tmp_path / "run" / "data-report.json")
    assert [each.rule for each in report.errors] == ["text-among-numbers", "constant-target"]
    assert report.rows == ROWS
    page = (tmp_path / "run" / "data-report.md").read_text()
    assert "| garden | feature | boolean |" in page
    assert all(each.found in page.replace("\\", "") for each in report.errors)


def test_more_rows_than_memory_takes_are_refused_before_it_is_taken() -> None:
    rows = 10**11
    column = pa.chunked_array([pa.nulls(10**7)] * 10**4)  # of one piece of memory
    data = pa.table({"x": column, "y": column})
    table = Table(data, DataFiles("t", ()), np.array([0, rows]), ())
    tracemalloc.start()
    with pytest.raises(DataError, match="100,000,000,000 rows") as caught:
        examine_table(table, "t", Request(OwnData(source="t", target="y"), None), "regression", Path())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    most = int(re.search(r"at most ([\d,]+) rows", caught.value.expected)[1].replace(",", ""))  # type: ignore[index]
    assert 10**6 < most < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 50
    assert peak < 10**6


def test_many_classes_and_many_levels_take_no_table_of_both() -> None:
    codes = np.arange(20_000) % 9_900
    columns = (Column(name="c", kind="category", levels=("",)),)
    features = codes.astype(np.float32)[None]
    tracemalloc.start()
    names, is_known = tuple(map(str, range(9_900))), np.ones(len(codes), bool)
    truths = [Truth(labels, is_known, names, ()) for labels in (codes, RNG.permutation(codes))]
    found = [list(quality_checks.check_leaks(columns, features, truth)) for truth in truths]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(each) for each in found] == [1, 0]
    assert peak < 20e6


VALUES = {
    "number": st.floats(allow_nan=True, allow_infinity=False, width=32) | st.none(),
    "large": st.floats(allow_nan=True, allow_infinity=True) | st.none(),
    "whole": st.integers(-(2**63), 2**63 - 1) | st.none(),
    "truth": st.booleans() | st.none(),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4) | st.none(),
    "few": st.sampled_from(["1", "2.0", "x", "", "NaN", "true", "ü", "2020-01-01"]) | st.none(),
    "same": st.just(7),
    "none": st.none(),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Any table at all: odd names, odd values, missing ones anywhere."""
    types = {"number": pa.float64(), "large": pa.float64(), "whole": pa.int64(), "truth": pa.bool_(), "none": pa.null()}
    texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=8)
    names = draw(st.lists(texts.filter(lambda name: name.strip()), min_size=1, max_size=4, unique=True))
    count = draw(st.integers(1, 60))
    columns = {}
    for name in [*names, "y"]:
        kind = draw(st.sampled_from(sorted(VALUES)))
        drawn = draw(st.lists(VALUES[kind], min_size=count, max_size=count))
        columns[name] = pa.array(drawn, types.get(kind, pa.int64() if kind == "same" else pa.string()))
    return pa.table(columns)


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from(["regression", "classification", None]), st.sampled_from([".parquet", ".csv"]))
def test_whatever_the_table_there_is_a_report_and_never_a_traceback(
    tmp_path: Path, table: pa.Table, task: Any, suffix: str
) -> None:
    path = written(tmp_path / f"t{suffix}", table)
    found = None
    with contextlib.suppress(DataError):  # such as of 60 rows without a value
        found = examined(path, task=task)
    if found is None:
        return
    assert (found.schema is None) == bool(found.report.errors)
    assert found.report.page()
    DataReport.parse(found.report.model_dump_json().encode(), "report")
    if found.schema is not None and found.rows is not None:
        order = np.random.default_rng(0).permutation(len(table))
        shuffled = table.take(pa.array(order)).select(table.column_names[::-1])
        again = examined(written(tmp_path / f"again{suffix}", shuffled), task=task)
        assert again.schema is not None
        assert again.rows is not None
        for part in ("train", "other"):
            np.testing.assert_array_equal(again.rows.ordering.result()[part], found.rows.ordering.result()[part])


# Raw files to splits: nothing lost, nothing changed, the same content under the same name


def synthetic(seed: int) -> PreparedDataset:
    return candidate.synthetic(RunFolder(path=Path("unused")), seed)


def test_prepared_splits_hold_the_raw_pixels_and_labels(fashion_mnist: Path) -> None:
    validated = ValidatedDataset(raw=FashionMnist().fetch())
    prepared = candidate.plain(preprocess)(RunFolder(path=Path("unused")), validated, Data(), 0)
    for split, prefix, count in ((prepared.train, "train", 60_000), (prepared.test, "t10k", 10_000)):
        arrays = safetensors.numpy.load_file(split.path)
        assert arrays["images"].dtype == np.uint8
        assert arrays["images"].shape == (count, 28, 28)
        np.testing.assert_array_equal(
            arrays["images"], np.asarray(open_idx(fashion_mnist / f"{prefix}-images-idx3-ubyte"))
        )
        np.testing.assert_array_equal(
            arrays["labels"], np.asarray(open_idx(fashion_mnist / f"{prefix}-labels-idx1-ubyte", 1))
        )
    assert np.bincount(arrays["labels"]).tolist() == [1000] * 10
    assert prepared.class_names == CLASS_NAMES
    assert prepared.digest == "1c441722ee93294cd4f52b236c6e853641c2df0e63d87e6fd6e810bf6ef84818", "as ever"
    assert prepared.raw_test == prepared.test


@pytest.mark.parametrize(("shape", "side"), [((4, 28, 28), 17), ((2, 20, 20, 3), 7)], ids=["grey", "colour"])
def test_images_are_resized_as_torchvision_resizes_them(shape: tuple[int, ...], side: int) -> None:
    from torchvision.transforms import Resize  # takes seconds

    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    theirs = [np.asarray(Resize(side)(Image.fromarray(image))) for image in images]
    recipe = Pixels(shape=(side, side, *shape[3:]), scale=1.0, resize="bilinear")
    np.testing.assert_array_equal(recipe.encode(images), theirs)


def test_raw_files_that_changed_since_they_were_validated_are_refused(fashion_mnist: Path) -> None:
    raw = FashionMnist().fetch()
    labels = raw.files["t10k-labels-idx1-ubyte"].path
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"t10k-labels.* has changed"):
        FashionMnist().prepare(ValidatedDataset(raw=raw), Data(), 0)


def test_synthetic_data_obey_their_law() -> None:
    X, y = synthetic_data(np.array([2.0, -3.4]), 4.2, 20_000, np.random.default_rng(0), noise=0.5)
    assert X.dtype == y.dtype == np.dtype(np.float32)
    residuals = y - (X @ np.array([2.0, -3.4]) + 4.2)
    assert residuals.mean() == pytest.approx(0, abs=0.02)
    assert residuals.std() == pytest.approx(0.5, rel=0.03)
    assert np.corrcoef(X[:, 0], X[:, 1]).min() == pytest.approx(0, abs=0.03)


def test_a_seed_gives_the_same_bytes_as_ever_and_another_seed_others() -> None:
    """Versions published before are compared by this digest."""
    prepared = synthetic(42)
    assert prepared.digest == "c7cefa9eace10162ff181c629a6d8ffce2b21334207c31663bb265f85470c467"
    assert (prepared.title, prepared.identifier) == ("Synthetic linear data", "synthetic-linear")
    assert synthetic(42) == prepared
    assert synthetic(2).digest != prepared.digest
    train, test = (safetensors.numpy.load_file(file.path) for file in (prepared.train, prepared.test))
    assert not set(map(tuple, train["features"])) & set(map(tuple, test["features"]))
    assert (prepared.num_train, prepared.num_test) == (1000, 1000)


def test_a_split_is_written_once_and_repaired_when_damaged() -> None:
    arrays = {"features": np.ones((3, 2), np.float32), "target": np.zeros(3, np.float32)}
    written = write_split("data", "train", arrays)
    inode = written.path.stat().st_ino
    assert write_split("data", "train", arrays).path.stat().st_ino == inode
    written.path.write_bytes(b"damaged")
    write_split("data", "train", arrays)
    assert torch.equal(torch.from_numpy(safetensors.numpy.load_file(written.path)["features"]), torch.ones(3, 2))


def resized(side: int) -> tuple[PreparedDataset, NDArray[np.uint8]]:
    """Random images of 12 by 12 prepared for a model of ``side`` by ``side``, and those of the test split."""
    rng = np.random.default_rng(0)
    train, test = (
        Examples(rng.integers(0, 256, (count, 12, 12), np.uint8), np.zeros(count, np.uint8)) for count in (5, 3)
    )
    recipe = Pixels(shape=(side, side), scale=1 / 255, resize="bilinear")
    return write_splits("rows", train, test, recipe, "classification", class_names=("a", "b")), test.inputs


def test_test_rows_are_kept_as_they_came_for_versions_of_another_recipe() -> None:
    prepared, images = resized(6)
    assert read_split(prepared.test, prepared).inputs.shape == (3, 6, 6)
    np.testing.assert_array_equal(read_split(prepared.raw_test, prepared).inputs, images)


@pytest.mark.parametrize("in_its_place", ["FIFO", "link to a FIFO", "empty file", "link to /proc/kmsg"])
def test_what_lies_in_the_place_of_a_split_is_refused_at_once(in_its_place: str, tmp_path: Path) -> None:
    prepared = synthetic(1)
    path = prepared.train.path
    path.unlink()
    if "FIFO" in in_its_place:
        os.mkfifo(fifo := path if in_its_place == "FIFO" else tmp_path / "fifo")
        if fifo != path:
            path.symlink_to(fifo)
    elif in_its_place == "empty file":
        path.touch()
    else:
        path.symlink_to("/proc/kmsg")
    refused: Future[str] = Future()

    def read() -> None:
        try:
            read_split(prepared.train, prepared)
        except DataError as error:
            refused.set_result(error.found)

    threading.Thread(target=read, daemon=True).start()
    assert str(path) in refused.result(timeout=10)
    assert synthetic(1).train == prepared.train, "and it is written anew"
    assert len(read_split(prepared.train, prepared).y_true) == 1000
