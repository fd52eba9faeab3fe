"""Made-up pictures in folders, and what validation makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import candidate
from tasks.data.report import DataReport
from tasks.download import download
from tasks.parameters import Data
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset
from tasks.store.artifact_paths import DATA_REPORT
from tasks.store.run_folder import RunFolder
from tasks.validate import validate

Array = np.ndarray[Any, Any]


def drawn(label: int, seed: int, side: int = 8, channels: int = 1) -> Array:
    """A picture of its class: a bright bar in a place of its own, in noise; ``(side, side)`` or with channels last."""
    rng = np.random.default_rng([label, seed])
    image = rng.integers(0, 60, (side, side, channels), np.uint8)
    image[:, (2 * label) % side, label % channels] += 180
    return image[..., 0] if channels == 1 else image


def write(folder: Path, counts: dict[str, int], suffix: str = ".png", first: int = 0, **shape: int) -> Path:
    """A folder for each class, with so many pictures, all different."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + count):
            Image.fromarray(drawn(label, seed, **shape)).save(folder / name / f"{seed:04d}{suffix}")
    return folder


def prepared(source: Path, kept: Any = None, **options: Any) -> PreparedDataset:
    """The three stages before training; raises where the images are not fit."""
    run = run_of(source)
    data = Data.model_validate({"source": str(source), **options})
    raw = candidate.plain(download)(run, "pets", data)
    validated = candidate.plain(validate)(run, raw, data, "classification", kept)
    made: PreparedDataset = candidate.plain(preprocess)(run, validated, data, 0)
    return made


def run_of(source: Path) -> RunFolder:
    return RunFolder(path=source.parent / f"run-of-{source.name}", name="pets")


def report_of(source: Path) -> DataReport:
    """What validation wrote of the images."""
    path = run_of(source).file(DATA_REPORT)
    return DataReport.read(path)
