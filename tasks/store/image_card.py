"""What a model card says of own images: their classes, what they look like, and how a photograph becomes one."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

SPLITS = {"rows": "a hash of their pixels", "folders": "their folders"}
MOST_CLASSES = 50  # that are told one by one
CONTRAST = 25.5  # of 255 that the middle is brighter or darker than the border, or things are neither


class ClassRow(NamedTuple):
    """One class, by its label, and how it is told."""

    label: int
    name: str
    num_train: int
    precision: float
    recall: float


class ImageFacts(NamedTuple):
    """What the card's template needs; plain numbers and words only."""

    height: int
    width: int
    mode: str  # as Pillow calls it: L or RGB
    split: str
    classes: tuple[ClassRow, ...]  # in their order; of very many those of the smallest recall
    ground: str | None  # dark or light, where things differ from their ground

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self | None:
        """Of a version's manifest; None where its data are no own images."""
        recipe, dataset = manifest["recipe"], manifest["dataset"]
        if recipe["kind"] != "pixels" or not dataset.get("split"):
            return None
        height, width, *channels = recipe["shape"]
        split, metrics = SPLITS[dataset["split"]["rule"]], manifest["metrics"]
        return cls(height, width, "RGB" if channels else "L", split, _classes(dataset, metrics), _ground(metrics))


def _classes(dataset: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[ClassRow, ...]:
    figures = [metrics[name] for name in ("precision", "recall")]
    named = enumerate(zip(dataset["class_names"], dataset["class_counts"], strict=True))
    rows = [ClassRow(label, name, count, *(each[name] for each in figures)) for label, (name, count) in named]
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: row.recall)[:MOST_CLASSES]
    return tuple(rows)


def _ground(metrics: Mapping[str, Any]) -> str | None:
    """What things stand on."""
    brightness = metrics.get("brightness") or {"border": 0.0, "middle": 0.0}
    difference = brightness["middle"] - brightness["border"]
    return None if abs(difference) < CONTRAST else "dark" if difference > 0 else "light"
