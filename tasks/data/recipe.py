"""How raw rows become a model's inputs: the one place that does it, for training, evaluation, export and prediction.

A recipe is kept in the manifest, so that every kept version is fed by its own. What it leaves to the ONNX graph (the
scale of pixels) it tells export, which folds it into the weights.
"""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data import pictures
from tasks.machine import progress
from tasks.serving.contract import FEATURES, IMAGES, Tensor
from tasks.store.documents import Document


class Pixels(Document):
    """Raw pixels 0…255 of grey images."""

    kind: Literal["pixels"] = "pixels"
    shape: tuple[int, ...]  # height, width
    scale: float  # of a pixel; folded into the weights at export
    resize: Literal["bilinear"] | None = None  # how an image of another size gets this one; None: it is refused

    names: ClassVar[tuple[str, ...]] = ()  # of columns

    @property
    def input(self) -> Tensor:
        """The model's input."""
        return Tensor(name=IMAGES, dtype="uint8", shape=self.shape)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raw images ``(n, h, w)`` uint8 to ``(n, *shape)`` uint8."""
        if images.shape[1:] == self.shape:
            return images
        height, width = self.shape
        encoded = np.empty((len(images), *self.shape), np.uint8)
        with progress.bar() as bar:
            for row in bar.track(range(len(images)), description="resize"):
                encoded[row] = pictures.resize(images[row], height, width)
        return encoded


class Column(Document):
    """One column of a table."""

    name: str
    kind: Literal["number"] = "number"


class Columns(Document):
    """The columns of a table, in the model's order, in raw units."""

    kind: Literal["columns"] = "columns"
    columns: tuple[Column, ...]

    scale: ClassVar[float] = 1.0  # nothing is left to the graph
    resize: ClassVar[None] = None

    @property
    def input(self) -> Tensor:
        """The model's input."""
        return Tensor(name=FEATURES, dtype="float32", shape=(len(self.columns),))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the model's order."""
        return tuple(column.name for column in self.columns)

    def encode(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Numbers ``(n, columns)`` in the model's order to float32."""
        return rows.astype(np.float32)


Recipe = Annotated[Pixels | Columns, Field(discriminator="kind")]


def of_old_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a version that was published before there were recipes, by its ``preprocessing``."""
    old = manifest["preprocessing"]
    if "columns" in old:
        return {"kind": "columns", "columns": [{"name": name, "kind": "number"} for name in old["columns"]]}
    resize = "bilinear" if old.get("resize") else None
    return {"kind": "pixels", "shape": manifest["dataset"]["input_shape"], "scale": old["scale"], "resize": resize}


def for_old_readers(recipe: Pixels | Columns) -> dict[str, Any]:
    """The ``preprocessing`` of a manifest, which versions of Gradmill before there were recipes read."""
    if isinstance(recipe, Columns):
        return {"columns": list(recipe.names)}
    resize = {"resize": {"side": recipe.shape[0], "filter": recipe.resize}} if recipe.resize else {}
    return {"scale": recipe.scale, **resize}
