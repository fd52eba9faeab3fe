"""A table against that of the champion: what turned missing, constant or into other units, and what has drifted.

A broken day is judged by the rows that are new since then, file by file: in data that grow it drowns among all others.
So a day in other units is found on the second night as on the two hundredth, and where several days come at once.
"""

import math
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import PurePosixPath

import numpy as np

from tasks.data import statistics
from tasks.data.io.table import Table
from tasks.data.own_rows import TableRows
from tasks.data.recipe import SplitRule
from tasks.data.report import AcceptedFinding, ColumnProfile, Finding, error, warning
from tasks.data.row_hash import RowNumbers, find_new_rows, sample_rows
from tasks.data.split import TEST, TRAINING, Split
from tasks.machine import side_by_side
from tasks.machine.arrays import Array
from tasks.machine.words import counted, readable
from tasks.parameters.data import NO_WINDOW
from tasks.records import ChampionData
from tasks.serving import drift
from tasks.store.verified import RESTORE

MIN_NEW, MIN_KNOWN = 200, 1000  # rows; the latter of the champion's data
TOLERANCE = 0.2  # how far from a power of ten a ratio of medians may be
BY_CHANCE = 1e-3  # how likely it may be that a column is missing in all new rows
MAX_DRIFT = 0.2  # population stability index
MEND = "mend the file, or say --accept-data where the world has changed"

Group = tuple[RowNumbers, RowNumbers, str]  # new rows that are judged together, some of them, and where they are


def compare_rows(table: Table, rows: TableRows, window: str, champion: ChampionData) -> Iterator[Finding]:
    """All in which the rows of a table differ from the champion's data.

    Raises:
        DataError: the digests of the champion's rows are not those that its manifest names.
    """
    yield from compare_num_rows(rows.split, rows.rule, window, champion)
    known = {each.name: each for each in champion.profiles}
    both = [(known[each.name], each) for each in rows.profiles if each.name in known]
    if window == champion.window == NO_WINDOW:  # else a column of the calendar turns constant in time
        for before, now in both:
            if now.is_constant and not before.is_constant:
                found = f"{now.name} has one value in all rows, and had several"
                yield error("turned-constant", now.name, found, "values that differ, as in the champion's data", MEND)
    if champion.num_rows < MIN_KNOWN or champion.rows is None:
        return
    if not champion.rows.path.exists():  # what is damaged is no evidence that nothing is new
        found = "which rows are new is not known: the digests of the champion's rows are missing"
        yield warning("unknown-rows", None, found, RESTORE)
        return
    new = np.flatnonzero(find_new_rows(rows.digests, champion.rows))
    groups = list(_group_by_file(table, rows, new))
    which, watched = "all rows", sample_rows(rows.digests)
    if len(new) >= drift.FEWEST_ROWS:
        which, watched = "the new rows", new[sample_rows(rows.digests[new])]

    def compare_column(at: int) -> Finding | None:
        before = known.get(rows.profiles[at].name)
        if before is None:
            return None
        values = rows.features[at] if at < len(rows.features) else rows.truth.values
        share = min(1.0, before.missing / champion.num_rows)
        if broken := [found for group in groups if (found := _find_broken(before, values, group, share))]:
            more = f"; so in {counted(len(broken) - 1, 'more file')}" if len(broken) > 1 else ""
            return broken[0].model_copy(update={"found": broken[0].found + more})
        if all(_is_constant(values[sampled]) for _, sampled, _ in groups):  # as a day is in the file of a day
            return None
        return _find_drift(before, values[watched], which)

    yield from filter(None, side_by_side.each(compare_column, range(len(rows.profiles))))


def _group_by_file(table: Table, rows: TableRows, new: RowNumbers) -> Iterator[Group]:
    """The new rows of each file, and those of files that have few of them together, where they are enough."""
    files = np.searchsorted(table.starts, np.flatnonzero(rows.truth.is_known)[new], side="right") - 1
    parts = np.split(new, np.flatnonzero(np.diff(files)) + 1)
    paths = [table.files.files[file].path for file in np.unique(files)]
    by_path = sorted(zip(paths, parts, strict=False), key=itemgetter(0))  # without new rows there is an empty part
    few = [each for each in by_path if len(each[1]) < MIN_NEW]
    for group in [*([each] for each in by_path if len(each[1]) >= MIN_NEW), few]:
        numbers = np.concatenate([new[:0], *(part for _, part in group)])
        if len(numbers) >= MIN_NEW:
            places = " to ".join(dict.fromkeys(_name_file(path) for path, _ in (group[0], group[-1])))
            sampled = numbers[sample_rows(rows.digests[numbers])]
            yield numbers, sampled, f"{counted(len(numbers), 'new row')} of {places}"


def _name_file(path: str) -> str:
    """The name of a file, without a folder but partitions: where data are stands in no version."""
    *folders, name = PurePosixPath(path).parts
    return "/".join([*(each for each in folders if "=" in each), name])


def compare_num_rows(split: Split, rule: SplitRule, window: str, champion: ChampionData) -> Iterator[Finding]:
    """Whether rows are lost: there are fewer than half of those before, and the same ones are asked for."""
    num_rows = split.count(TRAINING) + split.count(TEST)
    if 2 * num_rows < champion.num_rows and (rule, window) == (champion.split, champion.window):
        found = f"{counted(num_rows, 'row')}, and the champion's data had {champion.num_rows:,}"
        action = "restore what is gone, or say --accept-data where it is meant"
        yield error("fewer-rows", None, found, "at least half of them", action)


def _find_broken(before: ColumnProfile, values: Array, group: Group, share: float) -> Finding | None:
    """Whether a column ``(n,)`` of which the champion's data missed a ``share`` is not there, or in another unit."""
    numbers, sampled, place = group
    if np.isnan(values[sampled]).all() and np.isnan(values[numbers]).all():
        if share ** len(numbers) >= BY_CHANCE:
            return None
        found = f"{before.name} is missing in all of {place}; in the champion's data it was in {100 * share:.3g} %"
        return error("turned-missing", before.name, found, "values, as in the champion's data", MEND)
    now = before.magnitude and statistics.median_magnitude(values[sampled])
    if not now or not before.magnitude or _is_constant(values[sampled]):
        return None
    power = round(math.log10(now / before.magnitude))
    if not power or abs(now / before.magnitude / 10.0**power - 1) > TOLERANCE:
        return None
    found = f"{before.name} is {10.0**power:g} times what it was: its median magnitude is {readable(now)} in "
    found += f"{place}, and was {readable(before.magnitude)}"
    return error("other-scale", before.name, found, "the unit of the champion's data", MEND)


def _is_constant(values: Array) -> bool:
    return bool(np.fmin.reduce(values) == np.fmax.reduce(values))


def _find_drift(before: ColumnProfile, values: Array, which: str) -> Finding | None:
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
