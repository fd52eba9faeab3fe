"""Every knob of a run, as frozen pydantic models: checked at the door, drawn by Prefect as a form."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
DEFAULT_SEED = 42


def is_name(text: str) -> bool:
    """Whether ``text`` may name a model; anything else never becomes part of a path."""
    return re.fullmatch(NAME_PATTERN, text) is not None


PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelName(StrEnum):
    """The two models of chapter 3."""

    SOFTMAX_REGRESSION = "softmax-regression"
    LINEAR_REGRESSION = "linear-regression"


FASHION_MNIST = "fashion-mnist"
SYNTHETIC_LINEAR = "synthetic-linear"
DATASETS = {ModelName.SOFTMAX_REGRESSION: FASHION_MNIST, ModelName.LINEAR_REGRESSION: SYNTHETIC_LINEAR}


class Implementation(StrEnum):
    """The book's two ways of writing each model."""

    SCRATCH = "scratch"
    CONCISE = "concise"


class Loss(StrEnum):
    """What training minimises. Softmax regression has cross-entropy only."""

    CROSS_ENTROPY = "cross-entropy"
    SQUARED = "squared"
    HUBER = "huber"


class Schedule(StrEnum):
    """How the learning rate changes from epoch to epoch."""

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"


class Device(StrEnum):
    """Where to compute; ``auto`` takes the GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def _as_a_form(schema: dict[str, Any]) -> None:
    """Suit Prefect's form: it sorts fields by name unless each has a position, and sends every default it shows."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position
        if field.get("book") or isinstance(field.get("default"), dict):  # which a part's own fields have anyway
            field.pop("default", None)


OF_THE_BOOK: dict[str, Any] = {"book": True}  # marks values that differ from model to model


class Frozen(BaseModel):
    """Base of all parameters: unknown names are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_as_a_form)


class Data(Frozen):
    """What to train on."""

    resize: int | None = Field(
        None,
        ge=4,
        le=256,
        title="Resize",
        description="Side of the square images in pixels; empty: 28 as they are.",
    )
    synthetic_w: tuple[float, ...] = Field(
        (2.0, -3.4),
        min_length=1,
        title="True weights",
        description="Of the synthetic data of linear regression.",
    )
    synthetic_b: float = Field(4.2, allow_inf_nan=False, title="True bias")
    synthetic_noise: PositiveFloat = Field(0.01, title="Noise", description="Standard deviation of the target's noise.")
    num_examples: int = Field(1000, ge=10, le=10_000_000, title="Synthetic examples", description="In each split.")


class Training(Frozen):
    """How to train. Left empty, each value is the book's."""

    model: ModelName = Field(ModelName.SOFTMAX_REGRESSION, title="Model")
    implementation: Implementation = Field(Implementation.CONCISE, title="Implementation")
    num_epochs: int = Field(
        10,
        ge=1,
        le=10_000,
        title="Epochs",
        description="Empty, the book's: 10 (softmax), 3 (linear); Huber: 5.",
        json_schema_extra=OF_THE_BOOK,
    )
    batch_size: int = Field(
        256,
        ge=1,
        le=1_000_000,
        title="Batch size",
        description="Empty, the book's: 256 (softmax), 10 (linear).",
        json_schema_extra=OF_THE_BOOK,
    )
    lr: PositiveFloat = Field(
        0.1,
        title="Learning rate",
        description="Empty, the book's: 0.1 (softmax), 0.03 (linear).",
        json_schema_extra=OF_THE_BOOK,
    )
    loss: Loss = Field(
        Loss.CROSS_ENTROPY,
        title="Loss",
        description="Empty: cross-entropy (softmax), squared (linear); linear regression also takes huber.",
        json_schema_extra=OF_THE_BOOK,
    )
    schedule: Schedule = Field(
        Schedule.CONSTANT, title="Schedule", description="Of the learning rate; cosine falls towards 0, step by tenths."
    )
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, title="Weight decay", description="Of the weights.")
    dropout: float = Field(0.0, ge=0, lt=1, title="Dropout", description="Share of inputs dropped; softmax only.")
    validation: float = Field(
        0.0, ge=0, lt=1, title="Validation", description="Share of the training examples held out to watch."
    )
    patience: int | None = Field(
        None, ge=1, title="Patience", description="Stop after so many epochs without a smaller validation loss."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(pattern="^auto$")] = Field(
        DEFAULT_SEED,
        title="Seed",
        description="A whole number, or auto: derived from the run's scheduled date.",
    )
    device: Device = Field(Device.AUTO, title="Device")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_book(cls, values: Any) -> Any:
        """Give every value that was left out the book's constant for that model."""
        if not isinstance(values, dict):
            return values
        book: dict[str, Any] = {}
        if values.get("model") == ModelName.LINEAR_REGRESSION:
            # Huber's gradient is bounded, so it takes longer to come from the start, far off, to the minimum.
            num_epochs = 5 if values.get("loss") == Loss.HUBER else 3
            book = {"num_epochs": num_epochs, "batch_size": 10, "lr": 0.03, "loss": Loss.SQUARED}
        return book | {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _loss_fits_model(self) -> "Training":
        linear = self.model is ModelName.LINEAR_REGRESSION
        if linear == (self.loss is Loss.CROSS_ENTROPY):
            fitting = "squared or huber" if linear else "cross-entropy"
            raise ValueError(f"{self.model.value} is trained with {fitting}, not with {self.loss.value}")
        if linear and self.dropout:
            raise ValueError("dropout is for softmax regression")
        if self.patience and not self.validation:
            raise ValueError("early stopping needs a validation split, such as 0.1")
        return self

    @property
    def seed_number(self) -> int:
        """The seed, once ``auto`` has been replaced by a date."""
        if isinstance(self.seed, str):
            raise ValueError("the seed is still 'auto'")
        return self.seed


class Gates(Frozen):
    """Bounds that a candidate must keep to be published (the book's assertions by default)."""

    max_train_loss: PositiveFloat = Field(0.5, title="Train loss below", description="Softmax regression.")
    min_train_accuracy: Share = Field(0.7, title="Train accuracy above")
    min_test_accuracy: Share = Field(0.7, title="Test accuracy above")
    max_loss_ratio: float = Field(
        1.05,
        ge=1,
        title="Test loss over closed form",
        description="Linear regression: at most this many times as large.",
    )
    max_standardised_error: PositiveFloat = Field(
        1e-3,
        title="Error allowance",
        description="Added to that bound: the loss of this error, in target deviations.",
    )
    max_parameter_error: PositiveFloat = Field(
        0.02,
        title="Parameter error",
        description="Linear regression on synthetic data: distance from the truth.",
    )
    max_accuracy_drop: Share = Field(0.005, title="Accuracy drop", description="Against any kept version.")
    max_recall_drop: Share = Field(0.10, title="Recall drop", description="Of any class, against any kept version.")
    max_drop_p: Share = Field(
        0.05,
        title="Drop p",
        description="A larger drop is refused if its p, corrected for versions and classes, is smaller than this.",
    )
    max_loss_rise: float = Field(
        1.05, ge=1, title="Loss rise", description="Linear regression: test loss over the best kept one's."
    )
    max_latency_ms: PositiveFloat | None = Field(
        None, title="Latency limit", description="95th percentile for one row, milliseconds; empty: recorded only."
    )
    max_memory_mb: PositiveFloat | None = Field(
        None, title="Memory limit", description="Peak of the serving process, MiB; empty: recorded only."
    )
    max_parity_error: PositiveFloat = Field(
        1e-5, title="Parity", description="Largest difference between torch and onnxruntime (README, Gates)."
    )


class RetrainParameters(Frozen):
    """Everything that one retrain needs to know."""

    name: str = Field(
        "",
        pattern=r"^$|" + NAME_PATTERN,
        title="Name",
        description="The model is kept under it; empty: its own name.",
    )
    training: Training = Field(Training(), title="Training")
    data: Data = Field(Data(), title="Data")
    gates: Gates = Field(Gates(), title="Gates")
    predict: bool = Field(True, title="Predict", description="Label the test split with the champion afterwards.")
    sign_key: Path | None = Field(
        None, title="Signing key", description="File of a private key; the published version gets an attestation."
    )
    force: bool = Field(False, title="Force", description="Recompute everything, even what an earlier run left.")

    @property
    def dataset(self) -> str:
        """The dataset that the model learns from."""
        return DATASETS[self.training.model]

    @model_validator(mode="before")
    @classmethod
    def _name_after_model(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("name"):
            return values
        training = values.get("training") or Training()
        model = (
            training.model if isinstance(training, Training) else training.get("model", ModelName.SOFTMAX_REGRESSION)
        )
        return values | {"name": str(model)}


class Runner(StrEnum):
    """What runs the shards of a batch prediction."""

    THREADS = "threads"
    DASK = "dask"


class PredictParameters(Frozen):
    """Everything that one batch prediction needs to know."""

    input: str | None = Field(
        None, title="Input", description="A file, folder or glob; empty: the test split of the version's dataset."
    )
    name: str = Field(ModelName.SOFTMAX_REGRESSION.value, pattern=NAME_PATTERN, title="Model name")
    version: int | None = Field(
        None,
        ge=1,
        title="Version",
        description="Empty: the champion, the newest that passed the gates until somebody promotes or rolls back.",
    )
    output: str | None = Field(None, title="Output folder", description="Empty: a folder in artifacts/predictions/.")
    device: Device = Field(Device.AUTO, title="Device")
    batch_size: int | None = Field(
        None, ge=1, le=1_000_000, title="Batch size", description="Empty: 1024 on the CPU, 16384 on a GPU."
    )
    columns: tuple[str, ...] = Field(
        (), title="Columns", description="Of a table, in the model's order; empty: as the version was trained."
    )
    max_rejects: int | None = Field(
        None, ge=0, title="Rejected rows", description="More stop the job; empty: 0 of arrays, 1 % of tables, pictures."
    )
    max_drift: PositiveFloat = Field(
        0.2, title="Drift", description="Population stability index above which drift is reported."
    )
    full_digest: bool = Field(False, title="Full digest", description="Tell inputs apart by all their bytes.")
    shard_rows: int | None = Field(None, ge=1, title="Shard rows", description="Empty: a quarter of a second's work.")
    workers: int | None = Field(None, ge=1, le=1024, title="Workers", description="Empty: one for each core.")
    runner: Runner = Field(Runner.THREADS, title="Runner", description="What runs the shards.")
    dask_address: str | None = Field(None, title="Dask scheduler", description="Empty: a cluster on this machine.")
    restart: bool = Field(False, title="Restart", description="Replace what a job left in the output folder.")

    @model_validator(mode="after")
    def _address_fits_runner(self) -> "PredictParameters":
        if self.dask_address is not None and self.runner is not Runner.DASK:
            raise ValueError("a Dask scheduler goes with the runner dask")
        return self


class MaintainParameters(Frozen):
    """What maintenance leaves."""

    keep: int = Field(
        30, ge=1, title="Keep", description="The newest runs and predictions of each model; kept versions' runs stay."
    )
