"""Own images from outside: what ``gradmill inspect --json`` says of folders and archives; predictions of later ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from command_line import assert_clear, typed
from image_folders import drawn, write
from prefect_api import use_server

if TYPE_CHECKING:
    from prefect.settings import Settings

COUNTS = {"cat": 60, "dog": 50, "owl": 40}


def inspected(source: Path, *options: str) -> tuple[int, Any]:
    done = typed("inspect", source, *options, "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def every_one(folder: Path, change: Callable[[Path], object]) -> None:
    for path in sorted(folder.rglob("*.png")):
        change(path)


def every_other(folder: Path, change: Callable[[Path], object]) -> None:
    for path in sorted(folder.rglob("*.png"))[::2]:
        change(path)


def negative(path: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)


def moved(folder: Path, *parts: str) -> None:
    """Pictures by turns below folders of these parts."""
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        target = folder / parts[number % len(parts)] / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def archive(folder: Path) -> None:
    labels = np.repeat(np.arange(3), list(COUNTS.values()))
    images = [drawn(label, seed) for label, count in enumerate(COUNTS.values()) for seed in range(count)]
    shutil.rmtree(folder)
    np.savez(folder.with_suffix(".npz"), images=np.stack(images), labels=np.array(list(COUNTS))[labels])


Change = Callable[[Path], object]
SHAPES: dict[str, tuple[dict[str, Any], Change, str, list[int]]] = {
    "squares": ({"side": 12}, lambda folder: None, "", [12, 12]),
    "colour": ({"side": 12, "channels": 3}, lambda folder: None, "", [12, 12, 3]),
    "made grey": ({"side": 12, "channels": 3}, lambda folder: None, "--channels grey", [12, 12]),
    "made colour and small": ({"side": 12}, lambda folder: None, "--channels rgb --side 5", [5, 5, 3]),
    "several sizes": ({}, lambda folder: Image.new("L", (40, 20)).save(folder / "cat/wide.png"), "", [28, 28]),
    "grey saved in colour": (
        {}, lambda folder: every_other(folder, lambda path: Image.open(path).convert("RGB").save(path)), "", [8, 8]
    ),
    "other formats": (
        {}, lambda folder: every_other(folder, lambda path: Image.open(path).save(path.with_suffix(".bmp"))), "", [8, 8]
    ),
    "an archive": ({}, archive, "", [8, 8]),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_pictures_have_one_shape_their_own_or_as_asked(case: str, tmp_path: Path) -> None:
    shape, change, options, expected = SHAPES[case]
    change(write(tmp_path / "pets", COUNTS, **shape))
    (source,) = tmp_path.glob("pets*")
    code, found = inspected(source, *options.split())
    assert (code, found["images"]["shape"]) == (0, expected)
    more = {"several sizes": {"cat": 61}, "other formats": {"cat": 90, "dog": 75, "owl": 60}}.get(case, {})
    assert found["classes"] == COUNTS | more


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(("train", "test"), (75, 0, 75)), (("train", "val"), (75, 0, 75)), (("train", "val", "test"), (50, 50, 50))],
)
def test_folders_of_parts_are_the_split(parts: tuple[str, ...], expected: tuple[int, ...], tmp_path: Path) -> None:
    moved(write(tmp_path / "pets", COUNTS), *parts)
    code, found = inspected(tmp_path / "pets")
    assert (code, found["classes"]) == (0, COUNTS)
    assert (found["num_train"], found["num_validation"], found["num_test"]) == expected


def test_equal_pictures_are_on_one_side_and_a_side_is_kept_as_data_grow(tmp_path: Path) -> None:
    _, first = inspected(write(tmp_path / "first", COUNTS))
    _, rest = inspected(write(tmp_path / "rest", COUNTS, first=500))
    for number, path in enumerate(sorted((tmp_path / "rest").rglob("*.png"))):
        shutil.copy(path, tmp_path / "first" / path.parent.name / f"new-{number}.png")
        shutil.copy(path, path.with_name(f"copy-{number}.png"))
    assert inspected(tmp_path / "first")[1]["num_test"] == first["num_test"] + rest["num_test"]
    assert inspected(tmp_path / "rest")[1]["num_test"] == 2 * rest["num_test"]


FAULTS: dict[str, tuple[Change, str, str]] = {
    "one in a hundred and fifty": (lambda folder: (folder / "cat/0001.png").write_text("none"), "", ""),
    "many": (lambda folder: every_other(folder / "owl", lambda path: path.write_text("none")), "", "--max-rejects"),
    "two are tolerated": (
        lambda folder: [(folder / f"cat/{n:04}.png").write_text("none") for n in (1, 2)], "--max-rejects 0.02", ""
    ),
    "sixteen bits": (lambda folder: every_other(folder, sixteen_bits), "", "more than 8 bits"),
    "a class of one": (lambda folder: write(folder, {"newt": 1}), "", "newt"),
    "half written": (lambda folder: (folder / "cat/9.png.part").touch(), "", "9.png.part"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_no_picture_is_left_out_up_to_one_in_a_hundred_and_named(case: str, tmp_path: Path) -> None:
    change, options, words = FAULTS[case]
    change(write(tmp_path / "pets", COUNTS))
    code, found = inspected(tmp_path / "pets", *options.split())
    assert code == (4 if words else 0)
    assert words in json.dumps(found)
    if not words:
        assert "broken-images" in {each["rule"] for each in found["findings"] if each["severity"] == "warning"}


@pytest.fixture(scope="module")
def made(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures and a version of it, made by the command line."""
    folder = tmp_path_factory.mktemp("pets")
    write(folder / "pets", COUNTS)
    with pytest.MonkeyPatch.context() as patch, use_server(server_settings):
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        done = typed("retrain", "softmax-regression", "--name", "pets", "--data", folder / "pets", "--no-predict")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def pets(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the pictures, with the version in place."""
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(made / "artifacts"))
    return Path(shutil.copytree(made / "pets", tmp_path / "pets"))


LATER: dict[str, tuple[Change, str, int, str]] = {
    "as before": (lambda folder: None, "", 0, ""),
    "an empty class": (lambda folder: every_other(folder / "owl", lambda path: path.unlink()), "", 0, ""),
    "a class gone": (lambda folder: shutil.rmtree(folder / "owl"), "", 4, "owl is gone"),
    "a class more": (lambda folder: write(folder, {"newt": 40}), "", 4, "newt"),
    "another side": (lambda folder: None, "--side 5", 2, "as version 1 fixed it"),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER)
def test_later_pictures_fit_the_classes_and_shape_of_version_1_or_say_what_is_wrong(case: str, pets: Path) -> None:
    change, options, expected, words = LATER[case]
    change(pets)
    code, found = inspected(pets, "--name", "pets", *options.split())
    assert (code, words in json.dumps(found, ensure_ascii=False)) == (expected, True)


def test_later_pictures_are_brought_to_the_models_shape_and_told_by_the_names_of_folders(
    pets: Path, prefect_api: str, tmp_path: Path
) -> None:
    later = write(tmp_path / "later", {"cat": 10, "dog": 9, "owl": 8}, first=900)
    images = np.stack([drawn(label, 900 + number) for label in range(3) for number in range(8)])
    np.savez(tmp_path / "later.npz", images=images, labels=np.repeat([0, 1, 2], 8))
    for source, rows in ((later, 27), (tmp_path / "later.npz", 24)):
        done = json.loads(typed("predict", source, "--name", "pets", "--json").stdout)
        assert (done["rows"], done["rejects"], done["accuracy"]) == (rows, 0, 1.0)
        assert pq.read_table(done["path"]).column_names == [
            "row", "source", "label", "label_name", "probability_cat", "probability_dog", "probability_owl"
        ]  # fmt: skip
    np.save(tmp_path / "floats.npy", images / 255)
    assert_clear(typed("predict", tmp_path / "floats.npy", "--name", "pets"), 4)
