"""Training settings: what the book's two models take, for the book's data and for own data."""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.parameters.form import WORDS, ParameterModel, Use, declare_field, option_of

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
FASHION_MNIST = "fashion-mnist"
SYNTHETIC_LINEAR = "synthetic-linear"
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def is_name(text: str) -> bool:
    """Whether ``text`` is a valid model name; no other text ever becomes part of a path."""
    return re.fullmatch(NAME_PATTERN, text) is not None


class ModelName(StrEnum):
    """The two models of chapter 3."""

    SOFTMAX_REGRESSION = "softmax-regression"
    LINEAR_REGRESSION = "linear-regression"


class Implementation(StrEnum):
    """The book's two ways of writing each model."""

    SCRATCH = "scratch"
    CONCISE = "concise"


WRITTEN_FOR = dict.fromkeys(Implementation, tuple(ModelName))  # the networks are in tasks/fitting/trainer.py


class Loss(StrEnum):
    """What training minimises."""

    CROSS_ENTROPY = "cross-entropy"
    SQUARED = "squared"
    HUBER = "huber"


class LearningRateSchedule(StrEnum):
    """How the learning rate changes from epoch to epoch."""

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"


class Runner(StrEnum):
    """What runs the trials of a search, or the shards of a batch prediction."""

    THREADS = "threads"
    DASK = "dask"


class Device(StrEnum):
    """Where to compute; ``auto`` uses the GPU if there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


BOOK_DATASETS = {Use.BOOK_SOFTMAX: FASHION_MNIST, Use.BOOK_LINEAR: SYNTHETIC_LINEAR}
OF_MODEL = {ModelName.SOFTMAX_REGRESSION: Use.SOFTMAX, ModelName.LINEAR_REGRESSION: Use.LINEAR}
LOSSES = {
    ModelName.SOFTMAX_REGRESSION: (Loss.CROSS_ENTROPY,),
    ModelName.LINEAR_REGRESSION: (Loss.SQUARED, Loss.HUBER),
}  # for each model, the default first


# By loss. Own data have none here: tasks/fitting/trainer.py finds them by rules that inspect the data.
BOOK_SETTINGS: dict[Loss, dict[str, Any]] = {
    Loss.CROSS_ENTROPY: {"num_epochs": 10, "batch_size": 256, "lr": 0.1, "weight_decay": 0.0},
    Loss.SQUARED: {"num_epochs": 3, "batch_size": 10, "lr": 0.03, "weight_decay": 0.0},
    # Its gradient is bounded, so a distant start takes longer to reach the minimum.
    Loss.HUBER: {"num_epochs": 5, "batch_size": 10, "lr": 0.03, "weight_decay": 0.0},
}
CONVERGED = "tables are fitted to convergence; their settings are cross-validated in every retrain"
CLASS_WEIGHT = declare_field("none", "balanced: every class counts as much as any other.", Use.OWN_SOFTMAX)
WEIGHT_DECAY = declare_field(
    None,
    "Pulls the weights (not the bias) towards 0; auto: chosen by your own training rows, for tables by "
    "cross-validation.",
    is_searched=True,
)
SHAPE = declare_field(
    "auto",
    "linear, curves (the effects of numbers may bend) or pairs (effects of two columns, too); auto: cross-validated.",
    Use.TABLES,
)
DEVICE = declare_field(Device.AUTO, "auto uses the GPU if there is one.")
WeightDecay = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] | None
ClassWeight = Literal["none", "balanced"]
ShapeOption = Literal["linear", "curves", "pairs", "auto"]


class Hyperparameters(ParameterModel):
    """How long and how fast to train, once every value is known."""

    num_epochs: int
    batch_size: int
    lr: float
    weight_decay: float


class Training(ParameterModel):
    """How to train. Settings that are not given are the book's or, for own data, found by rules."""

    removed: ClassVar[dict[str, str]] = {
        "dropout": "use --weight-decay: a linear model has no units that could be dropped"
    }

    model: ModelName = declare_field(
        ModelName.SOFTMAX_REGRESSION,
        "The model to train.",
        flag="model",
        metavar="MODEL|NAME",
        help="softmax-regression, linear-regression, or a kept name to train again.",
    )
    implementation: Implementation = declare_field(
        Implementation.CONCISE, "Which of the book's two implementations.", Use.IN_EPOCHS
    )
    num_epochs: int | None = declare_field(
        None,
        "Passes over the training examples; 5 by default with --loss huber.",
        Use.IN_EPOCHS,
        title="Epochs",
        flag="--epochs",
        is_searched=True,
        ge=1,
        le=10_000,
    )
    batch_size: int | None = declare_field(None, None, Use.IN_EPOCHS, is_searched=True, ge=1, le=1_000_000)
    lr: PositiveFloat | None = declare_field(None, None, Use.IN_EPOCHS, title="Learning rate", is_searched=True)
    loss: Loss = declare_field(None, "squared or huber.", Use.LINEAR, is_searched=True)
    schedule: LearningRateSchedule = declare_field(
        LearningRateSchedule.CONSTANT,
        "The course of the learning rate; cosine falls towards 0, step by tenths.",
        Use.IN_EPOCHS,
        is_searched=True,
    )
    weight_decay: WeightDecay = WEIGHT_DECAY
    shape: ShapeOption = SHAPE
    class_weight: ClassWeight = CLASS_WEIGHT
    refit: bool = declare_field(
        False,
        "Publish weights that are fitted once more on all rows, after the fit to the training part was evaluated; kept "
        "with the name.",
        Use.TABLES,
        flag="--refit/--no-refit",
        exclude_if=lambda refit: not refit,  # so that other documents, and ONNX files, are as they were before it
    )
    validation: float = declare_field(
        0.0, "The share of training examples to hold out and watch.", Use.IN_EPOCHS, ge=0, lt=1
    )
    patience: PositiveInt | None = declare_field(
        None,
        "Stop after this many epochs without a smaller validation loss.",
        Use.IN_EPOCHS,
        empty="train all epochs",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | Literal["auto"] = declare_field(
        42, "A whole number, or auto: derived from the run's scheduled date."
    )
    device: Device = DEVICE
    defaults: SkipJsonSchema[Literal["book", "data"]] = Field("book", exclude=True)  # which apply; not an option

    @field_validator("loss")
    @classmethod
    def _fit_model(cls, loss: Loss, known: ValidationInfo) -> Loss:
        if loss not in (losses := LOSSES[known.data.get("model", ModelName.SOFTMAX_REGRESSION)]):
            raise ValueError(" or ".join(f"'{each}'" for each in losses))
        return loss

    @model_validator(mode="after")
    def _fill_and_compare(self) -> Self:
        """Fill in defaults, which do not count as ``given``; refuse combinations that do not fit."""
        loss = self.loss or LOSSES[self.model][0]
        usual = {"loss": loss} | (BOOK_SETTINGS[loss] if self.is_of_book else {})
        for name, field in type(self).model_fields.items():
            use = self.use_of(name)
            value = getattr(self, name)
            is_usual = value in (field.default, usual.get(name))
            if value is None:
                object.__setattr__(self, name, usual.get(name))
            # Versions of tables that an earlier release trained in epochs have its settings; a run refuses them.
            elif not (use & self.possible_uses or use is Use.IN_EPOCHS or is_usual):
                raise ValueError(f"{name} is for {WORDS[use]}")
        if self.model not in (models := WRITTEN_FOR[self.implementation]):
            raise ValueError(f"implementation {self.implementation} is for {', '.join(models)}")
        if self.is_of_book and self.weight_decay == "auto":
            raise ValueError("weight decay is chosen for your own data only")
        return self

    @classmethod
    def list_choices(cls, name: str) -> list[str]:
        """The models that the form is shown for, and their losses."""
        models = [model for model, uses in OF_MODEL.items() if uses & cls.shown_for]
        choices: dict[str, list[ModelName] | list[Loss]] = {
            "model": models,
            "loss": [loss for model in models for loss in LOSSES[model]],
        }
        return [each.value for each in choices.get(name, [])]

    @classmethod
    def describe_default(cls, name: str, use: Use) -> str:
        """``the book's, 10 softmax, 3 linear; on your own images found by rule``, limited to this ``use``."""
        models = [model for model, of in OF_MODEL.items() if of & use]
        values = {model: str(list_defaults(model, "book")[name]) for model in models}
        if len(set(values.values())) > 1:
            values = {model: f"{value} {model.partition('-')[0]}" for model, value in values.items()}
        book = f"the book's, {', '.join(dict.fromkeys(values.values()))}"
        own = "found by rule" if name in Hyperparameters.model_fields else book
        defaults = {Use.BOOK: book, Use.IMAGES: own, Use.TABLES: "auto" if name == "weight_decay" else own}
        kinds = dict[str, Use]()
        for kind, default in defaults.items():
            if kind & use & cls.use_of(name):
                kinds.setdefault(default, kind)
        first, *others = kinds
        return "; ".join([first, *(f"on {WORDS[kinds[default]]} {default}" for default in others)])

    @property
    def is_of_book(self) -> bool:
        """Whether the book's defaults apply, and not those for own data."""
        return self.defaults == "book"

    @property
    def possible_uses(self) -> Use:
        """The models and kinds of data that are possible before the data are known."""
        return OF_MODEL[self.model] & (Use.BOOK if self.is_of_book else Use.OWN)

    def list_inapplicable(self, use: Use) -> list[str]:
        """The settings, other than defaults, that do not apply to this ``use``."""
        usual = Training.model_validate({"model": self.model, "defaults": self.defaults})
        return [
            name
            for name in type(self).model_fields
            if not self.use_of(name) & use and getattr(self, name) != getattr(usual, name)
        ]

    @property
    def given_values(self) -> dict[str, Any]:
        """The values that were given; all others are defaults, or found later."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @property
    def exported_values(self) -> dict[str, Any]:
        """The options named in an ONNX file, as in JSON: those that make it a different model."""
        left_out = {"device"}
        if self.is_of_book:
            left_out.add("class_weight")  # so that the book's models keep the bytes that they had before it
        if self.shape == "auto":  # the recipe names the chosen one
            left_out.add("shape")
        return self.model_dump(mode="json", exclude=left_out)

    @property
    def seed_number(self) -> int:
        """The seed, after ``auto`` was replaced by a date."""
        return int(self.seed)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The hyperparameters, after missing values were found."""
        return Hyperparameters.model_validate(self, from_attributes=True)


SEARCHED = [name for name, field in Training.model_fields.items() if option_of(field).is_searched]


def list_defaults(model: str, defaults: str) -> dict[str, Any]:
    """The default values of a model's training settings, as in JSON; ``defaults`` is ``book`` or ``data``."""
    return Training.model_validate({"model": model, "defaults": defaults}).model_dump(mode="json")
