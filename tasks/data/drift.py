"""A table against that of the champion: what turned missing, constant or into other units, and what has drifted.

A broken day is judged by the rows that are new since then, file by file: in data that grow it drowns among all others.
So a day in other units is found on the second night as on the two hundredth, and where several days come at once.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import statistics
from tasks.data.io.table import Table
from tasks.data.recipe import SplitRule
from tasks.data.report import AcceptedFinding, ColumnProfile, Finding, error, warning
from tasks.data.row_hash import Rows as RowNumbers
from tasks.data.row_hash import find_new_rows, sample_rows
from tasks.data.split import TEST, TRAINING, Split
from tasks.data.table_rows import Rows
from tasks.machine import side_by_side
from tasks.machine.words import counted, readable
from tasks.parameters.own_data import NO_WINDOW
from tasks.records import ChampionData
from tasks.serving import drift
from tasks.store.verified import RESTORE

MIN_NEW, MIN_KNOWN = 200, 1000  # rows; the latter of the champion's data
TOLERANCE = 0.2  # how far from a power of ten a ratio of medians may be
BY_CHANCE = 1e-3  # how likely it may be that a column is missing in all new rows
MAX_DRIFT = 0.2  # population stability index
MEND = "mend the file, or say --accept-data where the world has changed"


class Group(NamedTuple):
    """New rows that are judged together."""

    rows: RowNumbers
    sampled: RowNumbers
    place: str


class CurrentData(NamedTuple):
    """The rows of a table, and how they are split and chosen."""

    table: Table
    rows: Rows
    rule: SplitRule
    window: str

    def compare(self, champion: ChampionData) -> Iterator[Finding]:
        """All that differs from the champion's data.

        Raises:
            DataError: the digests of the champion's rows are not those that its manifest names.
        """
        yield from compare_num_rows(self.rows.split, self.rule, self.window, champion)
        if self.window == champion.window == NO_WINDOW:  # else a column of the calendar turns constant in time
            yield from _find_constant(self.rows.profiles, champion)
        if champion.num_rows < MIN_KNOWN or champion.rows is None:
            return
        if champion.rows.path.exists():  # what is damaged is no evidence that nothing is new
            new = np.flatnonzero(find_new_rows(self.rows.digests, champion.rows))
            yield from self._compare_columns(new, champion)
        else:
            found = "which rows are new is not known: the digests of the champion's rows are missing"
            yield warning("unknown-rows", None, found, RESTORE)

    def _compare_columns(self, new: RowNumbers, champion: ChampionData) -> Iterator[Finding]:
        """What differs in each column and in the target, which comes last."""
        known = {each.name: each for each in champion.profiles}
        groups = list(self._group_by_file(new))
        are_many = len(new) >= drift.FEWEST_ROWS
        which = "the new rows" if are_many else "all rows"
        watched = new[sample_rows(self.rows.digests[new])] if are_many else sample_rows(self.rows.digests)
        features = self.rows.features

        def compare_column(at: int) -> Finding | None:
            before = known.get(self.rows.profiles[at].name)
            if before is None:
                return None
            values = features.floats(at) if at < len(features.values) else self.rows.truth.values
            share = min(1.0, before.missing / champion.num_rows)
            broken = [found for group in groups if (found := _find_broken(before, values, group, share))]
            if broken:
                more = f"; so in {counted(len(broken) - 1, 'more file')}" if len(broken) > 1 else ""
                return broken[0].model_copy(update={"found": broken[0].found + more})
            if all(_is_constant(values[group.sampled]) for group in groups):  # as a day is in the file of a day
                return None
            return _find_drift(before, values[watched], which)

        yield from filter(None, side_by_side.each(compare_column, range(len(self.rows.profiles))))

    def _group_by_file(self, new: RowNumbers) -> Iterator[Group]:
        """The new rows of each file, and those of files that have few of them together, where they are enough."""
        if not len(new):
            return
        in_table = np.flatnonzero(self.rows.truth.is_known)
        files = np.searchsorted(self.table.starts, in_table[new], side="right") - 1
        by_file = np.split(new, np.flatnonzero(np.diff(files)) + 1)
        by_file.sort(key=lambda rows: self.table.place(int(in_table[rows[0]])))  # by name
        few = [rows for rows in by_file if len(rows) < MIN_NEW]
        for rows in [*(rows for rows in by_file if len(rows) >= MIN_NEW), *([np.concatenate(few)] if few else [])]:
            if len(rows) >= MIN_NEW:
                first, last = (self._name_file(int(in_table[row])) for row in rows[[0, -1]])
                place = first if first == last else f"{first} to {last}"
                sampled = rows[sample_rows(self.rows.digests[rows])]
                yield Group(rows, sampled, f"{counted(len(rows), 'new row')} of {place}")

    def _name_file(self, row: int) -> str:
        """The name of the file of a row of the table, without a folder: where data are stands in no version."""
        path, _ = self.table.place(row)
        *folders, name = PurePosixPath(path).parts
        return "/".join([*(each for each in folders if "=" in each), name])


def compare_num_rows(split: Split, rule: SplitRule, window: str, champion: ChampionData) -> Iterator[Finding]:
    """Whether rows are lost: there are fewer than half of those before, and the same ones are asked for."""
    num_rows = split.count(TRAINING) + split.count(TEST)
    if 2 * num_rows < champion.num_rows and (rule, window) == (champion.split, champion.window):
        found = f"{counted(num_rows, 'row')}, and the champion's data had {champion.num_rows:,}"
        action = "restore what is gone, or say --accept-data where it is meant"
        yield error("fewer-rows", None, found, "at least half of them", action)


def _find_constant(profiles: Iterable[ColumnProfile], champion: ChampionData) -> Iterator[Finding]:
    varied = {each.name for each in champion.profiles if not each.is_constant}
    for each in profiles:
        if each.is_constant and each.name in varied:
            found = f"{each.name} has one value in all rows, and had several"
            yield error("turned-constant", each.name, found, "values that differ, as in the champion's data", MEND)


def _find_broken(before: ColumnProfile, values: NDArray[Any], group: Group, share: float) -> Finding | None:
    """Whether a column ``(n,)`` of which the champion's data missed a ``share`` is not there, or in another unit."""
    sampled = values[group.sampled]
    if np.isnan(sampled).all() and np.isnan(values[group.rows]).all():
        if share ** len(group.rows) >= BY_CHANCE:
            return None
        found = f"{before.name} is missing in all of {group.place}; "
        found += f"in the champion's data it was in {100 * share:.3g} %"
        return error("turned-missing", before.name, found, "values, as in the champion's data", MEND)
    now = before.magnitude and statistics.median_magnitude(sampled)
    if _is_constant(sampled) or not now or not before.magnitude:
        return None
    ratio = now / before.magnitude
    power = round(math.log10(ratio))
    if not power or abs(ratio / 10.0**power - 1) > TOLERANCE:
        return None
    found = f"{before.name} is {10.0**power:g} times what it was: its median magnitude is {readable(now)} in "
    found += f"{group.place}, and was {readable(before.magnitude)}"
    return error("other-scale", before.name, found, "the unit of the champion's data", MEND)


def _is_constant(values: NDArray[Any]) -> bool:
    return bool(np.fmin.reduce(values) == np.fmax.reduce(values))


def _find_drift(before: ColumnProfile, values: NDArray[Any], which: str) -> Finding | None:
    if len(values) < drift.FEWEST_ROWS or not sum(before.counts):
        return None
    index = drift.stability_index(before.counts, statistics.count_bins(before, values))
    if index <= MAX_DRIFT:
        return None
    found = f"{before.name} has drifted: the stability index of {which} against the champion's is {index:.2g}"
    return warning("drift", before.name, f"{found}, above {MAX_DRIFT:g}")


def accept_findings(findings: Iterable[Finding], champion: ChampionData, accept: bool) -> Iterator[Finding]:
    """The findings, of which those stop nothing that the user lets through now, or did before in the same column."""
    for each in findings:
        known = AcceptedFinding(rule=each.rule, column=each.column)
        if each.severity != "error" or not (accept or (each.column and known in champion.accepted)):
            yield each
        else:
            severity, word = ("warning", "accepted") if known not in champion.accepted else ("note", "accepted before")
            facts = {"severity": severity, "found": f"{each.found}; {word}", "expected": "", "action": ""}
            yield each.model_copy(update=facts | {"accepted": True})
