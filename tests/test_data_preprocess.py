"""Raw files to splits: nothing lost, nothing changed, the same content under the same name."""

import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import torchvision.transforms
from PIL import Image

from tasks.data import fashion_mnist as facts
from tasks.data import idx
from tasks.data.fashion_mnist import fetch, image_split
from tasks.data.recipe import Pixels
from tasks.data.sources.places import Directory
from tasks.data.splits import write_split
from tasks.data.synthetic import synthetic_data
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset, RawDataset
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

plain_preprocess = preprocess.__wrapped__  # type: ignore[attr-defined]  # without Prefect


def synthetic(seed: int, **data: object) -> PreparedDataset:
    raw = RawDataset(name="synthetic-linear", source="generated", files={})
    prepared: PreparedDataset = plain_preprocess(RunFolder(path=Path("unused")), raw, Data.model_validate(data), seed)
    return prepared


def test_prepared_splits_hold_the_raw_pixels_and_labels(fashion_mnist: Path) -> None:
    prepared = plain_preprocess(RunFolder(path=Path("unused")), fetch([Directory(fashion_mnist)]), Data(), 0)
    for split, prefix, count in ((prepared.train, "train", 60_000), (prepared.test, "t10k", 10_000)):
        arrays = safetensors.numpy.load_file(split.path)
        assert arrays["images"].dtype == np.uint8
        assert arrays["images"].shape == (count, 28, 28)
        np.testing.assert_array_equal(arrays["images"], idx.read_images(fashion_mnist / f"{prefix}-images-idx3-ubyte"))
        np.testing.assert_array_equal(
            arrays["labels"], idx.read_labels(fashion_mnist / f"{prefix}-labels-idx1-ubyte", 10)
        )
    assert np.bincount(arrays["labels"]).tolist() == [1000] * 10
    assert prepared.class_names == facts.CLASS_NAMES


def test_resize_equals_torchvisions() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    theirs = [np.asarray(torchvision.transforms.Resize(17)(Image.fromarray(image))) for image in images]
    np.testing.assert_array_equal(Pixels(shape=(17, 17), scale=1.0, resize="bilinear").encode(images), theirs)


def test_different_counts_of_images_and_labels_are_an_error(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2, 1, 1) + b"ab")
    labels.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes([1, 2, 3]))
    with pytest.raises(DataError, match=r"2 images in .* and 3 labels"):
        image_split(FileRef(path=images, sha256=""), FileRef(path=labels, sha256=""))


def test_synthetic_data_obey_their_law() -> None:
    X, y = synthetic_data(np.array([2.0, -3.4]), 4.2, 20_000, np.random.default_rng(0), noise=0.5)
    assert X.dtype == y.dtype == np.dtype(np.float32)
    residuals = y - (X @ np.array([2.0, -3.4]) + 4.2)
    assert residuals.mean() == pytest.approx(0, abs=0.02)
    assert residuals.std() == pytest.approx(0.5, rel=0.03)
    assert np.corrcoef(X[:, 0], X[:, 1]).min() == pytest.approx(0, abs=0.03)


def test_the_same_seed_gives_the_same_files_and_another_seed_others() -> None:
    assert synthetic(1) == synthetic(1)
    assert synthetic(1).digest != synthetic(2).digest


def test_training_and_test_examples_differ() -> None:
    prepared = synthetic(1)
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
