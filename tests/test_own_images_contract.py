"""Own images from outside: what ``gradmill inspect --json`` says of folders and archives; predictions of later ones."""

import json
import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from PIL import Image

from command_line import typed
from documents import ask, counts, rules
from image_folders import drawn, write

COUNTS = {"cat": 60, "dog": 50, "owl": 40}


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
    found = ask("inspect", source, *options.split())
    assert found["images"]["shape"] == expected
    more = {"several sizes": {"cat": 61}, "other formats": {"cat": 90, "dog": 75, "owl": 60}}.get(case, {})
    assert found["classes"] == COUNTS | more
    assert sum(found["images"]["modes"].values()) == found["rows"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("train test", (75, 0, 75)),
        ("train val", (75, 0, 75)),
        ("train valid", (75, 0, 75)),
        ("train val test", (50, 50, 50)),
        ("Training Validation Testing", (50, 50, 50)),
    ],
)
def test_folders_of_parts_are_the_split(parts: str, expected: tuple[int, int, int], tmp_path: Path) -> None:
    moved(write(tmp_path / "pets", COUNTS), *parts.split())
    write(tmp_path / "pets/unlabelled", {"all": 3}, first=4000)
    found = ask("inspect", tmp_path / "pets")
    assert (found["classes"], counts(found)) == (COUNTS, expected)
    assert "unlabelled" in next(each["found"] for each in found["findings"] if each["rule"] == "stray-files")


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    found = ask("inspect", write(tmp_path / "vehicles", {"bus": 30, "train": 40, "test": 30}))
    assert (found["classes"], found["split"]["rule"]) == ({"bus": 30, "test": 30, "train": 40}, "rows")


def test_equal_pictures_are_on_one_side_and_a_side_is_kept_as_data_grow(tmp_path: Path) -> None:
    first, rest = write(tmp_path / "first", COUNTS), write(tmp_path / "rest", COUNTS, first=500)
    before, added = (ask("inspect", each)["num_test"] for each in (first, rest))
    for number, path in enumerate(sorted(rest.rglob("*.png"))):
        shutil.copy(path, first / path.parent.name / f"new-{number}.png")
        shutil.copy(path, path.with_name(f"copy-{number}.png"))
    assert [ask("inspect", each)["num_test"] for each in (first, rest)] == [before + added, 2 * added]


def huge_png(folder: Path) -> None:
    """A header of 20,000 by 20,000 pixels."""
    small = (folder / "cat/0001.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    (folder / "cat/huge.png").write_bytes(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])


# 16383 by 16383 pixels in 34 bytes.
BLACK_WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002ffebfff0f071011fd0f4444ff03")


FAULTS: dict[str, tuple[Change, str, str]] = {
    "one in a hundred and fifty": (lambda folder: (folder / "cat/0001.png").write_text("none"), "", ""),
    "many": (lambda folder: every_other(folder / "owl", lambda path: path.write_text("none")), "", "--max-rejects"),
    "two are tolerated": (
        lambda folder: [(folder / f"cat/{n:04}.png").write_text("none") for n in (1, 2)], "--max-rejects 0.02", ""
    ),
    "sixteen bits": (lambda folder: every_other(folder, sixteen_bits), "", "more than 8 bits"),
    "a class of one": (lambda folder: write(folder, {"newt": 1}), "", "class 'newt' has 1 row"),
    "a name that is not UTF-8": (lambda folder: write(folder, {os.fsdecode(b"\xff"): 40}), "", "UTF-8"),
    "no pictures": (lambda folder: every_one(folder, Path.unlink), "", "no pictures"),
    "few pictures": (
        lambda folder: every_one(folder, lambda path: path.unlink() if int(path.stem) > 4 else None),
        "", "at least 10 and 20",
    ),
    "half written": (lambda folder: (folder / "cat/9.png.part").touch(), "", "9.png.part"),
    "ten half written": (
        lambda folder: [(folder / f"cat/{n}.png.part").write_bytes(b"") for n in range(10)], "", "2.png.part and 7 more"
    ),
    "a header of 400 million pixels": (
        huge_png, "--max-rejects 0", "huge.png: Image size (400000000 pixels) exceeds limit"
    ),
    "268 million pixels in 34 bytes": (
        lambda folder: (folder / "cat/huge.png").write_bytes(BLACK_WEBP),
        "--max-rejects 0", "huge.png: Image size (268402689 pixels) exceeds limit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_no_picture_is_left_out_up_to_one_in_a_hundred_and_named(case: str, tmp_path: Path) -> None:
    change, options, words = FAULTS[case]
    change(write(tmp_path / "pets", COUNTS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = ask("inspect", tmp_path / "pets", *options.split(), code=4 if words else 0)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert "pixels" not in case or taken < 2**17, "KiB; it would take twice as much"
    assert words in json.dumps(found)
    assert words or "broken-images" in rules(found, "warning")


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "classes"), [(1, 310), (3, 120)])
def test_more_weights_than_may_be_are_exit_4_and_name_the_side_that_fits(
    channels: int, classes: int, tmp_path: Path
) -> None:
    counts = {f"class {number:03}": 2 for number in range(classes)}
    folder = write(tmp_path / "many", counts, side=4, channels=channels)
    found = ask("inspect", folder, "--side", "256", code=4)
    (fault,) = [each for each in found["findings"] if each["rule"] == "too-many-weights"]
    side = int(fault["action"].split("--side ")[1].split()[0])
    assert side**2 * channels * classes <= 20_000_000 < (side + 1) ** 2 * channels * classes
    assert "too-many-weights" not in typed("inspect", folder, "--side", str(side), "--json").stdout


@pytest.fixture(scope="module")
def made(module_folder: Path) -> Path:
    """A folder of pictures and a version of it, made by the command line."""
    learn(write(module_folder / "pets", COUNTS), "--no-predict")
    return module_folder


def learn(source: Path, *options: str | Path) -> Any:
    return ask("retrain", "softmax-regression", "--name", "pets", "--data", source, *options)


@pytest.fixture
def pets(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the pictures, with the version in place."""
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(made / "artifacts"))
    return Path(shutil.copytree(made / "pets", tmp_path / "pets"))


def photo(width: int = 30, height: int = 20, seed: int = 0) -> Image.Image:
    """A picture in colour, of no symmetry."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height))


def odd_pictures(folder: Path) -> None:
    """Kinds of pictures that cameras, scanners and the web have."""
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "turned.jpg": ("RGB", {"exif": turned}),
        "palette.png": ("P", {}),
        "clear.png": ("P", {"transparency": 3}),
        "printed.jpg": ("CMYK", {}),
        "alpha.png": ("LA", {}),
        "bits.bmp": ("1", {}),
        "first.gif": ("RGB", {"save_all": True, "append_images": [photo().rotate(90)]}),
        "web.webp": ("RGB", {"lossless": True}),
    }
    for seed, (name, (mode, options)) in enumerate(kinds.items(), start=1):
        photo(seed=seed).convert(mode).save(folder / name, **options)
    photo(1, 1, seed=9).save(folder / "dot.png")


@pytest.mark.slow
@pytest.mark.parametrize("channels", ["grey", "rgb"])
def test_a_picture_has_the_pixels_in_prediction_that_it_has_in_training(
    channels: str, prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    """The version's own test split, whose pixels a retrain has read, and the folder of which it was."""
    moved(write(tmp_path / "pets", COUNTS), "train", "train", "test")
    odd_pictures(tmp_path / "pets/test/cat")
    done = learn(tmp_path / "pets", "--channels", channels, "--side", "12", "--epochs", "20")
    by_training = pq.read_table(done["prediction"]["path"])
    by_prediction = pq.read_table(ask("predict", f"file://{tmp_path}/pets/test", "--name", "pets")["path"])
    told = [f"probability_{name}" for name in COUNTS]
    first, other = (
        sorted(tuple(row[name] for name in told) for row in each.to_pylist()) for each in (by_training, by_prediction)
    )
    assert len(first) == 50 + 9
    assert len(set(first)) > 55, "they are told apart"
    np.testing.assert_allclose(first, other, atol=1e-6)
    shown = {
        "turned.jpg": Image.open(tmp_path / "pets/test/cat/turned.jpg").transpose(Image.Transpose.ROTATE_270),
        "clear.png": photo(seed=3).convert("P").convert("RGB"),
        "web.webp": photo(seed=8),
    }
    found = {Path(row["source"]).name: [row[name] for name in told] for row in by_prediction.to_pylist()}
    session = onnxruntime.InferenceSession(artifacts / "models/pets/1/model.onnx", providers=["CPUExecutionProvider"])
    for name, picture in shown.items():
        converted = picture.convert("L" if channels == "grey" else "RGB")
        pixels = np.asarray(converted.resize((12, 12), Image.Resampling.BILINEAR))[None]
        (probabilities,) = session.run(["probabilities"], {"images": pixels})[0]
        np.testing.assert_allclose(found[name], probabilities, atol=1e-6)


@pytest.mark.slow
def test_pictures_are_judged_by_the_names_of_their_folders(pets: Path, prefect_api: str, tmp_path: Path) -> None:
    new = write(tmp_path / "new", {"cat": 20, "dog": 30}, first=1000)
    (new / "cat/broken.png").write_bytes(b"no picture")
    sixteen_bits(new / "dog/deep.png")
    done = ask("predict", new, "--name", "pets", "--write", "label", "--max-rejects", "2")
    rows = pq.read_table(done["path"]).to_pandas()
    assert [*rows] == ["row", "source", "label", "label_name", "rejected"]
    rejected = dict(rows.loc[rows["rejected"].notna(), ["source", "rejected"]].to_numpy().tolist())
    assert rejected.keys() == {str(new / "cat/broken.png"), str(new / "dog/deep.png")}
    assert "it cannot be used: none of PNG" in rejected[str(new / "cat/broken.png")]
    assert "it cannot be used: mode I;16" in rejected[str(new / "dog/deep.png")]
    rows = rows[rows["rejected"].isna()]
    judged = ask("evaluate", "pets", new, "--max-rejects", "0.1")
    assert (judged["rows"], judged["broken"], judged["trained_on"]) == (50, 2, 0)
    truth = rows["source"].map(lambda path: Path(path).parent.name)
    is_right = rows["label_name"] == truth
    assert done["accuracy"] == pytest.approx(is_right.mean())
    assert judged["metrics"]["accuracy"] == pytest.approx(is_right.mean())
    assert judged["recall"] == pytest.approx(is_right.groupby(truth).mean().to_dict())
    judged = ask("evaluate", "pets", pets)
    assert judged["trained_on"] == judged["rows"] - judged["published_rows"]
    ask("evaluate", "pets", new, code=4)
    ask("evaluate", "pets", new, "--time-column", "sold", code=2)


LATER: dict[str, tuple[Change, str, int, str]] = {
    "as before": (lambda folder: None, "", 0, ""),
    "an empty class": (lambda folder: every_one(folder / "owl", Path.unlink), "", 0, "no image of the class owl"),
    "a class gone": (lambda folder: shutil.rmtree(folder / "owl"), "", 4, "owl is gone"),
    "a class more": (lambda folder: write(folder, {"newt": 40}), "", 4, "new: the class newt"),
    "negatives": (lambda folder: every_one(folder, negative), "", 0, ""),
    "parts": (lambda folder: moved(folder, "train", "test"), "", 4, "images in parts for training and testing"),
    "another side": (lambda folder: None, "--side 5", 2, "as version 1 fixed it"),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER)
def test_later_pictures_fit_the_classes_and_shape_of_version_1_or_say_what_is_wrong(case: str, pets: Path) -> None:
    change, options, code, words = LATER[case]
    change(pets)
    found = ask("inspect", pets, "--name", "pets", *options.split(), code=code)
    assert words in json.dumps(found, ensure_ascii=False)


@pytest.mark.slow
def test_predict_and_evaluate_take_whole_numbers_for_classes_of_such_names_and_never_for_positions(
    prefect_api: str, tmp_path: Path
) -> None:
    images = np.stack([drawn(label, number) for label in range(3) for number in range(40)])
    np.savez(tmp_path / "own.npz", images=images, labels=np.repeat([-1, 1, 5], 40))
    learn(tmp_path / "own.npz", "--no-predict")
    judged = ask("evaluate", "pets", tmp_path / "own.npz")["metrics"]["accuracy"]
    assert judged == ask("predict", tmp_path / "own.npz", "--name", "pets")["accuracy"] > 0.9
    np.savez(tmp_path / "positions.npz", images=images[:80], labels=np.repeat([0, 2], 40))
    assert ask("predict", tmp_path / "positions.npz", "--name", "pets")["accuracy"] is None
    ask("evaluate", "pets", tmp_path / "positions.npz", code=4)
