"""Only the latest rows: those of a window of time that ends with the newest row that has a target (``--window``)."""

import numpy as np

from tasks.data.findings import error
from tasks.data.inference import value_kind
from tasks.data.io.table import Table
from tasks.data.report import Finding
from tasks.data.schema import Roles
from tasks.data.table.split_rule import SplitRule
from tasks.data.table.split_words import moments, split_words
from tasks.data.target import Truth, check_constant

HOURS = {"h": 1, "d": 24, "w": 7 * 24}
HOUR = 3_600_000_000  # microseconds


def width(window: str) -> float:
    """Microseconds of a window such as ``90d``."""
    return float(window[:-1]) * HOURS[window[-1]] * HOUR


def cut(table: Table, truth: Truth, parts: Roles, window: str) -> Truth:
    """What there is to learn inside of the window; a row without a time stays, to be found at fault."""
    column, target = parts.split_column, parts.target
    if column is None or column not in table.data.column_names or target is None or not len(truth.values):
        return truth
    if value_kind(table, column) == "number":
        return truth._replace(findings=(*truth.findings, _no_dates(column, window)))
    words = split_words(SplitRule(rule="time", column=column, test=0.5), table.data[column].filter(truth.is_known))
    at = moments(words)
    is_inside = ~(at <= np.fmax.reduce(at, initial=-np.inf) - width(window))
    is_known = np.zeros_like(truth.is_known)
    is_known[np.flatnonzero(truth.is_known)[is_inside]] = True
    values = truth.values[is_inside]
    is_fit = not any(each.severity == "error" for each in truth.findings)
    faults = check_constant(target, values, truth.class_names) if is_fit else ()
    return Truth(values, is_known, truth.class_names, (*truth.findings, *faults), len(at) - len(values))


def _no_dates(column: str, window: str) -> Finding:
    found = f"{column} holds numbers, and --window {window} counts hours, days or weeks"
    return error("window", column, found, "dates or times", "write them as 2024-12-31T23:59:59, or leave --window out")
