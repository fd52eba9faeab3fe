"""The search space: the values of each searched field of ``Training``, and the reasons for them."""

import itertools
import math
from collections.abc import Sequence
from contextlib import suppress

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, create_trial
from pydantic import ValidationError

from tasks.errors import UsageError
from tasks.parameters import LearningRateSchedule, Loss, Training, Use
from tasks.parameters.form import WORDS, describe_expected
from tasks.records import PreparedDataset
from tasks.store.tuning_result import Setting

Space = dict[str, BaseDistribution]  # by field of ``Training``
Settings = dict[str, Setting]

OPTIONS = {
    "lr": "lr", "batch-size": "batch_size", "epochs": "num_epochs", "schedule": "schedule", "loss": "loss",
    "weight-decay": "weight_decay",
}  # fmt: skip
OF_WORDS, BY_DECADES = {"schedule", "loss"}, {"lr", "weight_decay"}
EXAMPLE = "write it as in --space lr=0.05:1,epochs=10|20,schedule=cosine"
# Schedules that lower the rate: at a constant rate the losses of five seeds differ by 0.02, and the luckiest trials
# win.
SCHEDULES = CategoricalDistribution((LearningRateSchedule.COSINE.value, LearningRateSchedule.STEP.value))


def list_space(prepared: PreparedDataset) -> Space:
    """The search space that is used unless ``--space`` says otherwise."""
    return SPACES[prepared.find_use(prepared.recipe)](prepared)


def list_book_space(prepared: PreparedDataset) -> Space:
    """What is worth searching for the book's models, around the book's values."""
    if prepared.task == "regression":  # around the rate 0.03, batch 10 and 3 epochs
        return {
            "lr": FloatDistribution(0.003, 0.3, log=True),
            "batch_size": CategoricalDistribution((5, 10, 20, 50)),
            "num_epochs": IntDistribution(3, 10),
            "schedule": SCHEDULES,
            "loss": CategoricalDistribution((Loss.SQUARED.value, Loss.HUBER.value)),
            "weight_decay": FloatDistribution(1e-6, 1.0, log=True),
        }
    return _list_rates(prepared) | {
        "batch_size": CategoricalDistribution((128, 256)),  # the book's, and half of it for twice as many steps
        "num_epochs": IntDistribution(10, 20),  # the book's 10, and where the loss still falls
        "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),  # from nothing to where weights stay small
    }


def list_image_space(prepared: PreparedDataset) -> Space:
    """The same for the user's own images: penalties around the one that a classifier has by rule."""
    rows = prepared.num_train
    return _list_rates(prepared) | {"weight_decay": FloatDistribution(0.1 / rows, 1000 / rows, log=True)}


def _list_rates(prepared: PreparedDataset) -> Space:
    """Rates around the book's 0.1: steps grow with the number of inputs, and above 1 the loss only jumps about."""
    most = min(1.0, 784 / math.prod(prepared.recipe.input.shape))
    return {"lr": FloatDistribution(0.02 * most, most, log=True), "schedule": SCHEDULES}


SPACES = {Use.BOOK: list_book_space, Use.IMAGES: list_image_space}


def list_grid(space: Space) -> list[Settings]:
    """All settings of a space in which every field has a few values; otherwise an empty list."""
    fields = [each for each in space.values() if isinstance(each, CategoricalDistribution)]
    if len(fields) < len(space):
        return []
    choices = itertools.product(*(each.choices for each in fields))
    return [dict(zip(space, values, strict=True)) for values in choices]  # type: ignore[arg-type]  # of ``Setting``


def find_given(space: Space, training: Training) -> Settings:
    """The settings of ``training`` that lie in the space."""
    given = Settings()
    for field, values in space.items():
        value = getattr(training, field)
        with suppress(ValueError):  # Optuna raises it for a value outside the space
            create_trial(value=0.0, params={field: value}, distributions={field: values})
            given[field] = value
    return given


def suggest_settings(trial: Trial, space: Space) -> Settings:
    """The settings of a trial; numbers have three digits, which a person can type again."""
    settings = Settings()
    for field, values in space.items():
        if isinstance(values, CategoricalDistribution):
            settings[field] = trial.suggest_categorical(field, values.choices)  # type: ignore[assignment]  # no None
        elif isinstance(values, IntDistribution):
            settings[field] = trial.suggest_int(field, values.low, values.high, log=values.log)
        elif isinstance(values, FloatDistribution):
            value = float(f"{trial.suggest_float(field, values.low, values.high, log=values.log):.3g}")
            settings[field] = min(max(value, values.low), values.high)
    return settings


def describe_settings(settings: Settings) -> str:
    """Settings in words, by the names of their options: ``lr 0.21, epochs 14, schedule cosine``."""
    names = {field: option.replace("-", " ") for option, field in OPTIONS.items()}
    shown = ((names[field], f"{value:.3g}" if isinstance(value, float) else value) for field, value in settings.items())
    return ", ".join(f"{name} {value}" for name, value in shown)


def narrow_space(training: Training, items: Sequence[str]) -> Space:
    """What ``--space`` says about each field, such as ``lr=0.05:1`` (a range), or ``epochs=10|20``.

    Raises:
        UsageError: there is no such parameter, it is named twice, or it cannot take a given value in this model.
    """
    space: Space = {}
    for item in items:
        name, _, text = (part.strip() for part in item.partition("="))
        field = OPTIONS.get(name.removeprefix("--"))
        if field is None:
            raise UsageError(f"--space {item}", f"one of {', '.join(OPTIONS)}", EXAMPLE)
        if field in space:
            raise UsageError(f"--space names {name} twice", "each parameter once", f"join its values: {name}=…|…")
        space[field] = _parse(training, field, name, text)
    return space


def _parse(training: Training, field: str, name: str, text: str) -> BaseDistribution:
    ends = text.split(":")
    if len(ends) > 2 or (len(ends) == 2 and field in OF_WORDS):
        raise UsageError(f"--space {name}={text}", "values by |" + ", or LOW:HIGH" * (field not in OF_WORDS), EXAMPLE)
    values = [_read_value(training, field, name, each) for each in (ends if len(ends) > 1 else text.split("|"))]
    if len(ends) == 1:
        return CategoricalDistribution(tuple(dict.fromkeys(values)))
    low, high = map(float, values)
    if not low < high:
        instead = ends[0] if low == high else f"{ends[1]}:{ends[0]}"
        raise UsageError(f"--space {name}={text}", "the lower bound first", f"write {name}={instead}")
    if field in ("num_epochs", "batch_size"):
        return IntDistribution(int(low), int(high), log=field == "batch_size")
    return FloatDistribution(low, high, log=field in BY_DECADES and low > 0)


def _read_value(training: Training, field: str, name: str, text: str) -> Setting:
    """A value with which this model can be trained."""
    value = text.strip()
    if not (of := training.use_of(field)) & training.possible_uses:
        raise UsageError(f"--space {name}", f"{WORDS[of]}, the only case that --{name} applies to", "leave it out")
    try:
        given = training.model_dump() | {"defaults": training.defaults, field: value}
        found: Setting = getattr(Training.model_validate(given), field)
    except ValidationError as error:
        said = f"--space {name}={value}"
        raise UsageError(said, describe_expected(error), f"see gradmill retrain --help on --{name}") from error
    if found == "auto":
        raise UsageError(f"--space {name}={value}", "a number", EXAMPLE)
    return value if field in OF_WORDS else found
