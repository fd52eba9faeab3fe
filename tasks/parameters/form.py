"""What all parameters are made of: frozen pydantic models, and how they appear where people fill them in."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

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


def option(metadata: list[Any]) -> Option:
    """What a field of this metadata says about its appearance."""
    return next((each for each in metadata if isinstance(each, Option)), Option())


def of_the_book(defaults: Mapping[str, Any]) -> str:
    """Defaults that differ from model to model: ``the book's, 10 softmax, 3 linear``."""
    words = (
        f"{value.value if isinstance(value, Enum) else value} {model.partition('-')[0]}"
        for model, value in defaults.items()
    )
    return f"the book's, {', '.join(words)}"


def _as_a_form(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Suit Prefect's form: it sorts fields by name unless each has a position, and sends every default it shows."""
    for position, (name, field) in enumerate(schema.get("properties", {}).items()):
        field["position"] = position
        if isinstance(field.get("default"), dict):  # which a part's own fields have anyway
            field.pop("default")
        if words := option(model.model_fields[name].metadata).empty:
            _say_what_empty_means(field, words)


def _say_what_empty_means(field: dict[str, Any], words: str) -> None:
    field["description"] = f"{field.get('description', '')} Empty: {words}.".lstrip()


class Frozen(BaseModel):
    """Base of all parameters: unknown names are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_as_a_form)


@dataclass(frozen=True)
class OneForm:
    """Shows a union of models that ``discriminator`` tells apart as one form with every field of theirs.

    Prefect's form cannot switch between models by a value in them, and reports no fault of a field inside a union.
    A default that differs is not shown, for what is shown is sent; words say what it is for which model.
    """

    title: str
    discriminator: str

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The merged schema; called by pydantic."""
        kinds = [handler.resolve_ref_schema(kind)["properties"] for kind in handler(core_schema)["oneOf"]]
        tags = [kind[self.discriminator]["const"] for kind in kinds]
        names = dict.fromkeys(name for kind in kinds for name in kind)
        properties = {
            name: _merged({tag: kind[name] for tag, kind in zip(tags, kinds, strict=True) if name in kind})
            for name in names
        }
        return {"type": "object", "title": self.title, "properties": properties, "additionalProperties": False}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A field of one kind as such: what is left empty is not sent, and of alternatives the form names no fault."""
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1 or field.get("default") is None:
        return field
    only: dict[str, Any] = kinds[0]
    return {name: value for name, value in field.items() if name != "anyOf"} | only


def _merged(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One field's schema from those of each model."""
    each = [_without_null(field) for field in fields.values()]
    merged = each[0].copy()
    if "const" in merged:
        del merged["const"]
        return merged | {"enum": [field["const"] for field in each]}
    if notes := list(dict.fromkeys(field["description"] for field in each if "description" in field)):
        merged["description"] = " ".join(notes)
    defaults = {tag: field["default"] for tag, field in fields.items()}
    if any(default != merged["default"] for default in defaults.values()):
        del merged["default"]
        _say_what_empty_means(merged, of_the_book(defaults))
    return merged
