"""A version as a page tries it: its file, what must be known of its input, and rows to begin with."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data.recipe import Pixels, Recipe
from tasks.parameters import Device
from tasks.serving import runtime
from tasks.store import reading
from tasks.store.artifact_paths import ONNX, SAMPLE, version


def describe(recipe: Recipe, class_names: Sequence[str], sample: bytes, path: Path | str = SAMPLE) -> dict[str, Any]:
    """What a page must know of a model: its input, and rows of ``sample``, which is ``sample.npz``, to begin with."""
    import numpy as np

    rows = runtime.read_sample(sample, path)[recipe.input.name]
    facts: dict[str, Any] = {
        "input": recipe.input.name,
        "dtype": str(rows.dtype),
        "shape": rows.shape[1:],
        "class_names": class_names,
        "samples": base64.b64encode(rows.tobytes()).decode(),
    }
    if isinstance(recipe, Pixels):
        border = [rows[:, 0], rows[:, -1], rows[:, :, 0], rows[:, :, -1]]
        return facts | {"is_dark": bool(np.concatenate([each.reshape(-1) for each in border]).mean() < 128)}
    columns = [{"name": each.name, "kind": each.kind, "levels": each.levels} for each in recipe.columns]
    return facts | {"columns": columns, "target": recipe.target.name if recipe.target else "prediction"}


class Tried(NamedTuple):
    """A version as it is tried: its file, and what the page must know of it."""

    name: str
    version: int
    model: bytes
    described: dict[str, Any]  # as ``describe`` has it

    @classmethod
    def load(cls, name: str, number: int | None) -> "Tried":
        """The version asked for, or the champion.

        Raises:
            UsageError: there is no such model or version.
            DataError: the version is damaged.
        """
        found, model = reading.load(name, number)
        folder = version(name, found)
        runtime.open_session(model, Device.CPU, folder / ONNX)
        recipe, dataset = reading.manifest(name, found).recipe, reading.manifest(name, found).dataset
        sample = reading.read_file(folder, SAMPLE)
        return cls(name, found, model, describe(recipe, dataset.class_names, sample, folder / SAMPLE))
