"""Prediction with a model of one's own images: the pixels that training saw, the truth that the input tells of."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from command_line import gradmill
from image_folders import drawn, write
from input_files import idx_bytes, read, rejected, values
from tasks.data import image_dataset
from tasks.data.io import images as own_images
from tasks.data.io import inputs
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.io.discovery import base_folder
from tasks.data.recipe import Pixels
from tasks.errors import DataError, UsageError

CLASSES = ("cat", "dog", "owl")
GREY, RGB = (
    ReadSpec(Pixels(shape=shape, scale=1 / 255, resize="bilinear"), y_name="labels", class_names=CLASSES)
    for shape in ((8, 8), (8, 8, 3))
)
COUNTS = {"cat": 3, "dog": 2, "owl": 2}


def photo(width: int = 30, height: int = 20) -> Image.Image:
    """A picture in colour, of no symmetry."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height))


def odd_pictures(folder: Path) -> Path:
    """Every kind of picture that cameras, scanners and the web have, as files of a class."""
    (folder / "cat" / "deep" / "er").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    place = folder / "cat"
    photo().save(place / "turned.jpg", exif=turned)
    photo().convert("P").save(place / "palette.png")
    photo().convert("P").save(place / "clear.png", transparency=3)
    photo().convert("CMYK").save(place / "printed.jpg")
    photo().convert("LA").save(place / "deep" / "alpha.png")
    photo().convert("1").save(place / "deep" / "er" / "bits.bmp")
    photo().save(place / "first.gif", save_all=True, append_images=[photo(30, 20).rotate(90)])
    photo().save(place / "web.webp", lossless=True)
    photo(1, 1).save(place / "dot.png")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(place / "sixteen.png")
    (place / "broken.png").write_bytes((place / "palette.png").read_bytes()[:60])
    return folder


def truth(chunks: list[Batch]) -> list[float] | None:
    found = [chunk.y_true for chunk in chunks]
    return None if any(each is None for each in found) else np.concatenate([*found]).tolist()


def predicted(path: Path, wanted: ReadSpec = GREY) -> list[Batch]:
    """As ``input_files.read`` has it, with the folder that tells of classes."""
    spool = path.parent / f"spool-{path.name}"
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, wanted, spool, base_folder(path))
    return list(inputs.batches(sources, 0, sources[-1].first_row + sources[-1].rows, wanted))


@pytest.mark.parametrize("wanted", [GREY, RGB], ids=["grey", "rgb"])
def test_a_picture_of_any_kind_has_the_pixels_in_prediction_that_it_has_in_training(
    wanted: ReadSpec, tmp_path: Path
) -> None:
    folder = odd_pictures(tmp_path / "pets")
    source = image_dataset.find_images(str(folder))
    trained = own_images.read_images(source, tmp_path / "pixels", wanted.recipe.input.shape)
    pixels = np.concatenate([block for _, block in trained.blocks()])
    names = [source.place(number) for number in range(len(pixels))]
    in_training = {
        name: image for name, image, whole in zip(names, pixels, trained.facts["is_readable"], strict=True) if whole
    }
    chunks = predicted(folder, wanted)
    found = [chunk.sources[at] for chunk in chunks for at in chunk.source_index]
    assert sorted(found) == sorted(in_training)
    for name, image in zip(found, values(chunks), strict=True):
        np.testing.assert_array_equal(image, in_training[name], name)
    refused = {Path(each.source).name: each.reason for chunk in chunks for each in chunk.rejects}
    assert set(refused) == {"sixteen.png", "broken.png"} == {Path(names[at]).name for at in trained.unreadable}
    assert all(reason.startswith("it is no picture") for reason in refused.values()), "its path is told beside"


@pytest.mark.parametrize("wanted", [GREY, RGB], ids=["grey", "rgb"])
def test_arrays_of_another_size_or_colour_become_what_training_makes_of_the_same_pictures(
    wanted: ReadSpec, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    for number, shape in enumerate([(4, 12, 9), (4, 12, 9, 3), (4, 8, 8), (4, 8, 8, 3), (4, 8, 8, 1)]):
        images = rng.integers(0, 256, shape, np.uint8)
        np.save(tmp_path / f"{number}.npy", images)
        (tmp_path / str(number) / "cat").mkdir(parents=True)
        for row, image in enumerate(images):
            picture = Image.fromarray(image[..., 0] if shape[3:] == (1,) else image)
            picture.save(tmp_path / str(number) / "cat" / f"{row}.png")
        of_files = values(predicted(tmp_path / str(number), wanted))
        np.testing.assert_array_equal(values(predicted(tmp_path / f"{number}.npy", wanted)), of_files)


def test_grey_arrays_with_an_axis_for_their_channel_are_not_converted(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", np.zeros((4, 8, 8, 1), np.uint8))
    np.save(tmp_path / "large.npy", np.zeros((4, 9, 8, 1), np.uint8))
    assert [note for chunk in predicted(tmp_path / "grey.npy") for note in chunk.notes] == []
    assert [note for chunk in predicted(tmp_path / "large.npy") for note in chunk.notes] == ["resized to 8 by 8"] * 4


def test_floats_and_odd_shapes_are_refused_by_their_file(tmp_path: Path) -> None:
    odd: list[Any] = [np.zeros((3, 8, 8)), np.zeros((3, 3, 8, 8), np.uint8), np.zeros((3, 64), np.uint8)]
    for number, images in enumerate(odd):
        np.savez(tmp_path / f"{number}.npz", images=images)
        with pytest.raises(DataError, match=f"{number}\\.npz holds"):
            predicted(tmp_path / f"{number}.npz")


LAYOUTS = {
    "class folders": ("{0}/{1}.png", "", [0, 0, 0, 1, 1, 2, 2]),
    "below a part": ("test/{0}/{1}.png", "", [0, 0, 0, 1, 1, 2, 2]),
    "deeper": ("{0}/2026/{1}.png", "", [0, 0, 0, 1, 1, 2, 2]),
    "one class": ("{0}/{1}.png", "dog", [1, 1]),
    "a glob": ("{0}/{1}.png", "*/1.png", [0, 1, 2]),
    "other folders": ("photos-{0}/{1}.png", "", None),
    "no folders": ("{0}-{1}.png", "", None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_called_as_the_models_classes_tell_the_truth_and_others_do_not(layout: str, tmp_path: Path) -> None:
    pattern, below, expected = LAYOUTS[layout]
    for label, (name, count) in enumerate(COUNTS.items()):
        for number in range(count):
            path = tmp_path / "cat-pictures" / pattern.format(name, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn(label, number)).save(path)
    assert truth(predicted(tmp_path / "cat-pictures" / below)) == expected


def test_a_picture_in_no_class_takes_the_accuracy_from_all_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "pets", COUNTS | {"newt": 1})
    assert truth(predicted(tmp_path / "pets")) is None
    assert "1 picture in no folder of a class, the first is" in capsys.readouterr().out


def test_what_describes_pictures_lies_among_them_unread(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", COUNTS)
    (folder / "metadata.csv").write_text("file_name,label\ncat/0000.png,cat\n")
    (folder / "notes.jsonl").write_text("{}\n")
    assert len(values(predicted(folder))) == 7


IMAGES = np.stack([drawn(label, seed) for label in range(3) for seed in range(4)])
LABELS = np.repeat(np.arange(3), 4)
ARCHIVES: dict[str, Any] = {
    "images.npz": lambda path: np.savez(path, images=IMAGES, labels=LABELS),
    "keras.npz": lambda path: np.savez_compressed(
        path, x_train=IMAGES[:1], y_train=LABELS[:1], x_test=IMAGES, y_test=LABELS[:, None].astype(np.uint8)
    ),
    "names.npz": lambda path: np.savez(path, images=IMAGES, labels=np.array(CLASSES)[LABELS]),
    "in another order.npz": lambda path: np.savez(path, images=IMAGES, labels=2 - LABELS, class_names=CLASSES[::-1]),
    "rows.safetensors": lambda path: safetensors.numpy.save_file({"images": IMAGES, "labels": LABELS}, path),
    "keras.safetensors": lambda path: safetensors.numpy.save_file({"x_test": IMAGES, "y_test": LABELS}, path),
    "bare.npz": lambda path: np.savez(path, IMAGES),
    "bare.npy": lambda path: np.save(path, IMAGES),
    "bare-idx3-ubyte": lambda path: path.write_bytes(idx_bytes(IMAGES)),
    "test-images-idx3-ubyte": lambda path: idx_files(path, LABELS),
    "t10k-images-idx3-ubyte.gz": lambda path: idx_files(path, LABELS),
    "emnist-images-idx3-ubyte": lambda path: idx_files(path, LABELS, ".gz"),
    "kmnist-images-idx3-ubyte.gz": lambda path: idx_files(path, 2 - LABELS, names=CLASSES[::-1]),
}


def idx_files(path: Path, labels: Any, suffix: str = "", names: tuple[str, ...] = ()) -> None:
    """A file of images, and beside it one of labels and their names."""
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1") + suffix)
    for each, array in ((path, IMAGES), (beside, labels.astype(np.uint8))):
        content = idx_bytes(array)
        each.write_bytes(gzip.compress(content) if each.suffix == ".gz" else content)
    if names:
        (path.parent / "labels.txt").write_text("\n".join(names))


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_its_images_and_where_it_has_some_its_labels(name: str, tmp_path: Path) -> None:
    ARCHIVES[name](tmp_path / name)
    chunks = predicted(tmp_path / name)
    np.testing.assert_array_equal(values(chunks), IMAGES)
    assert truth(chunks) == (None if "bare" in name else LABELS.tolist())


def test_whole_numbers_are_the_classes_own_names_where_these_are_whole_numbers(tmp_path: Path) -> None:
    labels = np.array([3, 5, 7, 9])
    np.savez(tmp_path / "odd.npz", images=IMAGES[:4], labels=labels)
    assert truth(predicted(tmp_path / "odd.npz", GREY._replace(class_names=("3", "5", "7")))) == [0, 1, 2, -1]
    prepared = {"images": IMAGES[:4], "labels": labels - 3, "split_key": np.arange(4)}
    safetensors.numpy.save_file(prepared, tmp_path / "test.safetensors")
    found = predicted(tmp_path / "test.safetensors", GREY._replace(class_names=("3", "5", "7")))
    assert truth(found) == [0, 2, 4, 6], "a prepared split has places"


def test_labels_of_other_classes_alone_are_no_truth(tmp_path: Path) -> None:
    np.savez(tmp_path / "birds.npz", images=IMAGES, labels=LABELS, class_names=["gull", "hen", "jay"])
    assert truth(predicted(tmp_path / "birds.npz")) is None
    np.savez(tmp_path / "some.npz", images=IMAGES[:2], labels=np.array(["gull", "owl"]))
    assert truth(predicted(tmp_path / "some.npz")) == [-1, 2]


def test_labels_of_another_number_than_images_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "cut.npz", images=IMAGES, labels=LABELS[:-1])
    with pytest.raises(DataError, match=r"cut\.npz holds int64 labels of shape \[11\]"):
        predicted(tmp_path / "cut.npz")
    idx_files(tmp_path / "t10k-images-idx3-ubyte", LABELS[:-1])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte holds uint8 labels of shape \[11\]"):
        predicted(tmp_path / "t10k-images-idx3-ubyte")


def packed(array: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def hugging_face(path: Path, labels: Any, names: list[str] | None = None, **more: Any) -> Path:
    """As the library ``datasets`` writes it; the third picture is broken, and the fourth is none."""
    pictures: list[Any] = [{"bytes": packed(image), "path": f"{row}.png"} for row, image in enumerate(IMAGES)]
    pictures[2], pictures[3] = {"bytes": b"\x89PNG no picture", "path": "spoilt.png"}, None
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(pictures, kind), "label": labels, **more})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=5)
    return path


def test_parquet_of_pictures_gives_pixels_truth_ids_and_rejects_with_their_names(tmp_path: Path) -> None:
    path = hugging_face(
        tmp_path / "test.parquet", LABELS[::-1], ["owl", "dog", "cat"], name=[f"n{row}" for row in range(12)]
    )
    chunks = predicted(path, GREY._replace(ids=("name",)))
    kept = np.delete(np.arange(12), [2, 3])
    np.testing.assert_array_equal(values(chunks), IMAGES[kept])
    assert truth(chunks) == LABELS[kept].tolist(), "by name, whatever their order in the file"
    assert [each.as_py() for chunk in chunks if chunk.passthrough for each in chunk.passthrough["name"]] == [
        f"n{row}" for row in kept
    ]
    assert "spoilt.png is no picture" in rejected(chunks)[2]
    assert "it is no picture" in rejected(chunks)[3]
    with pytest.raises(DataError, match="columns image"):
        predicted(path, GREY._replace(ids=("number",)))


def test_labels_of_parquet_may_be_words_or_missing_or_of_other_classes(tmp_path: Path) -> None:
    words = hugging_face(tmp_path / "words.parquet", [*np.array(CLASSES)[LABELS][:-1].tolist(), None])
    assert truth(predicted(words))[:-1] == np.delete(LABELS, [2, 3])[:-1].tolist()  # type: ignore[index]
    assert np.isnan(truth(predicted(words))[-1])  # type: ignore[index]
    hidden = hugging_face(tmp_path / "hidden.parquet", np.full(12, -1), [*CLASSES])
    assert np.isnan(truth(predicted(hidden))).all()  # type: ignore[arg-type]
    others = hugging_face(tmp_path / "others.parquet", LABELS, ["car", "bus", "van"])
    assert truth(predicted(others)) is None


def test_raw_pixels_in_parquet_and_ids_of_arrays_are_refused(tmp_path: Path) -> None:
    raw = pa.array([image.tobytes() for image in IMAGES])
    pq.write_table(pa.table({"pixels": raw, "key": pa.array(range(12))}), tmp_path / "raw.parquet")
    with pytest.raises(DataError, match=r"raw.parquet has columns pixels \(binary\).*\n.*a column of pictures"):
        read(tmp_path / "raw.parquet", GREY._replace(ids=("key",)), tmp_path)
    np.save(tmp_path / "rows.npy", IMAGES)
    with pytest.raises(UsageError, match="--id-column key"):
        read(tmp_path / "rows.npy", GREY._replace(ids=("key",)), tmp_path)


@pytest.mark.slow  # a whole retrain and two predictions as commands: 40 s
def test_own_pictures_are_predicted_from_folder_to_accuracy_on_the_command_line(
    on_server: None, tmp_path: Path
) -> None:
    pets, later = write(tmp_path / "pets", {"cat": 60, "dog": 60, "owl": 60}), tmp_path / "later"
    write(later, {"cat": 500, "dog": 510}, first=100)
    (later / "cat" / "0100.png").write_bytes(b"no picture")
    gradmill("retrain", "softmax-regression", "--name", "pets", "--data", str(pets), "--no-predict")
    done = json.loads(gradmill("predict", str(later), "--name", "pets", "--write", "label", "--json").stdout)
    assert (done["rows"], done["rejects"], done["accuracy"]) == (1009, 1, 1.0)
    assert done["drift"]["verdict"] == "drift", "no owls"
    table = pq.read_table(done["path"])
    assert table.column_names == ["row", "source", "label", "label_name"]
    names = [Path(source).parent.name for source in table["source"].to_pylist()]
    assert table["label_name"].to_pylist() == names
    (reject,) = pq.read_table(Path(done["path"]) / "_rejects.parquet").to_pylist()
    assert reject["source"] == str(later / "cat" / "0100.png")
    assert "is no picture" in reject["reason"]
    on_test = json.loads(gradmill("predict", "--name", "pets", "--json").stdout)
    assert on_test["accuracy"] == 1.0, "without an input, the test split"
