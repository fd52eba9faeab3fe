"""Folders of pictures: what is in them is prepared whole, copies are named, and odd ones end nothing."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from image_folders import drawn, prepared, report_of, write
from tasks.data.io import images, pictures
from tasks.errors import DataError, UsageError

COUNTS = {"cat": 40, "dog": 30, "10": 20}


def refused(source: Path, *words: str, **options: object) -> None:
    with pytest.raises(DataError) as caught:
        prepared(source, **options)
    for word in words:
        assert word in str(caught.value)


def test_every_picture_is_in_one_split_under_the_name_of_its_folder(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", COUNTS))
    assert made.class_names == ("10", "cat", "dog")
    splits = [safetensors.numpy.load_file(each.path) for each in (made.train, made.test)]
    pixels, labels = (np.concatenate([split[name] for split in splits]) for name in ("images", "labels"))
    found = [(made.class_names[label], image.tobytes()) for image, label in zip(pixels, labels, strict=True)]
    expected = [
        (name, drawn(label, seed).tobytes()) for label, name in enumerate(COUNTS) for seed in range(COUNTS[name])
    ]
    assert sorted(found) == sorted(expected)
    assert made.class_counts == tuple(np.bincount(splits[0]["labels"]).tolist())
    assert made.num_train + made.num_test == sum(COUNTS.values())
    assert 0.1 < made.num_test / sum(COUNTS.values()) < 0.3
    assert made.brightness == pytest.approx(pixels.mean(), abs=0.01)


def test_order_and_names_of_files_make_no_difference_and_a_changed_pixel_does(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", COUNTS), write(tmp_path / "other", COUNTS)
    for path in other.rglob("0003.png"):
        path.rename(path.with_name("zz\n.png"))
    assert prepared(one).digest == prepared(other).digest
    image = drawn(0, 3)
    image[0, 0] += 1
    Image.fromarray(image).save(other / "cat" / "zz\n.png")
    assert prepared(one).digest != prepared(other).digest


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "vehicles", {"bus": 30, "train": 40, "test": 30}))
    assert made.class_names == ("bus", "test", "train")
    assert made.split is not None
    assert made.split.rule == "rows"


def test_copies_in_both_parts_are_named_and_many_stop_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "pets" / "train", dict.fromkeys(COUNTS, 50)).parent
    write(source / "test", dict.fromkeys(COUNTS, 50), first=1000)
    write(source / "val", dict.fromkeys(COUNTS, 5), first=2000)
    for part, name in (("test", "0003.png"), ("val", "0005.png")):
        shutil.copy(source / "train" / "cat" / name, source / part / "cat" / "twin.png")
    made = prepared(source)
    assert made.rows is not None
    assert len(safetensors.numpy.load_file(made.rows.path)["other"]) == 151 + 16
    (found,) = [each for each in report_of(source).findings if each.rule == "copies-across-parts"]
    assert found.severity == "warning"
    assert "train/cat/0003.png" in found.found
    assert "test/cat/twin.png" in found.found
    assert "val" not in found.found
    shutil.copy(source / "train" / "cat" / "0004.png", source / "test" / "cat" / "twin2.png")
    for of_class in ("cat/0003.png", "cat/0004.png"):
        refused(source, "2 test images equal to a training image", of_class, "at most 1 %")


def test_pictures_of_two_classes_and_imbalance_are_warned_of(tmp_path: Path) -> None:
    source = write(tmp_path / "pets", {"cat": 80, "dog": 4})
    shutil.copy(source / "cat" / "0005.png", source / "dog" / "also.png")
    prepared(source)
    found = {each.rule: each.found for each in report_of(source).findings}
    assert "cat/0005.png and" in found["equal-images"]
    assert "80 images of cat and 5 of dog" in found["imbalance"]


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


NONE: dict[str, tuple[dict[str, int], str]] = {
    "one class": ({"cat": 40}, "one class, cat"),
    "no pictures": ({"cat": 0, "dog": 0}, "no pictures"),
    "few pictures": ({"cat": 5, "dog": 5}, "at least 10 and 20"),
    "a name that is not UTF-8": ({os.fsdecode(b"\xff"): 40, "dog": 40}, "UTF-8"),
}


@pytest.mark.parametrize("case", NONE)
def test_what_are_no_images_is_said(case: str, tmp_path: Path) -> None:
    counts, words = NONE[case]
    refused(write(tmp_path / "pets", counts), words)


def test_the_contact_sheet_shows_pictures_of_each_class_and_its_name_in_chinese_too(tmp_path: Path) -> None:
    made = prepared(write(tmp_path / "pets", {"狗": 60, "猫": 60, "cat": 60}))
    assert made.sheet is not None
    sheet = np.asarray(Image.open(made.sheet.path))
    assert sheet.shape == (3 * 60 + 4, 180 + 10 * 60, 4)
    lines = [sheet[4 + 60 * line : 60 + 60 * line, :, 3] for line in range(3)]
    assert all(line[:, 180:].mean() > 200 for line in lines), "what is transparent is no picture"
    dog, cat = (line[:30, :180] for line in lines[1:])
    assert dog.any()
    assert (dog != cat).any(), "whatever fonts are installed: letters, or what stands for them"


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
