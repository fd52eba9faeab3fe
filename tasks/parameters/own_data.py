"""Own data: where they are, what to predict from which columns, and how they are split."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.parameters.addresses import has_credentials
from tasks.parameters.choices import NAME_PATTERN
from tasks.parameters.form import Frozen, Option, Share
from tasks.parameters.training import ClassWeight, WeightDecay
from tasks.parameters.uses import IMAGES, OWN, TABLES, Uses

NO_WINDOW = "none"
Names = tuple[Annotated[str, Field(min_length=1)], ...]


class OwnData(Frozen):
    """A user's own data and what is to be learned from them."""

    fields_of = OWN

    source: Annotated[str | None, Option("--data", empty="the book's data, or those of the kept name")] = Field(
        None,
        min_length=1,
        title="Data",
        description="Own data: a file, folder, glob or URL of CSV, Parquet, Feather or JSON lines; or images, "
        "a folder for each class.",
    )
    target: Annotated[str | None, Option(empty="that of the kept name; or the data are images", of=TABLES)] = Field(
        None, title="Target", description="The column to predict."
    )
    features: Annotated[Names, Option(empty="all columns but the target", of=TABLES)] = Field(
        (), title="Features", description="The columns to predict from."
    )
    ignore: Annotated[Names, Option(empty="none", of=TABLES)] = Field(
        (), title="Ignore", description="Columns that are no features; kept with the name."
    )
    category: Annotated[Names, Option(empty="columns of text", of=TABLES)] = Field(
        (), title="Category", description="Columns whose values are levels."
    )
    split_by: Annotated[str | None, Option(empty="every row by itself", of=TABLES)] = Field(
        None, title="Split by", description="Rows of one value of this column stay on one side of the split."
    )
    time_column: Annotated[str | None, Option(empty="no order in time", of=TABLES)] = Field(
        None, title="Time column", description="The latest rows are the test split."
    )
    window: Annotated[str, Option(of=TABLES)] = Field(
        NO_WINDOW,
        pattern=rf"^({NO_WINDOW}|[1-9]\d{{0,5}}[hdw])$",
        title="Window",
        description="Train and test on the latest rows only: 90d, 12w or 36h, counted back from the newest.",
    )
    split_column: Annotated[str | None, Option(empty="by the rows' hashes", of=TABLES)] = Field(
        None, title="Split column", description="A column that says train, test or validation, or true of test rows."
    )
    test: float = Field(0.2, gt=0, lt=1, title="Test share", description="Of own data's rows.")
    side: Annotated[int | None, Option(of=IMAGES, empty="as the images, if all are squares of one size; or 28")] = (
        Field(None, ge=1, le=256, title="Side", description="Images are made squares of so many pixels.")
    )
    channels: Annotated[Literal["grey", "rgb"] | None, Option(of=IMAGES, empty="grey if all images are")] = Field(
        None, title="Channels", description="Of images."
    )
    max_rejects: Annotated[Share, Option(of=IMAGES)] = Field(
        0.01, title="Rejected images", description="The share of images that may be broken; they are left out."
    )
    min_new_rows: int = Field(
        0, ge=0, title="New rows", description="Wait until so many rows are new to the champion; kept with the name."
    )
    new_recipe: bool = Field(False, title="New recipe", description="Fix the split rule and its share anew.")

    accept_data: bool = Field(
        False, title="Accept data", description="Let data pass that are not like the champion's; done once."
    )

    @property
    def is_own(self) -> bool:
        """Whether own data are named; else the book's are meant."""
        return self.source is not None

    @property
    def is_images(self) -> bool:
        """Whether own data are images: their classes are folders, and there is no column to predict."""
        return self.is_own and self.target is None

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.source is not None and has_credentials(self.source):
            raise ValueError("a URL with credentials would be written down: set them in the environment")
        if len([each for each in (self.split_by, self.time_column, self.split_column) if each]) > 1:
            raise ValueError("one of --split-by, --time-column and --split-column")
        if self.window != NO_WINDOW and self.time_column is None:
            raise ValueError(f"--window {self.window} needs --time-column; --window {NO_WINDOW} lifts it")
        if self.target is not None and (found := self.given(IMAGES)):
            raise ValueError(f"{found}: for images, which have no --target")
        return self

    def given(self, of: Uses) -> str:
        """Which options were given that are only for something, as they are typed."""
        changed = [name for name in self.model_dump(exclude_defaults=True) if self.of_field(name) == of]
        return " and ".join(f"--{name.replace('_', '-')}" for name in changed)


class InspectParameters(OwnData):
    """What to look at before anything is trained."""

    source: Annotated[str, Option("DATA")] = Field(
        min_length=1,
        title="Data",
        description="A file, folder, glob or URL of CSV, Parquet, Feather or JSON lines; or a folder of images.",
    )
    name: Annotated[str, Option(empty="a new name")] = Field(
        "", pattern=r"^$|" + NAME_PATTERN, title="Name", description="Compare with what this kept name has fixed."
    )
    class_weight: ClassWeight = "none"
    weight_decay: WeightDecay = None
