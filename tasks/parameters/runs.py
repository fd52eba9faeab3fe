"""What each flow takes."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.parameters.addresses import has_credentials
from tasks.parameters.choices import NAME_PATTERN, Device, ModelName, Runner
from tasks.parameters.data import Data
from tasks.parameters.form import Frozen, Option, PositiveFloat
from tasks.parameters.gates import Gates
from tasks.parameters.training import Found, OfItsModel, SoftmaxTraining, Training
from tasks.parameters.uses import BOOK, IMAGES, OF_MODEL, TABLES, Uses

PositiveInt = Annotated[int, Field(ge=1)]


class Learned(Frozen):
    """What is learned from which data, and under which name it is kept."""

    name: Annotated[str, Option(empty="the model's own")] = Field(
        "", pattern=r"^$|" + NAME_PATTERN, title="Name", description="The model is kept under this name."
    )
    training: OfItsModel = Field(SoftmaxTraining(), title="Training")
    data: Data = Field(Data(), title="Data")

    @property
    def dataset(self) -> str:
        """The data set that the model learns from: one of the book's, or that of its own name."""
        return self.name if self.data.is_own else self.training.dataset

    @property
    def uses(self) -> Uses:
        """What is trained from which data."""
        return OF_MODEL[self.training.model] & (IMAGES if self.data.is_images else TABLES if self.data.is_own else BOOK)

    @model_validator(mode="before")
    @classmethod
    def _names_and_defaults(cls, values: Any) -> Any:
        """The book's model is kept under its own name; own data decide what is not given."""
        if not isinstance(values, dict):
            return values
        training, data = values.get("training") or {}, values.get("data") or {}
        if not values.get("name"):
            model = training.model if isinstance(training, Training) else training.get("model")
            values = values | {"name": str(model or ModelName.SOFTMAX_REGRESSION)}
        if isinstance(data, dict) and data.get("source") and isinstance(training, dict):
            values = values | {"training": {"defaults": "data"} | training}
        return values

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        if self.data.is_own != (self.training.defaults == "data"):
            raise ValueError("own data, --data, decide what is not given; the book's data do not")
        if self.data.is_own and self.name in [*ModelName]:
            raise ValueError("own data are kept under a --name of their own")
        if self.training.patience and not self.training.validation and not self.data.is_own:  # which may name such rows
            raise ValueError("early stopping needs a validation split, such as 0.1")
        if self.data.is_images and self.training.model is not ModelName.SOFTMAX_REGRESSION:
            raise ValueError("--target, the column to predict; or images, which softmax-regression learns")
        return self


class RetrainParameters(Learned):
    """Everything that one retrain needs to know."""

    tuned: Annotated[bool, Option("--tuned/--no-tuned")] = Field(
        False, title="Tuned", description="Settings that are not given are those that gradmill tune has found last."
    )
    found: SkipJsonSchema[Annotated[Found | None, Option(noted=True)]] = None  # of a run that has begun
    gates: Gates = Field(Gates(), title="Gates")
    predict: Annotated[bool, Option("--no-predict", help="Publish only.")] = Field(
        True, title="Predict", description="Label the test split with the champion afterwards."
    )
    publish: Annotated[
        bool, Option("--no-publish", help="Judge only: do all up to the gates, leave the store alone.")
    ] = Field(True, title="Publish", description="Publish what passes the gates, unless its name is frozen.")
    sign_key: Annotated[Path | None, Option(empty="no attestation")] = Field(
        None, title="Signing key", description="Attest the version with this private key (PEM)."
    )
    force: bool = Field(False, title="Force", description="Recompute everything, even what an earlier run left.")

    @model_serializer(mode="wrap")
    def _as_a_form_sends_it(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is only noted is left out where it is not."""
        return {name: value for name, value in serialized(self).items() if name != "found" or self.found}


class PredictParameters(Frozen):
    """Everything that one batch prediction needs to know."""

    input: Annotated[str | None, Option("INPUT", empty="the test split of the version's dataset")] = Field(
        None,
        title="Input",
        description=(
            "A file, folder or glob: IDX (.gz too), .npy, .npz, .safetensors, .png, .jpeg; tables as .parquet, .csv, "
            ".feather, .jsonl."
        ),
    )
    name: str = Field(
        ModelName.SOFTMAX_REGRESSION.value, pattern=NAME_PATTERN, title="Model name", description="Which model."
    )
    version: Annotated[PositiveInt | None, Option(empty="the champion")] = Field(
        None,
        title="Version",
        description="The champion is the newest that passed the gates, until somebody promotes or rolls back.",
    )
    output: Annotated[str | None, Option(empty="artifacts/predictions/JOB")] = Field(
        None,
        title="Output",
        description="A folder for parts; or a file .csv or .parquet: the input's columns, then ours.",
    )
    device: Device = Field(Device.AUTO, title="Device", description="auto takes the GPU where there is one.")
    batch_size: Annotated[int | None, Option(empty="1024, on a GPU 16384")] = Field(
        None, ge=1, le=1_000_000, title="Batch size", description="Rows per call of onnxruntime."
    )
    columns: Annotated[
        tuple[str, ...],
        Option(help="Of a table, in the model's order.", empty="as the version was trained"),
    ] = Field((), title="Columns", description="Of a table, in the model's order.")
    id_columns: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Option("--id-column", empty="row and source only")
    ] = Field((), title="Id columns", description="Of a table, or of pictures in Parquet: copied as id_COLUMN.")
    unknown: Literal["reject", "average"] = Field(
        "reject",
        title="Unknown",
        description="Rows with an unknown level or an unseen gap: reject, or take the average.",
    )
    write: Literal["all", "label"] = Field(
        "all", title="Write", description="Of a classification: all probabilities, or the label alone."
    )
    max_rejects: Annotated[int | None, Option(empty="0 of arrays, 1 % of tables and pictures")] = Field(
        None, ge=0, title="Rejected rows", description="Stop when more rows cannot be read."
    )
    max_drift: PositiveFloat = Field(
        0.2, title="Drift", description="Population stability index above which drift is reported."
    )
    full_digest: bool = Field(
        False, title="Full digest", description="Tell inputs apart by all their bytes, not by samples."
    )
    shard_rows: Annotated[PositiveInt | None, Option(empty="a quarter of a second of work")] = Field(
        None, title="Shard rows", description="Most rows of a part."
    )
    workers: Annotated[int | None, Option(empty="all")] = Field(
        None, ge=1, le=1024, title="Workers", description="Rows are predicted on so many cores."
    )
    runner: Runner = Field(Runner.THREADS, title="Runner", description="What runs the shards.")
    dask_address: Annotated[str | None, Option(empty="a local one")] = Field(
        None, title="Dask scheduler", description="Scheduler of an existing Dask cluster."
    )
    restart: bool = Field(False, title="Restart", description="Replace what a job left in the output folder.")

    @model_validator(mode="after")
    def _keeps_no_secret(self) -> Self:
        if self.input is not None and has_credentials(self.input):
            raise ValueError("a URL with credentials would be written down: set them in the environment")
        return self

    @field_validator("output")
    @classmethod
    def _writes_here(cls, output: str | None) -> str | None:
        if output is not None and "://" in output:
            raise ValueError("a folder or file of this machine, no address: copy it there afterwards")
        return output

    @model_validator(mode="after")
    def _address_fits_runner(self) -> Self:
        if self.dask_address is not None and self.runner is not Runner.DASK:
            raise ValueError("a Dask scheduler goes with the runner dask")
        if len(set(self.id_columns)) < len(self.id_columns):
            raise ValueError("an id column is named twice, and the output would have two columns of one name")
        return self


class MaintainParameters(Frozen):
    """What maintenance leaves."""

    keep: int = Field(
        30,
        ge=1,
        title="Keep",
        description="The newest runs and predictions of a model that stay; those of kept versions do.",
    )
