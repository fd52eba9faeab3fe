"""Fashion-MNIST: its files and their digests, its classes, its sources (github.com/zalandoresearch/fashion-mnist)."""

from collections.abc import Sequence

import numpy as np

from tasks.data.book import BookDataset
from tasks.data.dataset import Contents, Rows
from tasks.data.io import arrays
from tasks.data.recipe import Pixels
from tasks.data.sources import cache
from tasks.data.sources.places import Debian, Directory, RawFile, Source, Torchvision
from tasks.errors import DataError
from tasks.machine.settings import Settings
from tasks.parameters import FASHION_MNIST, Data
from tasks.records import RawDataset
from tasks.store.record import FileRef

TRAIN_IMAGES = RawFile(
    "train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47_040_016
)
TRAIN_LABELS = RawFile(
    "train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60_008
)
TEST_IMAGES = RawFile(
    "t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7_840_016
)
TEST_LABELS = RawFile(
    "t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10_008
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class FashionMnist(BookDataset):
    """60 000 + 10 000 grey images of 28 by 28 pixels in 10 classes."""

    name = FASHION_MNIST
    title = "Fashion-MNIST"
    identifier = "zalando-datasets/fashion_mnist"

    def fetch(self) -> RawDataset:
        """From the folder that the user named, or from wherever it can be had."""
        user_dir = Settings().fashion_mnist_dir
        return fetch([Directory(user_dir)] if user_dir is not None else [Torchvision(), Debian()])

    def summary(self, raw: RawDataset, data: Data) -> str:
        """Files as published, and in each split as many images of one class as of any other.

        Raises:
            DataError: they are others.
        """
        if any(raw.files[file.name].sha256 != file.sha256 for file in FILES):
            raise DataError(
                f"files of {self.title} that are not the published ones", "those with their SHA-256", "fetch them again"
            )
        counts = []
        for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
            num_images = len(arrays.open_idx(raw.files[images.name].path))
            per_class = np.bincount(arrays.read_idx_labels(raw.files[labels.name].path, len(CLASS_NAMES)))
            if set(per_class.tolist()) != {num_images // len(CLASS_NAMES)}:
                raise DataError(
                    f"{per_class.tolist()} of {num_images} images in each class of {labels.name}",
                    "as many in each class as in any other",
                    "fetch the files again",
                )
            counts.append(num_images)
        return f"{self.title} is as published: {counts[0]:,} and {counts[1]:,} images; as many in each class"

    def read(self, raw: RawDataset, data: Data, seed: int) -> Contents:
        """The splits as they are published."""
        train = image_split(raw.files[TRAIN_IMAGES.name], raw.files[TRAIN_LABELS.name])
        test = image_split(raw.files[TEST_IMAGES.name], raw.files[TEST_LABELS.name])
        shape = (data.resize, data.resize) if data.resize else train.inputs.shape[1:]
        recipe = Pixels(shape=shape, scale=1 / 255, resize="bilinear" if data.resize else None)
        return Contents(train, test, recipe, task="classification", class_names=CLASS_NAMES)


def fetch(sources: Sequence[Source]) -> RawDataset:
    """Fetch what is missing from the first source that can be reached.

    Raises:
        SourceUnreachable: none can.
        DataError: what a source has fails its checksum, or a user's folder lacks a file.
    """
    return cache.fetch(FILES, sources)


def image_split(image_file: FileRef, label_file: FileRef) -> Rows:
    """Read one split of an image data set and check that each image has a label.

    Raises:
        DataError: a file is broken or the counts differ.
    """
    pixels = arrays.read_idx_images(image_file.path)
    classes = arrays.read_idx_labels(label_file.path, len(CLASS_NAMES))
    if len(pixels) != len(classes):
        raise DataError(
            f"{len(pixels)} images in {image_file.path} and {len(classes)} labels in {label_file.path}",
            "one label for each image",
            "check that both files belong to the same split",
        )
    return Rows(pixels, classes)
