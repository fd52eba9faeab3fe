"""Which part each column of a table plays: what is asked for, and what version 1 fixed."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tasks.data.recipe import SplitRule
from tasks.data.report import Finding, error, note, warning
from tasks.data.table import asked
from tasks.data.table.fixed import FixedRecipe
from tasks.machine.words import listed, nearest
from tasks.parameters.own_data import OwnData

SHOWN = 20  # columns


class Roles(NamedTuple):
    """The columns of a table by what they are there for."""

    target: str | None
    splits: str | None  # groups, times, or names of splits
    features: tuple[str, ...]  # that may become some, in order
    ignored: tuple[str, ...]


def roles(
    names: Sequence[str], unread: Collection[str], data: OwnData, kept: FixedRecipe | None
) -> tuple[Roles, list[Finding]]:
    """The columns' parts, and each column that is asked for or known and not there, or there and not known.

    ``names`` are those that were read, ``unread`` those that are there and ignored.
    """
    rule, target = asked.split_by(data, kept), asked.target(data, kept)
    splits = rule[1] if rule else None
    ignored = set(asked.ignored(data, kept))
    used = {target, splits}
    free = [name for name in names if name not in used | ignored]
    if kept is None:
        features = [name for name in free if not data.features or name in data.features]
        ignored |= set(free) - set(features)
    else:
        features = [column.name for column in kept.columns]
        if data.features:
            ignored |= set(free) - set(features) - {*kept.left_out, kept.split.column}
    parts = Roles(target, splits, tuple(features), tuple(sorted(ignored)))
    share = _other_share(data, asked.rule_kept(data, kept))
    mistyped = _not_ignored(set(data.ignore) - {*unread, *names, *(kept.ignored if kept else ())}, names)
    return parts, [
        *_missing(names, data, parts, kept),
        *_new(free, parts, kept),
        *share,
        *mistyped,
        *_stays_out(data, kept),
    ]


def _stays_out(data: OwnData, kept: FixedRecipe | None) -> Iterator[Finding]:
    for name in sorted(set(data.category) & set(kept.left_out if kept else ())):
        said, action = f"{name} stays left out, as in version 1", "--category takes it under another --name"
        yield warning("left-out", name, said, action)


def _not_ignored(mistyped: Collection[str], names: Sequence[str]) -> Iterator[Finding]:
    for name in sorted(mistyped):
        said = f"no column {name} (--ignore)"
        yield warning("no-such-column", name, said, expected=f"one of {listed(names, SHOWN)}")


def _other_share(data: OwnData, kept: SplitRule | None) -> Iterator[Finding]:
    if kept and kept.test != data.test:
        said = f"the test share stays {kept.test:g}, as version 1 fixed it"
        yield note("test-share", None, said, f"--new-recipe makes it {data.test:g}")


def _missing(names: Sequence[str], data: OwnData, parts: Roles, kept: FixedRecipe | None) -> Iterator[Finding]:
    wanted: dict[str | None, str] = {parts.target: "--target", parts.splits: "to split by"}
    wanted |= dict.fromkeys(data.features, "--features")
    wanted |= dict.fromkeys(data.category, "--category") if kept is None else {}
    known = f"one of {listed(names, SHOWN)}"
    for name, why in wanted.items():
        if name is not None and name not in names and name not in data.ignore:
            yield error(
                "no-such-column", name, f"no column {name} ({why})", known, nearest(name, names, "take one of them")
            )
    for name in parts.features if kept else ():
        if name in parts.ignored:
            found, action = f"{name} is to be ignored", "keep it, or give the new table another --name"
            yield error("missing-column", name, found, "the columns that version 1 took", action)
        elif name not in names and name not in wanted:
            found, action = f"column {name} is missing", "restore it, or keep the new table under another --name"
            yield error("missing-column", name, found, "the columns that version 1 took", action)


def _new(free: Sequence[str], parts: Roles, kept: FixedRecipe | None) -> Iterator[Finding]:
    if kept is None:
        return
    known = {*parts.features, *parts.ignored, *kept.left_out, kept.split.column}
    for name in free:
        if name not in known:
            action = f"leave it out with --ignore {name}, which is kept, or give the new table another --name"
            yield error("new-column", name, f"column {name} is new", "the columns that version 1 took", action)
