"""Prepared splits as tensors: what ``preprocess`` wrote, ``train``, ``evaluate`` and ``export`` read."""

import safetensors.torch
from torch import Tensor

from tasks.networks.training import Split, outputs
from tasks.records import FileRef


def load_split(file: FileRef) -> Split:
    """Map a prepared split into memory: pixels stay uint8 and are scaled to 0…1 minibatch by minibatch."""
    tensors = safetensors.torch.load_file(file.path)
    if "images" in tensors:
        return Split(tensors["images"], tensors["labels"].long(), scale=1 / 255)
    return Split(tensors["features"], tensors["target"])


def scores(weights: dict[str, Tensor], split: Split) -> Tensor:
    """``XW + b`` for a whole split, ``(n, outputs)`` float32, by the learned weights alone."""
    return outputs(lambda inputs: inputs.flatten(1) @ weights["W"] + weights["b"], split)
