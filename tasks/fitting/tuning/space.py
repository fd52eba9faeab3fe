"""What a search looks through: for each searched field of ``Training`` its values, and why these."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from tasks.data.recipe import Columns
from tasks.errors import UsageError
from tasks.fitting.tuning.domains import Choice, Domain, Log, Uniform
from tasks.parameters import Loss, Schedule, Training, faults
from tasks.parameters.uses import BOOK, IMAGES, LINEAR, OF_MODEL, SOFTMAX, TABLES, WORDS, Uses
from tasks.records import PreparedDataset
from tasks.store.tuned import Setting

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


Space = dict[str, Domain]  # by field of ``Training``


class _Row(NamedTuple):
    """A field that is searched by default, of what, through which values of ``(examples, inputs)``, and why."""

    field: str
    of: Uses
    values: Callable[[int, int], Domain]
    why: str


_PIXELS = SOFTMAX & (BOOK | IMAGES)
# Not dropout, for which there is --space: its masks take six times as long as the rest of a step, and to a linear model
# it is one more penalty on the weights.
ROWS = (
    _Row(
        "lr", _PIXELS, lambda _, inputs: Log(*(lr * min(1.0, 784 / inputs) for lr in (0.02, 1.0))),
        "around the book's 0.1; steps grow with the inputs, and above 1 the loss only leaps",
    ),
    _Row("lr", LINEAR & BOOK, lambda *_: Log(0.003, 0.3), "a tenth of the book's 0.03 to ten times that"),
    _Row(
        "batch_size", SOFTMAX & BOOK, lambda *_: Choice((128, 256)),
        "the book's, and its half for twice the steps: loss 0.425 and 0.420 (512: 0.435); one size shares products",
    ),
    _Row("batch_size", LINEAR & BOOK, lambda *_: Choice((5, 10, 20, 50)), "around the book's 10"),
    _Row("num_epochs", SOFTMAX & BOOK, lambda *_: Uniform(10, 20), "the book's 10, and where the loss still falls"),
    _Row("num_epochs", LINEAR & BOOK, lambda *_: Uniform(3, 10), "the book's 3, and what small rates need"),
    _Row(
        "schedule", _PIXELS | (LINEAR & BOOK), lambda *_: Choice((Schedule.COSINE.value, Schedule.STEP.value)),
        "rates that fall: at a constant one the loss of five seeds lies apart by 0.02, and the luckiest trials win",
    ),
    # Of tables only by --space: a version of another loss is not compared with the champion.
    _Row("loss", LINEAR & BOOK, lambda *_: Choice((Loss.SQUARED.value, Loss.HUBER.value)), "both"),
    _Row("weight_decay", SOFTMAX & BOOK, lambda *_: Log(1e-6, 1e-2), "from nothing to where weights stay small"),
    _Row(
        "weight_decay", SOFTMAX & (TABLES | IMAGES), lambda rows, _: Log(0.1 / rows, 1000 / rows),
        "around the rule's 1 / rows",
    ),
    _Row("weight_decay", LINEAR, lambda *_: Log(1e-6, 1.0), "of deviations; that of a squared loss needs no trial"),
)  # fmt: skip

OPTIONS = {
    "lr": "lr", "batch-size": "batch_size", "epochs": "num_epochs", "schedule": "schedule", "loss": "loss",
    "weight-decay": "weight_decay", "dropout": "dropout",
}  # fmt: skip
WHOLE, OF_WORDS, BY_DECADES = {"num_epochs", "batch_size"}, {"schedule", "loss"}, {"lr", "weight_decay"}
EXAMPLE = "write it as in --space lr=0.05:1,epochs=10|20,schedule=cosine"


def in_words(settings: dict[str, Setting]) -> str:
    """``lr 0.21, epochs 14, schedule cosine``: by the names of their options."""
    names = {field: option.replace("-", " ") for option, field in OPTIONS.items()}
    shown = ((names[field], f"{value:.3g}" if isinstance(value, float) else value) for field, value in settings.items())
    return ", ".join(f"{name} {value}" for name, value in shown)


def default(training: Training, prepared: PreparedDataset) -> Space:
    """What pays to be searched, of this model and these data."""
    is_table = isinstance(prepared.recipe, Columns) and prepared.recipe.target is not None
    kind = TABLES if is_table else IMAGES if prepared.is_own else BOOK
    of = OF_MODEL[training.model] & kind
    inputs = math.prod(prepared.recipe.input.shape)
    return {row.field: row.values(prepared.num_train, inputs) for row in ROWS if of <= row.of}


def suggest(space: Space, trial: "BaseTrial", squared_decay: float | None) -> dict[str, Setting]:
    """Settings to try; ``squared_decay`` is the weight decay of a squared loss where that is known."""
    settings: dict[str, Setting] = {}
    for field in sorted(space, key="weight_decay".__eq__):  # which comes last, for it depends on the loss
        if field == "weight_decay" and squared_decay is not None and settings.get("loss") == Loss.SQUARED.value:
            settings[field] = squared_decay
        else:
            settings[field] = space[field].suggest(trial, field)
    return settings


def narrowed(training: Training, items: Sequence[str]) -> Space:
    """What ``--space`` says of each field, such as ``lr=0.05:1`` (a range), ``epochs=10|20`` or ``dropout=0``.

    Raises:
        UsageError: there is no such parameter, it is named twice, or a value cannot be one of it for this model.
    """
    space: Space = {}
    for item in items:
        name, _, text = (part.strip() for part in item.partition("="))
        field = OPTIONS.get(name.removeprefix("--"))
        if field is None:
            raise UsageError(f"--space {item}", f"one of {', '.join(OPTIONS)}", EXAMPLE)
        if field in space:
            raise UsageError(f"--space names {name} twice", "each parameter once", f"join its values: {name}=…|…")
        space[field] = _domain(field, name, text)
        for value in _ends(space[field]):
            _require_fit(training, field, name, value)
    return space


def _domain(field: str, name: str, text: str) -> Domain:
    ends = text.split(":")
    if len(ends) == 1:
        return Choice(tuple(dict.fromkeys(_value(field, name, each) for each in text.split("|"))))
    if len(ends) > 2 or field in OF_WORDS:
        raise UsageError(f"--space {name}={text}", "values by |" + ", or LOW:HIGH" * (field not in OF_WORDS), EXAMPLE)
    low, high = (float(_value(field, name, each)) for each in ends)
    if not low < high:
        raise UsageError(f"--space {name}={text}", "the lower bound first", f"write {name}={ends[1]}:{ends[0]}")
    if field == "batch_size":
        return Choice(_doubling(int(low), int(high)))
    if field in BY_DECADES and low > 0:
        return Log(low, high)
    return Uniform(int(low), int(high)) if field in WHOLE else Uniform(low, high)


def _doubling(low: int, high: int) -> tuple[int, ...]:
    """Sizes between two, few enough that many trials have the same and share their products."""
    sizes = [low]  # of 0, which is no size, there is no double
    while 0 < 2 * sizes[-1] < high:
        sizes.append(2 * sizes[-1])
    return (*sizes, high)


def _value(field: str, name: str, text: str) -> Setting:
    if field in OF_WORDS:
        return text.strip()
    try:
        return int(text) if field in WHOLE else float(text)
    except ValueError as error:
        kind = "a whole number" if field in WHOLE else "a number"
        raise UsageError(f"--space {name}, and {text.strip() or 'nothing'}", kind, EXAMPLE) from error


def _ends(domain: Domain) -> tuple[Setting, ...]:
    return domain.values if isinstance(domain, Choice) else (domain.low, domain.high)


def _require_fit(training: Training, field: str, name: str, value: Setting) -> None:
    if training.possible_uses.isdisjoint(of := training.of_field(field)):
        raise UsageError(f"--space {name}", f"{WORDS[of]}, which it is for", "leave it out")
    try:
        type(training).model_validate(training.model_dump() | {"defaults": training.defaults, field: value})
    except ValidationError as error:
        found = f"--space {name}, and {value}"
        raise UsageError(found, faults.expected(error), f"see gradmill retrain --help on --{name}") from error
