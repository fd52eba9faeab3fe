"""The IDX reader against torchvision's, and against damage."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from input_files import idx_bytes
from tasks.data.io import arrays
from tasks.errors import DataError

SMALL = idx_bytes(np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
LABELS = idx_bytes(np.arange(2, dtype=np.uint8))


def test_real_test_split_reads_as_torchvision_reads_it(fashion_mnist_files: Path) -> None:
    from torchvision.datasets import mnist  # takes seconds

    images, labels = fashion_mnist_files / "t10k-images-idx3-ubyte", fashion_mnist_files / "t10k-labels-idx1-ubyte"
    np.testing.assert_array_equal(np.asarray(arrays.open_idx(images)), mnist.read_image_file(str(images)))
    np.testing.assert_array_equal(np.asarray(arrays.open_idx(labels, 1)), mnist.read_label_file(str(labels)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(kept=st.integers(0, 75))
def test_every_truncation_is_found(tmp_path: Path, kept: int) -> None:
    (tmp_path / "cut").write_bytes(SMALL[:kept])
    with pytest.raises(DataError):
        arrays.open_idx(tmp_path / "cut")


DAMAGED: dict[str, tuple[bytes, int, str]] = {
    "surplus": (SMALL + b"\0", 3, "77 bytes"),
    "junk for gzip": (b"\x1f\x8b" + b"junk" * 9, 3, "cannot be read"),
    "gzip cut": (gzip.compress(SMALL)[:-20], 3, "cannot be read"),
    "images for labels": (SMALL, 1, "file of labels"),
    "labels for images": (LABELS, 3, "file of images"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_or_something_else_is_an_error_of_the_data(case: str, tmp_path: Path) -> None:
    content, num_dimensions, words = DAMAGED[case]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=words):
        np.asarray(arrays.open_idx(tmp_path / "file", num_dimensions))
    with pytest.raises(DataError, match="is missing"):
        arrays.open_idx(tmp_path / "nothing")


def test_decompression_is_bounded(tmp_path: Path) -> None:
    """A gigabyte of zeros behind a header that promises one small image is read no further than that image."""
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">4B3I", 0, 0, 8, 3, 1, 2, 2))
        for _ in range(64):
            stream.write(bytes(2**20))
    assert len(arrays.read_payload(bomb, 21)) == 21
    with pytest.raises(DataError, match="more bytes"):
        np.asarray(arrays.open_idx(bomb))
