"""What all parameters are made of: frozen pydantic models, and how they appear where people fill them in."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from tasks.parameters.uses import BOOK, EVERY, OWN, WORDS, Uses

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Option:
    """How a field appears where its own name and default do not say it.

    ``flag`` is its option on the command line: without dashes it is an argument, and one of a field that is true
    turns it off, which is what ``help`` then describes. ``empty`` says what is done where no value is given,
    ``metavar`` what may stand there where that is more than the field's type takes.
    """

    flag: str = ""
    help: str = ""
    empty: str = ""
    metavar: str = ""
    of: Uses = frozenset()  # what it is for; none: what its model says of all its fields
    by_rule: bool = False  # own data decide where it is not given, whatever its default is
    searched: bool = False  # a search may decide where it is not given
    noted: bool = False  # by the run itself: no option

    @property
    def only(self) -> str:
        """What it is for, said to whom it may be of no use."""
        return f"Only for {WORDS[self.of]}." if self.of else ""


def option(metadata: list[Any]) -> Option:
    """What a field of this metadata says about its appearance."""
    return next((each for each in metadata if isinstance(each, Option)), Option())


def of_the_book(defaults: Mapping[str, Any]) -> str:
    """Defaults that differ from model to model: ``the book's, 10 softmax, 3 linear``."""
    said = {model: str(value.value if isinstance(value, Enum) else value) for model, value in defaults.items()}
    if len(set(said.values())) == 1:
        return f"the book's, {next(iter(said.values()))}"
    words = (f"{value} {model.partition('-')[0]}" for model, value in said.items())
    return f"the book's, {', '.join(words)}"


def _as_a_form(schema: dict[str, Any], model: "type[Frozen]") -> None:
    """Suit Prefect's form: it sorts fields by name unless each has a position, and sends every default it shows.

    What is of no use to what it is ``shown_for`` is not shown, and taken only as it is where nothing is given: a form
    of before sent that.
    """
    fields = schema.get("properties", {})
    if useless := [name for name in fields if not model.of_field(name) & model.shown_for]:
        neutral = {f"^{name}$": {"const": fields.pop(name).get("default")} for name in useless}
        schema["patternProperties"] = neutral
    for position, (name, field) in enumerate(fields.items()):
        _show(field, option(model.model_fields[name].metadata), model.shown_for)
        field["position"] = position


def _show(field: dict[str, Any], shown: Option, uses: Uses) -> None:
    """What the field itself and its default do not say."""
    if isinstance(field.get("default"), dict):  # which a part's own fields have anyway
        del field["default"]
    if field.get("default", ...) is None and _only_kind(field):  # else there is a switch between it and nothing
        del field["default"]
    if shown.only and not uses <= shown.of:
        _say(field, shown.only)
    if shown.empty:
        _say(field, f"Empty: {shown.empty}.")
    if shown.by_rule and uses != EVERY:
        _only_kind(field)
        _leave_default_out(field, {"": field["default"]} if uses & BOOK else {}, bool(uses & OWN))
    elif shown.searched and uses != EVERY:
        _only_kind(field)
        _leave_default_out(field, {"": field["default"]}, False)


def _leave_default_out(field: dict[str, Any], defaults: Mapping[str, Any], by_rule: bool) -> None:
    """Words say one that depends on model or data, for what is shown is sent."""
    del field["default"]
    of_book = [of_the_book(defaults)] if defaults else []
    of_own = ["on own data found by rule" if of_book else "found by rule"] if by_rule else []
    _say(field, f"Empty: {'; '.join(of_book + of_own)}.")


def _say(field: dict[str, Any], words: str) -> None:
    field["description"] = f"{field.get('description', '')} {words}".lstrip()


class Frozen(BaseModel):
    """Base of all parameters: unknown names are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_as_a_form)
    fields_of: ClassVar[Uses] = EVERY  # what its fields are for, save those that say so themselves
    shown_for: ClassVar[Uses] = EVERY  # what its form is for

    @classmethod
    def of_field(cls, name: str) -> Uses:
        """What one of its fields is for."""
        return option(cls.model_fields[name].metadata).of or cls.fields_of


@dataclass(frozen=True)
class OneForm:
    """Shows a union of models that ``discriminator`` tells apart as one form with every field of theirs.

    Prefect's form cannot switch between models by a value in them, and reports no fault of a field inside a union.
    A default that differs is not shown, for what is shown is sent; words say what it is for which model.
    """

    title: str
    discriminator: str
    by_rule: Collection[str]
    searched: Collection[str]

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The merged schema; called by pydantic."""
        kinds = [handler.resolve_ref_schema(kind)["properties"] for kind in handler(core_schema)["oneOf"]]
        tags = [kind[self.discriminator]["const"] for kind in kinds]
        names = dict.fromkeys(name for kind in kinds for name in kind)
        properties = {
            name: _merged(
                {tag: kind[name] for tag, kind in zip(tags, kinds, strict=True)},
                name in self.by_rule,
                name in self.searched,
            )
            for name in names
        }
        return {"type": "object", "title": self.title, "properties": properties, "additionalProperties": False}


def _only_kind(field: dict[str, Any]) -> bool:
    """Make a field of one kind that: what is left empty is not sent, and of alternatives the form names no fault."""
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del field["anyOf"]
        field |= kinds[0]
    return len(kinds) == 1


def _merged(fields: dict[str, dict[str, Any]], by_rule: bool, searched: bool) -> dict[str, Any]:
    """One field's schema from those of each model."""
    each = list(fields.values())
    merged = each[0].copy()
    _only_kind(merged)
    if "const" in merged:
        del merged["const"]
        merged["enum"] = [word for field in each for word in field.get("enum", [field.get("const")])]
    if words := list(dict.fromkeys(field["description"] for field in each if "description" in field)):
        merged["description"] = " ".join(words)
    defaults = {tag: field.get("default") for tag, field in fields.items()}
    are_tags = all(tag == default for tag, default in defaults.items())
    if by_rule or searched or (not are_tags and any(default != merged.get("default") for default in defaults.values())):
        _leave_default_out(merged, defaults, by_rule)
    return merged
