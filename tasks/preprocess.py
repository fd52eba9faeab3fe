"""Stage 2: raw files to two splits that a trainer can map into memory, named by their content."""

import hashlib
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tasks.data import fashion_mnist, idx
from tasks.data.recipe import Column, Columns, Pixels
from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.parameters import Data
from tasks.records import PreparedDataset, RawDataset
from tasks.stage import stage
from tasks.store import artifact_paths, atomic
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

Arrays = dict[str, NDArray[Any]]


@stage(reusable=True)
def preprocess(run: RunFolder, raw: RawDataset, data: Data, seed: int) -> PreparedDataset:
    """Write the training and the test split as safetensors.

    Images stay uint8 (``images`` ``(n, height, width)``, ``labels`` ``(n,)``); regression data are float32
    (``features`` ``(n, inputs)``, ``target`` ``(n,)``).

    Raises:
        DataError: a raw file is broken, or image and label counts differ.
    """
    prepared = _fashion_mnist(raw, data) if raw.files else _synthetic(raw, data, seed)
    tell(f"{prepared.num_train} training and {prepared.num_test} test examples, digest {prepared.digest[:16]}")
    return prepared


def _fashion_mnist(raw: RawDataset, data: Data) -> PreparedDataset:
    train = image_split(raw.files[fashion_mnist.TRAIN_IMAGES.name], raw.files[fashion_mnist.TRAIN_LABELS.name])
    test = image_split(raw.files[fashion_mnist.TEST_IMAGES.name], raw.files[fashion_mnist.TEST_LABELS.name])
    shape = (data.resize, data.resize) if data.resize else train["images"].shape[1:]
    recipe = Pixels(shape=shape, scale=1 / 255, resize="bilinear" if data.resize else None)
    for split in (train, test):
        split["images"] = recipe.encode(split["images"])
    return _prepared(raw.name, train, test, recipe=recipe, task="classification", class_names=fashion_mnist.CLASS_NAMES)


def image_split(image_file: FileRef, label_file: FileRef) -> Arrays:
    """Read one split of an image dataset and check that each image has a label.

    Raises:
        DataError: a file is broken or the counts differ.
    """
    pixels = idx.read_images(image_file.path)
    classes = idx.read_labels(label_file.path, len(fashion_mnist.CLASS_NAMES))
    if len(pixels) != len(classes):
        raise DataError(
            f"{len(pixels)} images in {image_file.path} and {len(classes)} labels in {label_file.path}",
            "one label for each image",
            "check that both files belong to the same split",
        )
    return {"images": pixels, "labels": classes}


def _synthetic(raw: RawDataset, data: Data, seed: int) -> PreparedDataset:
    rng = np.random.default_rng(seed)
    w = np.asarray(data.synthetic_w)
    splits = []
    for _ in ("train", "test"):
        features, target = synthetic_data(w, data.synthetic_b, data.num_examples, rng, data.synthetic_noise)
        splits.append({"features": features, "target": target})
    return _prepared(
        raw.name,
        *splits,
        recipe=Columns(columns=tuple(Column(name=f"x{number + 1}") for number in range(len(w)))),
        task="regression",
        true_parameters=(*data.synthetic_w, data.synthetic_b),
    )


def synthetic_data(
    w: NDArray[np.float64], b: float, num_examples: int, rng: np.random.Generator, noise: float = 0.01
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``y = Xw + b + noise`` with standard normal ``X`` (section 3.2.1): features ``(n, len(w))``, target ``(n,)``."""
    X = rng.standard_normal((num_examples, len(w)))  # noqa: N806  (the book's letter)
    y = X @ w + b + rng.normal(0, noise, num_examples)
    return X.astype(np.float32), y.astype(np.float32)


def _prepared(name: str, train: Arrays, test: Arrays, **facts: Any) -> PreparedDataset:
    files = {split: write_split(name, split, arrays) for split, arrays in (("train", train), ("test", test))}
    digest = hashlib.sha256((files["train"].sha256 + files["test"].sha256).encode()).hexdigest()
    num_train, num_test = (len(next(iter(arrays.values()))) for arrays in (train, test))
    return PreparedDataset(name=name, digest=digest, num_train=num_train, num_test=num_test, **files, **facts)


def write_split(name: str, split: str, arrays: Arrays) -> FileRef:
    """Write a split once; the same content finds its file already there."""
    content = safetensors.numpy.save(arrays)
    sha256 = hashlib.sha256(content).hexdigest()
    path = artifact_paths.split_file(name, split, sha256)
    if path.is_file() and atomic.file_digest(path) == sha256:
        return FileRef(path=path, sha256=sha256)
    return atomic.write_bytes(path, content)
