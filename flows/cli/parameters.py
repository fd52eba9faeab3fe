"""The options of a command, made from the parameters that it takes: names, types, help and defaults are theirs."""

import csv
import functools
import inspect
import io
import itertools
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows.cli.options import COMPLETED
from tasks.errors import UsageError
from tasks.parameters import Use
from tasks.parameters.form import Frozen, Option, expected, option_of

Parameters = TypeVar("Parameters", bound=BaseModel)

# What a field takes, where pydantic's own words would not help.
EXPECTED = {
    "name": "1 to 63 lower-case letters a to z, digits and hyphens, no hyphen first",
    "seed": "a whole number from 0 to 2**63 - 1, or auto",
    "window": "hours, days or weeks, such as 36h, 90d or 12w, or none",
    "synthetic_w": "finite numbers, by commas",
}
VALUES = {bool: "", int: "N", float: "X", Path: "PATH"}  # what an option takes, as the documentation writes it
WIDEST = 20  # columns of --help for it: the words of a longer list stand in the option's help
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # as ``annotated_types`` names them


class Value(NamedTuple):
    """What one option sets: a field of the parameters, or of a ``part`` of them."""

    name: str
    part: str | None
    panel: str | None
    model: type[BaseModel]  # that has the field

    @property
    def field(self) -> FieldInfo:
        """Its declaration."""
        return self.model.model_fields[self.name]

    @property
    def option(self) -> Option:
        """How it appears."""
        return option_of(self.field)

    @property
    def flag(self) -> str:
        """What is typed."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def is_list(self) -> bool:
        """Whether it takes several values, by commas or by giving it more than once."""
        return get_origin(self.field.annotation) is tuple

    @property
    def is_shown(self) -> bool:
        """Whether it is of use to what the form is for."""
        return not issubclass(self.model, Frozen) or bool(self.model.use_of(self.name) & self.model.shown_for)

    def help(self) -> str:
        """What it is, and what it is where it is left out: Rich would take the plain bracket for a style."""
        title, said, default = str(self.field.title), self.field.description, self.default()
        if not said or title.lower() != self.flag.lower().strip("-").replace("-", " "):
            said = f"{title}: {said}" if said else f"{title}."
        words = " ".join(filter(None, [self.option.help or said, self.option.limits]))
        bounds = "; ".join([*[f"default: {default}"] * bool(default), *self.limits(), *["by commas"] * self.is_list])
        return f"{words} \\[{bounds}]" if bounds else words

    def limits(self) -> Iterator[str]:
        """In words."""
        of_alternatives = (each for kind in get_args(self.field.annotation) for each in _metadata(kind))
        for each in itertools.chain(self.field.metadata, of_alternatives):
            for name, word in LIMITS.items():
                if (limit := getattr(each, name, None)) is not None:
                    yield f"{word} {limit:g}" if isinstance(limit, float) else f"{word} {limit}"

    def default(self) -> str | None:
        """In words; a flag has none."""
        value = self.field.default
        if self.option.empty or isinstance(value, bool):
            return self.option.empty or None
        if value is None and issubclass(self.model, Frozen):
            return self.model.describe_default(self.name, Use.BOOK)
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def parameter(self) -> inspect.Parameter:
        """As typer reads it from a function; None is what was not given."""
        shown, flag = self.option, self.flag
        both: Any = {"help": self.help(), "autocompletion": COMPLETED.get(self.name)}
        kind: Any
        kind, metavar = _typed(self.field.annotation)
        if flag.startswith("-"):
            kind = list[str] if self.is_list else kind  # given twice, none is lost
            metavar = metavar if len(metavar) <= WIDEST else "WORD"
            info: Any = typer.Option(flag, metavar=metavar, rich_help_panel=self.panel, **both)
        else:
            kind = str if shown.metavar else kind
            info = typer.Argument(metavar=shown.metavar or (flag if flag.isupper() else None), **both)
        annotation = Annotated[kind | None, info]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

    def put(self, given: Any, document: dict[str, Any]) -> None:
        """Set it in the document, where it was given."""
        if given is None:
            return
        given = not given if self.field.default is True else given  # its flag turns it off
        if self.is_list:
            try:
                given = [each for row in csv.reader(filter(None, given), skipinitialspace=True) for each in row]
            except csv.Error as error:
                form = "values by commas, one with a line break in double quotes"
                raise UsageError(f"{self.flag} {', '.join(map(repr, given))}", form, "quote it") from error
        (document.setdefault(self.part, {}) if self.part else document)[self.name] = given


def _metadata(kind: Any) -> list[Any]:
    """What is said of one of the kinds of value that a field takes."""
    if get_origin(kind) is Annotated:
        _, *metadata = get_args(kind)
        return [each for info in metadata for each in getattr(info, "metadata", [info])]
    return [each for alternative in get_args(kind) for each in _metadata(alternative)]


def _typed(annotation: Any) -> tuple[Any, str]:
    """What typer reads, text for what has more than one form, and what ``--help`` says that it is: ``N``, ``a|b``."""
    choices = [each for each in get_args(annotation) if each is not NoneType]
    if get_origin(annotation) is Annotated:
        return _typed(choices[0])
    if get_origin(annotation) is Literal:
        return type(choices[0]), "|".join(map(str, choices))
    if get_origin(annotation) is tuple:
        return str, "A,B"
    if choices:
        kinds = [_typed(each) for each in choices]
        return (kinds[0][0] if len(kinds) == 1 else str), "|".join(dict.fromkeys(words for _, words in kinds))
    if issubclass(annotation, Enum):
        return annotation, "|".join(each.value for each in annotation)
    return annotation, VALUES.get(annotation, "TEXT")


def values(parameters: type[BaseModel]) -> Iterator[Value]:
    """Those of the command's model in its order, each part with its own."""
    for part, field in parameters.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, each in kind.model_fields.items():
                if not each.exclude:
                    yield Value(name, part, field.title, kind)
        elif option_of(field).is_typed:
            yield Value(part, None, None, parameters)


def taking(parameters: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command: it gets an option for every field, and what was given as its first argument, a document."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        options_of = list(values(parameters))

        @functools.wraps(command)
        def with_options(**options: Any) -> Any:
            document: dict[str, Any] = {}
            for value in options_of:
                value.put(options.pop(value.name), document)
            return command(document, **options)

        own = list(inspect.signature(command).parameters.values())[1:]
        own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        signature = inspect.Signature([*(value.parameter() for value in options_of), *own])
        with_options.__signature__ = signature  # type: ignore[attr-defined]
        return with_options

    return decorate


def validated(kind: type[Parameters], document: dict[str, Any], command: str) -> Parameters:
    """The parameters, or the first fault in them in the words of the command line.

    Raises:
        UsageError: a value is out of its bounds, or does not go with another.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first, to_do = error.errors()[0], f"see gradmill {command} --help"
        flags = {value.name: value.flag for value in values(kind)}
        name = next((part for part in reversed(first["loc"]) if part in flags), None)
        given = "is missing" if first["type"] == "missing" or first["input"] == "" else first["input"]
        found = f"{flags[name]} {given}" if name else "options that do not go together"
        raise UsageError(found, EXPECTED.get(str(name), expected(error)), to_do) from error


def given_options(parameters: BaseModel, leave_out: set[str]) -> list[str]:
    """Parameters without parts as they are typed: options that have another value than their default."""
    given: list[str] = []
    for value in values(type(parameters)):
        setting = getattr(parameters, value.name)
        if value.name in leave_out or setting == value.field.default:
            continue
        given.append(value.flag)
        if isinstance(setting, tuple):
            text = io.StringIO()
            has_space = any(str(each)[:1] == " " for each in setting)
            writer = functools.partial(csv.writer, quoting=csv.QUOTE_ALL) if has_space else csv.writer
            writer(text, lineterminator="").writerow(setting)
            given.append(text.getvalue())
        elif not isinstance(setting, bool):
            given.append(str(setting))
    return given
