"""Own pictures made here, as arrays, and prepared by hand as a run prepares them: recipe, splits, split keys."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepared_tables import write_prepared
from tasks.data.recipe import Pixels
from tasks.records import PreparedDataset

Array = NDArray[Any]

# Directions of colour along which the brightness of ITU-R 601, 0.299 R + 0.587 G + 0.114 B, does not change.
HUES = {"rosy": (1.0, -0.509, 0.0), "leafy": (-1.0, 0.509, 0.0), "sky": (0.0, -0.194, 1.0)}


def digits() -> tuple[Array, Array]:
    """scikit-learn's 1797 digits ``(n, 8, 8)`` uint8, light on dark, and their labels ``(n,)``."""
    import sklearn.datasets

    found = sklearn.datasets.load_digits()
    return (found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.uint8)


def hues(count: int, side: int = 6) -> tuple[Array, Array]:
    """Pictures ``(n, side, side, 3)`` uint8 whose classes differ in hue alone, and their labels ``(n,)``.

    Brightness is that of noise in every picture, whatever its class.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(HUES), count)
    brightness = rng.integers(80, 176, (count, side, side, 1))
    saturation = rng.uniform(5, 40, (count, side, side, 1))
    pixels = brightness + saturation * np.array(list(HUES.values()))[labels][:, None, None]
    return np.rint(pixels).astype(np.uint8), labels.astype(np.uint8)


def grey(images: Array) -> Array:
    """Colour pictures ``(n, h, w, 3)`` as ``(n, h, w)``, by the weights of ITU-R 601 as Pillow takes them."""
    brightness: Array = np.rint(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return brightness


def hashes(images: Array) -> NDArray[np.uint64]:
    """64 bits of each picture's pixels ``(n,)``."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), np.uint64)


def prepare(
    images: Array,
    labels: Array,
    class_names: Sequence[str],
    is_test: NDArray[np.bool_] | None = None,
    name: str = "own",
) -> PreparedDataset:
    """Pictures ``(n, h, w)`` or ``(n, h, w, 3)`` uint8 as a run prepares them; a fifth are tests, by their hashes."""
    key, labels = hashes(images), labels.astype(np.min_scalar_type(len(class_names)))
    is_test = key < np.quantile(key, 0.2) if is_test is None else is_test
    arrays = {"images": images, "labels": labels, "split_key": key}
    recipe = Pixels(shape=images.shape[1:], scale=1 / 255, resize="bilinear")
    return write_prepared({"train": ~is_test, "test": is_test}, arrays, recipe, class_names, name)
