"""A table compared with the champion's: what has become missing, constant or rescaled, and what has drifted.

A broken day is judged by the rows that are new since then, file by file: in a growing table it would be lost among all
the others. So a day in other units is found on the second night as well as on the two hundredth, and also where several
days arrive at once.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np

from tasks.data import statistics
from tasks.data.io.table_builder import Table
from tasks.data.own_rows import OwnRows, TableRows
from tasks.data.report import ColumnProfile, Finding, error, power_between, warning
from tasks.data.row_hash import RowNumbers, find_new_rows, sample_rows
from tasks.data.split import TEST, TRAINING
from tasks.machine import parallel
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize
from tasks.parameters.data import NO_WINDOW
from tasks.records import ChampionData
from tasks.serving import drift
from tasks.store.verified_files import RESTORE

MIN_NEW, MIN_KNOWN = 200, 1000  # rows; the latter of the champion's data
TOLERANCE = 0.2  # how far from a power of ten a ratio of medians may be
BY_CHANCE = 1e-3  # how likely it may be that a column is missing in all new rows
MAX_DRIFT = 0.2  # population stability index
MEND = "fix the file, or use --accept-data if the world has really changed"

Group = tuple[RowNumbers, RowNumbers, str]  # new rows that are judged together, some of them, and where they are


def compare_rows(table: Table, rows: TableRows, window: str, champion: ChampionData) -> Iterator[Finding]:
    """All differences between the rows of a table and the champion's data.

    Raises:
        DataError: the digests of the champion's rows are not those that its manifest names.
    """
    yield from compare_num_rows(rows, window, champion)
    known, columns = {each.name: each for each in champion.profiles}, (*rows.features, rows.targets.values)
    first = {now.part_of: now for now in reversed(rows.profiles)}  # only one part of a column of dates is examined
    both = [
        (known[now.name], now, values)
        for now, values in zip(rows.profiles, columns, strict=True)
        if now.name in known and (not now.part_of or now is first[now.part_of])
    ]
    if window == champion.window == NO_WINDOW:  # with another window, a calendar column becomes constant over time
        for before, now, _ in both:
            if now.is_constant and not before.is_constant and not now.part_of:
                found = f"{now.name} has a single value in all rows, but had several"
                yield error("turned-constant", now.name, found, "values that differ, as in the champion's data", MEND)
    if champion.num_rows < MIN_KNOWN or champion.rows is None:
        return
    if not champion.rows.path.exists():  # damaged digests are no evidence that nothing is new
        found = "which rows are new is not known: the digests of the champion's rows are missing"
        yield warning("unknown-rows", None, found, RESTORE)
        return
    new = np.flatnonzero(find_new_rows(rows.digests, champion.rows))
    groups = list(_group_by_file(table, rows, new))
    which, watched = "all rows", sample_rows(rows.digests)
    if len(new) >= drift.FEWEST_ROWS:
        which, watched = "the new rows", new[sample_rows(rows.digests[new])]

    def compare_column(column: tuple[ColumnProfile, ColumnProfile, Array]) -> list[Finding]:
        before, now, values = column
        before = before.model_copy(update={"name": now.part_of or now.name})
        share = min(1.0, before.missing / champion.num_rows)
        if broken := [found for group in groups if (found := _find_broken(before, values, group, share))]:
            return _combine_files(broken)
        if now.part_of or len(watched) < drift.FEWEST_ROWS or not sum(before.counts):
            return []
        index = drift.stability_index(before.counts, statistics.count_bins(before, values[watched]))
        # Within one day's file, the day is constant.
        if index <= MAX_DRIFT or all(_is_constant(values[sampled]) for _, sampled, _ in groups):
            return []
        text = f"{before.name} has drifted: the stability index of {which} against the champion's is {index:.2g}"
        return [warning("drift", before.name, f"{text}, above {MAX_DRIFT:g}")]

    yield from itertools.chain.from_iterable(parallel.map_in_threads(compare_column, both))


def _group_by_file(table: Table, rows: TableRows, new: RowNumbers) -> Iterator[Group]:
    """The new rows of each file; files with few new rows are combined, if those are enough together."""
    files = np.searchsorted(table.starts, np.flatnonzero(rows.targets.is_known)[new], side="right") - 1
    numbers, firsts = np.unique(files, return_index=True)
    parts = {table.files.files[file].path: part for file, part in zip(numbers, np.split(new, firsts[1:]), strict=False)}
    few = [path for path in sorted(parts) if len(parts[path]) < MIN_NEW]
    for paths in [*([path] for path in sorted({*parts}.difference(few))), few]:
        numbers = np.concatenate([new[:0], *map(parts.__getitem__, paths)])
        if len(numbers) >= MIN_NEW:
            places = " to ".join(dict.fromkeys(map(_name_file, (paths[0], paths[-1]))))
            sampled = numbers[sample_rows(rows.digests[numbers])]
            yield numbers, sampled, f"{pluralize(len(numbers), 'new row')} of {places}"


def _name_file(path: str) -> str:
    """The name of a file, without its folder except for partitions: no version records where data are."""
    *folders, name = PurePosixPath(path).parts
    return "/".join([*(each for each in folders if "=" in each), name])


def compare_num_rows(rows: OwnRows, window: str, champion: ChampionData) -> Iterator[Finding]:
    """Whether rows were lost: fewer than half as many as before, although the same rows are requested."""
    num_rows = rows.split.count(TRAINING) + rows.split.count(TEST)
    if 2 * num_rows < champion.num_rows and (rows.rule, window) == (champion.split, champion.window):
        found = f"{pluralize(num_rows, 'row')}, and the champion's data had {champion.num_rows:,}"
        action = "restore what is gone, or use --accept-data if that is intended"
        yield error("fewer-rows", None, found, "at least half of them", action)


def _find_broken(before: ColumnProfile, values: Array, group: Group, share: float) -> Finding | None:
    """Whether a column ``(n,)`` is absent or in another unit; in the champion's data a ``share`` was missing."""
    numbers, sampled, place = group
    if np.isnan(values[sampled]).all() and np.isnan(values[numbers]).all():
        if share ** len(numbers) >= BY_CHANCE:
            return None
        found = f"{before.name} is missing in all of {place}; in the champion's data it was in {100 * share:.3g} %"
        return error("turned-missing", before.name, found, "values, as in the champion's data", MEND)
    now, then = statistics.median_magnitude(values[sampled]), before.magnitude
    if not now or not then or _is_constant(values[sampled]):
        return None
    factor = power_between(then, now)
    if factor == 1 or abs(now / then / factor - 1) > TOLERANCE:
        return None
    medians = f"its median magnitude is {format_number(now)} in {place}, and was {format_number(then)}"
    found = f"{before.name} is {factor:g} times what it was: {medians}"
    finding = error("other-scale", before.name, found, "the unit of the champion's data", MEND)
    return finding.model_copy(update={"medians": (then, now)})


def _combine_files(findings: list[Finding]) -> list[Finding]:
    """The findings in the files of one column, each kind and unit once."""
    kinds = dict[tuple[str, float], list[Finding]]()
    for each in findings:
        factor = power_between(*each.medians) if each.medians else 0.0
        kinds.setdefault((each.rule, factor), []).append(each)
    combined = list[Finding]()
    for first, *others in kinds.values():
        more = f"; so in {pluralize(len(others), 'more file')}" if others else ""
        combined.append(first.model_copy(update={"found": first.found + more}))
    return combined


def _is_constant(values: Array) -> bool:
    return bool(np.fmin.reduce(values) == np.fmax.reduce(values))


def accept_findings(findings: Iterable[Finding], champion: ChampionData, accept: bool) -> Iterator[Finding]:
    """The findings; those that the user accepts now, or has accepted before, stop nothing."""
    for each in findings:
        is_known = any(earlier.covers(each) for earlier in champion.accepted)
        if each.is_error and (accept or is_known):
            severity, word = ("note", "accepted before") if is_known else ("warning", "accepted")
            facts = {"found": f"{each.found}; {word}", "expected": "", "action": "", "accepted": True}
            each = each.model_copy(update=facts | {"severity": severity})
        yield each
