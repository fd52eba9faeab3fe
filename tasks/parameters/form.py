"""How a parameter is declared: once, for the command line and its help, documents, checks and Prefect's form."""

import re
from enum import Flag, auto
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from tasks.parameters.addresses import has_credentials

MEMBER = re.compile(r"<[\w.]+: ('.*?')>")  # pydantic's way of saying an enum's member
NUMBERS = {"a valid number, unable": "a number", "a valid integer, ": "a whole number"}


class Use(Flag):
    """A model of the book and what it learns from: what a parameter applies to."""

    BOOK_SOFTMAX = auto()
    BOOK_LINEAR = auto()
    TABLE_SOFTMAX = auto()
    TABLE_LINEAR = auto()
    IMAGES = auto()
    BOOK = BOOK_SOFTMAX | BOOK_LINEAR
    TABLES = TABLE_SOFTMAX | TABLE_LINEAR
    OWN = TABLES | IMAGES
    OWN_SOFTMAX = TABLE_SOFTMAX | IMAGES
    SOFTMAX = BOOK_SOFTMAX | OWN_SOFTMAX
    LINEAR = BOOK_LINEAR | TABLE_LINEAR
    EVERY = BOOK | OWN


WORDS = {
    Use.BOOK: "the book's data",
    Use.TABLES: "own tables",
    Use.IMAGES: "own images",
    Use.OWN: "own data",
    Use.SOFTMAX: "softmax regression",
    Use.LINEAR: "linear regression",
    Use.BOOK_SOFTMAX: "softmax regression on the book's data",
    Use.BOOK_LINEAR: "linear regression on the book's data",
    Use.OWN_SOFTMAX: "softmax regression on own data",
    Use.TABLE_LINEAR: "linear regression on own tables",
    Use.SOFTMAX | Use.OWN: "softmax regression or own tables",
}


class Option(NamedTuple):
    """How a field appears where its own name and default do not say it.

    ``flag`` is its option on the command line: without dashes it is an argument, and one of a field that is true
    turns it off, which is what ``help`` then describes. ``empty`` says what is done where no value is given,
    ``metavar`` what may stand there where that is more than the field's type takes.
    """

    applies_to: Use | None = None  # None: what its model says of all its fields
    flag: str = ""
    help: str = ""
    empty: str = ""
    metavar: str = ""
    is_searched: bool = False  # a search may find it where it is not given, or a rule for own data
    is_typed: bool = True  # else the run itself notes it, and there is no option

    @property
    def limits(self) -> str:
        """What it is for, said to whom it may be of no use."""
        return f"Only for {WORDS[self.applies_to]}." if self.applies_to else ""


def declare_field(default: Any, description: str | None = None, applies_to: Use | None = None, **about: Any) -> Any:
    """Declare a field: ``about`` has what ``Option`` says of it, and bounds and title as pydantic's ``Field`` does."""
    option = Option(applies_to, **{name: about.pop(name) for name in Option._fields if name in about})
    field = Field(default, description=description, **about)
    field.metadata.append(option)
    return field


def option_of(field: FieldInfo) -> Option:
    """What the declaration of a field says about its appearance."""
    return next((each for each in field.metadata if isinstance(each, Option)), Option())


def _suit_form(schema: dict[str, Any], model: "type[Frozen]") -> None:
    """Suit Prefect's form: it sorts fields by name unless each has a position, and sends every default it shows.

    So no default is in it, but for switches that are on; what an empty field means is said in words.

    What is of no use to what it is ``shown_for`` is not shown, and taken only as it is where nothing is given: a form
    of before sent that. What depends on model or data is said in words.
    """
    fields = schema.get("properties", {})
    for name in list(fields):
        option, field = option_of(model.model_fields[name]), fields[name]
        if choices := model.list_choices(name):
            field.pop("$ref", None)
            title = model.model_fields[name].title
            field |= {"type": "string", "title": title, "default": choices[0], "enum": choices}
        if not model.use_of(name) & model.shown_for:
            schema.setdefault("patternProperties", {})[f"^{name}$"] = {"const": fields.pop(name).get("default")}
            continue
        kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:  # what is left empty is not sent, and of alternatives the form names no fault
            del field["anyOf"]
            field |= kinds[0]
        # A default that the form shows is one that it sends, and that the deployment then has for good.
        default = field.get("default")
        if default is not True:  # which a switch cannot show otherwise
            field.pop("default", None)
        empty = option.empty or _spell(default)
        if option.is_searched:
            empty = model.describe_default(name, model.shown_for)
        limits = "" if option.applies_to and model.shown_for in option.applies_to else option.limits
        if words := list(filter(None, [field.get("description"), limits, empty and f"Empty: {empty}."])):
            field["description"] = " ".join(words)
        field["position"] = list(fields).index(name)


def _spell(default: Any) -> str:
    if default is None or isinstance(default, bool | dict):  # a part's own fields say theirs
        return ""
    return ", ".join(map(str, default)) if isinstance(default, list) else str(default)


class Frozen(BaseModel):
    """Base of all parameters: unknown names are errors, values never change, and what is empty is the default."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra=_suit_form,
        field_title_generator=lambda name, _: re.sub("^(max|min)_", "", name).replace("_", " ").capitalize(),
    )
    applies_to: ClassVar[Use] = Use.EVERY  # what its fields apply to, save those that say so themselves
    shown_for: ClassVar[Use] = Use.EVERY  # what its form is for

    @classmethod
    def use_of(cls, name: str) -> Use:
        """What one of its fields applies to."""
        return option_of(cls.model_fields[name]).applies_to or cls.applies_to

    @classmethod
    def list_choices(cls, name: str) -> list[str]:
        """What a field chooses from, where that depends on what the form is for; first the default."""
        return []

    @classmethod
    def describe_default(cls, name: str, uses: Use) -> str:
        """What a field is where it is not given: own data have rules for what has no default."""
        default = cls.model_fields[name].default
        return "found by rule" if default is None else str(default)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, values: Any) -> Any:
        """A form sends nothing as null."""
        return {name: each for name, each in values.items() if each is not None} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _keep_no_secret(self) -> Self:
        for name in ("source", "input", "data"):
            if isinstance(value := getattr(self, name, None), str) and has_credentials(value):
                raise ValueError("a URL with credentials would be written down: set them in the environment")
        return self


# What pydantic says of a fault, in words that stand behind ``expected:``


def describe_expected(error: ValidationError) -> str:
    """Of the first fault."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return "a name that is among its parameters"
    if first["type"] == "missing" or first["input"] == "":
        return "a value"
    return in_words(first["msg"].removeprefix("Value error, "))


def in_words(message: str) -> str:
    """What pydantic, or typer by it, says of a value, without their words for its type."""
    said = MEMBER.sub(r"\1", message.removeprefix("Input should be "))
    return next((words for theirs, words in NUMBERS.items() if said.startswith(theirs)), said)
