"""Made-up pictures in folders and in files of many, and what validation makes of them."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from candidate import prepare_own
from tasks.data.report import DataReport
from tasks.parameters import Data
from tasks.records import PreparedDataset
from tasks.serving.task import TaskName
from tasks.store.artifact_paths import DATA_REPORT
from tasks.store.run_folder import RunFolder

Array = np.ndarray[Any, Any]


def drawn(label: int, seed: int, side: int = 8, channels: int = 1) -> Array:
    """A picture of its class: a bright bar in a place of its own, in noise; ``(side, side)`` or with channels last."""
    rng = np.random.default_rng([label, seed])
    image = rng.integers(0, 60, (side, side, channels), np.uint8)
    image[:, (2 * label) % side, label % channels] += 180
    return image[..., 0] if channels == 1 else image


def png(image: Array, kind: str = "PNG", **options: Any) -> bytes:
    """A picture's content, of this kind or another."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def write(folder: Path, counts: dict[str, int], suffix: str = ".png", first: int = 0, **shape: int) -> Path:
    """A folder for each class, with so many pictures, all different."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + count):
            Image.fromarray(drawn(label, seed, **shape)).save(folder / name / f"{seed:04d}{suffix}")
    return folder


def write_parquet(
    path: Path, images: Iterable[Any], labels: Any, names: Sequence[str] = (), group: int = 20, **columns: Any
) -> Path:
    """Pictures as the library ``datasets`` writes them, from arrays or from what is to stand in their place.

    Whole-numbered labels stand for ``names``; a row group has so many rows.
    """
    rows = [{"bytes": png(each), "path": None} if isinstance(each, np.ndarray) else each for each in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(labels), **columns})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def prepared(source: Path, kept: Any = None, task: TaskName = "classification", **options: Any) -> PreparedDataset:
    """The three stages before training; raises where the images, or the table, are not fit."""
    return prepare_own(run_of(source), Data.model_validate({"source": str(source), **options}), task, kept)


def run_of(source: Path) -> RunFolder:
    return RunFolder(path=source.parent / f"run-of-{source.name}", name="pets")


def report_of(source: Path) -> DataReport:
    """What validation wrote of the data."""
    path = run_of(source).file(DATA_REPORT)
    return DataReport.read(path)
