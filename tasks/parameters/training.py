"""How to train: what both models share, and what each of the book's has of its own."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.parameters.choices import (
    DEFAULT_SEED,
    FASHION_MNIST,
    SYNTHETIC_LINEAR,
    WRITTEN_FOR,
    Device,
    Implementation,
    Loss,
    ModelName,
    Schedule,
)
from tasks.parameters.form import Frozen, OneForm, Option, PositiveFloat, option
from tasks.parameters.uses import BOOK, LINEAR, OF_MODEL, OWN, SOFTMAX, WORDS, Uses

WHICH = Field(title="Model", description="What to train.")
MODEL = Option("model", metavar="MODEL", help="softmax-regression, linear-regression, or a kept name: trained again.")
BY_RULE_OR_SEARCH = Option(by_rule=True, searched=True)
Epochs = Annotated[int | None, Field(ge=1, le=10_000, title="Epochs"), Option("--epochs", by_rule=True, searched=True)]
BatchSize = Annotated[int | None, Field(ge=1, le=1_000_000, title="Batch size"), BY_RULE_OR_SEARCH]
LearningRate = Annotated[PositiveFloat | None, Field(title="Learning rate"), BY_RULE_OR_SEARCH]
WeightDecay = Annotated[
    Annotated[float, Field(ge=0, allow_inf_nan=False)] | Annotated[str, Field(pattern="^auto$")] | None,
    Field(
        title="Weight decay",
        description="Pulls the weights (not the bias) towards 0; auto is chosen on a part of own training rows.",
    ),
    BY_RULE_OR_SEARCH,
]
ClassWeight = Annotated[
    Literal["none", "balanced"],
    Field(title="Class weight", description="balanced: every class counts as much as any other."),
    Option(of=SOFTMAX & OWN),
]
LOSS = Field(title="Loss", description="squared or huber.")
Seed = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(pattern="^auto$")]


class Steps(Frozen):
    """How far training goes, once every value is known."""

    num_epochs: int
    batch_size: int
    lr: float
    weight_decay: float


class Training(Frozen):
    """How to train. Which model it is decides on the class, and so on the defaults of what has none here."""

    dataset: ClassVar[str]

    model: ModelName
    implementation: Implementation = Field(
        Implementation.CONCISE, title="Implementation", description="The book's way of writing it."
    )
    num_epochs: Epochs
    batch_size: BatchSize
    lr: LearningRate
    loss: Loss
    schedule: Annotated[Schedule, Option(searched=True)] = Field(
        Schedule.CONSTANT, title="Schedule", description="Of the learning rate; cosine falls towards 0, step by tenths."
    )
    weight_decay: WeightDecay = 0.0
    class_weight: ClassWeight = "none"
    dropout: Annotated[float, Option(of=SOFTMAX, searched=True)] = Field(
        0.0, ge=0, lt=1, title="Dropout", description="Share of inputs dropped in training."
    )
    validation: float = Field(
        0.0, ge=0, lt=1, title="Validation", description="Share of the training examples held out to watch."
    )
    patience: Annotated[int | None, Option(empty="train all epochs")] = Field(
        None, ge=1, title="Patience", description="Stop after so many epochs without a smaller validation loss."
    )
    seed: Seed = Field(
        DEFAULT_SEED, title="Seed", description="A whole number, or auto: derived from the run's scheduled date."
    )
    device: Device = Field(Device.AUTO, title="Device", description="auto takes the GPU where there is one.")
    defaults: SkipJsonSchema[Literal["book", "data"]] = Field("book", exclude=True)  # for what is not given; no option

    @model_validator(mode="before")
    @classmethod
    def _empty_is_left_out(cls, values: Any) -> Any:
        """A form sends nothing as null, which means the default; that of own data is found when they are read."""
        if not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value is not None}
        return dict.fromkeys(BY_RULE) | given if given.get("defaults") == "data" else given

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        for name in self.model_dump(exclude_defaults=True):
            if self.possible_uses.isdisjoint(of := self.of_field(name)):
                raise ValueError(f"{name} is for {WORDS[of]}")
        if self.model not in (models := WRITTEN_FOR[self.implementation]):
            raise ValueError(f"implementation {self.implementation} is for {', '.join(models)}")
        if self.weight_decay == "auto" and self.defaults != "data":
            raise ValueError("weight decay is chosen for own data only")
        return self

    @property
    def possible_uses(self) -> Uses:
        """What is trained from which data, as far as can be told without these."""
        return OF_MODEL[self.model] & (OWN if self.defaults == "data" else BOOK)

    @property
    def given(self) -> dict[str, Any]:
        """The values that were named; all others are defaults, or found later."""
        named = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def seed_number(self) -> int:
        """The seed, once ``auto`` has been replaced by a date."""
        if isinstance(self.seed, str):
            raise ValueError("the seed is still 'auto'")
        return self.seed

    @property
    def steps(self) -> Steps:
        """How far training goes, once what was not given has been found."""
        values = [getattr(self, name) for name in BY_RULE]
        if None in values or "auto" in values:
            raise ValueError(f"not yet found: {dict(zip(BY_RULE, values, strict=True))}")
        return Steps(**dict(zip(BY_RULE, values, strict=True)))


class SoftmaxTraining(Training):
    """Softmax regression as the book trains it."""

    dataset = FASHION_MNIST

    model: Annotated[Literal[ModelName.SOFTMAX_REGRESSION], WHICH, MODEL] = ModelName.SOFTMAX_REGRESSION
    num_epochs: Epochs = Field(10, description="Passes over the training examples.")
    batch_size: BatchSize = 256
    lr: LearningRate = 0.1
    loss: Annotated[Literal[Loss.CROSS_ENTROPY], LOSS, Option(of=LINEAR, searched=True)] = Loss.CROSS_ENTROPY


class LinearTraining(Training):
    """Linear regression as the book trains it."""

    dataset = SYNTHETIC_LINEAR

    model: Annotated[Literal[ModelName.LINEAR_REGRESSION], WHICH, MODEL] = ModelName.LINEAR_REGRESSION
    num_epochs: Epochs = Field(3, description="With the loss huber 5 unless given.")
    batch_size: BatchSize = 10
    lr: LearningRate = 0.03
    loss: Annotated[Literal[Loss.SQUARED, Loss.HUBER], LOSS, Option(of=LINEAR, searched=True)] = Loss.SQUARED

    @model_validator(mode="after")
    def _huber_takes_longer(self) -> Self:
        """Huber's gradient is bounded, so that it needs 5 epochs from the start, far off, to the minimum."""
        if self.loss == Loss.HUBER and self.defaults != "data" and "num_epochs" not in self.model_fields_set:
            object.__setattr__(self, "num_epochs", 5)  # a default, which stays not ``given``
        return self


BY_RULE = tuple(name for name, field in SoftmaxTraining.model_fields.items() if option(field.metadata).by_rule)
SEARCHED = tuple(name for name, field in SoftmaxTraining.model_fields.items() if option(field.metadata).searched)


def usual(model: str, defaults: Literal["book", "data"]) -> dict[str, Any]:
    """The values of a model's training, as JSON has them, where none is given."""
    (kind,) = (each for each in (SoftmaxTraining, LinearTraining) if each.model_fields["model"].default == model)
    return kind.model_validate({"defaults": defaults}).model_dump(mode="json")


class Found(Frozen):
    """Which settings of a run are those that a search found."""

    run: str  # of the search
    fields: tuple[str, ...]  # of ``Training``


class _Model(BaseModel):
    model: ModelName = ModelName.SOFTMAX_REGRESSION


def _with_its_model(values: Any) -> Any:
    """A document that names no model is one of softmax regression; a wrong name is a fault of ``model``."""
    values = {} if values is None else values  # as of every value: what is empty is the default
    if not isinstance(values, dict):
        return values
    named = {"model": values["model"]} if values.get("model") is not None else {}
    return values | {"model": _Model.model_validate(named).model.value}


OfItsModel = Annotated[
    SoftmaxTraining | LinearTraining,
    Field(discriminator="model"),
    OneForm("Training", "model", BY_RULE, SEARCHED),
    BeforeValidator(_with_its_model),
]
