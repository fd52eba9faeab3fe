"""The schema of a table: what version 1 of a name fixes, which later ones keep, and what options may ask beside it.

Whoever only reads the store imports this, so it needs no arrays; ``inference.py`` has what looks at rows.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Self

from pydantic import Field

from tasks.data.recipe import Column, Columns, SplitRule
from tasks.data.report import Finding, UnfitData, error, note, warning
from tasks.errors import UsageError
from tasks.machine.words import listed, nearest
from tasks.parameters.own_data import OwnData
from tasks.records import Splits
from tasks.serving.task import TaskName
from tasks.store.record import Lasting

BY_COLUMN = {"split_by": "group", "time_column": "time", "split_column": "column"}
OTHER_NAME = "leave the option out, or keep the new table under another --name"
TAKEN = "the columns that version 1 took"
SHOWN = 20  # columns


class Schema(Lasting):
    """Names, kinds and order of columns, levels and classes with their codes, the split; nothing that is fitted."""

    task: TaskName
    target: str = Field(min_length=1)
    columns: tuple[Column, ...]  # name, kind and levels
    class_names: tuple[str, ...] = ()
    split: SplitRule
    ignored: tuple[str, ...] = ()  # by the user's word, sorted
    left_out: tuple[str, ...] = ()  # by themselves: dates and ids, sorted

    @classmethod
    def from_manifest(cls, dataset: Splits, recipe: object) -> Self | None:
        """The schema of a kept version, by ``dataset`` and ``recipe`` of its manifest; None of the book's data."""
        if dataset.split is None or not isinstance(recipe, Columns) or recipe.target is None:
            return None
        return cls(**dict(dataset), target=recipe.target.name, columns=tuple(map(unfitted, recipe.columns)))

    @property
    def passed_over(self) -> set[str]:
        """The columns that are no features although nobody ignores them."""
        return {*self.left_out, *([] if self.split.column is None else [self.split.column])}

    def digest(self, parts: Sequence[Any]) -> str:
        """SHA-256 (hex) of data of this schema: of the schema, columns by name, and of each part's bytes."""
        columns = sorted(map(unfitted, self.columns), key=lambda each: each.name)
        facts = self.model_dump(mode="json") | {"columns": [each.model_dump(mode="json") for each in columns]}
        of_parts = [hashlib.sha256(part).hexdigest() for part in parts]
        return hashlib.sha256(json.dumps([facts, of_parts], sort_keys=True).encode()).hexdigest()


def unfitted(column: Column) -> Column:
    """A column without what is fitted anew at every retrain."""
    return Column(name=column.name, kind=column.kind, levels=column.levels)


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


class Request(NamedTuple):
    """What is asked of a table: the options, and the previous schema of the name, which they may not contradict."""

    options: OwnData
    previous: Schema | None = None

    @property
    def known(self) -> dict[str, Column]:
        """The columns of the previous schema, by name."""
        return {column.name: column for column in self.previous.columns} if self.previous else {}

    @property
    def target(self) -> str | None:
        """The column to predict."""
        return self.previous.target if self.previous else self.options.target

    @property
    def fixed_split(self) -> SplitRule | None:
        """The split rule that holds because version 1 fixed it."""
        return self.previous.split if self.previous and not self.options.new_recipe else None

    @property
    def split_asked(self) -> tuple[str, str | None]:
        """The split rule that the options name, and its column; by the hash of a row if they name none."""
        given = ((rule, getattr(self.options, option)) for option, rule in BY_COLUMN.items())
        return next((each for each in given if each[1] is not None), ("rows", None))

    @property
    def split(self) -> tuple[str, str | None]:
        """The split rule that holds, and its column."""
        fixed = self.fixed_split
        return (fixed.rule, fixed.column) if fixed else self.split_asked

    @property
    def ignored(self) -> frozenset[str]:
        """The columns that are not even read."""
        names = {*self.options.ignore, *(self.previous.ignored if self.previous else ())}
        return frozenset(names - {self.target, self.split[1], *self.options.features})

    def text_columns(self, is_classification: bool) -> frozenset[str]:
        """The columns of names: a class or a group ``01`` is no number, whatever all the others look like."""
        levels = [name for name, column in self.known.items() if column.kind == "category"]
        rule, column = self.split
        others = self.target if is_classification else None, column if rule != "time" else None
        return frozenset(filter(None, (*self.options.category, *levels, *others))) - self.ignored

    def require_sound(self) -> None:
        """Check that the options can be meant.

        Raises:
            UsageError: a column is asked for as two things, or as something else than version 1 took it for.
        """
        if self.previous:
            self._require_agreement(self.previous)
        by = self.split[1]
        parts = {"the target": (self.target,), "to split by": (by,), "a feature": self.options.features}
        for part, names in parts.items():
            if both := [name for name in names if name in self.options.ignore]:
                found = f"{both[0]} is {part} and is to be ignored"
                raise UsageError(found, "one of the two", "leave it out of --ignore")
        if by is not None and by == self.target:
            found = f"{by} is the target and is to split the rows"
            raise UsageError(found, "another column", "split by a column that is known before the target")

    def _require_agreement(self, previous: Schema) -> None:
        options, (rule, by) = self.options, self.split_asked
        if options.target not in (None, previous.target):
            raise UsageError(f"the target {options.target}", f"{previous.target}, as version 1 fixed it", OTHER_NAME)
        if by is not None and not options.new_recipe and (rule, by) != (previous.split.rule, previous.split.column):
            expected = f"the rule that version 1 fixed: {describe_split(previous.split)}"
            action = "leave the option out, or fix the rule anew with --new-recipe"
            raise UsageError(f"a split by {by}", expected, action)
        features = set(options.features) - previous.passed_over - {previous.target, by}
        if options.features and features != self.known.keys():
            expected = f"those that version 1 fixed: {', '.join(self.known)}"
            raise UsageError(f"the features {', '.join(options.features)}", expected, OTHER_NAME)
        for name in options.category:
            if name in self.known and (kind := self.known[name].kind) != "category":
                raise UsageError(f"{name} as a category", f"a {kind}, as version 1 took it", OTHER_NAME)


class Roles(NamedTuple):
    """The columns of a table by what they are there for."""

    target: str | None
    split_column: str | None  # groups, times, or names of splits
    features: tuple[str, ...]  # that may become some, in order
    ignored: tuple[str, ...]


def assign_roles(request: Request, names: Sequence[str], unread: Collection[str]) -> tuple[Roles, list[Finding]]:
    """The columns' roles, and each column that is asked for or known and not there, or there and not known.

    ``names`` are those that were read, ``unread`` those that are there and ignored.
    """
    options, previous = request
    target, by = request.target, request.split[1]
    ignored = set(request.ignored)
    free = [name for name in names if name not in {target, by} | ignored]
    features = [name for name in free if not options.features or name in options.features]
    if previous:
        features = list(request.known)
    if options.features:
        ignored |= set(free) - set(features) - (previous.passed_over if previous else set())
    roles = Roles(target, by, tuple(features), tuple(sorted(ignored)))
    return roles, list(_check_names(request, roles, names, unread, free))


def require_columns(header: Sequence[str], request: Request) -> None:
    """Check the names of a table's columns alone.

    Raises:
        DataError: one that is asked for or known is not there, or one that is there is not known.
    """
    read, unread = [name for name in header if name not in request.ignored], request.ignored.intersection(header)
    if errors := tuple(each for each in assign_roles(request, read, unread)[1] if each.severity == "error"):
        raise UnfitData(errors)


def _check_names(
    request: Request, roles: Roles, names: Sequence[str], unread: Collection[str], free: Sequence[str]
) -> Iterator[Finding]:
    options, previous = request
    listing = f"one of {listed(names, SHOWN)}"
    wanted: dict[str | None, str] = {roles.target: "--target", roles.split_column: "to split by"}
    wanted |= dict.fromkeys(options.features, "--features")
    wanted |= dict.fromkeys(options.category if previous is None else (), "--category")
    for name, why in wanted.items():
        if name is not None and name not in {*names, *options.ignore}:
            action = nearest(name, names, "take one of them")
            yield error("no-such-column", name, f"no column {name} ({why})", listing, action)
    if previous:
        yield from _check_known(request, previous, roles, {*names, *wanted}, free)
    for name in sorted(set(options.ignore) - {*unread, *names, *(previous.ignored if previous else ())}):
        yield warning("no-such-column", name, f"no column {name} (--ignore)", expected=listing)
    for name in sorted(set(options.category) & set(previous.left_out if previous else ())):
        action = "--category takes it under another --name"
        yield warning("left-out", name, f"{name} stays left out, as in version 1", action)


def _check_known(
    request: Request, previous: Schema, roles: Roles, there: Collection[str | None], free: Sequence[str]
) -> Iterator[Finding]:
    """Columns that the previous schema has and the table has not, or the other way round; and another share."""
    for name in roles.features:
        if name in roles.ignored:
            action = "keep it, or give the new table another --name"
            yield error("missing-column", name, f"{name} is to be ignored", TAKEN, action)
        elif name not in there:
            action = "restore it, or keep the new table under another --name"
            yield error("missing-column", name, f"column {name} is missing", TAKEN, action)
    for name in free:
        if name not in previous.passed_over | {*roles.features, *roles.ignored}:
            action = f"leave it out with --ignore {name}, which is kept, or give the new table another --name"
            yield error("new-column", name, f"column {name} is new", TAKEN, action)
    if (fixed := request.fixed_split) and fixed.test != request.options.test:
        found = f"the test share stays {fixed.test:g}, as version 1 fixed it"
        yield note("test-share", None, found, f"--new-recipe makes it {request.options.test:g}")
