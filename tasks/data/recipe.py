"""How raw rows become a model's inputs, for training, evaluation, export and prediction alike.

A recipe is kept in the manifest, so that every kept version is fed by its own. What it leaves to the ONNX graph (the
scale of pixels) it tells export, which folds it into the weights.
"""

from __future__ import annotations  # of arrays, which commands that only look at the store need not import

import math
import operator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tasks.errors import DataError
from tasks.parameters.form import Use
from tasks.serving.contract import FEATURES, IMAGES, ColumnMetadata, Tensor
from tasks.store.record import Lasting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# What pandas calls an index that has no name, in CSV, as our reader does, and in Parquet.
UNNAMED_INDEX = "Unnamed: 0"
INDEX_NAMES = UNNAMED_INDEX, "__index_level_0__"
DESCRIBED = {"name", "kind", "levels", "source", "part", "zone"}  # of a column, to consumers
FIXED = DESCRIBED | {"form"}  # of a column, by version 1
RARE = 10  # training rows below which a level shares its weight with the other rare ones


def unless_empty(default: Any) -> Any:
    """A field that stands in documents and digests only where it says something: those of before have none."""
    return Field(default, exclude_if=operator.not_)


def decimal_of(form: str) -> str:
    """The decimal point or comma of a form of numbers, such as ``1.234,5``; the point of none."""
    return "," if "234,5" in form else "."


class Column(Lasting):
    """One column of a table. Name, kind and old levels' codes are fixed by version 1, all else is fitted anew.

    The book's data are numbers as they are: no mean, and no scale but 1.
    """

    name: str = Field(min_length=1)
    kind: Literal["number", "boolean", "category"] = "number"
    levels: tuple[str, ...] = ()  # of a category; the code of one is its position, which never changes
    form: str = unless_empty("")  # in which text has a number or date, such as $1,234.5 or 31.12.2024; or empty
    source: str = unless_empty("")  # the column of dates that this is a part of
    part: Literal["", "month", "weekday", "hour", "year"] = unless_empty("")
    zone: str = unless_empty("")  # in which dates are read that have another one
    limits: tuple[float, float] | None = unless_empty(None)  # of a year in the training part, which it is clamped to
    mean: float | None = None  # of numbers and booleans (0 or 1) in the training part; stands for a missing one
    scale: float = Field(1.0, gt=0)  # a number's standard deviation there; 1 of a boolean, and of a constant
    counts: tuple[int, ...] = ()  # training rows of each level
    num_missing: int = 0  # training rows without a value
    has_missing: bool = False  # any row without a value, of either split

    def slots(self) -> NDArray[np.int64]:
        """The weight of each code, ``(levels + 2,)``: those of the levels, of a missing value, of an unknown code.

        Levels of ``RARE`` training rows or more have their own, in order; then all others share one, then a missing
        value has its own: each where a training row has it. -1 stands for none: the average effect. So it does for a
        part of dates that no training row has.
        """
        import numpy as np

        counts = np.array(self.counts, np.int64)
        common = counts >= RARE
        shared, has_rare = common.sum(), counts[~common].any()
        of_levels = np.where(common, np.cumsum(common) - 1, shared if has_rare else -1)
        if self.part:
            of_levels[counts == 0] = -1
        return np.append(of_levels, [shared + has_rare if self.num_missing else -1, -1])

    @property
    def given(self) -> str:
        """The name of the column of the data that it is made of."""
        return self.source or self.name

    @property
    def is_plain(self) -> bool:
        """Whether its values go into the model as they are: none may be missing, none is coded."""
        return self.kind == "number" and self.mean is None

    @property
    def num_slots(self) -> int:
        """How many weights its levels have."""
        return int(self.slots().max()) + 1 if self.kind == "category" else 0


DEVIATIONS = 10  # from the target's mean, within which predictions usually lie


class Target(Lasting):
    """The column to predict; a number is standardised for training."""

    name: str = Field(min_length=1)
    form: str = unless_empty("")  # as a column's
    mean: float = 0.0
    scale: float = Field(1.0, gt=0)

    def find_deviation(self, truth: NDArray[Any]) -> float:
        """What a usual value differs by from the mean."""
        return self.scale

    @property
    def usual(self) -> float:
        """The largest size that a prediction usually has, in whose spacing answers may differ."""
        return abs(self.mean) + DEVIATIONS * self.scale


class Unscaled(Target):
    """The truth of the book's data and of images, which is as it is: nothing is known of it."""

    usual: ClassVar[float] = 0.0

    def find_deviation(self, truth: NDArray[Any]) -> float:
        """That of the truth ``(n,)`` itself."""
        return float(truth.std(ddof=1, dtype="float64"))


UNSCALED = Unscaled(name="target")


class RowRecipe(Lasting):
    """What is asked of the recipe of any rows; images have no columns, and no target among them."""

    if TYPE_CHECKING:  # else pydantic took them for fields of images

        @property
        def columns(self) -> tuple[Column, ...]:
            """Those of a table, in the model's order."""

        @property
        def target(self) -> Target | None:
            """The column to predict; None of images and of the book's data."""

        @property
        def missing(self) -> tuple[str, ...]:
            """What stands for a missing value of a table, beside what does in any data."""

    def describe_columns(self) -> tuple[ColumnMetadata, ...]:
        """What a consumer must know of the columns, in order; the book's numbers, as they are, need no word."""
        known = () if self.is_plain else self.columns
        return tuple(ColumnMetadata.model_validate(each.model_dump(include=DESCRIBED)) for each in known)

    @property
    def target_scaling(self) -> Target:
        """The mean and deviation by which the target is standardised: 0 and 1 of the book's, and of images."""
        return self.target or UNSCALED

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the model's order."""
        return tuple(column.name for column in self.columns)

    @property
    def is_by_name(self) -> bool:
        """Whether a file's columns, and its target, are found by their names; of the book's any may be named."""
        return self.target is not None

    @property
    def is_plain(self) -> bool:
        """Whether rows go into the model as they are."""
        return all(column.is_plain for column in self.columns)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Where numbers and booleans are among the columns: the inputs of ``W``, in this order."""
        return tuple(at for at, column in enumerate(self.columns) if column.kind != "category")

    @property
    def limits(self) -> tuple[tuple[int, float, float], ...]:
        """Which of the inputs of ``W`` are clamped, each by its place there, from what and to what."""
        columns = enumerate(self.columns[at] for at in self.numbers)
        return tuple((at, *column.limits) for at, column in columns if column.limits)

    @property
    def categories(self) -> tuple[int, ...]:
        """Where categories are: their slots lie one column after the other in ``effects``."""
        return tuple(at for at, column in enumerate(self.columns) if column.kind == "category")

    @property
    def num_levels(self) -> tuple[int, ...]:
        """How many levels each category has."""
        return tuple(len(self.columns[at].levels) for at in self.categories)


class Pixels(RowRecipe):
    """Raw pixels 0…255 of images: grey ``(height, width)``, or with channels last."""

    kind: Literal["pixels"] = "pixels"
    use: ClassVar[Use] = Use.IMAGES  # of own data that have this recipe
    shape: tuple[Annotated[int, Field(gt=0)], ...]  # of one image
    scale: float = Field(gt=0)  # of a pixel; folded into the weights at export
    resize: Literal["bilinear"] | None = None  # how an array of another size or colour becomes one; None: it is refused

    columns: ClassVar[tuple[Column, ...]] = ()
    target: ClassVar[None] = None
    missing: ClassVar[tuple[str, ...]] = ()
    has_class_names: ClassVar[bool] = True  # in files of arrays, whose labels these are

    @property
    def input(self) -> Tensor:
        """The model's input."""
        return Tensor(name=IMAGES, dtype="uint8", shape=self.shape)

    @property
    def metadata_props(self) -> dict[str, str]:
        """What the ONNX standard has for images (docs/MetadataProps.md)."""
        return {
            "Image.BitmapPixelFormat": "Gray8" if len(self.shape) == 2 else "Rgb8",
            "Image.ColorSpaceGamma": "SRGB",
            "Image.NominalPixelRange": "NominalRange_0_255",
        }

    def choose_sample(self, rows: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The first images."""
        return rows[:size]

    def accepts(self, dtype: Any, shape: tuple[int, ...]) -> bool:
        """Whether rows of this dtype and shape (of one) can be encoded."""
        import numpy as np

        from gradmill.pictures import LARGEST_PIXELS

        is_image = len(shape) > 1 and shape[2:] in ((), (1,), (3,))
        can_be_resized = self.resize is not None and 0 < math.prod(shape[:2]) <= LARGEST_PIXELS
        return np.dtype(dtype) == np.uint8 and (shape == self.shape or (is_image and can_be_resized))

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raw images ``(n, …)`` uint8 to ``(n, *shape)`` uint8; those of that shape are returned as they are.

        Raises:
            DataError: they are no such images, or of another size or colour, which this recipe refuses.
        """
        import numpy as np

        from tasks.data.io import pictures

        _require(self, images)
        if images.shape[3:] == (1,):
            images = images[..., 0]
        if images.shape[1:] == self.shape:
            return images
        encoded = np.empty((len(images), *self.shape), np.uint8)
        for row in range(len(images)):
            encoded[row] = pictures.fit(images[row], self.shape)
        return encoded


class Columns(RowRecipe):
    """The columns of a table, in the model's order and raw units; a category as its code, NaN where it is missing."""

    kind: Literal["columns"] = "columns"
    use: ClassVar[Use] = Use.TABLES
    columns: tuple[Column, ...]
    target: Target | None = None  # None: the book's data, whose target is as it is
    missing: tuple[str, ...] = unless_empty(())  # what stands for a missing value, beside what does in any data

    scale: ClassVar[float] = 1.0  # of raw rows; each column has its own
    resize: ClassVar[None] = None
    has_class_names: ClassVar[bool] = False
    metadata_props: ClassVar[dict[str, str]] = {}

    @model_validator(mode="after")
    def _whose_names_differ(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("columns: two of them have one name")
        return self

    @property
    def input(self) -> Tensor:
        """The model's input."""
        return Tensor(name=FEATURES, dtype="float32", shape=(len(self.columns),))

    def choose_sample(self, rows: NDArray[Any], size: int) -> NDArray[Any]:
        """The first rows, of which one has a missing value, if any has, and the last has unknown codes."""
        import numpy as np

        missing = np.flatnonzero(np.isnan(rows).any(axis=1))[:1]
        places = dict.fromkeys([*missing.tolist(), *range(min(size, len(rows)))])
        chosen: NDArray[Any] = rows[[*places][:size]]
        chosen[-1, list(self.categories)] = self.num_levels
        return chosen

    def accepts(self, dtype: Any, shape: tuple[int, ...]) -> bool:
        """Whether rows of this dtype and shape (of one) can be encoded."""
        import numpy as np

        return np.dtype(dtype).kind in "fiu" and shape == self.input.shape

    def encode(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Numbers ``(n, columns)`` in the model's order to float32 (infinite beyond its range), float32 as they are.

        Raises:
            DataError: they are no numbers, or not so many a row.
        """
        import numpy as np

        _require(self, rows)
        with np.errstate(over="ignore"):
            return rows.astype(np.float32, copy=False)


Recipe = Annotated[Pixels | Columns, Field(discriminator="kind")]


class SplitRule(Lasting):
    """Which rows of own data are the test split; fixed by version 1 of a name: by hash, group, time or column."""

    rule: Literal["rows", "copies", "group", "time", "column", "folders"]
    # copies: of equal rows, where few are distinct; folders: train/ and test/ of images
    column: str | None = None
    test: float = Field(gt=0, lt=1)  # share
    features: tuple[str, ...] = ()  # whose values are hashed, sorted by name

    @property
    def is_by_time(self) -> bool:
        """Whether the latest rows are the test split."""
        return self.rule == "time"


def _require(recipe: Pixels | Columns, rows: NDArray[Any]) -> None:
    if not recipe.accepts(rows.dtype, rows.shape[1:]):
        raise DataError(
            f"{rows.dtype} rows of shape {list(rows.shape[1:])}",
            f"{recipe.input.dtype} rows of shape {list(recipe.input.shape)}",
            "bring them into this form, or use the model that they are for",
        )
