"""A table in a report: every column with its kind, what is missing, and its range or levels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.recipe import SplitRule
from tasks.data.report import MOST_LEVELS_SHOWN, ColumnReport, DataReport, Finding, split_sizes
from tasks.data.sources.tables import Table
from tasks.data.split import TEST, TRAINING, VALIDATION, Split
from tasks.data.table.asked import described
from tasks.data.table.features import Features
from tasks.data.table.kinds import plain_kind
from tasks.data.table.levels import named
from tasks.data.table.roles import Roles
from tasks.data.table.targets import Truth, class_counts
from tasks.machine import side_by_side
from tasks.machine.words import counted


def report(
    name: str,
    table: Table,
    parts: Roles,
    found: Features,
    findings: Sequence[Finding],
    truth: Truth | None = None,
    split: Split | None = None,
    rule: SplitRule | None = None,
) -> DataReport:
    """All that was found, in one document."""
    rows = len(table.data)
    train, validation, test = map(split.count, (TRAINING, VALIDATION, TEST)) if split else (0, 0, 0)
    classes = dict[str, int]()
    if truth and truth.class_names and len(truth.values):
        counts = class_counts(truth.values, len(truth.class_names))
        classes = dict(zip(truth.class_names, counts.tolist(), strict=True))
    outside = truth.outside if truth else 0
    unlabelled = (
        rows - outside - int(truth.is_known.sum()) if truth and len(truth.values) else 0
    )  # none of an unfit one
    return DataReport(
        name=name,
        summary=_summary(table, found, split_sizes(train, validation, test), rule, unlabelled, outside),
        rows=rows,
        files=len(table.files.files),
        columns=tuple(side_by_side.each(lambda each: _column(table, each, parts, found), table.data.column_names)),
        target=parts.target,
        classes=classes,
        split=rule,
        num_train=train,
        num_validation=validation,
        num_test=test,
        unlabelled=unlabelled,
        outside=outside,
        findings=tuple(findings),
    )


def _summary(table: Table, found: Features, sizes: str, rule: SplitRule | None, unlabelled: int, outside: int) -> str:
    kinds = [column.kind for column in found.columns]
    names = (("number", "number"), ("boolean", "boolean"), ("category", "categorie"))
    features = ", ".join(_plural(kinds.count(kind), noun) for kind, noun in names if kind in kinds)
    size = f"{counted(len(table.data), 'row')} in {counted(len(table.files.files), 'file')}"
    said = f"{size}; features: {features or 'none'}"
    if rule:
        said += f"; {sizes} ({described(rule)})"
    said += f"; {counted(outside, 'row')} outside of the window left out" if outside else ""
    return said + (f"; {counted(unlabelled, 'row')} without a target left out" if unlabelled else "")


def _plural(count: int, noun: str) -> str:
    return counted(count, noun) if noun != "categorie" or count != 1 else "1 category"


def _column(table: Table, name: str, parts: Roles, found: Features) -> ColumnReport:
    left_out = {each: kind for each, kind in found.left_out.items() if kind != "left out"}  # by version 1, of any kind
    kinds = {column.name: column.kind for column in found.columns} | left_out
    role = "feature"
    for each, names in {"target": (parts.target,), "split": (parts.splits,), "left out": found.left_out}.items():
        role = each if name in names else role
    kind = kinds.get(name) or plain_kind(table, name)
    role = "left out" if role == "feature" and name not in kinds else role
    facts: dict[str, Any] = {"missing": _missing(table.data[name])}
    if kind == "number":
        facts |= _range(table, name)
    elif kind in ("category", "text", "boolean"):
        facts |= _levels(table, name)
    return ColumnReport.model_validate({"name": name, "role": role, "kind": kind, **facts})


def _missing(column: pa.ChunkedArray) -> int:
    """The rows without a value; of floats NaN is none."""
    nans = pc.sum(pc.is_nan(column)).as_py() if pa.types.is_floating(column.type) else 0
    return int(column.null_count + (nans or 0))


def _range(table: Table, name: str) -> dict[str, Any]:
    low, high = table.limits(name)
    return {"minimum": low, "maximum": high} if np.isfinite([low, high]).all() else {}


def _levels(table: Table, name: str) -> dict[str, Any]:
    found = table.levels(name)
    order = np.argsort(-found.counts, kind="stable")[:MOST_LEVELS_SHOWN]
    number = int((found.counts > 0).sum())
    return {"num_levels": number, "levels": tuple(named(found.values.take(order))[: min(number, MOST_LEVELS_SHOWN)])}
