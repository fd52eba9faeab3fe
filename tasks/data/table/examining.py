"""One look at all rows of a table: its columns, its split, its digests, and all that is wrong with it."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.data import drift, quality_checks, row_hash, statistics
from tasks.data.recipe import Column, SplitRule
from tasks.data.report import DataReport, Finding
from tasks.data.sources.tables import Table
from tasks.data.split import TRAINING, Split, SplitColumn, check_min_rows, encode_split_column, keep_window, split_rows
from tasks.data.statistics import ColumnStats, Encoded
from tasks.data.table import asked, describing, features, rare_classes, roles, targets
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.roles import Roles
from tasks.data.table.rows import Rows, ordered
from tasks.data.table.targets import Truth
from tasks.machine import side_by_side
from tasks.parameters.own_data import NO_WINDOW, OwnData
from tasks.records import ChampionData
from tasks.serving.task import TaskName


class Examined(NamedTuple):
    """What was found. Without errors all is there; with some, as much as could be."""

    report: DataReport
    recipe: FixedRecipe | None = None
    rows: Rows | None = None


def examine(
    table: Table,
    name: str,
    data: OwnData,
    task: TaskName | None,
    kept: FixedRecipe | None,
    folder: Path,
    champion: ChampionData | None = None,
) -> Examined:
    """Look at a table that is to be kept under ``name``; without a ``task`` the target says which.

    Encoded rows lie in a file in ``folder``, mapped, and are gone with it.

    Raises:
        DataError: more rows than this machine's memory takes, or the digests of the champion's rows are damaged.
    """
    row_hash.check_memory(len(table.data))
    parts, faults = roles.roles(table.names, table.ignored, data, kept)
    has_target = parts.target is not None and parts.target in table.data.column_names
    is_category = parts.target in data.category
    task = task or (targets.task_of(table, parts.target, is_category) if has_target and parts.target else "regression")
    of_features = side_by_side.beside(features.found, table, parts, data, kept)
    truth = targets.truth(table, str(parts.target), task, kept.class_names if kept else ()) if has_target else None
    found = of_features.result()
    findings = [*table.findings, *faults, *found.findings]
    if truth is None or parts.target is None:
        return Examined(describing.report(name, table, parts, found, findings))
    if data.window != NO_WINDOW:
        truth = keep_window(table, truth, parts, data.window)
    findings += truth.findings
    rows, rule = None, None
    if found.columns and len(truth.values) and (parts.splits is None or parts.splits in table.data.column_names):
        rows, rule, more = _rows(table, found.columns, truth, parts, asked.rule_kept(data, kept), data, folder)
        is_whole = not any(each.severity == "error" for each in (*faults, *found.findings))
        findings += [each for each in more if is_whole or each.column]  # of too few columns rows tell nothing
        if champion and is_whole:
            changes = drift.CurrentData(table, rows, rule, data.window).compare(champion)
            findings += drift.accept_findings(changes, champion, data.accept_data)
    report = describing.report(name, table, parts, found, findings, truth, rows and rows.split, rule)
    if report.errors or rule is None:
        return Examined(report, None, rows)
    recipe = FixedRecipe(
        task=task,
        target=parts.target,
        columns=found.columns,
        class_names=truth.class_names,
        split=rule,
        ignored=parts.ignored,
        left_out=tuple(sorted(found.left_out)),
    )
    return Examined(report, recipe, rows)


def _rows(
    table: Table,
    columns: tuple[Column, ...],
    truth: Truth,
    parts: Roles,
    kept: SplitRule | None,
    data: OwnData,
    folder: Path,
) -> tuple[Rows, SplitRule, list[Finding]]:
    """Encode, hash and split the rows."""
    encoded, faults, is_exact = _encoded(table, columns, truth, folder)
    hashing_rows = side_by_side.beside(features.row_hashes, columns, encoded.values)
    rule = kept or _first_rule(parts, data, columns)
    column = _split_column(table, truth, rule) if rule.column else None
    hashes, inputs = hashing_rows.result(), [truth.words(), *([column.hash_inputs] if column else [])]
    with ThreadPoolExecutor(2) as pool:  # what needs one core, beside what needs another
        describing_columns = pool.submit(ColumnStats.of_columns, encoded)
        splitting = pool.submit(split_rows, rule, column, hashes, hashes) if column else None
        digests, contents, num_distinct, num_ambiguous = row_hash.digest_rows(hashes, inputs)
    stats = describing_columns.result()
    if not kept and not rule.column and num_distinct < len(hashes) / 2:
        rule = rule.model_copy(update={"rule": "copies"})
    split = splitting.result() if splitting else split_rows(rule, None, hashes, digests)
    ordering = side_by_side.beside(ordered, split, digests, contents if rule.column else None)
    odd = list(_after_split(columns, encoded, stats, truth, split, parts.target))
    sample = row_hash.sample_rows(digests)
    profiles = statistics.profile_columns(columns, encoded, sample, stats)
    target = statistics.profile_target(str(parts.target), truth.values[sample], truth.class_names)
    findings = [*faults, *split.findings, *odd, *quality_checks.check_conflicts(len(hashes), num_ambiguous)]
    lossy = tuple(at for at, exact in enumerate(is_exact) if not exact)
    has_missing = tuple((stats.missing > 0).tolist())
    return Rows(encoded, truth, split, digests, lossy, has_missing, ordering, (*profiles, target)), rule, findings


def _encoded(
    table: Table, columns: tuple[Column, ...], truth: Truth, folder: Path
) -> tuple[Encoded, list[Finding], list[bool]]:
    """The features of rows with a target; what is wrong with them; which float32 holds."""
    encoded = Encoded.create(columns, len(truth.values), folder)
    order = sorted(range(len(columns)), key=lambda at: columns[at].kind == "category")  # which take the least time
    made = side_by_side.each(lambda at: features.encode(table, columns[at], truth.is_known, encoded.values[at]), order)
    told = [made[order.index(at)] for at in range(len(columns))]
    return encoded, [fault for fault, _ in told if fault], [exact for _, exact in told]


def _split_column(table: Table, truth: Truth, rule: SplitRule) -> SplitColumn:
    """The column that splits, of rows with a target."""
    column = table.data[rule.column]
    column = column if len(column) == len(truth.values) else column.filter(truth.is_known)
    return encode_split_column(rule, column, lambda row: table.named(int(np.flatnonzero(truth.is_known)[row])))


def _first_rule(parts: Roles, data: OwnData, columns: Iterable[Column]) -> SplitRule:
    """The rule that version 1 fixes, unless hardly any rows are distinct."""
    by_column = asked.rule_asked(data)
    return SplitRule.model_validate(
        {
            "rule": by_column[0] if by_column else "rows",
            "column": parts.splits,
            "test": data.test,
            "features": tuple(sorted(column.name for column in columns)),
        }
    )


def _after_split(
    columns: tuple[Column, ...],
    encoded: Encoded,
    stats: ColumnStats,
    truth: Truth,
    split: Split,
    target: str | None,
) -> Iterator[Finding]:
    """What is odd about encoded rows."""
    if not any(each.severity == "error" for each in split.findings):  # or the split tells nothing
        yield from check_min_rows(split)
        yield from rare_classes.findings(truth, split.split_ids == TRAINING, target)
    yield from quality_checks.check_num_features(columns, split.count(TRAINING))
    yield from quality_checks.check_columns(columns, len(truth.values), stats)
    yield from quality_checks.check_duplicate_columns(columns, encoded)
    yield from quality_checks.check_leaks(columns, encoded, truth.values, not truth.class_names)
