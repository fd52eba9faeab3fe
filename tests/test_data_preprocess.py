"""Raw files to splits: nothing lost, nothing changed, the same content under the same name."""

import os
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from PIL import Image

import candidate
from tasks.data.book_datasets import CLASS_NAMES, FashionMnist, synthetic_data
from tasks.data.io.arrays import open_idx
from tasks.data.prepared_splits import Examples, ValidatedDataset, read_split, write_split, write_splits
from tasks.data.recipe import Pixels
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset
from tasks.store.run_folder import RunFolder


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
