"""Prediction with a model of one's own images: the pixels that training saw, the truth that the input tells of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from image_folders import drawn, write, write_idx, write_parquet
from input_files import idx_bytes, rejected, values
from tasks.data.io import inputs
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.io.discovery import base_folder
from tasks.data.recipe import Pixels
from tasks.errors import DataError

CLASSES = ("cat", "dog", "owl")
GREY, RGB = (
    ReadSpec(Pixels(shape=shape, scale=1 / 255, resize="bilinear"), y_name="labels", class_names=CLASSES)
    for shape in ((8, 8), (8, 8, 3))
)
COUNTS = {"cat": 3, "dog": 2, "owl": 2}


def truth(chunks: list[Batch]) -> list[float] | None:
    found = [chunk.y_true for chunk in chunks]
    return None if any(each is None for each in found) else np.concatenate([*found]).tolist()


def notes(chunks: list[Batch]) -> list[str]:
    return sorted(note for chunk in chunks for note in chunk.notes)


def predicted(path: Path, wanted: ReadSpec = GREY) -> list[Batch]:
    """As ``input_files.read`` has it, with the folder that tells of classes."""
    spool = path.parent / f"spool-{path.name}"
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, wanted, spool, base_folder(path))
    return list(inputs.read_batches(sources, 0, sources[-1].first_row + sources[-1].rows, wanted))


@pytest.mark.parametrize("wanted", [GREY, RGB], ids=["grey", "rgb"])
def test_arrays_of_another_size_or_colour_become_what_training_makes_of_the_same_pictures(
    wanted: ReadSpec, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    for number, shape in enumerate([(4, 12, 9), (4, 12, 9, 3), (4, 8, 8), (4, 8, 8, 3), (4, 8, 8, 1)]):
        images, folder = rng.integers(0, 256, shape, np.uint8), tmp_path / str(number)
        np.save(tmp_path / f"{number}.npy", images)
        folder.mkdir()
        for row, image in enumerate(images):
            Image.fromarray(image.squeeze()).save(folder / f"{row}.png")
        of_files, of_array = (predicted(path, wanted) for path in (folder, tmp_path / f"{number}.npy"))
        np.testing.assert_array_equal(values(of_array), values(of_files))
        assert notes(of_array) == notes(of_files), "what was done to them is said alike"


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
    """What describes pictures lies among them unread."""
    folder = write(tmp_path / "pets", COUNTS | {"newt": 1})
    (folder / "metadata.csv").write_text("file_name,label\ncat/0000.png,cat\n")
    (folder / "notes.jsonl").write_text("{}\n")
    found = predicted(folder)
    assert (len(values(found)), truth(found)) == (8, None)
    assert "1 picture in no folder of a class, the first is" in capsys.readouterr().out


IMAGES = np.stack([drawn(label, seed) for label in range(3) for seed in range(4)])
LABELS = np.repeat(np.arange(3), 4)


NAMED = np.array(CLASSES)[LABELS]


def write_named_idx(path: Path) -> None:
    write_idx(path, IMAGES, 2 - LABELS)
    (path.parent / "labels.txt").write_text("\n".join(CLASSES[::-1]))


ARCHIVES: dict[str, Any] = {
    "keras.npz": lambda path: np.savez_compressed(
        path, x_train=IMAGES[:1], y_train=LABELS[:1], x_test=IMAGES, y_test=LABELS[:, None].astype(np.uint8)
    ),
    "names.npz": lambda path: np.savez(path, images=IMAGES, labels=NAMED),
    "in another order.npz": lambda path: np.savez(path, images=IMAGES, labels=2 - LABELS, class_names=CLASSES[::-1]),
    "rows.safetensors": lambda path: safetensors.numpy.save_file({"images": IMAGES, "labels": LABELS}, path),
    "keras.safetensors": lambda path: safetensors.numpy.save_file({"x_test": IMAGES, "y_test": LABELS}, path),
    "bare.npy": lambda path: np.save(path, IMAGES),
    "bare-idx3-ubyte": lambda path: path.write_bytes(idx_bytes(IMAGES)),
    "bare of other classes.npz": lambda path: np.savez(path, images=IMAGES, labels=LABELS, class_names=["a", "b", "c"]),
    "bare of others.parquet": lambda path: write_parquet(path, IMAGES, LABELS, ["car", "bus", "van"]),
    "words.parquet": lambda path: write_parquet(path, IMAGES, NAMED.tolist()),
    "test-images-idx3-ubyte": lambda path: write_idx(path, IMAGES, LABELS),
    "t10k-images-idx3-ubyte.gz": lambda path: write_idx(path, IMAGES, LABELS),
    "emnist-images-idx3-ubyte": lambda path: write_idx(path, IMAGES, LABELS, ".gz"),
    "kmnist-images-idx3-ubyte.gz": write_named_idx,
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_its_images_and_where_it_has_some_its_labels(name: str, tmp_path: Path) -> None:
    ARCHIVES[name](tmp_path / name)
    chunks = predicted(tmp_path / name)
    np.testing.assert_array_equal(values(chunks), IMAGES)
    assert truth(chunks) == (None if "bare" in name else LABELS.tolist())


def test_a_label_is_a_class_by_its_own_name_or_by_its_place_in_a_prepared_split_or_no_truth(tmp_path: Path) -> None:
    odd = GREY._replace(class_names=("3", "5", "7"))
    np.savez(tmp_path / "odd.npz", images=IMAGES[:4], labels=np.array([3, 5, 7, 9]))
    assert truth(predicted(tmp_path / "odd.npz", odd)) == [0, 1, 2, -1]
    prepared = {"images": IMAGES[:4], "labels": np.array([0, 2, 1, 2]), "split_key": np.arange(4)}
    safetensors.numpy.save_file(prepared, tmp_path / "test.safetensors")
    assert truth(predicted(tmp_path / "test.safetensors", odd)) == [0, 2, 1, 2]
    np.savez(tmp_path / "some.npz", images=IMAGES[:2], labels=np.array(["gull", "owl"]))
    assert truth(predicted(tmp_path / "some.npz")) == [-1, 2]
    write_parquet(tmp_path / "none.parquet", IMAGES[:3], ["dog", None, "cat"])
    write_parquet(tmp_path / "hidden.parquet", IMAGES[:3], [1, -1, 0], CLASSES)
    for name in ("none", "hidden"):
        np.testing.assert_array_equal(truth(predicted(tmp_path / f"{name}.parquet")), [1, np.nan, 0])


def test_labels_of_another_number_than_images_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-images-idx3-ubyte", IMAGES, LABELS[:-1])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte holds uint8 labels of shape \[11\]"):
        predicted(tmp_path / "t10k-images-idx3-ubyte")


def test_parquet_of_pictures_gives_pixels_truth_ids_and_rejects_with_their_names(tmp_path: Path) -> None:
    broken, path = {"bytes": b"\x89PNG no picture", "path": "spoilt.png"}, tmp_path / "test.parquet"
    rows, names = [*IMAGES[:2], broken, None, *IMAGES[4:]], [f"n{row}" for row in range(12)]
    write_parquet(path, rows, LABELS[::-1], CLASSES[::-1], group=5, name=names)
    chunks = predicted(path, GREY._replace(ids=("name",)))
    kept = np.delete(np.arange(12), [2, 3])
    np.testing.assert_array_equal(values(chunks), IMAGES[kept])
    assert truth(chunks) == LABELS[kept].tolist(), "by name, whatever their order in the file"
    ids = [each.as_py() for chunk in chunks if chunk.passthrough for each in chunk.passthrough["name"]]
    assert ids == [names[row] for row in kept]
    assert "spoilt.png is no picture" in rejected(chunks)[2]
    assert "it is no picture" in rejected(chunks)[3]
    with pytest.raises(DataError, match="columns image"):
        predicted(path, GREY._replace(ids=("number",)))
