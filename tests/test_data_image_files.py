"""Labelled images in one file or a few: the same images come to the same data, whatever they are written in."""

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from image_folders import Array, drawn, prepared
from tasks.data import image_dataset
from tasks.data.io import images as own_images
from tasks.errors import DataError, UsageError

NAMES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def _artifacts(artifacts: Path) -> None:
    """Nothing is written anywhere else."""


def images(rows: int, first: int = 0, channels: int = 1) -> tuple[Array, Array]:
    labels = np.arange(rows) % len(NAMES)
    pixels = [drawn(int(label), first + at, channels=channels) for at, label in enumerate(labels)]
    return np.stack(pixels), labels.astype(np.uint8)


TRAIN, TEST = images(90), images(30, first=1000)


def idx(path: Path, values: Array) -> None:
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def as_folders(folder: Path) -> Path:
    for part, (pixels, labels) in {"train": TRAIN, "test": TEST}.items():
        for at, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = folder / part / NAMES[label] / f"{at:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def as_idx(folder: Path, packed: str = "", prefix: str = "", test: str = "t10k") -> Path:
    for part, (pixels, labels) in {"train": TRAIN, test: TEST}.items():
        idx(folder / f"{prefix}{part}-images-idx3-ubyte{packed}", pixels)
        idx(folder / f"{prefix}{part}-labels-idx1-ubyte{packed}", labels)
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


def png(image: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def parquet(path: Path, pixels: Array, labels: Array, names: tuple[str, ...] | None = NAMES) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    rows = [{"bytes": png(image), "path": None} for image in pixels]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(labels, pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    named = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(named if names else table, path, row_group_size=20)


def as_parquet(folder: Path) -> Path:
    parquet(folder / "data" / "train-00000-of-00002.parquet", TRAIN[0][:50], TRAIN[1][:50])
    parquet(folder / "data" / "train-00001-of-00002.parquet", TRAIN[0][50:], TRAIN[1][50:])
    parquet(folder / "data" / "test-00000-of-00001.parquet", *TEST)
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "MNIST": as_idx,
    "MNIST, packed": lambda folder: as_idx(folder, ".gz"),
    "EMNIST, packed": lambda folder: as_idx(folder, ".gz", "emnist-letters-", "test"),
    "Keras": as_keras,
    "safetensors": as_safetensors,
    "Hugging Face": as_parquet,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_are_the_same_data_in_any_form(form: str, tmp_path: Path) -> None:
    expected, found = prepared(as_folders(tmp_path / "folders")), prepared(FORMS[form](tmp_path / "form"))
    assert found.digest == expected.digest
    assert found.train.sha256 == expected.train.sha256, (
        "in one order, that of files' names, so that one model is learned"
    )
    assert found.class_names == NAMES
    assert (found.num_train, found.num_test) == (90, 30)
    assert found.recipe == expected.recipe


def test_images_without_parts_are_split_alike_in_any_form(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    np.savez(folder / "a.npz", images=TRAIN[0], labels=np.array(NAMES)[TRAIN[1]])
    safetensors.numpy.save_file({"images": TRAIN[0], "labels": TRAIN[1].astype(np.int64)}, folder / "a.safetensors")
    parquet(folder / "a.parquet", *TRAIN)
    by_name, by_number, packed = (prepared(folder / f"a.{suffix}") for suffix in ("npz", "safetensors", "parquet"))
    assert by_name.digest == packed.digest
    assert by_number.class_names == ("0", "1", "2")
    assert (by_number.num_train, by_number.num_test) == (by_name.num_train, by_name.num_test)


def test_colour_stays_and_a_side_is_asked_for(tmp_path: Path) -> None:
    pixels, labels = images(90, channels=3)
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels)
    assert prepared(tmp_path / "a.npz", side=5).recipe.input.shape == (5, 5, 3)


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
])  # fmt: skip
def test_arrays_that_are_no_labelled_images_are_refused(arrays: dict[str, Array], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    refused(tmp_path / "a.npz", words)


def test_files_that_are_cut_off_or_lack_their_labels_are_refused(tmp_path: Path) -> None:
    source = as_idx(tmp_path / "idx")
    whole = (source / "t10k-images-idx3-ubyte").read_bytes()
    (source / "t10k-images-idx3-ubyte").write_bytes(whole[:-1])
    refused(source, "bytes")
    (source / "t10k-images-idx3-ubyte").write_bytes(whole)
    (source / "t10k-labels-idx1-ubyte").unlink()
    refused(source, "no labels beside .*t10k-images-idx3-ubyte")
    packed = as_idx(tmp_path / "packed", ".gz")
    path = packed / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    refused(packed, "cannot be read")
    for name in ("a.npz", "a.safetensors", "a.parquet"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        refused(tmp_path / name, "cannot be read")


@pytest.mark.parametrize("labels", [[None, *range(89)], [0.5] * 90, [[1]] * 90])
def test_labels_in_parquet_that_are_missing_or_of_no_class_are_refused(labels: list[Any], tmp_path: Path) -> None:
    parquet(tmp_path / "i.parquet", *TRAIN)
    table = pq.read_table(tmp_path / "i.parquet").drop_columns(["label"]).append_column("label", pa.array(labels))
    pq.write_table(table, tmp_path / "i.parquet")
    refused(tmp_path / "i.parquet", "of 90 rows without a label, which is .*a whole number or text in each")


def test_files_of_several_data_sets_are_not_mixed_and_a_packed_copy_is_not_read_twice(tmp_path: Path) -> None:
    source = as_idx(as_idx(tmp_path / "raw"), ".gz")  # torchvision keeps both
    assert (prepared(source).num_train, prepared(source).num_test) == (90, 30)
    as_idx(source, prefix="emnist-letters-")
    refused(source, "one file of images for each part")


def test_broken_pictures_in_parquet_are_named_by_file_and_row(tmp_path: Path) -> None:
    source = as_parquet(tmp_path / "form")
    path = source / "data" / "test-00000-of-00001.parquet"
    rows = [{"bytes": None if at == 7 else png(image), "path": "x.png"} for at, image in enumerate(TEST[0])]
    pq.write_table(pq.read_table(path).set_column(0, "image", pa.array(rows)), path)
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet row 7: none of PNG"):
        prepared(source, max_rejects=0)
    assert prepared(source).num_test == 29


@pytest.mark.parametrize("metadata", ["[" * 100_000, '{"info": {"features": [[1]]}}', '{"info": []}', "\ufffd"])
def test_what_else_stands_in_the_metadata_of_parquet_names_no_classes(metadata: str, tmp_path: Path) -> None:
    parquet(tmp_path / "i.parquet", *TRAIN)
    table = pq.read_table(tmp_path / "i.parquet").replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "i.parquet")
    assert prepared(tmp_path / "i.parquet").class_names == ("0", "1", "2")


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
    stream = io.BytesIO()
    np.save(stream, TRAIN[0][:3])
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", stream.getvalue() + bytes(3000 * 64))
        stream = io.BytesIO()
        np.save(stream, TRAIN[1][:3])
        archive.writestr("labels.npy", stream.getvalue())
    refused(tmp_path / "a.npz", "more bytes than it promises")


def test_images_of_no_part_beside_those_of_two_are_refused(tmp_path: Path) -> None:
    x, y = TRAIN
    np.savez(tmp_path / "a.npz", images=x, labels=y, x_train=x, y_train=y, x_test=x, y_test=y)
    refused(tmp_path / "a.npz", "images beside those for training and testing")


def test_a_table_in_parquet_is_no_data_set_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "t.parquet")
    assert not image_dataset.is_images(str(tmp_path / "t.parquet"))
    with pytest.raises(UsageError, match="name it with --target"):
        prepared(tmp_path / "t.parquet")
    parquet(tmp_path / "i.parquet", *TRAIN)
    assert image_dataset.is_images(str(tmp_path / "i.parquet"))
    table = pq.read_table(tmp_path / "i.parquet").drop_columns(["label"])
    pq.write_table(table, tmp_path / "i.parquet")
    refused(tmp_path / "i.parquet", "a column of classes, called label")
