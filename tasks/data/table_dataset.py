"""A user's own table as a data set: read, its schema inferred, its rows split, checked, written, its recipe fitted."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data import mapped
from tasks.data.champion import ChampionData
from tasks.data.dataset import Validated
from tasks.data.inference import Features, infer_features, value_kind
from tasks.data.levels import format_values
from tasks.data.recipe import Column
from tasks.data.report import MOST_LEVELS_SHOWN, ColumnReport, DataReport, Finding, split_sizes
from tasks.data.schema import Request, Roles, Schema, assign_roles, describe_split
from tasks.data.sources import tables
from tasks.data.sources.tables import Table, TableFiles
from tasks.data.splits import PREPARE_ANEW
from tasks.data.table import against_champion, fitting, hashing, profiling, splitting, warnings, window
from tasks.data.table.encoded import Encoded
from tasks.data.table.hashing import Words
from tasks.data.table.split_rule import SplitRule
from tasks.data.table.split_words import no_moment, split_words, words_of_levels
from tasks.data.table.splitting import TEST, TRAINING, VALIDATION, Split
from tasks.data.table_rows import Rows, encode_column, hash_rows, sort_digests, write_table
from tasks.data.target import Truth, check_rare_classes, infer_task, read_target
from tasks.data.validated import Fixed, ValidatedDataset
from tasks.errors import DataError, UsageError
from tasks.machine import side_by_side
from tasks.machine.words import counted
from tasks.parameters import Data
from tasks.parameters.own_data import NO_WINDOW
from tasks.records import PreparedDataset, RawDataset
from tasks.serving.task import TaskName
from tasks.store import artifact_paths, folders, locks, names


def read_table(files: TableFiles, request: Request, task: TaskName | None, scratch: Path) -> Table:
    """All rows, each column as what it is known to be: a class ``1`` is a name and no number, a kept boolean no 0 or 1.

    Where features are named, no others are read.

    Raises:
        UsageError: options that cannot be meant.
        DataError: not a row can be read.
    """
    request.require_sound()
    features, known = request.options.features, request.known
    used = {request.target, request.split[1], *features, *known}
    selection = tables.Selection(
        as_text=request.text_columns(task == "classification"),
        as_boolean=frozenset(name for name, column in known.items() if column.kind == "boolean"),
        ignore=request.ignored,
        only=frozenset(filter(None, used)) if features else None,
    )
    return tables.read(files, selection, scratch / "spool.arrow")


class Examined(NamedTuple):
    """What was found. Without errors all is there; with some, as much as could be."""

    report: DataReport
    recipe: Schema | None = None
    rows: Rows | None = None


def examine_table(
    table: Table, name: str, request: Request, task: TaskName | None, folder: Path, champion: ChampionData | None = None
) -> Examined:
    """Look at a table that is to be kept under ``name``; without a ``task`` the target says which.

    Encoded rows lie in a file in ``folder``, mapped, and are gone with it.
    """
    options, there = request.options, table.data.column_names
    roles, findings = assign_roles(request, table.names, table.ignored)
    inferring = side_by_side.beside(infer_features, table, roles, request)
    target, by = roles.target, roles.split_column
    if target is None or target not in there:
        features = inferring.result()
        return Examined(_describe(name, table, roles, features, [*table.findings, *findings, *features.findings]))
    task = task or infer_task(table, target, target in options.category)
    truth = read_target(table, target, task, request.previous.class_names if request.previous else ())
    features = inferring.result()
    findings += features.findings
    is_whole = not any(each.severity == "error" for each in findings)
    if options.window != NO_WINDOW:
        truth = window.cut(table, truth, roles, options.window)
    findings = [*table.findings, *findings, *truth.findings]
    rows = rule = None
    if features.columns and len(truth.values) and (by is None or by in there):
        rows, rule, more = _split_rows(table, features.columns, truth, target, request, folder)
        findings += [each for each in more if is_whole or each.column]  # of too few columns rows tell nothing
        if champion and is_whole:
            changes = against_champion.Tonight(table, rows, rule, options.window).findings(champion)
            findings += against_champion.judged(changes, champion, options.accept_data)
    report = _describe(name, table, roles, features, findings, truth, rows.split if rows else None, rule)
    if report.errors or rule is None:
        return Examined(report, None, rows)
    schema = Schema(
        task=task,
        target=target,
        columns=features.columns,
        class_names=truth.class_names,
        split=rule,
        ignored=roles.ignored,
        left_out=tuple(sorted(features.left_out)),
    )
    return Examined(report, schema, rows)


def _split_rows(
    table: Table, columns: tuple[Column, ...], truth: Truth, target: str, request: Request, folder: Path
) -> tuple[Rows, SplitRule, list[Finding]]:
    """Encode, hash and split the rows; what needs one core runs beside what needs another."""
    encoded, findings, lossy = _encode(table, columns, truth, folder)
    hashing_rows = side_by_side.beside(hash_rows, columns, encoded.values)
    rule = request.fixed_split or _first_rule(request, columns)
    by, words, no_time = _split_words(table, truth, rule)
    hashed = hashing_rows.result()
    with ThreadPoolExecutor(2) as pool:
        ranging = pool.submit(warnings.Ranges, columns, encoded)
        contents = pool.submit(hashing.after, hashed, [truth.words()])
        as_first = pool.submit(lambda: hashing.after(contents.result(), [*words, lambda _: np.uint64(0)]))
        by_column = pool.submit(splitting.split, rule, by, hashed, hashed) if by else None
        twice = hashing.repeated(hashed)  # all others are distinct, whatever else is hashed
    digests, again = as_first.result(), contents.result()[twice]
    num_ambiguous = hashing.num_ambiguous(hashed[twice], again)
    for words_of in words:
        hashing.absorb(again, words_of(twice))
    hashing.absorb(again, hashing.copies(again))
    digests[twice] = again
    num_distinct = len(hashed) - len(twice) + hashing.num_distinct(hashed[twice])
    if not request.fixed_split and by is None and num_distinct < len(hashed) / 2:
        rule = rule.model_copy(update={"rule": "copies"})
    split = by_column.result() if by_column else splitting.split(rule, None, hashed, digests)
    split = split._replace(findings=(*filter(None, [no_time]), *split.findings))
    ordering = side_by_side.beside(sort_digests, split, digests, contents.result() if by else None)
    ranges = ranging.result()
    with np.errstate(all="ignore"):  # infinite values have been found already
        findings += [*split.findings, *_check_rows(columns, encoded, ranges, truth, split, target)]
        profiles = profiling.profiles(columns, encoded, digests, ranges)
        of_target = profiling.of_target(profiling.target_column(target, truth), truth, digests)
    findings += warnings.conflicts(len(hashed), num_ambiguous)
    has_missing = tuple((ranges.missing > 0).tolist())
    return Rows(encoded, truth, split, digests, lossy, has_missing, ordering, (*profiles, of_target)), rule, findings


def _encode(
    table: Table, columns: tuple[Column, ...], truth: Truth, folder: Path
) -> tuple[Encoded, list[Finding], tuple[int, ...]]:
    """The features of rows with a target; what is wrong with them; the columns of which float32 has not all digits."""
    encoded = Encoded.create(columns, len(truth.values), folder)
    order = sorted(range(len(columns)), key=lambda at: columns[at].kind == "category")  # which take the least time
    done = side_by_side.each(lambda at: encode_column(table, columns[at], truth.is_known, encoded.values[at]), order)
    results = sorted(zip(order, done, strict=True), key=lambda each: each[0])
    findings = [finding for _, (finding, _) in results if finding]
    return encoded, findings, tuple(at for at, (_, is_exact) in results if not is_exact)


def _split_words(
    table: Table, truth: Truth, rule: SplitRule
) -> tuple[splitting.By | None, list[Callable[[Any], Words]], Finding | None]:
    """The column that splits rows with a target, what makes words of it for row digests, and what is wrong with it."""
    if rule.column is None:
        return None, [], None
    column = table.data[rule.column]
    column = column if truth.is_known.all() else column.filter(truth.is_known)
    if rule.rule == "column":
        return (column, None), [words_of_levels(column)], None
    words = split_words(rule, column)
    no_time = no_moment(rule, column, words, lambda row: table.named(int(np.flatnonzero(truth.is_known)[row])))
    return (column, words), [words.__getitem__], no_time


def _first_rule(request: Request, columns: Sequence[Column]) -> SplitRule:
    """The rule that version 1 fixes, unless hardly any rows are distinct."""
    (rule, column), features = request.split_asked, tuple(sorted(column.name for column in columns))
    facts = {"rule": rule, "column": column, "test": request.options.test, "features": features}
    return SplitRule.model_validate(facts)


def _check_rows(
    columns: tuple[Column, ...], encoded: Encoded, ranges: warnings.Ranges, truth: Truth, split: Split, target: str
) -> Iterator[Finding]:
    """What is odd about encoded rows."""
    if not any(each.severity == "error" for each in split.findings):  # or the sides tell nothing
        yield from splitting.shortages(split)
        yield from check_rare_classes(truth, split.sides == TRAINING, target)
    yield from warnings.few_rows(columns, split.count(TRAINING))
    yield from warnings.of_columns(columns, len(truth.values), ranges)
    yield from warnings.duplicates(columns, encoded)
    yield from warnings.leaks(columns, encoded, truth.values, not truth.class_names)


def _describe(
    name: str,
    table: Table,
    roles: Roles,
    features: Features,
    findings: Sequence[Finding],
    truth: Truth | None = None,
    split: Split | None = None,
    rule: SplitRule | None = None,
) -> DataReport:
    """All that was found, in one document."""
    rows, outside, unlabelled, classes = len(table.data), 0, 0, dict[str, int]()
    if truth:
        outside = truth.outside
        if len(truth.values):  # of an unfit target no row is without a label
            unlabelled = rows - outside - int(truth.is_known.sum())
            classes = dict(zip(truth.class_names, truth.count_classes().tolist(), strict=True))
    train, validation, test = map(split.count, (TRAINING, VALIDATION, TEST)) if split else (0, 0, 0)
    kinds = [column.kind for column in features.columns]
    numbers = ", ".join(counted(kinds.count(kind), kind) for kind in ("number", "boolean") if kind in kinds)
    categories = kinds.count("category")
    words = f"{categories:,} categor{'y' if categories == 1 else 'ies'}" if categories else ""
    summary = f"{counted(rows, 'row')} in {counted(len(table.files.files), 'file')}"
    summary += f"; features: {', '.join(filter(None, [numbers, words])) or 'none'}"
    if rule:
        summary += f"; {split_sizes(train, validation, test)} ({describe_split(rule)})"
    summary += f"; {counted(outside, 'row')} outside of the window left out" if outside else ""
    summary += f"; {counted(unlabelled, 'row')} without a target left out" if unlabelled else ""
    names = table.data.column_names
    return DataReport(
        name=name,
        summary=summary,
        rows=rows,
        files=len(table.files.files),
        columns=tuple(side_by_side.each(lambda each: _describe_column(table, each, roles, features), names)),
        target=roles.target,
        classes=classes,
        split=rule,
        num_train=train,
        num_validation=validation,
        num_test=test,
        unlabelled=unlabelled,
        outside=outside,
        findings=tuple(findings),
    )


def _describe_column(table: Table, name: str, roles: Roles, features: Features) -> ColumnReport:
    """One column with its role, its kind, what is missing, and its range or levels."""
    kinds = {column.name: column.kind for column in features.columns}
    left_out = features.left_out.get(name)
    known = kinds.get(name) or (left_out if left_out != "left out" else None)
    kind, role = known or value_kind(table, name), "feature" if name in kinds else "left out"
    if left_out is None:
        role = {roles.split_column: "split", roles.target: "target"}.get(name, role)
    column = table.data[name]
    nans = pc.sum(pc.is_nan(column)).as_py() if pa.types.is_floating(column.type) else 0
    facts: dict[str, Any] = {"missing": column.null_count + (nans or 0)}
    if kind == "number" and np.isfinite(limits := table.limits(name)).all():
        facts |= dict(zip(("minimum", "maximum"), limits, strict=True))
    elif kind in ("category", "text", "boolean"):
        levels = table.levels(name)
        shown = np.argsort(-levels.counts, kind="stable")[: min(levels.num_used, MOST_LEVELS_SHOWN)]
        facts |= {"num_levels": levels.num_used, "levels": tuple(format_values(levels.values.take(shown)))}
    return ColumnReport.model_validate({"name": name, "role": role, "kind": kind, **facts})


class TableDataset:
    """The table at ``source``; it is called by the name of its model, for files' names are nobody else's business."""

    def __init__(self, name: str, source: str) -> None:
        self.name = self.title = self.identifier = name
        self.source = source

    def fetch(self) -> RawDataset:
        """Where the files are and how they look; nothing is copied."""
        files = tables.find(self.source)
        return RawDataset(name=self.name, source=files.source, files={}, look=files.digest)

    def validate(
        self, raw: RawDataset, data: Data, task: TaskName, kept: Fixed | None, champion: ChampionData | None
    ) -> Validated:
        """Read all rows, and say which column is what, which row is whose, and what is wrong."""
        request = Request(data, kept if isinstance(kept, Schema) else None)
        with scratch_folder(self.name) as folder:
            table = read_table(tables.find(self.source), request, task, folder)
            now = side_by_side.beside(tables.find, self.source)
            report, schema, rows = examine_table(table, self.name, request, task, folder, champion)
            if now.result().digest != raw.look:
                raise DataError(f"{self.source} has changed while it was read", "files that stay", "run it again")
            if schema is None or rows is None:
                if not report.errors:  # or the run would go on without data
                    expected = "a column to predict"
                    raise UsageError(f"nothing to learn in {self.source}", expected, "name it with --target")
                return Validated(report)
            made = write_table(self.name, table, rows, schema, folder)
            accepted = champion.accepting(*report.accepted) if champion else ()
            return Validated(report, made.model_copy(update={"accepted": accepted}))

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits that validation wrote, and their recipe fitted to the training part."""
        table = validated.table
        if table is None:
            raise ValueError("a table that was not validated")
        train, schema = mapped.read(table.train, PREPARE_ANEW), table.recipe
        counts = (
            Truth(train["labels"], np.empty(0, bool), schema.class_names, ()).count_classes()
            if schema.class_names
            else ()
        )
        named = {"name": self.name, "title": self.title, "identifier": self.identifier}
        learned = {"recipe": fitting.fitted(schema, train, table.has_missing), "class_counts": tuple(counts)}
        return PreparedDataset(**(dict(schema) | dict(table) | named | learned), report=validated.report)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder beside the data set's files, whose lock is held; what a killed run left there is removed."""
    folder = artifact_paths.dataset(name)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(artifact_paths.dataset_lock(name), f"another process prepares {folder}; waiting for it"):
        folders.sweep(names.DOWNLOAD, folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=names.DOWNLOAD_PREFIX) as scratch:
            yield Path(scratch)
