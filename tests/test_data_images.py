"""Folders of pictures: what is in them is prepared whole, copies are named, and odd ones end nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from image_folders import Array, drawn, prepared, report_of, write, write_parquet
from tasks.data.image_dataset import find_images
from tasks.data.io import images
from tasks.data.report import DataReport, Finding
from tasks.data.schema import ImageSchema
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.machine import resources
from tasks.machine.parallel import Process

COUNTS = {"cat": 40, "dog": 30, "10": 20}


def refused(source: Path, *words: str, **options: Any) -> None:
    with pytest.raises(DataError, match="(?s)" + ".*".join(words)):
        prepared(source, **options)


def found(source: Path, rule: str) -> Finding:
    (one,) = [each for each in report_of(source).findings if each.rule == rule]
    return one


def test_every_picture_is_in_one_split_under_the_name_of_its_folder(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", {"狗": 30, **COUNTS}))
    splits = [safetensors.numpy.load_file(each.path) for each in (made.train, made.test)]
    pixels, labels = (np.concatenate([split[name] for split in splits]) for name in ("images", "labels"))
    told = [(made.class_names[label], image.tobytes()) for image, label in zip(pixels, labels, strict=True)]
    counts = {"狗": 30, **COUNTS}
    assert sorted(told) == sorted(
        (name, drawn(label, seed).tobytes()) for label, name in enumerate(counts) for seed in range(counts[name])
    )
    assert made.class_names == ("10", "cat", "dog", "狗")
    assert made.class_counts == tuple(np.bincount(splits[0]["labels"]).tolist())
    assert 12 < made.num_test < 36
    assert made.report is not None
    described = DataReport.read(made.report.path).images
    assert described is not None
    assert described.brightness == pytest.approx(pixels.mean(), abs=0.01)
    assert made.sheet is not None
    (*_, sheet) = np.asarray(Image.open(made.sheet.path))[4:, :, 3].reshape(4, 60, -1)
    assert sheet[:56, 180:].mean() > 200, "pictures of each class, whatever its script"


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_classes_that_differ_in_unicode_form_alone_are_one_spelled_as_version_1_did(
    stored: Any, tmp_path: Path
) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    source = write(tmp_path / "pets", {composed: 30, "dog": 30})
    made = prepared(write(source, {decomposed: 20}, first=500))
    assert (made.class_names, made.num_train + made.num_test) == ((composed, "dog"), 80)
    names = (unicodedata.normalize(stored, "café"), "dog")
    assert (
        prepared(
            source, ImageSchema.from_manifest(made, made.recipe).model_copy(update={"class_names": names})
        ).class_names
        == names
    )


def test_images_that_are_in_more_than_one_class_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    for number in range(7):
        shutil.copy(source / f"cat/{number:04d}.png", source / f"dog/twin{number}.png")
    prepared(source)
    copies = found(source, "equal-images").found
    assert copies.startswith("7 images found in more than one class: ")
    assert copies.count(" and ") == 5, "pairs"


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


def test_odd_folders_and_files_end_nothing(depths: Path, tmp_path: Path) -> None:
    """Loops, folders deeper than the interpreter recurses, names that are no text, and what waits for ever."""
    (depths / "t.csv").write_text("x,y")
    with pytest.raises(UsageError, match="no --target"):
        prepared(tmp_path / "pets")
    source = write(tmp_path / "pets", dict.fromkeys(COUNTS, 50))
    cat = source / "cat"
    Image.fromarray(drawn(0, 500)).save(depths / "down.png")
    os.mkfifo(cat / "pipe.png")
    for link, target in (
        (cat / "d" / "loop", source),
        (source / "round", source),
        (source / "broken-link", source / "nowhere"),
        (cat / "log.png", "/proc/kmsg"),
        (cat / "waiting.png", cat / "pipe.png"),
    ):
        link.symlink_to(target)
    (source / "README.md").write_text("about cats")
    (cat / "notes.txt").write_text("about cats")
    shutil.copy(os.fsencode(cat / "0001.png"), os.fsencode(cat) + b"/\xff.png")
    made = prepared(source)
    assert made.num_train + made.num_test == 152
    assert made.class_names == ("10", "cat", "dog")
    for rule, words in (
        ("stray-files", "README.md"),
        ("other-files", "t.csv, cat/notes.txt"),
        ("links", "links to folders (2)"),
        ("broken-images", "1 image of 153 cannot be used"),
        ("broken-images", "log.png"),
    ):
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


def labelled(*labels: Any) -> Callable[[Path], Path]:
    """Parquet of pictures with such labels."""
    return lambda folder: write_parquet(folder / "i.parquet", TRAIN[0], labels)


def archived(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return make


def mnist(folder: Path) -> Path:
    for name in ("images-idx3", "labels-idx1"):
        (folder / f"train-{name}-ubyte").touch()
    return folder


def damaged(folder: Path) -> Path:
    """One pixel of the archive has another value than when it was packed."""
    path = archived(images=IMAGES, labels=LABELS)(folder)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 100] ^= 1
    path.write_bytes(content)
    return path


def without_a_class(folder: Path) -> Path:
    path = labelled(*TRAIN[1])(folder)
    pq.write_table(pq.read_table(path).drop_columns(["label"]), path)
    return path


NO_LABEL = "of 90 rows in .*a whole number or text in each"
IMAGES, LABELS = TRAIN
REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (labelled(None, *range(89)), NO_LABEL),
    (labelled(*[0.5] * 90), NO_LABEL),
    (labelled(*[[1]] * 90), NO_LABEL),
    (without_a_class, "a column of classes, called label"),
    (archived(images=IMAGES, labels=LABELS, class_names=["a", "a", "b"]), "names a class twice"),
    (archived(images=IMAGES, labels=LABELS + 1, class_names=["a", "b", "c"]), "label 3 at row 2"),
    (archived(images=IMAGES, labels=np.array(THREE)[LABELS], class_names=THREE[:2]), "label owl at row 2 "),
    (archived(images=IMAGES, labels=LABELS, class_names=THREE[:2]), "label 2 at row 2 .*from 0 to 1"),
    (archived(images=IMAGES[:0], labels=LABELS[:0]), "no images"),
    (archived(pictures=IMAGES, labels=LABELS), "images and labels, or x_train"),
    (archived(images=IMAGES, labels=LABELS / 2), "a whole number or a name"),
    (archived(images=np.zeros((90, 3, 8, 8), np.uint8), labels=LABELS), "channels last"),
    (archived(images=IMAGES, labels=LABELS.astype(object)), "not numbers"),
    (
        archived(images=IMAGES, labels=LABELS, x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS),
        "images beside those for training and testing",
    ),
    (damaged, "a.npz cannot be read: Bad CRC-32"),
    (mnist, "no classes of images.*write them as .npz with x_train.* torchvision"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_holds_no_labelled_images_is_refused(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    refused(make(tmp_path), words)


def test_broken_pictures_in_parquet_are_named_by_file_and_row(tmp_path: Path) -> None:
    source, name = as_parquet(tmp_path / "form"), "train-00001-of-00002.parquet"
    broken = [*TRAIN[0][50:57], {"bytes": None, "path": "x.png"}, *TRAIN[0][58:]]
    write_parquet(source / "data" / name, broken, TRAIN[1][50:], THREE)
    refused(source, f"{name} row 7: none of PNG", max_rejects=0)
    found = prepared(source)
    assert found.num_train + found.num_test == len(TRAIN[1]) + len(TEST[1]) - 1


@pytest.mark.parametrize("metadata", ["[" * 100_000, '{"info": {"features": [[1]]}}', '{"info": []}', "\ufffd"])
def test_what_else_stands_in_the_metadata_of_parquet_names_no_classes(metadata: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "i.parquet", *TRAIN)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    assert prepared(path).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("form", "file", "words"),
    [
        ("safetensors", "", "cannot be read"),
        ("Keras", "", "cannot be read"),
        ("folders", "train/cat/0001.png", "changed while it was read"),
    ],
)
def test_a_file_that_is_written_to_while_it_is_trained_on_stops_the_run(
    form: str, file: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = (FORMS | {"folders": as_folders})[form](tmp_path / "form"), images.read_images

    def while_somebody_writes(*how: Any) -> Any:
        if form == "folders":
            Image.fromarray(drawn(0, 501)).save(source / file)
        else:
            os.truncate(source / file, (source / file).stat().st_size - 5000)
        return read(*how)

    monkeypatch.setattr(images, "read_images", while_somebody_writes)
    refused(source, words)


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
        made.append((decoded.spill_file.read_bytes(), decoded.facts.tolist(), decoded.unreadable))
    assert made[0] == made[1]
    spool, _, unreadable = made[0]
    assert spool != bytes(len(spool))
    assert len(unreadable) == 1


def test_a_process_that_was_killed_is_told_of_and_none_outlives_a_parent_that_was() -> None:
    other: Process[int, None] = Process(partial(os.kill, os.getpid()))
    other(0)
    os.kill(other._process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentProblem, match="exited with code -9"):
        other(0)
    other.close()
    done = subprocess.run([sys.executable, "-c", ORPHANED], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    files, deadline = f"/proc/{int(done.stdout)}/fd/0", time.monotonic() + 60
    while os.path.exists(files) and time.monotonic() < deadline:  # noqa: PTH110  (gone, or a zombie)
        time.sleep(0.01)
    assert not os.path.exists(files)  # noqa: PTH110
