"""Options: those that several commands share, and those made from the parameters of a command.

Names, types, help and defaults come from the parameters.
"""

import csv
import inspect
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tasks.errors import UsageError
from tasks.machine import devices
from tasks.machine.words import format_setting, join_values
from tasks.parameters import Device, ModelName, Use, addresses
from tasks.parameters.form import Option, ParameterModel, as_usage_error, option_of, spell_flag
from tasks.serving.task import TaskName
from tasks.store import artifact_paths, model_folder, regular_files

Parameters = TypeVar("Parameters", bound=ParameterModel)

# Descriptions of accepted values where pydantic's would not help.
EXPECTED = {
    "name": "1 to 63 lower-case letters a to z, digits and hyphens, no hyphen first",
    "seed": "a whole number from 0 to 2**63 - 1, or auto",
    "window": "hours, days or weeks, such as 36h, 90d or 12w, or none",
    "decimal": "a point or a comma",
    "header": "the number of a line, from 1 to 9999, or none",
    "encoding": "an encoding that Python knows, such as latin-1 or cp1250",
    "synthetic_w": "comma-separated finite numbers",
}
VALUES = {bool: "", int: "N", float: "X", Path: "PATH"}  # metavars, as in the documentation
WIDEST = 20  # columns of --help for the metavar: a longer list is in the option's help
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # names of ``annotated_types``

PORT: Any = {"metavar": "N", "min": 1, "max": 65535}
LAST: Any = {"rich_help_panel": "General"}  # common options are listed below those of a command
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and everything else on stderr.", **LAST)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log.", **LAST)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only failures.", **LAST)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", **LAST)]
Artifacts = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where everything is kept \\[env: GRADMILL_ARTIFACTS; default: ./artifacts].",
        **LAST,
    ),
]


def _names(incomplete: str) -> list[str]:
    """Kept names, for shell completion."""
    return [name for name in model_folder.list_names() if name.startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    """Models that can be trained: the book's, and kept names."""
    return sorted({*_names(incomplete), *(name for name in ModelName if name.startswith(incomplete))})


Param = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Such as training.lr=0.3; may be given several times."),
]
COMPLETED = {"name": _names, "model": _models}  # by the field that an option or argument sets
ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="Which model.", autocompletion=_names)]
Version = Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion]")]
OnlyModel = Annotated[str | None, typer.Argument(metavar="NAME", help="Only this model.", autocompletion=_names)]
TaskOption = Annotated[
    TaskName | None,
    typer.Option(
        metavar="regression|classification",
        help="What your own table's target has, numbers or classes \\[default: decided by its values].",
        rich_help_panel="Data",
        show_default=False,
    ),
]
DeviceOption = Annotated[Device, typer.Option(metavar="auto|cpu|cuda", help="auto uses the GPU if there is one.")]


typed_artifacts: Path | None = None  # --artifacts of this command


def choose(artifacts: Path | None) -> None:
    """Make ``--artifacts`` the setting of this process and its children."""
    global typed_artifacts
    typed_artifacts = artifacts
    if artifacts is not None:
        os.environ["GRADMILL_ARTIFACTS"] = str(artifacts)


def require(device: Device) -> None:
    """Fail before starting a server if the device is missing, or artifacts/ is not writable."""
    devices.require(device)
    with tempfile.TemporaryFile(dir=artifact_paths.make_root()):
        pass


def as_typed(command: str) -> str:
    """``command`` of this program as it can be typed here, with the same ``--artifacts``."""
    typed, found = sys.argv[0], shutil.which("gradmill")
    program = f"{shlex.quote(sys.executable)} -m flows"
    if found and os.path.realpath(found) == os.path.realpath(typed):
        program = "gradmill"
    elif Path(typed).name == "gradmill":
        program = shlex.quote(typed)
    return add_artifacts(f"{program} {command}")


def add_artifacts(command: str) -> str:
    """``command`` with this command's ``--artifacts``, unless it has its own."""
    is_said = typed_artifacts is None or "--artifacts" in command
    return command if is_said else f"{command} --artifacts {shlex.quote(str(typed_artifacts))}"


# Options made from parameters


class Value(NamedTuple):
    """The target of an option: a field of the parameters, or of a ``part`` of them."""

    name: str
    part: str | None
    panel: str | None
    model: type[ParameterModel]  # the model that has the field
    field: FieldInfo  # its declaration
    option: Option  # its appearance

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return self.option.flag or spell_flag(self.name)

    @property
    def is_list(self) -> bool:
        """Whether it takes several values, separated by commas or by repetition."""
        return get_origin(self.field.annotation) is tuple

    @property
    def is_shown(self) -> bool:
        """Whether it is useful for what the form is shown for."""
        return bool(self.model.use_of(self.name) & self.model.shown_for)

    def help(self) -> str:
        """Its description, default and limits; a plain bracket would be a style to Rich."""
        title, said, default = str(self.field.title), self.field.description, self.field.default
        if not said or title.lower() != self.flag.lower().strip("-").replace("-", " "):
            said = f"{title}: {said}" if said else f"{title}."
        words = " ".join(filter(None, [self.option.help or said, self.option.limits]))
        if self.option.empty or isinstance(default, bool) or self.field.is_required():  # a flag has no default
            default = self.option.empty
        elif default is None:
            default = self.model.describe_default(self.name, Use.EVERY)
        elif self.is_list:
            default = ",".join(map(str, default))
        about = (*self.field.metadata, *_walk_annotation(self.field.annotation))
        limits = [
            f"{LIMITS[name]} {format_setting(getattr(each, name))}"
            for each in about
            for name in LIMITS
            if hasattr(each, name)
        ]
        bounds = [*[f"default: {default}"] * (default != ""), *limits, *["comma-separated"] * self.is_list]
        return f"{words} \\[{'; '.join(bounds)}]" if bounds else words

    def parameter(self) -> inspect.Parameter:
        """The parameter of a function as typer reads it; None stands for an option that is not given."""
        metavar = _spell_values(self.field.annotation)
        kind: Any = bool if self.field.annotation is bool else list[str] if self.is_list else str
        about: Any = {"help": self.help(), "autocompletion": COMPLETED.get(self.name, _offer(metavar.split("|")))}
        if self.flag.startswith("-"):
            metavar = metavar if len(metavar) <= WIDEST else "WORD"
            info: Any = typer.Option(self.flag, metavar=metavar, rich_help_panel=self.panel, **about)
        else:
            info = typer.Argument(metavar=self.option.metavar or (self.flag if self.flag.isupper() else None), **about)
        annotation = Annotated[kind | None, info]
        return inspect.Parameter(
            self.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation
        )

    def put(self, given: Any, document: dict[str, Any]) -> None:
        """Set the value in the document, if it was given."""
        if given is None:
            return
        given = not given if self.field.default is True else given  # its flag turns it off
        if isinstance(given, str):
            _require_utf8(self.flag, given)
            given = _normalize_source(given) if self.name == self.model.source_field else given
        if self.is_list:
            try:
                given = [each for row in csv.reader(filter(None, given), skipinitialspace=True) for each in row]
            except csv.Error as error:
                form = "values separated by commas, in double quotes if they have a line break"
                raise UsageError(f"{self.flag} {', '.join(map(repr, given))}", form, "quote it") from error
        (document.setdefault(self.part, {}) if self.part else document)[self.name] = given


def _require_utf8(flag: str, text: str) -> None:
    """Check that a value can be passed through JSON to Prefect and to documents: a path may have any bytes."""
    if text != (shown := os.fsencode(text).decode(errors="replace")):
        raise UsageError(f"{flag} {shown} is not UTF-8", "a path in UTF-8", "rename the file")


def _normalize_source(source: str) -> str:
    """The source of own data or input: a URL unchanged, a path made absolute.

    Raises:
        UsageError: a URL may contain a credential.
    """
    addresses.require_no_credentials(source)
    where, _ = addresses.split_source(source)
    kind = addresses.SQLITE if where.startswith(addresses.SQLITE) else ""
    path = where.removeprefix(kind)
    if "://" in path or not path:
        return source
    return f"{kind}{regular_files.make_absolute(path)}{source.removeprefix(where)}"


def _walk_annotation(annotation: Any) -> Iterator[Any]:
    """Yield the nested types and metadata of an annotation."""
    for each in get_args(annotation):
        yield from (each, *getattr(each, "metadata", ()), *_walk_annotation(each))


def _spell_values(annotation: Any) -> str:
    """The accepted values in ``--help``: ``N``, ``a|b``."""
    choices, origin = [each for each in get_args(annotation) if each is not NoneType], get_origin(annotation)
    if origin is Annotated:
        return _spell_values(choices[0])
    if origin is Literal:
        return "|".join(map(str, choices))
    if origin is tuple:
        return "A,B"
    if choices:
        return "|".join(dict.fromkeys(map(_spell_values, choices)))
    return "|".join(annotation) if issubclass(annotation, Enum) else VALUES.get(annotation, "TEXT")


def _offer(words: list[str]) -> Callable[[str], list[str]]:
    """A completion with those of the words that can be typed; those in capitals stand for others."""
    return lambda incomplete: [word for word in words if word.islower() and word.startswith(incomplete)]


Given = dict[str, Any]  # the given values of a parameter model, named by ``Annotated[Given, …]``


def values(parameters: type[ParameterModel]) -> Iterator[Value]:
    """The fields of a command's parameters in order, including those of parts."""
    for part, field in parameters.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, ParameterModel):
            for name, each in kind.model_fields.items():
                if not each.exclude:
                    yield Value(name, part, field.title, kind, each, option_of(each))
        elif option_of(field).is_typed:
            yield Value(part, None, None, parameters, field, option_of(field))


def validate_document(kind: type[Parameters], document: dict[str, Any], command: str) -> Parameters:
    """Validate the parameters, and report the first error in terms of the command line.

    Raises:
        UsageError: a value is out of bounds, or does not fit another.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first, to_do = error.errors()[0], f"see gradmill {command} --help"
        flags = {value.name: value.flag for value in values(kind)}
        name = next((part for part in reversed(first["loc"]) if part in flags), None)
        given = "is missing" if first["type"] == "missing" or first["input"] == "" else first["input"]
        if first["input"] == "" and name != first["loc"][-1]:
            given = "has an empty value"  # among others
        found = f"{flags[name]} {given}" if name else "options that do not go together"
        fault = as_usage_error(error, found, to_do)
        fault.expected = EXPECTED.get(str(name), fault.expected)
        raise fault from error


def given_options(parameters: ParameterModel, leave_out: set[str]) -> list[str]:
    """Parameters (without parts) as typed options, omitting defaults."""
    given: list[str] = []
    for value in values(type(parameters)):
        setting = getattr(parameters, value.name)
        if value.name in leave_out or setting == value.field.default:
            continue
        given.append(value.flag)
        if isinstance(setting, tuple):
            given.append(join_values([str(each) for each in setting]))
        elif not isinstance(setting, bool):
            given.append(str(setting))
    return given


def nest_assignments(assignments: list[str]) -> dict[str, Any]:
    """``training.lr=0.3`` to ``{"training": {"lr": 0.3}}``; values are JSON, or text where they are not.

    Raises:
        UsageError: one is not an assignment, or contradicts another.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        *parents, last = key.split(".")
        if not equals or not all((*parents, last)):
            raise UsageError(f"--param {assignment}", "KEY=VALUE", "see gradmill trigger --help")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                expected = f"{parent} as a value or with parts, not both"
                raise UsageError(f"--param {assignment}", expected, "leave one out")
        try:
            inner[last] = json.loads(text)
        except RecursionError as error:
            found = f"--param {key}: {text[:20]}… is nested too deep"
            raise UsageError(found, "a value", "nest the value less deeply") from error
        except ValueError:
            inner[last] = text
    return nested
