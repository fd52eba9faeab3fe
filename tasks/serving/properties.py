"""``metadata_props`` of the ONNX file: what a consumer may want to know, and nothing that changes from day to day."""

import json
from typing import Any

from tasks.data.recipe import Columns, Pixels
from tasks.parameters import Training
from tasks.records import PreparedDataset
from tasks.serving.contract import COLUMNS, ColumnMetadata

OF_IMAGES = {"Image.ColorSpaceGamma": "SRGB", "Image.NominalPixelRange": "NominalRange_0_255"}


def of(prepared: PreparedDataset, training: Training) -> dict[str, str]:
    """The properties of a model of these data; all but digest and image keys are JSON."""
    unused = set() if prepared.is_own else {"class_weight"}  # so that the book's models keep the bytes they had before
    facts: dict[str, Any] = {
        "signature": prepared.signature.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude={"device", *unused}),
    }
    if described := columns(prepared.recipe):
        facts[COLUMNS] = [column.model_dump(mode="json") for column in described]
    if prepared.class_names:
        facts["labels"] = prepared.class_names
    return {
        "dataset_digest": prepared.digest,
        **{key: json.dumps(value, sort_keys=True) for key, value in facts.items()},
        **_of_images(prepared.recipe),
    }


def _of_images(recipe: Pixels | Columns) -> dict[str, str]:
    """Keys of the ONNX standard, docs/MetadataProps.md."""
    if not isinstance(recipe, Pixels):
        return {}
    return {"Image.BitmapPixelFormat": "Gray8" if len(recipe.shape) == 2 else "Rgb8"} | OF_IMAGES


def columns(recipe: Pixels | Columns) -> tuple[ColumnMetadata, ...]:
    """What a consumer must know of a table's columns, in order; the book's numbers, as they are, need no word."""
    if isinstance(recipe, Pixels) or recipe.is_plain:
        return ()
    return tuple(ColumnMetadata(name=column.name, kind=column.kind, levels=column.levels) for column in recipe.columns)
