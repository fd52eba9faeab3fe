"""The schemas of own data: what version 1 of a name fixes, later ones keep, and options may request in addition.

Code that only reads the store imports this module, so it needs no arrays; ``inference.py`` examines rows.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from tasks.data.recipe import (
    FIXED,
    INDEX_NAMES,
    Column,
    Columns,
    LabelKind,
    Pixels,
    Recipe,
    SplitRule,
    Target,
    decimal_of,
    unless_empty,
)
from tasks.data.report import Finding, error, note, require_fit, warning
from tasks.errors import UsageError
from tasks.machine.words import format_names, suggest_spelling
from tasks.parameters.data import NO_HEADER, OwnData
from tasks.parameters.form import Use
from tasks.records import Splits
from tasks.serving.task import TaskName
from tasks.store.record_base import PersistedRecord

SPLITS: dict[Any, str] = {"group": "split_by", "time": "time_column", "column": "split_column"}  # each rule's option
OTHER_NAME = "leave the option out, or keep the new table under another --name"
TAKEN = "the columns that version 1 took"
SHOWN = 20  # columns
OF_FILES = ("header", "header_names", "encoding")  # fields that the rows do not depend on


class OwnSchema(PersistedRecord):
    """What is fixed for both tables and images."""

    class_names: tuple[str, ...] = ()
    split: SplitRule

    @classmethod
    def from_manifest(cls, dataset: Splits, recipe: Recipe) -> Self:
        """The schema of a kept version of own data, from ``dataset`` and ``recipe`` in its manifest."""
        columns = [each.model_dump(include=FIXED) for each in recipe.columns]
        facts: dict[str, Any] = {"recipe": recipe, "columns": columns, "missing": recipe.missing}
        if recipe.target:
            facts |= {
                "target": recipe.target.name,
                "target_form": recipe.target.form,
                "target_kind": recipe.target.kind,
            }
            facts |= {name: getattr(recipe, name) for name in OF_FILES}
        return cls.model_validate(dict(dataset) | facts)

    def digest(self, parts: Sequence[Any]) -> str:
        """SHA-256 (hex) of data with this schema: of the schema, columns by name, and of each part's row digests."""
        facts = self.model_dump(mode="json", exclude={*OF_FILES})
        facts.get("columns", []).sort(key=lambda column: column["name"])
        of_parts = [hashlib.sha256(part).hexdigest() for part in parts]
        return hashlib.sha256(json.dumps([facts, of_parts], sort_keys=True).encode()).hexdigest()


class Schema(OwnSchema):
    """Names, kinds and order of columns, levels and classes with their codes, the split; nothing that is fitted."""

    task: TaskName
    target: str = Field(min_length=1)
    target_form: str = unless_empty("")
    target_kind: LabelKind = unless_empty("")
    columns: tuple[Column, ...]  # only their ``FIXED`` fields
    missing: tuple[str, ...] = unless_empty(())
    header: str = ""  # as in ``Columns``
    header_names: tuple[str, ...] = ()
    encoding: str = ""
    ignored: tuple[str, ...] = ()  # at the user's request, sorted
    left_out: tuple[str, ...] = ()  # automatically: dates and ids, sorted

    @property
    def recipe(self) -> Columns:
        """The recipe, with nothing fitted yet."""
        target = Target(name=self.target, form=self.target_form, kind=self.target_kind)
        return Columns(
            columns=self.columns,
            target=target,
            missing=self.missing,
            header=self.header,
            header_names=self.header_names,
            encoding=self.encoding,
        )


class ImageSchema(OwnSchema):
    """Classes in order, size and channels, and the split of images."""

    recipe: Pixels

    task: ClassVar[TaskName] = "classification"
    target: ClassVar[None] = None
    ignored: ClassVar[tuple[str, ...]] = ()  # as for a table's columns; images have none
    left_out: ClassVar[tuple[str, ...]] = ()

    def require(self, data: OwnData) -> None:
        """Accept options that agree with what is fixed.

        Raises:
            UsageError: an option disagrees.
        """
        fixed = {"side": self.recipe.shape[0], "channels": "rgb" if len(self.recipe.shape) == 3 else "grey"}
        for name, value in fixed.items():
            if (given := getattr(data, name)) not in (None, value):
                action = "leave the option out, or keep the new images under another --name"
                raise UsageError(f"--{name} {given}", f"{value}, as version 1 fixed it", action)


def find_schema(dataset: Splits, recipe: Recipe) -> Any:
    """The schema of a kept version, from ``dataset`` and ``recipe`` in its manifest; None for the book's data."""
    kind: Any = {Use.TABLES: Schema, Use.IMAGES: ImageSchema}.get(dataset.find_use(recipe))
    return kind and kind.from_manifest(dataset, recipe)


def describe_split(rule: SplitRule) -> str:
    """A split rule in words."""
    share = f"{100 * rule.test:g} %"
    return {
        "rows": f"{share} of the rows, by a hash of their {'features' if rule.features else 'pixels'}",
        "copies": f"{share} of the rows, by a hash of features, target and the number of the copy",
        "group": f"{share} of the groups of {rule.column}, by hash",
        "time": f"the latest {share} by {rule.column}",
        "column": f"as {rule.column} says",
        "folders": "as the data are divided into parts for training and for testing",
    }[rule.rule]


class Request:
    """What is requested of a table: the options, and the previous schema of the name, which they may not contradict."""

    def __init__(self, options: OwnData, previous: Schema | None = None) -> None:
        self.options, self.previous = options, previous
        columns = previous.columns if previous else ()
        self.known = {column.name: column for column in columns if not column.part}
        parts = [column for column in columns if column.part]
        self.parts = {each.source: [part for part in parts if part.source == each.source] for each in parts}
        self.taken = tuple(dict.fromkeys(column.input_name for column in columns))  # columns of the data, in order
        self.target = previous.target if previous else options.target

        given = ((rule, getattr(options, option)) for rule, option in SPLITS.items())
        rule, column = next((each for each in given if each[1] is not None), ("rows", None))
        self.split_asked = SplitRule(rule=rule, column=column, test=options.test)  # features are known later
        self.fixed_split = previous.split if previous and not options.new_recipe else None
        self.split = self.fixed_split or self.split_asked
        is_feature = self.split.is_by_time and self.split.column in (*options.features, *self.taken)
        self.reserved = {self.target, None if is_feature else self.split.column}  # columns that are no features

        others = (*previous.left_out, previous.split.column) if previous else ()
        self.passed_over = set(filter(None, others))  # not features, although nobody ignored them
        ignored = {*options.ignore, *(previous.ignored if previous else ())}
        self.new_missing = {*options.missing} - {*(previous.missing if previous else ())}
        self.missing = tuple(sorted({*options.missing, *(previous.missing if previous else ())}))
        self.header, self.header_names = options.header or "", options.names
        if options.names and not options.header:
            self.header = NO_HEADER
        if previous and not self.header:
            self.header, self.header_names = previous.header, previous.header_names
        self.encoding = options.encoding or (previous.encoding if previous else "")
        self.forms = {name: column.form for name, column in self.known.items() if column.kind == "number"}
        if previous and previous.task == "regression":
            self.forms[previous.target] = previous.target_form
        self.ignored = frozenset(ignored - {self.target, self.split.column, *options.features})  # not even read

    def require_sound(self) -> None:
        """Check that the options make sense.

        Raises:
            UsageError: a column is requested as two things, or as something other than in version 1.
        """
        options, known, target, asked = self.options, self.known, self.target, self.split_asked
        by = self.split.column
        if options.target not in (None, target):
            raise UsageError(f"the target {options.target}", f"{target}, as version 1 fixed it", OTHER_NAME)
        if asked.column and (asked.rule, asked.column) != (self.split.rule, by):
            expected = f"the rule that version 1 fixed: {describe_split(self.split)}"
            action = "leave the option out, or fix the rule anew with --new-recipe"
            raise UsageError(f"a split by {asked.column}", expected, action)
        features = {*options.features} - (self.passed_over | {target, asked.column}).difference(self.taken)
        if self.taken and options.features and features != {*self.taken}:
            expected = f"those that version 1 fixed: {', '.join(self.taken)}"
            raise UsageError(f"the features {', '.join(options.features)}", expected, OTHER_NAME)
        fixed = {decimal_of(form) for form in self.forms.values()}
        if options.decimal and fixed and options.decimal not in fixed:
            words = {".": "decimal points", ",": "decimal commas", "": "whole numbers"}
            expected = f"{' or '.join(words[each] for each in sorted(fixed))}, as version 1 fixed them"
            raise UsageError(f"--decimal {options.decimal}", expected, OTHER_NAME)
        for name in options.category:
            kind = "date" if name in self.parts else known[name].kind if name in known else "category"
            if kind != "category":
                raise UsageError(f"{name} as a category", f"a {kind}, as version 1 took it", OTHER_NAME)
        uses = dict.fromkeys(options.features, "a feature") | {by: "to split by", target: "the target"}
        if ignored := next((name for name in options.ignore if name in uses), None):
            found = f"{ignored} is {uses[ignored]} and is to be ignored"
            raise UsageError(found, "one of the two", "leave it out of --ignore")
        if by and by == target:
            action = "split by a column that is known before the target"
            raise UsageError(f"{by} is the target and is to split the rows", "another column", action)


def assign_roles(request: Request, header: Sequence[str]) -> tuple[list[str], tuple[str, ...], list[Finding]]:
    """The possible features, in order, the ignored columns, sorted, and findings about columns' names.

    ``header`` has the columns that exist, whether they are read or not. A finding reports a column that is requested or
    known but missing, or present but unknown.
    """
    options, unread = request.options, request.ignored
    names = [name for name in header if name not in unread]
    free = [name for name in names if name not in request.reserved]
    wanted = options.features or [name for name in free if name.strip()]
    features = list(request.taken) or [name for name in free if name in wanted]
    others = set(free).difference(features, request.passed_over)
    ignored = tuple(sorted(unread | others if options.features else unread))

    new = others.difference(ignored, INDEX_NAMES)  # row names are left out, from whatever day on they are there
    return features, ignored, [*_check_names(request, header, names, new)]


def _check_names(
    request: Request, header: Sequence[str], names: Sequence[str], new: Collection[str]
) -> Iterator[Finding]:
    """Columns that are requested or known but missing, and those that are ``new``; ``names`` are those read."""
    options, previous, fixed = request.options, request.previous, request.fixed_split
    known_names = f"one of {format_names(names, SHOWN)}"
    wanted: dict[str | None, str] = {request.target: "the target", request.split.column: "to split by"}
    if previous is None:
        wanted[request.target] = "--target"
        wanted |= dict.fromkeys(options.features, "--features")
        wanted |= dict.fromkeys(options.category, "--category")
    for name, why in wanted.items():
        if name is not None and name not in header:
            expected, action = known_names, suggest_spelling(name, names, "choose one of them")
            if previous is not None and name == request.target:
                expected, action = TAKEN, "add it, or correct its name in the data"
            yield error("no-such-column", name, f"no column {name} ({why})", expected, action)
    for name in request.taken:
        if name not in names:
            found = f"column {name} is {'to be ignored' if name in request.ignored else 'missing'}"
            yield error("missing-column", name, found, TAKEN, "restore it, or keep the new table under another --name")
    for name in sorted(new, key=names.index):
        if not name.strip():
            found, action = (
                f"column {header.index(name) + 1} has no name",
                "name it, or list the features with --features",
            )
            yield error("nameless-column", None, found, "a name for each column", action)
            continue
        action = f"leave it out with --ignore {name}, which is kept, or give the new table another --name"
        yield error("new-column", name, f"column {name} is new", TAKEN, action)
    if fixed and fixed.test != options.test:
        found = f"the test share stays {fixed.test:g}, as version 1 fixed it"
        yield note("test-share", None, found, f"--new-recipe makes it {options.test:g}")
    for name in sorted({*options.category}.intersection(previous.left_out if previous else ())):
        found, action = f"{name} stays left out, as in version 1", "--category takes it under another --name"
        yield warning("left-out", name, found, action)
    for name in sorted({*options.ignore}.difference(header, previous.ignored if previous else ())):
        yield warning(
            "no-such-column", name, f"no column {name} (--ignore)", known_names, suggest_spelling(name, header, "")
        )


def require_columns(header: Sequence[str], request: Request) -> None:
    """Check only the names of a table's columns.

    Raises:
        DataError: a column is requested or known but missing, or present but unknown.
    """
    require_fit(assign_roles(request, header)[2])
