"""What a linear model of images looks for, as one small picture a class; without matplotlib, which takes a second."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 64  # pixels of a side
MOST_CLASSES = 30
FOR, AGAINST = (178, 24, 43), (33, 102, 172)


def of_model(model: bytes, shape: tuple[int, ...]) -> list[bytes]:
    """A PNG for each of the first classes of an ONNX file of pixels that have this ``shape``.

    Red speaks for a class where a picture is bright, blue against it; of colour ``(…, 3)`` each channel is as bright as
    its weight is large. Weights are against the mean of all classes, and all classes have one scale.
    """
    import onnx

    initializers = onnx.load_from_string(model).graph.initializer
    (found,) = (onnx.numpy_helper.to_array(each) for each in initializers if each.name == "W")
    weights = found.T.reshape(-1, *shape).astype(np.float64)
    shown = weights[:MOST_CLASSES] - weights.mean(axis=0)
    most = float(np.abs(shown).max()) or 1.0
    return [_png(each / most) for each in shown]


def _png(weights: NDArray[Any]) -> bytes:
    """Weights between -1 and 1, ``(height, width)`` or ``(height, width, 3)``."""
    if weights.ndim == 3:
        colours = 127.5 * (1 + weights)
    else:
        towards = np.where((weights > 0)[..., None], FOR, AGAINST)
        colours = 255 + np.abs(weights)[..., None] * (towards - 255)
    picture = Image.fromarray(colours.round().astype(np.uint8))
    picture.thumbnail((LARGEST, LARGEST))
    with io.BytesIO() as stream:
        picture.save(stream, "PNG", optimize=True)
        return stream.getvalue()
