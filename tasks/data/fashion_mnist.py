"""What Fashion-MNIST is: its files, their digests and its classes (github.com/zalandoresearch/fashion-mnist)."""

from typing import NamedTuple


class IdxFile(NamedTuple):
    """One file of the dataset, as its decompressed payload: archives differ from mirror to mirror, payloads do not."""

    name: str
    sha256: str
    size: int


TRAIN_IMAGES = IdxFile(
    "train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47_040_016
)
TRAIN_LABELS = IdxFile(
    "train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60_008
)
TEST_IMAGES = IdxFile(
    "t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7_840_016
)
TEST_LABELS = IdxFile(
    "t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10_008
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
