"""Folders of pictures: classes by name, pixels as Pillow has them, a split that stays, and bad ones found and named."""

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from image_folders import Array, drawn, prepared, report_of, write
from tasks.data import image_dataset
from tasks.data.image_dataset import ImageRows
from tasks.data.io import images, pictures
from tasks.data.io.images import LabelledImages
from tasks.data.schema import ImageSchema
from tasks.data.split import TEST, TRAINING, Split
from tasks.data.target import Truth
from tasks.errors import DataError, UsageError
from tasks.records import PreparedDataset

COUNTS = {"cat": 40, "dog": 30, "10": 20}


@pytest.fixture(autouse=True)
def _artifacts(artifacts: Path) -> None:
    """Nothing is written anywhere else."""


def splits(made: PreparedDataset) -> dict[str, dict[str, Array]]:
    return {name: safetensors.numpy.load_file(getattr(made, name).path) for name in ("train", "test")}


def images_by_class(made: PreparedDataset) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {name: [] for name in made.class_names}
    for split in splits(made).values():
        for image, label in zip(split["images"], split["labels"], strict=True):
            found[made.class_names[label]].append(image.tobytes())
    return {name: sorted(each) for name, each in found.items()}


def fixed(made: PreparedDataset) -> ImageSchema:
    found = ImageSchema.from_manifest(made, made.recipe)
    assert found is not None
    return found


def refused(source: Path, *words: str, **options: object) -> None:
    with pytest.raises(DataError) as caught:
        prepared(source, **options)
    for word in words:
        assert word in str(caught.value)


def test_every_picture_is_in_one_split_under_the_name_of_its_folder(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", COUNTS))
    assert made.class_names == ("10", "cat", "dog")
    expected = {name: sorted(drawn(label, seed).tobytes() for seed in range(count))
                for label, (name, count) in enumerate(COUNTS.items())}  # fmt: skip
    assert images_by_class(made) == expected
    assert made.class_counts == tuple(np.bincount(splits(made)["train"]["labels"]).tolist())
    assert made.num_train + made.num_test == sum(COUNTS.values())
    assert 0.1 < made.num_test / sum(COUNTS.values()) < 0.3


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".webp"])
def test_the_format_of_files_makes_no_difference(suffix: str, tmp_path: Path) -> None:
    lossless: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    source = write(tmp_path / "pets", COUNTS)
    other = tmp_path / "other"
    for path in source.rglob("*.png"):
        target = other / path.relative_to(source).with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target, **lossless)
    assert prepared(other).digest == prepared(source).digest
    assert prepared(other).recipe.input.shape == (8, 8)


def test_pictures_of_several_sizes_become_squares_of_28_as_prediction_makes_them(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    wide = np.arange(20 * 40, dtype=np.uint8).reshape(20, 40)
    Image.fromarray(wide).save(source / "cat" / "wide.png")
    made = prepared(source)
    assert made.recipe.input.shape == (28, 28)
    expected = np.asarray(Image.fromarray(wide).resize((28, 28), Image.Resampling.BILINEAR))
    assert expected.tobytes() in images_by_class(made)["cat"]
    assert pictures.decode(source / "cat" / "wide.png", (28, 28))[0].tobytes() == expected.tobytes()


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    turned, exif = drawn(0, 77), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(turned).save(source / "cat" / "turned.png", exif=exif)
    assert np.rot90(turned, -1).tobytes() in images_by_class(prepared(source))["cat"]


def test_palettes_print_colours_and_transparency_are_read_and_sixteen_bits_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS, channels=3)
    image = Image.fromarray(drawn(0, 77, channels=3))
    image.quantize(16).save(source / "cat" / "palette.png", transparency=bytes([0, 128]))
    image.convert("RGBA").save(source / "cat" / "alpha.png")
    image.convert("CMYK").save(source / "cat" / "print.jpg")
    image.save(source / "cat" / "animated.gif", save_all=True, append_images=[image.rotate(90)])
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(source / "cat" / "deep.png")
    made = prepared(source, max_rejects=0.02)
    found = report_of(source)
    assert found.images is not None
    assert set(found.images.modes) >= {"RGB", "P", "RGBA", "CMYK"}
    assert found.images.broken == 1
    (broken,) = [each for each in found.findings if each.rule == "broken-images"]
    assert "deep.png: mode I;16 has more than 8 bits a channel: save it with 8" in broken.found
    assert image.tobytes() in images_by_class(made)["cat"], "of the picture with transparency, its colours"


def test_order_and_names_of_files_make_no_difference_and_a_changed_pixel_does(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", COUNTS), write(tmp_path / "other", COUNTS)
    for path in other.rglob("0003.png"):
        path.rename(path.with_name("zz\n.png"))
    assert prepared(one).digest == prepared(other).digest
    image = drawn(0, 3)
    image[0, 0] += 1
    Image.fromarray(image).save(other / "cat" / "zz\n.png")
    assert prepared(one).digest != prepared(other).digest


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_of_the_splits_are_respected(val: str, tmp_path: Path) -> None:
    source = write(tmp_path / "pets" / "train", COUNTS).parent
    write(source / val, dict.fromkeys(COUNTS, 5), first=2000)
    without_test = prepared(source)
    assert (without_test.num_train, without_test.num_test) == (90, 15)
    write(source / "test", dict.fromkeys(COUNTS, 7), first=3000)
    write(source / "unlabelled", {"all": 3}, first=4000)
    made = prepared(source)
    assert "unlabelled" in next(each.found for each in report_of(source).findings if each.rule == "stray-files")
    assert made.split is not None
    assert (made.num_train, made.num_test, made.split.rule) == (90, 21, "folders")
    assert made.rows is not None
    assert len(safetensors.numpy.load_file(made.rows.path)["other"]) == 21 + 15


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "vehicles", {"bus": 30, "train": 40, "test": 30}))
    assert made.class_names == ("bus", "test", "train")
    assert made.split is not None
    assert made.split.rule == "rows"


def test_copies_in_both_parts_are_named_and_many_stop_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "pets" / "train", dict.fromkeys(COUNTS, 50)).parent
    write(source / "test", dict.fromkeys(COUNTS, 50), first=1000)
    shutil.copy(source / "train" / "cat" / "0003.png", source / "test" / "cat" / "twin.png")
    prepared(source)
    (found,) = [each for each in report_of(source).findings if each.rule == "copies-across-parts"]
    assert found.severity == "warning"
    assert "train/cat/0003.png" in found.found
    assert "test/cat/twin.png" in found.found
    shutil.copy(source / "train" / "cat" / "0004.png", source / "test" / "cat" / "twin2.png")
    for of_class in ("cat/0003.png", "cat/0004.png"):
        refused(source, "2 test images equal to a training image", of_class, "at most 1 %")


def test_a_negative_of_the_data_before_may_be_meant(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    first = prepared(source)
    for path in source.rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert prepared(source, fixed(first)).brightness == pytest.approx(255 - (first.brightness or 0), abs=0.01)


# 16383 by 16383 pixels in 34 bytes.
BLACK_WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002ffebfff0f071011fd0f4444ff03")


def test_a_picture_of_20000_by_20000_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    whole = (source / "cat" / "0001.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + whole[24:29]
    huge = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    (source / "cat" / "huge.png").write_bytes(huge)
    refused(source, "huge.png: Image size (400000000 pixels) exceeds limit of 64000000", max_rejects=0.0)
    (source / "cat" / "huge.png").write_bytes(BLACK_WEBP)
    refused(source, "huge.png: Image size (268402689 pixels) exceeds limit of 64000000", max_rejects=0.0)


@pytest.mark.parametrize(("classes", "channels"), [(310, 1), (1000, 3), (120, 3)])
def test_more_weights_than_may_be_name_the_side_that_fits(classes: int, channels: int) -> None:
    shape = (256, 256) if channels == 1 else (256, 256, 3)
    (found,) = image_dataset.check_num_weights(shape, classes)
    side = int(found.action.split("--side ")[1].split()[0])
    assert side**2 * channels * classes <= 20_000_000 < (side + 1) ** 2 * channels * classes
    assert not list(image_dataset.check_num_weights((side, side, *shape[2:]), classes))


def test_a_class_needs_two_pictures_to_learn_from_and_imbalance_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", {"cat": 80, "dog": 4})
    prepared(source)
    assert "imbalance" in {each.rule for each in report_of(source).findings}
    shutil.rmtree(source / "dog")
    write(source, {"dog": 1})
    refused(source, "class 'dog' has 1 row")


def test_pictures_of_two_classes_are_warned_of(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    shutil.copy(source / "cat" / "0005.png", source / "dog" / "also.png")
    prepared(source)
    found = {each.rule: each.found for each in report_of(source).findings}
    assert "cat/0005.png and" in found["equal-images"]


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
    found = {each.rule: each.found for each in report_of(source).findings}
    assert "README.md" in found["stray-files"]
    assert "notes.txt" in found["other-files"]
    assert "links to folders (2)" in found["links"]


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
    (found,) = [each.found for each in report_of(source).findings if each.rule == "broken-images"]
    assert "1 image of 151 cannot be read" in found
    assert "log.png" in found
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is no regular file"):
            pictures.decode(path, (8, 8))


def test_copies_are_found_without_a_python_call_for_each() -> None:
    """Half a million images and their copies are examined while the data set's lock is held."""
    calls = []
    for count in (100, 5000):
        source = LabelledImages("", "", ("a", "b"), np.zeros(2 * count, np.int64), None, 1, iter, str)  # type: ignore[arg-type]
        hashes = np.tile(np.arange(1, count + 1, dtype=np.uint64), 2)
        labels, sides = np.arange(2 * count) // count, np.where(np.arange(2 * count) < count, TRAINING, TEST)
        truth = Truth(labels.astype(np.uint8), np.ones(2 * count, bool), ("a", "b"), ())
        rows = ImageRows(None, np.arange(2 * count), truth, Split(sides.astype(np.uint8), hashes), hashes)  # type: ignore[arg-type]
        counted: list[str] = []
        sys.setprofile(lambda _, event, __, counted=counted: counted.append(event))  # type: ignore[misc]
        try:
            found = list(image_dataset.check_copies(source, rows))
        finally:
            sys.setprofile(None)
        calls.append(len(counted))
        assert f"{count:,} test images equal to a training image: 0 and {count}; 1 and {count + 1};" in found[0].found
        assert f"{count:,} images in more than one class: 0 and {count}" in found[1].found
    assert calls[0] == calls[1]


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


@pytest.mark.parametrize(("name", "words"), [(b"a\nb", "names of one line"), (b"\xff", "UTF-8")])
def test_a_class_with_a_name_that_cannot_be_written_is_refused(name: bytes, words: str, tmp_path: Path) -> None:
    source = write(tmp_path / "pets", COUNTS)
    (source / "cat").rename(source / os.fsdecode(name))
    refused(source, words)


def test_what_are_no_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no classes")
    refused(write(tmp_path / "one", {"cat": 40}), "one class, cat")
    (tmp_path / "none" / "cat").mkdir(parents=True)
    refused(tmp_path / "none", "no pictures")
    refused(write(tmp_path / "few", {"cat": 5, "dog": 5}), "at least 10 and 20")
    with pytest.raises(DataError, match="no folder"):
        prepared(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no --target"):
        prepared(tmp_path / "houses.csv")


def test_the_contact_sheet_shows_pictures_of_each_class(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", COUNTS))
    assert made.sheet is not None
    sheet = np.asarray(Image.open(made.sheet.path))
    assert sheet.shape == (3 * 60 + 4, 180 + 10 * 60, 4)
    lines = [sheet[4 + 60 * line : 60 + 60 * line, 180:, 3] for line in range(3)]
    assert all(line.mean() > 200 for line in lines), "what is transparent is no picture"


def test_classes_with_chinese_names_can_be_told_apart_on_the_contact_sheet(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", {"狗": 60, "猫": 60}))
    assert made.sheet is not None
    dog, cat = (np.asarray(Image.open(made.sheet.path))[at : at + 30, :180, 3] for at in (4, 64))
    assert dog.any()
    assert (dog != cat).any(), "whatever fonts are installed: letters, or what stands for them"


def test_parts_that_lie_one_after_another_are_written_whole_however_large(tmp_path: Path) -> None:
    """More images than are read at a time, so that some of a part's blocks hold none of its images."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9000, 2, 3), np.uint8), np.arange(9000) % 3
    parts: dict[str, Any] = {
        "x_train": images[:8900],
        "y_train": labels[:8900],
        "x_test": images[8900:],
        "y_test": labels[8900:],
    }
    np.savez(tmp_path / "many.npz", **parts)
    made = prepared(tmp_path / "many.npz", side=2)
    written = safetensors.numpy.load_file(made.test.path)
    assert written["labels"].tolist() == labels[8900:].tolist()
    assert made.num_train == 8900
