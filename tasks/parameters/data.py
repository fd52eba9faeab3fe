"""The data to learn from: a user's own, or the book's."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.parameters.form import ParameterModel, Use, declare_field, spell_flag
from tasks.parameters.training import (
    CLASS_WEIGHT,
    NAME_PATTERN,
    SHAPE,
    WEIGHT_DECAY,
    ClassWeight,
    PositiveFloat,
    ShapeOption,
    Share,
    WeightDecay,
)

NO_WINDOW = "none"
NO_HEADER = "none"
TYPED_FORMATS = {  # of tables that keep the types of columns, by suffix; tasks/data/io/batches.py reads them
    ".parquet": "Parquet",
    ".feather": "Feather",
    ".arrow": "Arrow",
    ".ipc": "Arrow",
    ".xlsx": "Excel",
    ".xls": "Excel",
    ".ods": "OpenDocument",
}
*_FIRST, _LAST = dict.fromkeys(["CSV", "JSON", *TYPED_FORMATS.values()])
TABLE_FORMATS = f"{', '.join(_FIRST)} or {_LAST}"
REFUSED = {  # for each kind of data: which options are refused, and why
    Use.BOOK: {Use.OWN: "options for your own data go with --data"},
    Use.TABLES: {Use.IMAGES: "for images, which have no --target", Use.BOOK: "for the book's data"},
    Use.IMAGES: {
        Use.TABLES: "for tables, which have a --target; images have none",
        Use.BOOK: "for the book's data",
    },
}
Names = tuple[Annotated[str, Field(min_length=1)], ...]


class OwnData(ParameterModel):
    """A user's own data, and what to learn from them."""

    applies_to = Use.OWN
    source_field = "source"
    use_without_target: ClassVar[Use] = Use.IMAGES
    removed: ClassVar[dict[str, str]] = {
        "min_level_rows": "leave it out: effects of levels are penalised, see --weight-decay"
    }

    source: str | None = declare_field(
        None,
        f"Your own data: a file, folder, glob or URL of {TABLE_FORMATS}; a database, with --query; or images, a folder "
        "for each class.",
        title="Data",
        flag="--data",
        empty="the book's data, or those of the kept name",
        min_length=1,
    )
    target: str | None = declare_field(
        None,
        "The column to predict.",
        Use.TABLES,
        empty="that of the kept name; or the data are images",
    )
    sheet: str | None = declare_field(None, "The sheet of a workbook.", Use.TABLES, empty="the first")
    query: str | None = declare_field(None, "The SQL query that reads a database.", Use.TABLES, empty="files are read")
    features: Names = declare_field((), "The columns to predict from.", Use.TABLES, empty="all columns but the target")
    ignore: Names = declare_field(
        (), "Columns to leave out of the features; kept with the name.", Use.TABLES, empty="none"
    )
    category: Names = declare_field((), "Columns whose values are categories.", Use.TABLES, empty="columns of text")
    missing: Names = declare_field(
        (), "Texts and numbers that stand for a missing value; kept with the name.", Use.TABLES, empty="NA and the like"
    )
    decimal: str | None = declare_field(
        None,
        "The decimal point or comma of numbers in text.",
        Use.TABLES,
        empty="inferred from the values",
        pattern="^[.,]$",
    )
    header: str | None = declare_field(
        None,
        "The line of a text file or sheet with the names of the columns; kept with the name.",
        Use.TABLES,
        empty="the first",
        pattern=r"^(none|[1-9]\d{0,3})$",
    )
    names: Names = declare_field(
        (),
        "The names of the columns of text files and sheets; without --header, the first row is data. Kept with the "
        "name.",
        Use.TABLES,
        empty="those in the header, or c1, c2 and so on",
    )
    encoding: str | None = declare_field(
        None,
        "The encoding of text files, such as latin-1, cp1250 or gb18030; kept with the name.",
        Use.TABLES,
        empty="UTF-8, UTF-16 with its mark, or Windows-1252",
    )
    no_date_parts: bool = declare_field(
        False, "Derive no month, weekday, hour or year from dates; kept with the name.", Use.TABLES
    )
    split_by: str | None = declare_field(
        None,
        "Rows with the same value in this column stay on one side of the split.",
        Use.TABLES,
        empty="every row by itself",
    )
    time_column: str | None = declare_field(
        None,
        "A column of dates or times: the latest rows become the test split. It is a feature if --features names it.",
        Use.TABLES,
        empty="no order in time",
    )
    window: str = declare_field(
        NO_WINDOW,
        "Train and test on the latest rows only: 90d, 12w or 36h, counted back from the newest.",
        Use.TABLES,
        pattern=rf"^({NO_WINDOW}|[1-9]\d{{0,5}}[hdw])$",
    )
    split_column: str | None = declare_field(
        None,
        "A column that says train, test or validation, or true for test rows.",
        Use.TABLES,
        empty="by the rows' hashes",
    )
    test: float = declare_field(0.2, "The share of your own rows to test on.", title="Test share", gt=0, lt=1)
    side: int | None = declare_field(
        None,
        "Resize images to squares of this many pixels a side.",
        Use.IMAGES,
        empty="as the images, if all are squares of one size; or 28",
        ge=1,
        le=256,
    )
    channels: Literal["grey", "rgb"] | None = declare_field(
        None, "The channels of images.", Use.IMAGES, empty="grey if all images are"
    )
    max_rejects: Share = declare_field(
        0.01,
        "The share of images that may be broken; they are left out.",
        Use.IMAGES,
        title="Rejected images",
    )
    min_new_rows: int = declare_field(0, "Wait until this many rows are new to the champion; kept with the name.", ge=0)
    new_recipe: bool = declare_field(False, "Choose the split rule, its share and the shape anew.")
    accept_data: bool = declare_field(
        False, "Accept how the data differ from the champion's now; the same differences stop no later run."
    )
    forget_accepted: bool = declare_field(False, "Let differences that were accepted before stop runs again.")

    @property
    def use(self) -> Use:
        """The kind of data, by the options given: the only place that decides this before the data are read."""
        if self.source is None:
            return Use.BOOK
        return self.use_without_target if self.target is None else Use.TABLES

    @field_validator("encoding")
    @classmethod
    def _is_known_encoding(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "a".encode(encoding)
            except (LookupError, ValueError):
                raise ValueError("an encoding that Python knows, such as latin-1") from None
        return encoding

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if sum(map(bool, (self.split_by, self.time_column, self.split_column))) > 1:
            raise ValueError("one of --split-by, --time-column and --split-column")
        if self.window != NO_WINDOW and self.time_column is None:
            raise ValueError(f"--window {self.window} needs --time-column; --window {NO_WINDOW} lifts it")
        for use, reason in REFUSED.get(self.use, {}).items():
            if found := self.list_given(use):
                raise ValueError(f"{found}: {reason}")
        return self

    def list_given(self, use: Use) -> str:
        """The given options that apply only to this ``use``, as they are typed."""
        given = (name for name in self.model_dump(exclude_defaults=True) if self.use_of(name) in use)
        return " and ".join(map(spell_flag, given))


class InspectParameters(OwnData):
    """What to inspect before anything is trained."""

    use_without_target = Use.OWN  # unknown until the data are read: a kept name may have one

    source: str = declare_field(
        ...,
        f"A file, folder, glob or URL of {TABLE_FORMATS}; or a folder of images.",
        title="Data",
        flag="DATA",
        min_length=1,
    )
    name: str = declare_field(
        "", "Compare with what this kept name has fixed.", empty="a new name", pattern=r"^$|" + NAME_PATTERN
    )
    class_weight: ClassWeight = CLASS_WEIGHT
    weight_decay: WeightDecay = WEIGHT_DECAY
    shape: ShapeOption = SHAPE


class Data(OwnData):
    """What to train on: the book's data, or your own."""

    resize: int | None = declare_field(
        None,
        "Side of the square images in pixels.",
        Use.BOOK_SOFTMAX,
        empty="28 as they are",
        ge=4,
        le=256,
    )
    synthetic_w: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = declare_field(
        (2.0, -3.4),
        "The weights that synthetic data are made with.",
        Use.BOOK_LINEAR,
        title="True weights",
        min_length=1,
    )
    synthetic_b: float = declare_field(
        4.2, "The bias that synthetic data are made with.", Use.BOOK_LINEAR, title="True bias", allow_inf_nan=False
    )
    synthetic_noise: PositiveFloat = declare_field(
        0.01, "Standard deviation of the synthetic target's noise.", Use.BOOK_LINEAR, title="Noise"
    )
    num_examples: int = declare_field(
        1000,
        "The number of synthetic examples in each split.",
        Use.BOOK_LINEAR,
        title="Synthetic examples",
        ge=10,
        le=10_000_000,
    )
