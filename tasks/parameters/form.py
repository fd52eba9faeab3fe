"""The declaration of parameters, once for the command line and its help, documents, checks and Prefect's form."""

import re
from enum import Flag, auto
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from tasks.errors import UsageError
from tasks.parameters.addresses import has_credentials, join_source

MEMBER = re.compile(r"<[\w.]+: ('.*?')>")  # pydantic's notation for the members of an enum
REFUSAL = "refusal"  # the type of errors that carry their own words
NUMBERS = {"a valid number, unable": "a number", "a valid integer, ": "a whole number"}


class Use(Flag):
    """A model of the book and the data that it learns from: what a parameter applies to."""

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
    IN_EPOCHS = BOOK | IMAGES
    EVERY = BOOK | OWN


WORDS = {
    Use.BOOK: "the book's data",
    Use.TABLES: "your own tables",
    Use.IMAGES: "your own images",
    Use.OWN: "your own data",
    Use.IN_EPOCHS: "the book's data or your own images",
    Use.SOFTMAX: "softmax regression",
    Use.LINEAR: "linear regression",
    Use.BOOK_SOFTMAX: "softmax regression on the book's data",
    Use.BOOK_LINEAR: "linear regression on the book's data",
    Use.OWN_SOFTMAX: "softmax regression on your own data",
    Use.TABLE_LINEAR: "linear regression on your own tables",
    Use.SOFTMAX | Use.OWN: "softmax regression or your own tables",
}


class Option(NamedTuple):
    """How a field appears where this does not follow from its name and default.

    ``flag`` is its option on the command line: without dashes it is an argument; the flag of a field that is true turns
    it off, and ``help`` then describes that. ``empty`` says what happens without a value; ``metavar`` names the
    accepted values if these are more than the field's type says.
    """

    applies_to: Use | None = None  # None: what its model applies to
    flag: str = ""
    help: str = ""
    empty: str = ""
    metavar: str = ""
    is_searched: bool = False  # a search or, for own data, a rule may choose it if it is not given
    is_typed: bool = True  # otherwise the run itself sets it, and there is no option

    @property
    def limits(self) -> str:
        """What the parameter is for, told to users who may have no use for it."""
        return f"Only for {WORDS[self.applies_to]}." if self.applies_to else ""


def spell_flag(name: str) -> str:
    """The option for a field, unless its declaration names another."""
    return f"--{name.replace('_', '-')}"


def declare_field(default: Any, description: str | None = None, applies_to: Use | None = None, **about: Any) -> Any:
    """Declare a field; ``about`` has the attributes of ``Option``, and the arguments of pydantic's ``Field``."""
    option = Option(applies_to, **{name: about.pop(name) for name in Option._fields if name in about})
    field = Field(default, description=description, **about)
    field.metadata.append(option)
    return field


def option_of(field: FieldInfo) -> Option:
    """The ``Option`` in the declaration of a field."""
    return next((each for each in field.metadata if isinstance(each, Option)), Option())


def _suit_form(schema: dict[str, Any], model: "type[ParameterModel]") -> None:
    """Adapt the schema to Prefect's form, which sorts fields without positions by name, and sends all defaults.

    So only switches that are on have a default; the meaning of an empty field is described in words.

    Fields that are useless for what the form is ``shown_for`` are hidden, and only accepted with the value that older
    forms sent when nothing was given. What depends on model or data is described in words.
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
        if len(kinds) == 1:  # empty fields are not sent, and for alternatives the form names no error
            del field["anyOf"]
            field |= kinds[0]
        # The form sends every default that it shows, and the deployment then keeps it for good.
        default = field.get("default")
        if default is not True:  # a switch that is on needs it
            field.pop("default", None)
        empty = option.empty or _spell(default)
        if option.is_searched:
            empty = model.describe_default(name, model.shown_for)
        limits = "" if option.applies_to and model.shown_for in option.applies_to else option.limits
        if words := list(filter(None, [field.get("description"), limits, empty and f"Empty: {empty}."])):
            field["description"] = " ".join(words)
        field["position"] = list(fields).index(name)
    for name in model.removed:  # the server checks stored parameters by this schema
        schema.setdefault("patternProperties", {})[f"^{name}$"] = {"enum": [0, None]}


def _spell(default: Any) -> str:
    if default is None or isinstance(default, bool | dict):  # the fields of a part describe their own
        return ""
    return ", ".join(map(str, default)) if isinstance(default, list) else str(default)


class ParameterModel(BaseModel):
    """The base of all parameters: unknown names are errors, values are frozen, and empty means the default."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra=_suit_form,
        field_title_generator=lambda name, _: re.sub("^(max|min)_", "", name).replace("_", " ").capitalize(),
    )
    applies_to: ClassVar[Use] = Use.EVERY  # what its fields apply to, unless they say otherwise
    shown_for: ClassVar[Use] = Use.EVERY  # what its form is shown for
    source_field: ClassVar[str] = ""  # the field that says where data are; empty if it has none
    removed: ClassVar[dict[str, str]] = {}  # what to use instead of parameters of earlier releases, by their names

    @classmethod
    def list_models(cls) -> list[type["ParameterModel"]]:
        """This model, and those of its parts."""
        kinds = [field.annotation for field in cls.model_fields.values()]
        return [cls, *(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, ParameterModel))]

    @classmethod
    def use_of(cls, name: str) -> Use:
        """What one of its fields applies to."""
        return option_of(cls.model_fields[name]).applies_to or cls.applies_to

    @classmethod
    def list_choices(cls, name: str) -> list[str]:
        """The choices of a field, the default first, if they depend on what the form is shown for."""
        return []

    @classmethod
    def describe_default(cls, name: str, use: Use) -> str:
        """The value of a field that is not given; for own data rules replace missing defaults."""
        default = cls.model_fields[name].default
        return "found by rule" if default is None else str(default)

    @classmethod
    def drop_removed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Stored values without removed parameters, for whoever goes on without them."""
        return {name: each for name, each in values.items() if name not in cls.removed}

    @model_validator(mode="before")
    @classmethod
    def _normalize_values(cls, values: Any) -> Any:
        """Join a sheet or query to its source, and drop nulls, which a form sends for empty fields.

        Removed parameters are dropped where they are 0 or null, which changes nothing, and refused elsewhere.
        """
        if not isinstance(values, dict):
            return values
        for name, action in cls.removed.items():
            if values.get(name):
                raise make_refusal(removed_error(spell_flag(name), action))
        values = cls.drop_removed(values)
        if cls.source_field:
            values = join_source(values, cls.source_field)
        return {name: each for name, each in values.items() if each is not None}

    @model_validator(mode="after")
    def _keep_no_secret(self) -> Self:
        if self.source_field and has_credentials(getattr(self, self.source_field) or ""):
            raise ValueError("a URL with credentials would be written down: set them in the environment")
        return self


# pydantic's messages, worded to follow ``expected:``


def make_refusal(error: UsageError) -> PydanticCustomError:
    """An error that a validator raises in order to choose all words that a user reads."""
    words = {"found": error.found, "expected": error.expected, "action": error.action}
    return PydanticCustomError(REFUSAL, "{found}: {expected}; {action}", words)


def as_usage_error(error: ValidationError, found: str, action: str) -> UsageError:
    """The first error for a user, with the words of a refusal if it is one."""
    first = error.errors()[0]
    if first["type"] == REFUSAL:
        return UsageError(**first["ctx"])
    return UsageError(found, describe_expected(error), action)


def removed_error(word: str, action: str) -> UsageError:
    """The error for a command, option or parameter that was removed."""
    return UsageError(f"{word} was removed", "what gradmill --help lists", action)


def describe_expected(error: ValidationError) -> str:
    """The expectation in the first error."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return "a name that is among its parameters"
    if first["type"] == "missing" or first["input"] == "":
        return "a value"
    return in_words(first["msg"].removeprefix("Value error, "))


def in_words(message: str) -> str:
    """A message of pydantic (or of typer, which passes these on) without its words for the type."""
    said = MEMBER.sub(r"\1", message.removeprefix("Input should be "))
    return next((words for theirs, words in NUMBERS.items() if said.startswith(theirs)), said)
