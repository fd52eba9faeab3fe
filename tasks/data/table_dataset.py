"""A user's own table as a data set: read, its schema inferred, its rows split, checked, written, its recipe fitted."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data import drift, quality_checks, row_hash, statistics
from tasks.data.inference import Features, infer_features, value_kind
from tasks.data.io.discovery import DataFiles, find_table
from tasks.data.io.table import Table, build_table
from tasks.data.io.tabular import Selection
from tasks.data.levels import format_values
from tasks.data.prepared_splits import PREPARE_ANEW, PreviousSchema, ValidatedDataset, Validation, read_arrays
from tasks.data.recipe import Column, SplitRule
from tasks.data.report import MOST_LEVELS_SHOWN, ColumnProfile, ColumnReport, DataReport, Finding, split_sizes
from tasks.data.row_hash import HashInputs
from tasks.data.schema import Request, Roles, Schema, assign_roles, describe_split
from tasks.data.split import (
    TEST,
    TRAINING,
    VALIDATION,
    Split,
    check_min_rows,
    keep_window,
    split_by_column,
    split_by_hash,
)
from tasks.data.statistics import ColumnStats, Encoded
from tasks.data.table_rows import Rows, encode_column, sort_digests, write_table
from tasks.data.target import Truth, check_rare_classes, infer_task, read_target
from tasks.errors import DataError, UsageError
from tasks.machine import side_by_side
from tasks.machine.words import counted
from tasks.parameters import Data
from tasks.parameters.own_data import NO_WINDOW
from tasks.records import ChampionData, PreparedDataset, RawDataset
from tasks.serving.task import TaskName
from tasks.store import artifact_paths, folders, locks, names


def read_table(files: DataFiles, request: Request, task: TaskName | None, scratch: Path) -> Table:
    """All rows, each column as what it is known to be: a class ``1`` is a name and no number, a kept boolean no 0 or 1.

    Where features are named, no others are read.

    Raises:
        UsageError: options that cannot be meant.
        DataError: not a row can be read.
    """
    request.require_sound()
    features, known = request.options.features, request.known
    used = {request.target, request.split[1], *features, *known}
    selection = Selection(
        as_text=request.text_columns(task == "classification"),
        as_boolean=frozenset(name for name, column in known.items() if column.kind == "boolean"),
        ignore=request.ignored,
        only=frozenset(filter(None, used)) if features else None,
    )
    return build_table(files, selection, scratch / "spool.arrow")


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
    row_hash.check_memory(len(table.data))
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
        truth = keep_window(table, truth, roles, options.window)
    findings = [*table.findings, *findings, *truth.findings]
    rows = rule = None
    if features.columns and len(truth.values) and (by is None or by in there):
        rows, rule, more = _split_rows(table, features.columns, truth, target, request, folder)
        findings += [each for each in more if is_whole or each.column]  # of too few columns rows tell nothing
        if champion and is_whole:
            changes = drift.compare_rows(table, rows, rule, options.window, champion)
            findings += drift.accept_findings(changes, champion, options.accept_data)
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
    hashing = side_by_side.beside(row_hash.hash_rows, columns, encoded.values)
    rule, split = request.fixed_split or _first_rule(request, columns), None
    inputs: list[HashInputs] = [truth.words()]
    if rule.column:
        column, is_known = table.data[rule.column], truth.is_known
        column = column if is_known.all() else column.filter(is_known)
        split, names = split_by_column(
            rule, column, lambda row: table.named(int(np.flatnonzero(is_known)[row])), hashing
        )
        inputs.append(names)
    hashes = hashing.result()
    measuring = side_by_side.beside(encoded.measure)
    digests, contents, num_distinct, num_ambiguous = row_hash.digest_rows(hashes, inputs)
    if split is None:
        if not request.fixed_split and num_distinct < len(hashes) / 2:
            rule = rule.model_copy(update={"rule": "copies"})
        split = split_by_hash(digests if rule.rule == "copies" else hashes, rule.test)
    ordering = side_by_side.beside(sort_digests, split, digests, contents if rule.column else None)
    stats, sample = measuring.result(), row_hash.sample_rows(digests)
    findings += [*split.findings, *_check_rows(columns, encoded, stats, truth, split, target)]
    findings += quality_checks.check_conflicts(len(hashes), num_ambiguous)

    def profile(at: int) -> ColumnProfile:
        of_all = stats[at].num_missing, stats[at].is_constant
        return statistics.profile_column(columns[at], encoded.floats(at, sample), *of_all)

    profiles = side_by_side.each(profile, range(len(columns)))
    of_target = Column(name=target, kind="category" if truth.class_names else "number", levels=truth.class_names)
    profiles.append(statistics.profile_column(of_target, truth.values[sample].astype(np.float32)))
    has_missing = tuple(each.num_missing > 0 for each in stats)
    return Rows(encoded, truth, split, digests, lossy, has_missing, ordering, tuple(profiles)), rule, findings


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


def _first_rule(request: Request, columns: Sequence[Column]) -> SplitRule:
    """The rule that version 1 fixes, unless hardly any rows are distinct."""
    (rule, column), features = request.split_asked, tuple(sorted(column.name for column in columns))
    facts = {"rule": rule, "column": column, "test": request.options.test, "features": features}
    return SplitRule.model_validate(facts)


def _check_rows(
    columns: tuple[Column, ...], encoded: Encoded, stats: Sequence[ColumnStats], truth: Truth, split: Split, target: str
) -> Iterator[Finding]:
    """What is odd about encoded rows."""
    if not any(each.severity == "error" for each in split.findings):  # or the sides tell nothing
        yield from check_min_rows(split)
        yield from check_rare_classes(truth, split.split_ids == TRAINING, target)
    yield from quality_checks.check_num_features(columns, split.count(TRAINING))
    yield from quality_checks.check_columns(columns, len(truth.values), stats)
    yield from quality_checks.check_duplicate_columns(columns, encoded)
    yield from quality_checks.check_leaks(columns, encoded, truth.values, not truth.class_names)


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
        files = find_table(self.source)
        return RawDataset(name=self.name, source=files.source, files={}, look=files.digest)

    def validate(
        self, raw: RawDataset, data: Data, task: TaskName, kept: PreviousSchema | None, champion: ChampionData | None
    ) -> Validation:
        """Read all rows, and say which column is what, which row is whose, and what is wrong."""
        request = Request(data, kept if isinstance(kept, Schema) else None)
        with scratch_folder(self.name) as folder:
            table = read_table(find_table(self.source), request, task, folder)
            now = side_by_side.beside(find_table, self.source)
            report, schema, rows = examine_table(table, self.name, request, task, folder, champion)
            if now.result().digest != raw.look:
                raise DataError(f"{self.source} has changed while it was read", "files that stay", "run it again")
            if schema is None or rows is None:
                if not report.errors:  # or the run would go on without data
                    expected = "a column to predict"
                    raise UsageError(f"nothing to learn in {self.source}", expected, "name it with --target")
                return Validation(report)
            made = write_table(self.name, table, rows, schema, folder)
            accepted = champion.accepting(*report.accepted) if champion else ()
            return Validation(report, made.model_copy(update={"accepted": accepted}))

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits that validation wrote, and their recipe fitted to the training part."""
        table = validated.table
        if table is None:
            raise ValueError("a table that was not validated")
        train, schema = read_arrays(table.train, PREPARE_ANEW), table.recipe
        counts = (
            Truth(train["labels"], np.empty(0, bool), schema.class_names, ()).count_classes()
            if schema.class_names
            else ()
        )
        named = {"name": self.name, "title": self.title, "identifier": self.identifier}
        learned = {
            "recipe": statistics.fit_recipe(schema.columns, schema.target, train, table.has_missing),
            "class_counts": tuple(counts),
        }
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
