"""The IDX reader against torchvision's, and against damage."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.data.io import arrays
from tasks.errors import DataError


def images_file(path: Path, images: np.ndarray) -> Path:
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    return path


def labels_file(path: Path, labels: list[int]) -> Path:
    path.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels))
    return path


def images_of(path: Path) -> np.ndarray:
    return np.asarray(arrays.open_idx(path))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return images_file(tmp_path / "images", np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3))


def test_real_test_split_reads_as_torchvision_reads_it(fashion_mnist_files: Path) -> None:
    from torchvision.datasets import mnist  # takes seconds

    images, labels = fashion_mnist_files / "t10k-images-idx3-ubyte", fashion_mnist_files / "t10k-labels-idx1-ubyte"
    np.testing.assert_array_equal(images_of(images), mnist.read_image_file(str(images)))
    np.testing.assert_array_equal(np.asarray(arrays.open_idx(labels, 1)), mnist.read_label_file(str(labels)))


def test_gzip_reads_as_the_plain_file(small: Path) -> None:
    packed = small.with_suffix(".gz")
    packed.write_bytes(gzip.compress(small.read_bytes()))
    np.testing.assert_array_equal(images_of(packed), images_of(small))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(kept=st.integers(0, 75))
def test_every_truncation_is_found(small: Path, kept: int) -> None:
    cut = small.with_name("cut")
    cut.write_bytes(small.read_bytes()[:kept])
    with pytest.raises(DataError):
        images_of(cut)


def test_surplus_bytes_are_found(small: Path) -> None:
    small.write_bytes(small.read_bytes() + b"\0")
    with pytest.raises(DataError, match="77 bytes"):
        images_of(small)


@pytest.mark.parametrize(
    "damage", [b"\x1f\x8b" + b"junk" * 9, gzip.compress(b"\0\0\x08\x03" * 99)[:-20]], ids=["junk", "cut"]
)
def test_damaged_gzip_is_an_error_of_the_data(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(damage)
    with pytest.raises(DataError):
        images_of(tmp_path / "x.gz")


def test_swapped_files_are_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="file of labels"):
        arrays.open_idx(small, 1)
    with pytest.raises(DataError, match="file of images"):
        images_of(labels_file(tmp_path / "labels", [1, 2]))


def test_decompression_is_bounded(tmp_path: Path) -> None:
    """A gigabyte of zeros behind a header that promises one small image is read no further than that image."""
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">4B3I", 0, 0, 8, 3, 1, 2, 2))
        for _ in range(64):
            stream.write(bytes(2**20))
    assert len(arrays.read_payload(bomb, 21)) == 21
    with pytest.raises(DataError, match="more bytes"):
        images_of(bomb)


def test_a_missing_file_is_an_error_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        images_of(tmp_path / "nothing")
