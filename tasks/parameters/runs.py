"""The parameters of each flow."""

from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, ValidationError, create_model, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.errors import UsageError
from tasks.parameters.data import TABLE_FORMATS, Data, Names
from tasks.parameters.form import WORDS, ParameterModel, Use, declare_field, make_refusal, option_of, spell_flag
from tasks.parameters.training import (
    BOOK_DATASETS,
    CONVERGED,
    DEVICE,
    NAME_PATTERN,
    OF_MODEL,
    Device,
    ModelName,
    PositiveFloat,
    PositiveInt,
    Runner,
    Share,
    Training,
)

Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]
RECORDED = "recorded only"


class Gates(ParameterModel):
    """Bounds that a candidate must keep to be published (the book's assertions by default)."""

    removed: ClassVar[dict[str, str]] = {
        "min_reference_gain": "tables are fitted to convergence, which --max-gradient bounds"
    }

    max_train_loss: PositiveFloat = declare_field(0.5, None, Use.BOOK_SOFTMAX, title="Train loss below")
    min_train_accuracy: Share = declare_field(0.7, None, Use.BOOK_SOFTMAX, title="Train accuracy above")
    min_test_accuracy: Share = declare_field(0.7, None, Use.BOOK_SOFTMAX, title="Test accuracy above")
    max_loss_ratio: Ratio = declare_field(
        1.05,
        "At most this many times that of the converged fit.",
        Use.BOOK_LINEAR,
        title="Test loss over the best fit",
    )
    max_gradient: PositiveFloat = declare_field(
        1e-6,
        "What may be left of the gradient's norm at zero weights, on all training rows.",
        Use.TABLES,
        title="Gradient left",
    )
    max_standardised_error: PositiveFloat = declare_field(
        1e-3,
        "The loss that an error of this size causes (in standard deviations of the target) is added to this bound.",
        Use.BOOK_LINEAR,
        title="Error allowance",
    )
    min_gain: float = declare_field(
        0.0,
        "The lower 95 % bound of the gain in test loss is above this.",
        Use.OWN,
        title="Gain over the best constant",
        allow_inf_nan=False,
    )
    max_parameter_error: PositiveFloat = declare_field(
        0.02, "Distance from the truth of synthetic data.", Use.BOOK_LINEAR
    )
    max_accuracy_drop: Share = declare_field(0.005, "Against champion and best version.", Use.BOOK_SOFTMAX)
    max_recall_drop: Share = declare_field(0.10, "Of any class, against champion and best version.", Use.BOOK_SOFTMAX)
    max_drop_p: Share = declare_field(
        0.05,
        "A larger drop is refused if its p, corrected for versions and classes, is smaller than this.",
        Use.SOFTMAX | Use.OWN,
    )
    max_loss_rise: Ratio = declare_field(1.05, "Test loss over the best version's.", Use.BOOK_LINEAR)
    max_nats_rise: PositiveFloat = declare_field(
        0.005, "Against champion and best version, in nats.", Use.OWN_SOFTMAX, title="Log loss rise"
    )
    max_error_rise: Ratio = declare_field(1.01, "Test loss over that of champion or best version.", Use.TABLE_LINEAR)
    max_latency_ms: PositiveFloat | None = declare_field(
        None, "95th percentile for one row, milliseconds.", title="Latency limit", empty=RECORDED
    )
    max_memory_mb: PositiveFloat | None = declare_field(
        None, "Peak of the serving process, MiB.", title="Memory limit", empty=RECORDED
    )
    max_parity_error: PositiveFloat = declare_field(
        1e-5, "Largest difference between weights and file (docs/gates.md).", title="Parity"
    )


class LearningParameters(ParameterModel):
    """What is learned, from which data, and the name under which it is kept."""

    name: str = declare_field(
        "", "The model is kept under this name.", empty="the model's own", pattern=r"^$|" + NAME_PATTERN
    )
    training: Training = declare_field(Training())
    data: Data = declare_field(Data())

    @property
    def dataset(self) -> str:
        """The dataset that the model learns from: one of the book's, or the name's own."""
        # All names share the book's data; own data belong to one name.
        return BOOK_DATASETS.get(self.use, self.name)

    @property
    def use(self) -> Use:
        """The model and the kind of data."""
        return OF_MODEL[self.training.model] & self.data.use

    @model_validator(mode="before")
    @classmethod
    def _let_data_decide(cls, values: Any) -> Any:
        """Tell the training settings which defaults apply: those for own data or the book's."""
        if not isinstance(values, dict):
            return values
        training, data = values.get("training") or {}, values.get("data") or {}
        training = training.given_values if isinstance(training, Training) else training
        source = data.get("source") if isinstance(data, dict) else getattr(data, "source", None)
        if not isinstance(training, dict):
            return values
        return values | {"training": training | {"defaults": "data" if source else "book"}}

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if not self.name:
            object.__setattr__(self, "name", self.training.model.value)
        if not self.use:
            raise ValueError("--target, the column to predict; or images, which softmax-regression learns")
        is_own = self.use in Use.OWN
        if is_own and self.name in [*ModelName]:
            raise ValueError("your own data are kept under a --name of their own")
        if self.use in Use.TABLES and self.training.device is Device.CUDA:
            expected = "--device auto or cpu: tables need no GPU"
            raise make_refusal(UsageError("--device cuda with a table", expected, "leave --device out"))
        for name in self.training.list_inapplicable(self.use):
            raise make_refusal(refuse_setting(self, name))
        if self.training.patience and not self.training.validation and not is_own:  # own data may have such a split
            raise ValueError("early stopping needs a validation split, such as 0.1")
        return self


def refuse_setting(parameters: LearningParameters, name: str) -> UsageError:
    """The error for a training setting that does not apply to this model and its data."""
    flag = option_of(Training.model_fields[name]).flag.partition("/")[0] or spell_flag(name)
    if parameters.use in Use.TABLES:
        return UsageError(f"{flag} with a table", CONVERGED, f"leave {flag} out")
    words = WORDS[Training.use_of(name)]
    expected = f"{words}, the only case that {flag} applies to"
    return UsageError(f"{flag} with {parameters.name}", expected, f"leave {flag} out")


def refuse_search(name: str) -> UsageError:
    """The error for a search of a table's settings."""
    return UsageError("gradmill tune with a table", CONVERGED, f"train it: gradmill retrain {name or 'NAME'}")


class Found(ParameterModel):
    """Which settings of a run were found by a search."""

    run: str  # of the search
    fields: tuple[str, ...]  # of ``Training``


class RetrainParameters(LearningParameters):
    """The parameters of one retrain."""

    removed: ClassVar[dict[str, str]] = {
        "sign_key": "run model_signing sign key on the version: see docs/models.md, Attestation"
    }
    tuned: bool = declare_field(
        False,
        "Use the settings that gradmill tune found last, where none are given.",
        Use.IN_EPOCHS,
        flag="--tuned/--no-tuned",
    )
    found: SkipJsonSchema[Found | None] = declare_field(  # absent until a run has begun
        None, is_typed=False, exclude_if=lambda found: found is None
    )
    gates: Gates = declare_field(Gates())
    predict: bool = declare_field(
        True,
        "Label the test split with the champion afterwards.",
        flag="--no-predict",
        help="Do not predict after publishing.",
    )
    publish: bool = declare_field(
        True,
        "Publish what passes the gates, unless its name is frozen.",
        flag="--no-publish",
        help="Only judge: do everything up to the gates and leave the store alone.",
    )
    force: bool = declare_field(False, "Train even if neither data nor options have changed.")

    @model_validator(mode="after")
    def _search_no_table(self) -> Self:
        if self.tuned and self.use in Use.TABLES:
            raise make_refusal(UsageError("--tuned with a table", CONVERGED, "leave --tuned out"))
        return self


DASK_ADDRESS = declare_field(
    None, "The scheduler of an existing Dask cluster.", title="Dask scheduler", empty="a local one"
)


class Search(ParameterModel):
    """The extent and the space of a search, and what runs its trials."""

    trials: int = declare_field(32, "The number of trainings to choose from.", ge=1, le=10_000)
    timeout: PositiveFloat | None = declare_field(
        None,
        "Start no epoch after this many seconds; a fifth of them is reserved for the best two settings.",
        empty="until all trials are done",
    )
    space: tuple[str, ...] = declare_field(
        (), "What to search: lr=0.05:1,epochs=10|20.", empty="what is worth searching for this model and data"
    )
    runner: Runner = declare_field(Runner.THREADS, "What runs the trials.")
    dask_address: str | None = DASK_ADDRESS
    workers: PositiveInt | None = declare_field(
        None, "With Dask: this many trials at a time, at most four.", empty="all cores of a local cluster"
    )

    @model_validator(mode="after")
    def _fit_runner(self) -> Self:
        if self.runner is not Runner.DASK and (self.dask_address or self.workers):
            raise ValueError("--dask-address and --workers go with --runner dask")
        return self


class TuneParameters(LearningParameters):
    """The parameters of one search; ``training`` is its starting point."""

    search: Search = declare_field(Search())
    then_retrain: bool = declare_field(False, "Retrain at once with what was found; the gates decide.")
    force: bool = declare_field(False, "Start afresh, whatever an earlier search has learned.")

    @model_validator(mode="after")
    def _search_no_table(self) -> Self:
        if self.use in Use.TABLES:
            raise make_refusal(refuse_search(self.name))
        return self


SHEET: Any = declare_field(None, "The sheet of a workbook.", empty="the first")
QUERY: Any = declare_field(None, "The SQL query that reads a database.", empty="files are read")


class PredictParameters(ParameterModel):
    """The parameters of one batch prediction."""

    source_field = "input"

    input: str | None = declare_field(
        None,
        f"A file, folder or glob: .npy, .npz, .safetensors, .png, .jpeg; tables as {TABLE_FORMATS}.",
        flag="INPUT",
        empty="the test split of the version's dataset",
    )
    sheet: str | None = SHEET
    query: str | None = QUERY
    name: str = declare_field(
        ModelName.SOFTMAX_REGRESSION.value, "Which model.", title="Model name", pattern=NAME_PATTERN
    )
    version: PositiveInt | None = declare_field(
        None,
        "The champion is the newest that passed the gates, until somebody promotes another version or rolls back.",
        empty="the champion",
    )
    output: str | None = declare_field(
        None,
        "A folder for parts; or a file .csv or .parquet: the input's columns, then the predictions.",
        empty="artifacts/predictions/JOB",
    )
    device: Device = DEVICE
    batch_size: int | None = declare_field(
        None, "Rows per call of onnxruntime.", empty="1024, on a GPU 16384", ge=1, le=1_000_000
    )
    columns: tuple[str, ...] = declare_field(
        (), "The columns of a table, in the model's order.", empty="as the version was trained"
    )
    id_columns: Names = declare_field(
        (),
        "Columns of a table, or of pictures in Parquet, to copy as text to id_COLUMN.",
        flag="--id-column",
        empty="row and source only",
    )
    unknown: Literal["reject", "average"] = declare_field(
        "average", "Levels and missing values that the model has not seen: use the average, or reject their rows."
    )
    write: Literal["all", "label"] = declare_field("all", "For classes: all probabilities, or only the label.")
    max_rejects: int | None = declare_field(
        None,
        "Stop if more than this many rows cannot be predicted.",
        title="Rejected rows",
        empty="0 of arrays, 1 % of tables and pictures",
        ge=0,
    )
    max_drift: PositiveFloat = declare_field(0.2, "Population stability index above which drift is reported.")
    full_digest: bool = declare_field(False, "Compare inputs by all their bytes, not by samples.")
    shard_rows: PositiveInt | None = declare_field(
        None, "The most rows in one part of the output.", empty="a quarter of a second of work"
    )
    workers: int | None = declare_field(None, "Predict on this many cores.", empty="all", ge=1, le=1024)
    runner: Runner = declare_field(Runner.THREADS, "What runs the shards.")
    dask_address: str | None = DASK_ADDRESS
    restart: bool = declare_field(False, "Replace what a job left in the output folder.")

    @field_validator("output")
    @classmethod
    def _write_here(cls, output: str | None) -> str | None:
        if output is not None and "://" in output:
            raise ValueError("a folder or file on this machine, not a URL: copy it there afterwards")
        return output

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.dask_address is not None and self.runner is not Runner.DASK:
            raise ValueError("--dask-address goes with --runner dask")
        if len(set(self.id_columns)) < len(self.id_columns):
            raise ValueError("an id column is named twice, and the output would have two columns of one name")
        return self


class EvaluateParameters(ParameterModel):
    """The parameters of one evaluation of a kept version on labelled rows."""

    source_field = "data"

    name: str = declare_field(
        ModelName.SOFTMAX_REGRESSION.value, "Which model.", title="Model name", flag="NAME", pattern=NAME_PATTERN
    )
    data: str | None = declare_field(
        None,
        "Labelled rows: a file, folder, glob or URL of a table with the target's column; or images, a folder for each "
        "class or files of arrays.",
        flag="DATA",
        empty="the version's own test split",
        min_length=1,
    )
    sheet: str | None = SHEET
    query: str | None = QUERY
    version: PositiveInt | None = declare_field(None, empty="the champion")
    time_column: str | None = declare_field(
        None,
        "The time column of a table: shows figures by period, too.",
        empty="that of the version's split, if it has one",
    )
    unseen: bool = declare_field(False, "Leave out rows that the version was trained on.", title="Unseen rows only")
    max_rejects: Share = declare_field(0.01, "The share of images that may be broken.", title="Rejected images")


class MaintainParameters(ParameterModel):
    """What maintenance keeps."""

    keep: int = declare_field(
        30, "How many of the newest runs and predictions of a model stay; those of kept versions always do.", ge=1
    )


FLOWS: dict[str, type[ParameterModel]] = {  # what each flow takes, by its name
    "retrain": RetrainParameters,
    "predict": PredictParameters,
    "evaluate": EvaluateParameters,
    "maintain": MaintainParameters,
    "tune": TuneParameters,
}


def narrow_form(form: type[LearningParameters], parameters: dict[str, Any]) -> type[LearningParameters]:
    """The form of one deployment with these ``parameters``, without fields that are useless to its runs.

    Own data may still be named if the parameters have no name for the model. If the parameters are invalid, the whole
    form is returned.
    """
    try:
        asked = form.model_validate(parameters)
    except ValidationError:
        return form
    model = asked.training.model
    shown_for = asked.use if parameters.get("name") else OF_MODEL[model]
    parts: dict[str, Any] = {}
    for name in form.model_fields.keys() & {"training", "data", "gates"}:
        kind = type(getattr(asked, name))
        part = cast("type[ParameterModel]", create_model(name.capitalize(), __base__=kind, __doc__=kind.__doc__))
        part.shown_for = shown_for
        parts[name] = (part, part.model_validate({"model": model} if name == "training" else {}))
    narrowed = cast("type[LearningParameters]", create_model(form.__name__, __base__=form, **parts))
    narrowed.shown_for = shown_for
    return narrowed
