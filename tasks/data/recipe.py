"""How raw rows become a model's inputs, for training, evaluation, export and prediction alike.

A recipe is kept in the manifest, so that every kept version is fed by its own. What it leaves to the ONNX graph (the
scale of pixels) is passed to export, which folds it into the weights.
"""

from __future__ import annotations  # for array annotations, which commands that only look at the store need not import

import math
import operator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tasks.errors import DataError
from tasks.parameters.form import Use
from tasks.serving.contract import FEATURES, IMAGES, ColumnMetadata, Tensor
from tasks.store.record_base import PersistedRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# The name of an unnamed pandas index: in CSV by our reader, and in Parquet.
UNNAMED_INDEX = "Unnamed: 0"
INDEX_NAMES = UNNAMED_INDEX, "__index_level_0__"
DESCRIBED = {"name", "kind", "levels", "source", "part", "zone"}  # fields of a column that consumers need
FIXED = DESCRIBED | {"form"}  # fields of a column that a name keeps
Shape = Literal["", "linear", "curves", "pairs"]  # of a table's model; empty: linear, from before there were others


def unless_empty(default: Any) -> Any:
    """A field that is stored in documents and digests only if it is not empty: older documents do not have it."""
    return Field(default, exclude_if=operator.not_)


def decimal_of(form: str) -> str:
    """The decimal point or comma of a number form such as ``1.234,5``; a point without a form, "" if it is unknown."""
    return "," if "234,5" in form else "." if "." in form or not form else ""


class Column(PersistedRecord):
    """One column of a table. Name, kind and existing levels' codes are fixed by version 1; all else is refitted.

    The book's data are numbers used unchanged: there is no mean, and the scale is 1.
    """

    name: str = Field(min_length=1)
    kind: Literal["number", "boolean", "category"] = "number"
    levels: tuple[str, ...] = ()  # of a category; the code of a level is its position, which never changes
    form: str = unless_empty("")  # of a number or date in text, such as $1,234.5 or 31.12.2024; or empty
    source: str = unless_empty("")  # the column of dates from which this part is taken
    part: Literal["", "month", "weekday", "hour", "year"] = unless_empty("")
    zone: str = unless_empty("")  # dates in another time zone are read in this one
    limits: tuple[float, float] | None = unless_empty(None)  # of a number in the training part, to which it is clamped
    knots: tuple[float, ...] = unless_empty(())  # where the effect of a number may change its slope, ascending
    mean: float | None = None  # of numbers and booleans (0 or 1) in the training part; replaces missing values
    scale: float = Field(1.0, gt=0)  # a number's standard deviation there; 1 for booleans and constants
    counts: tuple[int, ...] = ()  # training rows of each level
    num_missing: int = 0  # training rows without a value
    has_missing: bool = False  # whether any row of either split has no value

    def weight_indices(self) -> NDArray[np.int64]:
        """The weight of each code, ``(levels + 2,)``: those of the levels, of a missing value, of an unknown code.

        A level that a training row has has a weight, in order, and after them a missing value, if a training row has
        one. -1 stands for no weight, which means the average effect.
        """
        import numpy as np

        has_rows = np.array([*self.counts, self.num_missing], np.int64) > 0
        return np.append(np.where(has_rows, np.cumsum(has_rows) - 1, -1), -1)

    @property
    def input_name(self) -> str:
        """The name of the data's column from which this column is made."""
        return self.source or self.name

    @property
    def is_plain(self) -> bool:
        """Whether its values go into the model unchanged: none may be missing, and none is coded."""
        return self.kind == "number" and self.mean is None

    @property
    def num_slots(self) -> int:
        """How many weights its levels have."""
        return int(self.weight_indices().max()) + 1 if self.kind == "category" else 0


LabelKind = Literal["", "number", "boolean"]  # what the names of classes mean; empty: text
DEVIATIONS = 10  # target deviations from the mean within which predictions usually lie


class Target(PersistedRecord):
    """The column to predict; a number is standardised for training."""

    name: str = Field(min_length=1)
    form: str = unless_empty("")  # as in a column
    kind: LabelKind = unless_empty("")
    mean: float = 0.0
    scale: float = Field(1.0, gt=0)

    @property
    def typical_value(self) -> float:
        """The largest magnitude that predictions usually have; its spacing bounds how far answers may differ."""
        return abs(self.mean) + DEVIATIONS * self.scale


UNSCALED = Target(name="target")  # the truth of the book's data and of images, which is used unchanged


class RowRecipe(PersistedRecord):
    """What every recipe can answer; images have no columns, and no target among them."""

    if TYPE_CHECKING:  # otherwise pydantic would take them for fields of images

        @property
        def columns(self) -> tuple[Column, ...]:
            """Those of a table, in the model's order."""

        @property
        def target(self) -> Target | None:
            """The column to predict; None for images and for the book's data."""

        @property
        def missing(self) -> tuple[str, ...]:
            """What stands for a missing value in a table, besides the usual texts."""

        @property
        def header(self) -> str:
            """The line of a table's header in text files and sheets, or none; empty: the first."""

        @property
        def header_names(self) -> tuple[str, ...]:
            """The names that were given for the columns of text files and sheets."""

        @property
        def encoding(self) -> str:
            """The encoding of text files; empty: UTF-8 or Windows-1252."""

    def describe_columns(self) -> tuple[ColumnMetadata, ...]:
        """What a consumer must know about the columns, in order; the book's plain numbers need no description."""
        known = () if self.is_plain else self.columns
        return tuple(ColumnMetadata.model_validate(each.model_dump(include=DESCRIBED)) for each in known)

    @property
    def target_scaling(self) -> Target:
        """The mean and deviation by which the target is standardised: 0 and 1 for the book's data and for images."""
        return self.target or UNSCALED

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the model's order."""
        return tuple(column.name for column in self.columns)

    @property
    def is_by_name(self) -> bool:
        """Whether a file's columns and target are found by name; for the book's data any columns may be named."""
        return self.target is not None

    @property
    def is_plain(self) -> bool:
        """Whether rows go into the model unchanged."""
        return all(column.is_plain for column in self.columns)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Where numbers and booleans are among the columns: the inputs of ``W``, in this order."""
        return tuple(at for at, column in enumerate(self.columns) if column.kind != "category")

    @property
    def limits(self) -> tuple[tuple[int, float, float], ...]:
        """Which of the inputs of ``W`` are clamped: the position of each, its lower and its upper limit."""
        columns = enumerate(self.columns[at] for at in self.numbers)
        return tuple((at, *column.limits) for at, column in columns if column.limits)

    @property
    def categories(self) -> tuple[int, ...]:
        """The positions of categories: their slots lie one column after the other in ``effects``."""
        return tuple(at for at, column in enumerate(self.columns) if column.kind == "category")

    @property
    def num_levels(self) -> tuple[int, ...]:
        """How many levels each category has."""
        return tuple(len(self.columns[at].levels) for at in self.categories)


class Pixels(RowRecipe):
    """Raw pixels 0…255 of images: grey ``(height, width)``, or with channels last."""

    kind: Literal["pixels"] = "pixels"
    use: ClassVar[Use] = Use.IMAGES  # kind of own data that have this recipe
    shape: tuple[Annotated[int, Field(gt=0)], ...]  # of one image
    scale: float = Field(gt=0)  # of a pixel; folded into the weights at export
    resize: Literal["bilinear"] | None = None  # how arrays of another size or colour are converted; None: refused

    columns: ClassVar[tuple[Column, ...]] = ()
    target: ClassVar[None] = None
    missing: ClassVar[tuple[str, ...]] = ()
    header: ClassVar[str] = ""
    header_names: ClassVar[tuple[str, ...]] = ()
    encoding: ClassVar[str] = ""

    @property
    def input(self) -> Tensor:
        """The model's input."""
        return Tensor(name=IMAGES, dtype="uint8", shape=self.shape)

    @property
    def metadata_props(self) -> dict[str, str]:
        """The keys that the ONNX standard has for images (docs/MetadataProps.md)."""
        return {
            "Image.BitmapPixelFormat": "Gray8" if len(self.shape) == 2 else "Rgb8",
            "Image.ColorSpaceGamma": "SRGB",
            "Image.NominalPixelRange": "NominalRange_0_255",
        }

    def choose_sample(self, rows: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The first images."""
        return rows[:size]

    def accepts(self, dtype: Any, shape: tuple[int, ...]) -> bool:
        """Whether rows with this dtype and shape (of one row) can be encoded."""
        import numpy as np

        from gradmill.pictures import LARGEST_PIXELS

        # rows of shape (width, 3) or (width, 1) are the lines of a single picture with its channels last
        is_image = shape[2:] in ((1,), (3,)) or (len(shape) == 2 and shape[1] not in (1, 3))
        can_be_resized = self.resize is not None and 0 < math.prod(shape[:2]) <= LARGEST_PIXELS
        return np.dtype(dtype) == np.uint8 and (shape == self.shape or (is_image and can_be_resized))

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raw images ``(n, …)`` uint8 to ``(n, *shape)`` uint8; images of that shape are returned unchanged.

        Raises:
            DataError: they are not such images, or have another size or colour, which this recipe refuses.
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
    target: Target | None = None  # None: the book's data, whose target is used unchanged
    missing: tuple[str, ...] = unless_empty(())  # what stands for a missing value, besides the usual texts
    header: str = unless_empty("")  # of text files and sheets: its line, or none; empty: the first
    header_names: tuple[str, ...] = unless_empty(())  # that were given for their columns
    encoding: str = unless_empty("")  # of text files; empty: UTF-8 or Windows-1252
    shape: Shape = unless_empty("")
    pairs: tuple[tuple[str, str], ...] = unless_empty(())  # columns whose effects depend on one another, by name

    scale: ClassVar[float] = 1.0  # for raw rows; each column has its own
    metadata_props: ClassVar[dict[str, str]] = {}

    @model_validator(mode="after")
    def _whose_names_differ(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("columns: two of them have one name")
        return self

    @property
    def pair_positions(self) -> tuple[tuple[int, int], ...]:
        """The positions of each pair's columns."""
        return tuple((self.names.index(first), self.names.index(second)) for first, second in self.pairs)

    def count_products(self, first: int, second: int) -> int:
        """How many weights the pair of the columns at two positions has (``tasks/serving/raw_units.py``)."""
        return max(1, self.columns[first].num_slots) * max(1, self.columns[second].num_slots)

    @property
    def input(self) -> Tensor:
        """The model's input."""
        return Tensor(name=FEATURES, dtype="float32", shape=(len(self.columns),))

    def choose_sample(self, rows: NDArray[Any], size: int) -> NDArray[Any]:
        """The first rows; one of them has a missing value, if any row has, and the last has unknown codes."""
        import numpy as np

        missing = np.flatnonzero(np.isnan(rows).any(axis=1))[:1]
        places = dict.fromkeys([*missing.tolist(), *range(min(size, len(rows)))])
        chosen: NDArray[Any] = rows[[*places][:size]]
        chosen[-1, list(self.categories)] = self.num_levels
        return chosen

    def accepts(self, dtype: Any, shape: tuple[int, ...]) -> bool:
        """Whether rows with this dtype and shape (of one row) can be encoded."""
        import numpy as np

        return np.dtype(dtype).kind in "fiu" and shape == self.input.shape

    def encode(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Numbers ``(n, columns)`` in the model's order to float32 (infinite beyond its range); float32 is unchanged.

        Raises:
            DataError: they are not numbers, or a row has the wrong number of them.
        """
        import numpy as np

        _require(self, rows)
        with np.errstate(over="ignore"):
            return rows.astype(np.float32, copy=False)


Recipe = Annotated[Pixels | Columns, Field(discriminator="kind")]


class SplitRule(PersistedRecord):
    """Which rows of own data are the test split, as version 1 of a name fixes it: by hash, group, time or column."""

    rule: Literal["rows", "copies", "group", "time", "column", "folders"]
    # copies: equal rows, where few rows are distinct; folders: train/ and test/ of images
    column: str | None = None
    test: float = Field(gt=0, lt=1)  # share
    features: tuple[str, ...] = ()  # columns whose values are hashed, sorted by name
    form: str = unless_empty("")  # of dates in the column's text, such as 31.12.2024; empty for ISO 8601

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
