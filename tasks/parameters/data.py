"""What to learn from: a user's own data, or the book's."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.parameters.form import Frozen, Use, parameter
from tasks.parameters.training import (
    CLASS_WEIGHT,
    NAME_PATTERN,
    WEIGHT_DECAY,
    ClassWeight,
    PositiveFloat,
    Share,
    WeightDecay,
)

NO_WINDOW = "none"
Names = tuple[Annotated[str, Field(min_length=1)], ...]


class OwnData(Frozen):
    """A user's own data and what is to be learned from them."""

    applies_to = Use.OWN

    source: str | None = parameter(
        None,
        "Own data: a file, folder, glob or URL of CSV, Parquet, Feather or JSON lines; or images, a folder for each "
        "class.",
        title="Data",
        flag="--data",
        empty="the book's data, or those of the kept name",
        min_length=1,
    )
    target: str | None = parameter(
        None,
        "The column to predict.",
        empty="that of the kept name; or the data are images",
        applies_to=Use.TABLES,
    )
    features: Names = parameter(
        (), "The columns to predict from.", empty="all columns but the target", applies_to=Use.TABLES
    )
    ignore: Names = parameter(
        (), "Columns that are no features; kept with the name.", empty="none", applies_to=Use.TABLES
    )
    category: Names = parameter((), "Columns whose values are levels.", empty="columns of text", applies_to=Use.TABLES)
    split_by: str | None = parameter(
        None,
        "Rows of one value of this column stay on one side of the split.",
        empty="every row by itself",
        applies_to=Use.TABLES,
    )
    time_column: str | None = parameter(
        None, "The latest rows are the test split.", empty="no order in time", applies_to=Use.TABLES
    )
    window: str = parameter(
        NO_WINDOW,
        "Train and test on the latest rows only: 90d, 12w or 36h, counted back from the newest.",
        applies_to=Use.TABLES,
        pattern=rf"^({NO_WINDOW}|[1-9]\d{{0,5}}[hdw])$",
    )
    split_column: str | None = parameter(
        None,
        "A column that says train, test or validation, or true of test rows.",
        empty="by the rows' hashes",
        applies_to=Use.TABLES,
    )
    test: float = parameter(0.2, "Of own data's rows.", title="Test share", gt=0, lt=1)
    side: int | None = parameter(
        None,
        "Images are made squares of so many pixels.",
        empty="as the images, if all are squares of one size; or 28",
        applies_to=Use.IMAGES,
        ge=1,
        le=256,
    )
    channels: Literal["grey", "rgb"] | None = parameter(
        None, "Of images.", empty="grey if all images are", applies_to=Use.IMAGES
    )
    max_rejects: Share = parameter(
        0.01,
        "The share of images that may be broken; they are left out.",
        title="Rejected images",
        applies_to=Use.IMAGES,
    )
    min_new_rows: int = parameter(
        0, "Wait until so many rows are new to the champion; kept with the name.", title="New rows", ge=0
    )
    new_recipe: bool = parameter(False, "Fix the split rule and its share anew.")
    accept_data: bool = parameter(False, "Let data pass that are not like the champion's; done once.")

    @property
    def is_own(self) -> bool:
        """Whether own data are named; else the book's are meant."""
        return self.source is not None

    @property
    def is_images(self) -> bool:
        """Whether own data are images: their classes are folders, and there is no column to predict."""
        return self.is_own and self.target is None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if len([each for each in (self.split_by, self.time_column, self.split_column) if each]) > 1:
            raise ValueError("one of --split-by, --time-column and --split-column")
        if self.window != NO_WINDOW and self.time_column is None:
            raise ValueError(f"--window {self.window} needs --time-column; --window {NO_WINDOW} lifts it")
        if self.target is not None and (found := self.list_given(Use.IMAGES)):
            raise ValueError(f"{found}: for images, which have no --target")
        return self

    def list_given(self, use: Use) -> str:
        """Which options were given that apply to this use alone, as they are typed."""
        changed = [name for name in self.model_dump(exclude_defaults=True) if self.use_of(name) == use]
        return " and ".join(f"--{name.replace('_', '-')}" for name in changed)


class InspectParameters(OwnData):
    """What to look at before anything is trained."""

    source: str = parameter(
        ...,
        "A file, folder, glob or URL of CSV, Parquet, Feather or JSON lines; or a folder of images.",
        title="Data",
        flag="DATA",
        min_length=1,
    )
    name: str = parameter(
        "", "Compare with what this kept name has fixed.", empty="a new name", pattern=r"^$|" + NAME_PATTERN
    )
    class_weight: ClassWeight = CLASS_WEIGHT
    weight_decay: WeightDecay = WEIGHT_DECAY


class Data(OwnData):
    """What to train on: the book's data, or own ones."""

    resize: int | None = parameter(
        None,
        "Side of the square images in pixels.",
        empty="28 as they are",
        applies_to=Use.BOOK_SOFTMAX,
        ge=4,
        le=256,
    )
    synthetic_w: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = parameter(
        (2.0, -3.4),
        "Of the synthetic data.",
        title="True weights",
        help="True weights of the synthetic data.",
        applies_to=Use.BOOK_LINEAR,
        min_length=1,
    )
    synthetic_b: float = parameter(
        4.2, "Of the synthetic data.", title="True bias", applies_to=Use.BOOK_LINEAR, allow_inf_nan=False
    )
    synthetic_noise: PositiveFloat = parameter(
        0.01, "Standard deviation of the synthetic target's noise.", title="Noise", applies_to=Use.BOOK_LINEAR
    )
    num_examples: int = parameter(
        1000, "In each split.", title="Synthetic examples", applies_to=Use.BOOK_LINEAR, ge=10, le=10_000_000
    )

    @model_validator(mode="after")
    def _be_of_one_kind(self) -> Self:
        """Options of own data, or options of the book's."""
        given = set(self.model_dump(exclude_defaults=True))
        if self.source is None and (alone := sorted(given & set(OwnData.model_fields))):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in alone)
            raise ValueError(f"options of own data ({flags}) go with --data")
        if self.is_images and (found := self.list_given(Use.TABLES)):
            raise ValueError(f"{found}: for tables, which have a --target; images have none")
        if self.source is not None and (others := given - set(OwnData.model_fields)):
            raise ValueError(f"{' and '.join(sorted(others))} are for the book's data")
        return self
