"""Folders of pictures: what is in them is prepared whole, copies are named, and odd ones end nothing."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from image_folders import Array, drawn, prepared, report_of, write, write_idx, write_parquet
from tasks.data import image_dataset
from tasks.data.image_dataset import find_images
from tasks.data.io import images, pictures
from tasks.data.report import Finding
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.machine import resources
from tasks.machine.parallel import Process, run_on_cores

COUNTS = {"cat": 40, "dog": 30, "10": 20}


def refused(source: Path, *words: str, **options: object) -> None:
    with pytest.raises(DataError, match="(?s)" + ".*".join(words)):
        prepared(source, **options)


def found(source: Path, rule: str) -> Finding:
    (one,) = [each for each in report_of(source).findings if each.rule == rule]
    return one


def test_every_picture_is_in_one_split_under_the_name_of_its_folder(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", COUNTS))
    splits = [safetensors.numpy.load_file(each.path) for each in (made.train, made.test)]
    pixels, labels = (np.concatenate([split[name] for split in splits]) for name in ("images", "labels"))
    told = [(made.class_names[label], image.tobytes()) for image, label in zip(pixels, labels, strict=True)]
    assert sorted(told) == sorted(
        (name, drawn(label, seed).tobytes()) for label, name in enumerate(COUNTS) for seed in range(COUNTS[name])
    )
    assert made.class_names == ("10", "cat", "dog")
    assert made.class_counts == tuple(np.bincount(splits[0]["labels"]).tolist())
    assert made.num_train + made.num_test == sum(COUNTS.values())
    assert 0.1 < made.num_test / sum(COUNTS.values()) < 0.3
    assert made.brightness == pytest.approx(pixels.mean(), abs=0.01)


def test_copies_in_both_parts_are_named_and_many_stop_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "pets" / "train", dict.fromkeys(COUNTS, 50)).parent
    write(source / "test", dict.fromkeys(COUNTS, 50), first=1000)
    write(source / "val", dict.fromkeys(COUNTS, 5), first=2000)
    for part, name in (("test", "0003.png"), ("val", "0005.png")):
        shutil.copy(source / "train" / "cat" / name, source / part / "cat" / "twin.png")
    made = prepared(source)
    assert made.rows is not None
    assert len(safetensors.numpy.load_file(made.rows.path)["other"]) == 151 + 16
    copies = found(source, "copies-across-parts")
    assert (copies.severity, "val" in copies.found) == ("warning", False)
    assert all(each in copies.found for each in ("train/cat/0003.png", "test/cat/twin.png"))
    shutil.copy(source / "train" / "cat" / "0004.png", source / "test" / "cat" / "twin2.png")
    refused(source, "2 test images equal to a training image", "cat/0003.png", "cat/0004.png", "at most 1 %")


def test_odd_folders_and_files_end_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    (source / "cat" / "deeper" / "still").mkdir(parents=True)
    Image.fromarray(drawn(0, 500)).save(source / "cat" / "deeper" / "still" / "down.png")
    (source / "cat" / "deeper" / "loop").symlink_to(source)
    (source / "round").symlink_to(source)
    (source / "broken-link").symlink_to(source / "nowhere")
    (source / "README.md").write_text("about cats")
    (source / "cat" / "notes.txt").write_text("about cats")
    os.mkfifo(source / "cat" / "pipe.png")
    shutil.copy(os.fsencode(source / "cat" / "0001.png"), os.fsencode(source / "cat") + b"/\xff.png")
    made = prepared(source)
    assert made.num_train + made.num_test == 92
    assert made.class_names == ("10", "cat", "dog")
    for rule, words in (("stray-files", "README.md"), ("other-files", "notes.txt"), ("links", "links to folders (2)")):
        assert words in found(source, rule).found


@pytest.fixture
def depths(tmp_path: Path) -> Iterator[Path]:
    """A class folder with one folder in another, 1100 times; neither pathlib nor shutil goes so deep."""
    deep = tmp_path / "pets" / "cat"
    for _ in range(11):
        deep /= "/".join(["d"] * 100)
        deep.mkdir(parents=True)
    yield deep
    subprocess.run(["rm", "-r", str(tmp_path / "pets" / "cat")], check=True)


def test_folders_deeper_than_the_interpreter_recurses_are_read(depths: Path, tmp_path: Path) -> None:
    (depths / "t.csv").write_text("x,y")
    with pytest.raises(UsageError, match="no --target"):
        prepared(tmp_path / "pets")
    source = write(tmp_path / "pets", COUNTS)
    Image.fromarray(drawn(0, 500)).save(depths / "down.png")
    made = prepared(source)
    assert made.num_train + made.num_test == 91


def test_a_picture_that_leads_to_what_waits_for_ever_is_unreadable(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", dict.fromkeys(COUNTS, 50))
    (source / "cat" / "log.png").symlink_to("/proc/kmsg")
    os.mkfifo(tmp_path / "pipe")
    (source / "cat" / "pipe.png").symlink_to(tmp_path / "pipe")
    made = prepared(source)
    assert made.num_train + made.num_test == 150
    assert re.search("1 image of 151 cannot be read.*log.png", found(source, "broken-images").found)
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is no regular file"):
            pictures.decode(path, (8, 8))


def test_pictures_that_change_while_they_are_read_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, read = write(tmp_path / "pets", COUNTS), images.read_images

    def while_somebody_writes(*how: Any) -> Any:
        decoded = read(*how)
        Image.fromarray(drawn(0, 501)).save(source / "cat" / "0001.png")
        return decoded

    with monkeypatch.context() as patch:
        patch.setattr(images, "read_images", while_somebody_writes)
        refused(source, "changed while it was read")
    assert prepared(source).num_train


def test_the_contact_sheet_shows_pictures_of_each_class_and_its_name_in_chinese_too(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", {"狗": 60, "猫": 60}))
    assert made.sheet is not None
    dog, cat = np.asarray(Image.open(made.sheet.path))[4:, :, 3].reshape(2, 60, -1)
    for line in (dog, cat):
        assert line[:56, 180:].mean() > 200, "what is transparent is no picture"
    assert (dog[:30, :180] != cat[:30, :180]).any(), "whatever fonts are installed: letters, or what stands for them"


def test_parts_that_lie_one_after_another_are_written_whole_however_large(tmp_path: Path) -> None:
    """More images than are read at a time, so that some of a part's blocks hold none of its images."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9000, 2, 3, 3), np.uint8), np.arange(9000) % 3
    train, test = (images[:8900], labels[:8900]), (images[8900:], labels[8900:])
    np.savez(tmp_path / "many.npz", x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    made = prepared(tmp_path / "many.npz", side=2)
    written = safetensors.numpy.load_file(made.test.path)
    assert written["labels"].tolist() == test[1].tolist()
    assert written["images"].shape == (100, 2, 2, 3)
    assert made.num_train == 8900


# Labelled images in one file or a few: the same images come to the same data, whatever they are written in


THREE = ("cat", "dog", "owl")


def pictures_of(seeds: range) -> tuple[Array, Array]:
    """In the order of the names of files, as ``write`` calls them."""
    pixels = np.stack([drawn(label, seed) for seed in seeds for label in range(len(THREE))])
    return pixels, np.tile(np.arange(len(THREE), dtype=np.uint8), len(seeds))


TRAIN, TEST = pictures_of(range(30)), pictures_of(range(1000, 1010))


def as_folders(folder: Path) -> Path:
    write(folder / "train", dict.fromkeys(THREE, 30))
    return write(folder / "test", dict.fromkeys(THREE, 10), first=1000).parent


def as_idx(folder: Path, packed: str = "", prefix: str = "", test: str = "t10k") -> Path:
    for part, arrays in {"train": TRAIN, test: TEST}.items():
        write_idx(folder / f"{prefix}{part}-images-idx3-ubyte{packed}", *arrays)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in THREE))
    return folder


def as_arrays(folder: Path, suffix: str, names: str) -> Path:
    """An archive of Keras, or a file of tensors beside the names of classes."""
    folder.mkdir()
    values = (*TRAIN, *(TEST if suffix == ".safetensors" else (TEST[0][..., None], TEST[1][:, None])))
    arrays: dict[str, Any] = dict(zip(names.split(), values, strict=True))
    path = folder / f"data{suffix}"
    if suffix == ".safetensors":
        safetensors.numpy.save_file(arrays, path)
        (folder / "labels.txt").write_text("\n".join(THREE))
    else:
        np.savez_compressed(path, **arrays, class_names=np.array(THREE))
    return path


def as_parquet(folder: Path) -> Path:
    for name, (pixels, labels) in {
        "train-00000-of-00002": (TRAIN[0][:50], TRAIN[1][:50]),
        "train-00001-of-00002": (TRAIN[0][50:], TRAIN[1][50:]),
        "test-00000-of-00001": TEST,
    }.items():
        write_parquet(folder / "data" / f"{name}.parquet", pixels, labels, THREE)
    return folder


def as_other_formats(folder: Path) -> Path:
    for number, path in enumerate(sorted(as_folders(folder).rglob("*.png"))):
        Image.open(path).save(path.with_suffix((".bmp", ".gif", ".webp")[number % 3]), lossless=True)
        path.unlink()
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "MNIST": as_idx,
    "EMNIST, packed": lambda folder: as_idx(folder, ".gz", "emnist-letters-", "test"),
    "Keras": lambda folder: as_arrays(folder, ".npz", "x_train y_train x_test y_test"),
    "safetensors": lambda folder: as_arrays(
        folder, ".safetensors", "train_images train_labels test_images test_labels"
    ),
    "Hugging Face": as_parquet,
    "BMP, GIF and WebP": as_other_formats,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_parts_are_the_same_data_in_any_form(form: str, tmp_path: Path) -> None:
    """In one order, that of files' names, so that one model is learned."""
    expected, made = prepared(as_folders(tmp_path / "folders")), prepared(FORMS[form](tmp_path / "form"))
    assert (made.digest, made.train.sha256, made.recipe) == (expected.digest, expected.train.sha256, expected.recipe)
    assert (made.class_names, made.num_train, made.num_test) == (THREE, 90, 30)


NO_LABEL = "of 90 rows without a label, which is .*a whole number or text in each"


@pytest.mark.parametrize(("arrays", "words"), [
    *(({"labels": labels}, NO_LABEL) for labels in ([None, *range(89)], [0.5] * 90, [[1]] * 90)),
    ({"images": TRAIN[0], "labels": TRAIN[1], "class_names": np.array(["a", "a", "b"])}, "names a class twice"),
    ({"images": TRAIN[0], "labels": TRAIN[1] + 1, "class_names": np.array(["a", "b", "c"])}, "label 3 at row 2"),
    (
        {"images": TRAIN[0], "labels": np.array(THREE)[TRAIN[1]], "class_names": np.array(THREE[:2])},
        "label owl at row 2 ",
    ),
    ({"images": TRAIN[0][:0], "labels": TRAIN[1][:0]}, "no images"),
    ({"images": TRAIN[0], "labels": TRAIN[1], "class_names": np.array(THREE[:2])}, "label 2 at row 2 .*from 0 to 1"),
    ({"pictures": TRAIN[0], "labels": TRAIN[1]}, "images and labels, or x_train"),
    ({"images": TRAIN[0], "labels": TRAIN[1] / 2}, "a whole number or a name"),
    ({"images": np.zeros((90, 3, 8, 8), np.uint8), "labels": TRAIN[1]}, "channels last"),
    ({"images": TRAIN[0], "labels": TRAIN[1].astype(object)}, "not numbers"),
    (
        dict(zip(("images", "labels", "x_train", "y_train", "x_test", "y_test"), TRAIN * 3, strict=True)),
        "images beside those for training and testing",
    ),
])  # fmt: skip
def test_arrays_that_are_no_labelled_images_are_refused(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    if arrays.keys() == {"labels"}:
        refused(write_parquet(tmp_path / "i.parquet", TRAIN[0], arrays["labels"]), words)
        return
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", words)


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
    write_parquet(path, [*TEST[0][:7], {"bytes": None, "path": "x.png"}, *TEST[0][8:]], TEST[1], THREE)
    refused(source, "test-00000-of-00001.parquet row 7: none of PNG", max_rejects=0)
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
    file, read = source if source.is_file() else source / "train-images-idx3-ubyte", images.read_images

    def from_a_shorter_file(*how: Any) -> Any:
        os.truncate(file, file.stat().st_size - 5000)
        return read(*how)

    monkeypatch.setattr(images, "read_images", from_a_shorter_file)
    refused(source, "was written to while")


def test_more_than_an_archive_promises_is_not_unpacked(tmp_path: Path) -> None:
    """The header of the array says three images, the archive's own three thousand."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array, more in (("images.npy", TRAIN[0], 3000 * 64), ("labels.npy", TRAIN[1], 0)):
            np.save(stream := io.BytesIO(), array[:3])
            archive.writestr(name, stream.getvalue() + bytes(more))
    refused(tmp_path / "a.npz", "more bytes than it promises")


def test_a_table_in_parquet_is_no_data_set_of_images(tmp_path: Path) -> None:
    table, labelled = tmp_path / "t.parquet", write_parquet(tmp_path / "i.parquet", *TRAIN)
    pq.write_table(pa.table({"x": [1, 2]}), table)
    assert [image_dataset.is_images(str(path)) for path in (table, labelled)] == [False, True]
    with pytest.raises(UsageError, match="name it with --target"):
        prepared(table)
    pq.write_table(pq.read_table(labelled).drop_columns(["label"]), labelled)
    refused(labelled, "a column of classes, called label")


# Pictures are decoded by processes of our own: what they find is the same, and they end when they should


ORPHANED = """
import os, signal
from tasks.machine import resources
from tasks.machine.parallel import Process
other = Process(os.getppid)
print(other._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_find_what_this_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "pets", {"cat": 40, "dog": 30})
    (source / "cat" / "broken.png").write_bytes(b"\x89PNG")
    Image.fromarray(drawn(0, 99, channels=3)).save(source / "dog" / "colour.jpg")
    made = []
    monkeypatch.setattr(resources, "count_cores", lambda: 3)
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(images, "LONG_SECONDS", seconds)
        decoded = images.read_images(find_images(str(source)), tmp_path / f"pixels-{seconds}")
        made.append((decoded.spool.read_bytes(), decoded.facts.tolist(), decoded.unreadable))
    assert made[0] == made[1]
    spool, _, unreadable = made[0]
    assert spool != bytes(len(spool))
    assert len(unreadable) == 1


def test_an_error_comes_back_as_it_was() -> None:
    with run_on_cores(os.listdir, 2, in_processes=True) as begin:
        for done in [begin(f"/nowhere/{number}") for number in range(4)]:
            with pytest.raises(FileNotFoundError, match="/nowhere"):
                done.result()


def test_a_process_that_was_killed_is_told_of_and_none_outlives_a_parent_that_was() -> None:
    other: Process[int, None] = Process(partial(os.kill, os.getpid()))
    other(0)
    os.kill(other._process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentProblem, match="ended"):
        other(0)
    other.close()
    done = subprocess.run([sys.executable, "-c", ORPHANED], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    files, deadline = f"/proc/{int(done.stdout)}/fd/0", time.monotonic() + 60
    while os.path.exists(files) and time.monotonic() < deadline:  # noqa: PTH110  (gone, or a zombie)
        time.sleep(0.01)
    assert not os.path.exists(files)  # noqa: PTH110
