"""One look at all rows of a table: its columns, its split, its digests, and all that is wrong with it."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.data.champion import ChampionData
from tasks.data.recipe import Column
from tasks.data.report import DataReport, Finding
from tasks.data.sources.tables import Table
from tasks.data.table import (
    against_champion,
    asked,
    describing,
    features,
    hashing,
    profiling,
    rare_classes,
    roles,
    splitting,
    targets,
    warnings,
    window,
)
from tasks.data.table.encoded import Encoded
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.hashing import Words
from tasks.data.table.roles import Roles
from tasks.data.table.rows import Rows, ordered
from tasks.data.table.split_rule import SplitRule
from tasks.data.table.split_words import no_moment, split_words, words_of_levels
from tasks.data.table.splitting import TRAINING, Split
from tasks.data.table.targets import Truth
from tasks.machine import side_by_side
from tasks.parameters.own_data import NO_WINDOW, OwnData
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
    """
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
        truth = window.cut(table, truth, parts, data.window)
    findings += truth.findings
    rows, rule = None, None
    if found.columns and len(truth.values) and (parts.splits is None or parts.splits in table.data.column_names):
        rows, rule, more = _rows(table, found.columns, truth, parts, asked.rule_kept(data, kept), data, folder)
        is_whole = not any(each.severity == "error" for each in (*faults, *found.findings))
        findings += [each for each in more if is_whole or each.column]  # of too few columns rows tell nothing
        if champion and is_whole:
            changes = against_champion.Tonight(table, rows, rule, data.window).findings(champion)
            findings += against_champion.judged(changes, champion, data.accept_data)
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
    by, more_words, unfit = _by_column(table, truth, rule) if rule.column else (None, [], None)
    words, hashed = [truth.words(), *more_words], hashing_rows.result()
    with ThreadPoolExecutor(2) as pool:  # what needs one core, beside what needs another
        ranging = pool.submit(warnings.Ranges, columns, encoded)
        contents = pool.submit(hashing.after, hashed, words[:1])
        all_first = pool.submit(lambda: hashing.after(contents.result(), [*words[1:], lambda _: np.uint64(0)]))
        splitting_by = pool.submit(splitting.split, rule, by, hashed, hashed) if by else None
        twice = hashing.repeated(hashed)  # all others are distinct, whatever else is hashed
    ranges, again, once = ranging.result(), hashed[twice], len(hashed) - len(twice)
    num_distinct = once + hashing.num_distinct(again)
    if not kept and not rule.column and num_distinct < len(hashed) / 2:
        rule = rule.model_copy(update={"rule": "copies"})
    hashing.absorb(again, words[0](twice))
    num_ambiguous = hashing.num_ambiguous(hashed[twice], again)
    for words_of in words[1:]:
        hashing.absorb(again, words_of(twice))
    hashing.absorb(again, hashing.copies(again))
    digests = all_first.result()
    digests[twice] = again
    split = splitting_by.result() if splitting_by else splitting.split(rule, None, hashed, digests)
    split = split._replace(findings=(*filter(None, [unfit]), *split.findings))
    ordering = side_by_side.beside(ordered, split, digests, contents.result() if rule.column else None)
    with np.errstate(all="ignore"):  # infinite values have been found already
        odd = list(_after_split(columns, encoded, ranges, truth, split, parts.target))
        profiles = profiling.profiles(columns, encoded, digests, ranges)
        target = profiling.of_target(profiling.target_column(str(parts.target), truth), truth, digests)
    findings = [*faults, *split.findings, *odd, *warnings.conflicts(len(hashed), num_ambiguous)]
    lossy = tuple(at for at, exact in enumerate(is_exact) if not exact)
    has_missing = tuple((ranges.missing > 0).tolist())
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


def _by_column(
    table: Table, truth: Truth, rule: SplitRule
) -> tuple[splitting.By, list[Callable[[Any], Words]], Finding | None]:
    """The column that splits rows with a target, what makes words of it for row digests, and what is wrong with it."""
    splits = table.data[rule.column]
    splits = splits if len(splits) == len(truth.values) else splits.filter(truth.is_known)
    if rule.rule == "column":
        return (splits, None), [words_of_levels(splits)], None
    words = split_words(rule, splits)
    unfit = no_moment(rule, splits, words, lambda row: table.named(int(np.flatnonzero(truth.is_known)[row])))
    return (splits, words), [words.__getitem__], unfit


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
    ranges: warnings.Ranges,
    truth: Truth,
    split: Split,
    target: str | None,
) -> Iterator[Finding]:
    """What is odd about encoded rows."""
    if not any(each.severity == "error" for each in split.findings):  # or the sides tell nothing
        yield from splitting.shortages(split)
        yield from rare_classes.findings(truth, split.sides == TRAINING, target)
    yield from warnings.few_rows(columns, split.count(TRAINING))
    yield from warnings.of_columns(columns, len(truth.values), ranges)
    yield from warnings.duplicates(columns, encoded)
    yield from warnings.leaks(columns, encoded, truth.values, not truth.class_names)
