"""Labelled images in one file or a few: the same images come to the same data, whatever they are written in."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from image_folders import Array, drawn, prepared, write, write_idx, write_parquet
from tasks.data import image_dataset
from tasks.data.io import images as own_images
from tasks.errors import DataError, UsageError

NAMES = ("cat", "dog", "owl")


def images(seeds: range) -> tuple[Array, Array]:
    """In the order of the names of files, as ``write`` calls them."""
    pixels = np.stack([drawn(label, seed) for seed in seeds for label in range(len(NAMES))])
    return pixels, np.tile(np.arange(len(NAMES), dtype=np.uint8), len(seeds))


TRAIN, TEST = images(range(30)), images(range(1000, 1010))


def as_folders(folder: Path) -> Path:
    write(folder / "train", dict.fromkeys(NAMES, 30))
    return write(folder / "test", dict.fromkeys(NAMES, 10), first=1000).parent


def as_idx(folder: Path, packed: str = "", prefix: str = "", test: str = "t10k") -> Path:
    for part, arrays in {"train": TRAIN, test: TEST}.items():
        write_idx(folder / f"{prefix}{part}-images-idx3-ubyte{packed}", *arrays)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


def as_keras(folder: Path) -> Path:
    folder.mkdir()
    arrays = {"x_train": TRAIN[0], "y_train": TRAIN[1], "x_test": TEST[0][..., None], "y_test": TEST[1][:, None]}
    np.savez_compressed(folder / "data.npz", **arrays, class_names=np.array(NAMES))  # type: ignore[arg-type]
    return folder / "data.npz"


def as_safetensors(folder: Path) -> Path:
    folder.mkdir()
    tensors = {"train_images": TRAIN[0], "train_labels": TRAIN[1], "test_images": TEST[0], "test_labels": TEST[1]}
    safetensors.numpy.save_file(tensors, folder / "data.safetensors")
    (folder / "labels.txt").write_text("\n".join(NAMES))
    return folder / "data.safetensors"


def as_parquet(folder: Path) -> Path:
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", TRAIN[0][:50], TRAIN[1][:50], NAMES)
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", TRAIN[0][50:], TRAIN[1][50:], NAMES)
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", *TEST, NAMES)
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "MNIST": as_idx,
    "EMNIST, packed": lambda folder: as_idx(folder, ".gz", "emnist-letters-", "test"),
    "Keras": as_keras,
    "safetensors": as_safetensors,
    "Hugging Face": as_parquet,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_parts_are_the_same_data_in_any_form(form: str, tmp_path: Path) -> None:
    expected, found = prepared(as_folders(tmp_path / "folders")), prepared(FORMS[form](tmp_path / "form"))
    assert found.digest == expected.digest
    assert found.train.sha256 == expected.train.sha256, (
        "in one order, that of files' names, so that one model is learned"
    )
    assert found.class_names == NAMES
    assert (found.num_train, found.num_test) == (90, 30)
    assert found.recipe == expected.recipe


def refused(path: Path, words: str) -> None:
    with pytest.raises(DataError, match=f"(?s){words}"):
        prepared(path)


@pytest.mark.parametrize(("arrays", "words"), [
    ({"images": TRAIN[0] / 255, "labels": TRAIN[1]}, r"float64 of shape .*uint8 pixels"),
    ({"images": TRAIN[0], "labels": TRAIN[1][1:]}, r"uint8 labels of shape \[89\].*for each of 90 rows"),
    ({"images": TRAIN[0], "labels": TRAIN[1], "class_names": np.array(["a", "a", "b"])}, "names a class twice"),
    ({"images": TRAIN[0], "labels": TRAIN[1] + 1, "class_names": np.array(["a", "b", "c"])}, "label 3 at row 2"),
    ({"images": TRAIN[0][:0], "labels": TRAIN[1][:0]}, "no images"),
    ({"images": TRAIN[0], "labels": TRAIN[1], "class_names": np.array(NAMES[:2])}, "label 2 at row 2 .*from 0 to 1"),
    ({"pictures": TRAIN[0], "labels": TRAIN[1]}, "images and labels, or x_train"),
    ({"images": np.asfortranarray(TRAIN[0]), "labels": TRAIN[1]}, "Fortran order"),
    ({"images": TRAIN[0], "labels": TRAIN[1] / 2}, "a whole number or a name"),
    ({"images": np.zeros((90, 3, 8, 8), np.uint8), "labels": TRAIN[1]}, "channels last"),
    ({"images": TRAIN[0], "labels": TRAIN[1].astype(object)}, "not numbers"),
    (
        dict(zip(("images", "labels", "x_train", "y_train", "x_test", "y_test"), TRAIN * 3, strict=True)),
        "images beside those for training and testing",
    ),
])  # fmt: skip
def test_arrays_that_are_no_labelled_images_are_refused(arrays: dict[str, Array], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    refused(tmp_path / "a.npz", words)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.parquet"])
def test_a_file_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    refused(tmp_path / name, "cannot be read")


@pytest.mark.parametrize("labels", [[None, *range(89)], [0.5] * 90, [[1]] * 90])
def test_labels_in_parquet_that_are_missing_or_of_no_class_are_refused(labels: list[Any], tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "i.parquet", TRAIN[0], labels)
    refused(path, "of 90 rows without a label, which is .*a whole number or text in each")


def test_labels_lie_beside_files_of_one_data_set_and_a_packed_copy_is_not_read_twice(tmp_path: Path) -> None:
    source = as_idx(as_idx(tmp_path / "raw"), ".gz")  # torchvision keeps both
    assert (prepared(source).num_train, prepared(source).num_test) == (90, 30)
    as_idx(source, prefix="emnist-letters-")
    refused(source, "one file of images for each part")
    source = as_idx(tmp_path / "without")
    (source / "t10k-labels-idx1-ubyte").unlink()
    refused(source, "no labels beside .*t10k-images-idx3-ubyte")


def test_broken_pictures_in_parquet_are_named_by_file_and_row(tmp_path: Path) -> None:
    source = as_parquet(tmp_path / "form")
    path = source / "data" / "test-00000-of-00001.parquet"
    write_parquet(path, [*TEST[0][:7], {"bytes": None, "path": "x.png"}, *TEST[0][8:]], TEST[1], NAMES)
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet row 7: none of PNG"):
        prepared(source, max_rejects=0)
    assert prepared(source).num_test == 29


@pytest.mark.parametrize("metadata", ["[" * 100_000, '{"info": {"features": [[1]]}}', '{"info": []}', "\ufffd"])
def test_what_else_stands_in_the_metadata_of_parquet_names_no_classes(metadata: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "i.parquet", *TRAIN)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    assert prepared(path).class_names == ("0", "1", "2")


@pytest.mark.parametrize("form", ["MNIST", "safetensors"])
def test_a_file_that_shrinks_while_it_is_trained_on_stops_the_run(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is mapped, the kernel kills the process with SIGBUS."""
    source = FORMS[form](tmp_path / "form")
    file, read = source if source.is_file() else source / "train-images-idx3-ubyte", own_images.read_images

    def from_a_shorter_file(*how: Any) -> Any:
        os.truncate(file, file.stat().st_size - 5000)
        return read(*how)

    monkeypatch.setattr(own_images, "read_images", from_a_shorter_file)
    refused(source, "was written to while")


def test_more_than_an_archive_promises_is_not_unpacked(tmp_path: Path) -> None:
    """The header of the array says three images, the archive's own three thousand."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array, more in (("images.npy", TRAIN[0], 3000 * 64), ("labels.npy", TRAIN[1], 0)):
            np.save(stream := io.BytesIO(), array[:3])
            archive.writestr(name, stream.getvalue() + bytes(more))
    refused(tmp_path / "a.npz", "more bytes than it promises")


def test_a_table_in_parquet_is_no_data_set_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "t.parquet")
    assert not image_dataset.is_images(str(tmp_path / "t.parquet"))
    with pytest.raises(UsageError, match="name it with --target"):
        prepared(tmp_path / "t.parquet")
    path = write_parquet(tmp_path / "i.parquet", *TRAIN)
    assert image_dataset.is_images(str(path))
    pq.write_table(pq.read_table(path).drop_columns(["label"]), path)
    refused(path, "a column of classes, called label")
