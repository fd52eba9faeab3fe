"""The columns that become features: of which kind, with which levels, and which are left out or wrong."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import row_hash, statistics
from tasks.data.recipe import Column
from tasks.data.report import Finding, error, warning
from tasks.data.row_hash import Hashes
from tasks.data.sources.tables import Table
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.kinds import Kind, infer, misfit
from tasks.data.table.levels import MOST_LEVELS, appended
from tasks.data.table.roles import Roles
from tasks.machine.arrays import Array
from tasks.parameters.own_data import OwnData

LARGEST = float(np.finfo(np.float32).max)


class Features(NamedTuple):
    """The columns of a model, and what there is to say of all that might have been."""

    columns: tuple[Column, ...]  # nothing fitted
    left_out: dict[str, str]  # what the others are: date or id
    findings: tuple[Finding, ...]


def found(table: Table, parts: Roles, data: OwnData, kept: FixedRecipe | None) -> Features:
    """The features of a table, inferred or as version 1 fixed them."""
    names = set(table.data.column_names)
    there = [name for name in parts.features if name in names]
    known = {column.name: column for column in kept.columns} if kept else {}
    columns, findings = list[Column](), list[Finding]()
    old = {*kept.left_out, *filter(None, [kept.split.column])} - {parts.splits, *parts.ignored} if kept else ()
    left_out = dict.fromkeys(old, "left out")
    for name in there:
        kind = _kind(table, name, data, known.get(name))
        findings += [kind.finding] if kind.finding else []
        if kind.name in ("date", "id"):
            left_out[name] = kind.name
        elif kind.is_feature and (kind.finding is None or kind.finding.severity != "error"):
            column, notes = _with_levels(table, name, kind, known.get(name))
            columns += column
            findings += notes
    if not columns and not any(each.severity == "error" for each in findings):
        said = f"no column is left to predict {parts.target or 'anything'} from"
        action = "give more columns, or take one that was left out with --category"
        findings.append(error("no-features", None, said, "at least one number, boolean or category", action))
    return Features(tuple(columns), left_out, tuple(findings))


def _kind(table: Table, name: str, data: OwnData, known: Column | None) -> Kind:
    if known is None:
        return infer(table, name, name in data.category)
    return Kind(known.kind, misfit(table, name, known.kind, name in data.category))


def _with_levels(
    table: Table, name: str, kind: Kind, known: Column | None
) -> tuple[tuple[Column, ...], tuple[Finding, ...]]:
    """The column, unless it has too many levels, and what there is to say of them."""
    if kind.name != "category":
        return (known or Column.model_validate({"name": name, "kind": kind.name}),), ()
    old, found = known.levels if known else (), table.levels(name)
    now = appended(old, found.names()) if found.num_used <= MOST_LEVELS else ()
    if (number := max(len(now), found.num_used)) > MOST_LEVELS:
        return (), (_too_many(name, number, known is not None),)
    new = now[len(old) :] if known else ()
    more = ", …" if len(new) > 10 else ""
    notes = (warning("new-levels", name, f"{name} has new levels: {', '.join(new[:10])}{more}"),) if new else ()
    return (Column(name=name, kind="category", levels=now),), notes


def _too_many(name: str, number: int, is_known: bool) -> Finding:
    said = f"{name} has {number:,} levels" + (", with those that earlier versions took" if is_known else "")
    action = f"leave it out with --ignore {name}, or group its values"
    action = "group its values, and give the new table another --name" if is_known else action
    return error("too-many-levels", name, said, f"at most {MOST_LEVELS:,}", action)


def encode(table: Table, column: Column, is_known: NDArray[np.bool_], into: Array) -> tuple[Finding | None, bool]:
    """Write a column's values of the rows that have a target, as ``Encoded`` has them.

    Returns what is wrong with them, and whether float32 has all their digits.
    """
    if column.kind == "category":
        found, missing = table.levels(column.name), len(column.levels)
        if len(is_known) == len(into):
            found.of(column.levels, missing, missing, into)
        else:
            into[:] = found.of(column.levels, missing, missing)[is_known]
        return None, True
    values = table.data[column.name]
    is_exact, row, start = True, 0, 0
    for chunk in values.chunks:
        exact = statistics.chunk_to_numbers(chunk)
        known = is_known[start : start + len(chunk)]
        exact = exact if len(is_known) == len(into) else np.compress(known, exact)
        part = into[row : row + len(exact)]
        with np.errstate(over="ignore"):
            part[:] = exact
        is_infinite = np.isinf(part)
        if is_infinite.any():
            at = int(is_infinite.argmax())
            said = f"{column.name} is {exact[at]:g} in {table.named(start + int(np.flatnonzero(known)[at]))}"
            action = f"mend the value, or leave the column out with --ignore {column.name}"
            return error("infinite-value", column.name, said, f"numbers up to {LARGEST:.3g}", action), True
        is_exact &= np.count_nonzero(part != exact) == np.count_nonzero(np.isnan(exact))
        row, start = row + len(exact), start + len(chunk)
    if is_exact or np.nanmin(into) < np.nanmax(into):
        return None, is_exact
    exact = statistics.to_numbers(values)
    return _too_near(column.name, exact if len(exact) == len(into) else exact[is_known]), is_exact


def row_hashes(columns: tuple[Column, ...], encoded: Sequence[Array]) -> Hashes:
    """The row hash of encoded features ``(n,)``; codes may be float32 too."""
    ordered = sorted(range(len(columns)), key=lambda at: columns[at].name)
    words = {at: row_hash.hash_levels(column.levels) for at, column in enumerate(columns) if column.kind == "category"}
    return row_hash.hash_rows([(encoded[at], words.get(at)) for at in ordered], len(encoded[0]))


def _too_near(name: str, exact: NDArray[np.float64]) -> Finding | None:
    """Values that differ, if they do, and are one number in float32."""
    first, last = float(np.nanmin(exact)), float(np.nanmax(exact))
    if first == last:
        return None
    said = f"{name} lies between {first:.12g} and {last:.12g}, which are one number in float32"
    return warning("offset", name, said, f"subtract an offset from it, or leave it out with --ignore {name}")
