"""Prepared splits as tensors: what ``preprocess`` wrote, ``train``, ``evaluate`` and ``export`` read."""

import safetensors.torch
from torch import Tensor

from tasks.networks.training import Split, outputs
from tasks.store import verified
from tasks.store.record import FileRef

PREPARE_ANEW = "gradmill retrain: it prepares the data anew where they have changed"


def load_split(file: FileRef) -> Split:
    """Read a prepared split: pixels stay uint8 and are scaled to 0…1 minibatch by minibatch.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    tensors = safetensors.torch.load(verified.read(file, PREPARE_ANEW))
    if "images" in tensors:
        return Split(tensors["images"], tensors["labels"].long(), scale=1 / 255)
    return Split(tensors["features"], tensors["target"])


def scores(weights: dict[str, Tensor], split: Split) -> Tensor:
    """``XW + b`` for a whole split, ``(n, outputs)`` float32, by the learned weights alone."""
    return outputs(lambda inputs: inputs.flatten(1) @ weights["W"] + weights["b"], split)
