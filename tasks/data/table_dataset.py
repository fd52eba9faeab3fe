"""A user's own table as a data set: read, its schema inferred, rows split, checked and written, a recipe fitted."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tasks.data import drift, quality_checks, row_hash, statistics
from tasks.data.inference import Features, drop_partial_indexes, infer_features, value_kind
from tasks.data.io import date_parts
from tasks.data.io.batches import keep_copies
from tasks.data.io.discovery import DataFiles, find_table
from tasks.data.io.table_builder import Table, build_table
from tasks.data.io.tabular import Selection
from tasks.data.levels import format_values
from tasks.data.own_rows import Examination, OwnDataset, TableRows, encode_column, sort_digests
from tasks.data.prepared_splits import create_array
from tasks.data.recipe import Column
from tasks.data.report import MOST_LEVELS_SHOWN, ColumnReport, DataReport, Finding, warning
from tasks.data.row_hash import HashInputs
from tasks.data.schema import Request, Schema
from tasks.data.split import TRAINING, check_min_rows, find_time_form, keep_window, split_by_column, split_by_hash
from tasks.data.target import (
    TargetValues,
    check_constant,
    check_rare_classes,
    correct_advice,
    find_label_kind,
    read_target,
)
from tasks.machine import parallel
from tasks.machine.words import format_names, pluralize
from tasks.parameters import Data
from tasks.parameters.data import NO_WINDOW
from tasks.records import ChampionData, RawDataset
from tasks.serving.task import TaskName

ENCODED = "encoded"  # the name of a file
PLURALS = {"number": "numbers", "boolean": "booleans", "category": "categories"}


def make_selection(request: Request, task: TaskName | None) -> Selection:
    """How columns are read, each as its known kind: a class ``1`` is a name and no number, a kept boolean no 0 or 1."""
    options, known, target, split = request.options, request.known, request.target, request.split
    levels = [name for name, column in known.items() if column.kind == "category"]
    names = target if task == "classification" else None, None if split.is_by_time else split.column
    finds_dates = request.previous is None and not options.no_date_parts
    return Selection(
        as_text=frozenset(filter(None, (*options.category, *levels, *names))) - request.ignored,
        as_boolean=frozenset(name for name, column in known.items() if column.kind == "boolean"),
        ignore=request.ignored,
        also_missing=request.missing,
        header=request.header,
        names=request.header_names,
        encoding=request.encoding,
        raw=frozenset([str(split.column)]) if split.form == date_parts.MONTH_FORM else frozenset(),
        time_column=str(split.column) if split.is_by_time and not request.fixed_split else "",
        forms=request.forms,
        finds_forms=request.previous is None,
        decimal=options.decimal,
        dates={name: date_parts.form_of(parts) for name, parts in request.parts.items()},
        no_dates=frozenset(filter(None, request.reserved)) if finds_dates else None,
    )


def find_files(source: str, request: Request, scratch: Path) -> DataFiles:
    """The files of a source; what is not on this machine and will be read several times is copied to ``scratch``.

    Raises:
        UsageError: the options make no sense.
        DataError: nothing is there, or a host does not answer.
    """
    request.require_sound()
    files = find_table(source)
    return files if request.previous else keep_copies(files, scratch)


def read_table(files: DataFiles, request: Request, task: TaskName | None, scratch: Path) -> Table:
    """All rows; if features are named, no other columns are read.

    Raises:
        DataError: no row can be read.
    """
    selection = make_selection(request, task)
    if features := request.options.features:
        names = request.target, request.split.column, *features, *request.taken
        selection = selection._replace(only=frozenset(filter(None, names)))
    return build_table(files, selection, scratch / "spool.arrow")


def read_targets(files: DataFiles, request: Request, scratch: Path) -> TargetValues:
    """The target's values as the task has them that they decide; no other column is read.

    Raises:
        DataError: no row can be read.
    """
    selection = make_selection(request, None)._replace(only=frozenset([str(request.target)]))
    return read_target(build_table(files, selection, scratch / "target.arrow"), request, None)


def examine_table(
    table: Table, name: str, request: Request, task: TaskName | None, folder: Path, champion: ChampionData | None = None
) -> Examination:
    """Examine a table that is to be kept under ``name``; without a ``task``, the target decides which it is.

    Encoded rows are mapped from a file in ``folder``, and vanish with it.
    """
    inferring = parallel.start(infer_features, table, request)
    targets, options = read_target(table, request, task), request.options
    if options.window != NO_WINDOW:
        targets = keep_window(table, targets, request)
    features, rows = inferring.result(), None
    of_reader = drop_partial_indexes(table.findings, features, request)
    findings = [correct_advice(each, request.target) for each in of_reader]
    findings += [*features.findings, *targets.findings, *check_constant(request.target, targets)]
    if unmatched := request.new_missing - table.matched:
        found = f"no value is {format_names(sorted(unmatched), 10)}, which --missing names"
        findings.append(warning("unmatched-missing", None, found, "write it as the data have it, or leave it out"))
    is_whole = not any(each.is_error for each in features.findings)
    if features.columns and len(targets.values) and request.split.column in (None, *table.data.column_names):
        rows, more = _split_rows(table, features.columns, targets, request, folder)
        if not request.previous and (columns := _drop_years(features.columns, rows)) != features.columns:
            features = features._replace(columns=columns)
            rows, more = _split_rows(table, columns, targets, request, folder)
        findings += [each for each in more if is_whole or each.column]  # with too few columns, rows tell nothing
        if champion and is_whole:
            changes = drift.compare_rows(table, rows, options.window, champion)
            findings += drift.accept_findings(changes, champion, options.accept_data)
    report = _describe(name, table, request, features, findings, targets, rows)
    if report.errors or rows is None:
        return Examination(report, None, rows)
    schema = Schema(
        task=task or ("classification" if targets.class_names else "regression"),
        target=str(request.target),
        target_form=table.forms.get(str(request.target), "") if not targets.class_names else "",
        target_kind=find_label_kind(table, request, targets.class_names),
        columns=features.columns,
        missing=request.missing,
        header=request.header,
        header_names=request.header_names,
        encoding=request.encoding,
        class_names=targets.class_names,
        split=rows.rule,
        ignored=features.ignored,
        left_out=tuple(sorted(features.left_out)),
    )
    return Examination(report, schema, rows)


def _drop_years(columns: tuple[Column, ...], rows: TableRows) -> tuple[Column, ...]:
    """The columns without years that hardly vary in the training part, which is known only now."""
    is_training = rows.split.split_ids == TRAINING

    def is_feature(at: int) -> bool:
        years = rows.features[at][is_training] if columns[at].part == "year" else np.arange(date_parts.FEWEST_YEARS)
        return len(np.unique(years[~np.isnan(years)])) >= date_parts.FEWEST_YEARS

    return tuple(column for at, column in enumerate(columns) if is_feature(at))


def _split_rows(
    table: Table, columns: tuple[Column, ...], targets: TargetValues, request: Request, folder: Path
) -> tuple[TableRows, list[Finding]]:
    """Encode, hash, split and check the rows; steps that need one core run beside steps that need another."""
    num_rows, target = len(targets.values), str(request.target)
    features = create_array(folder / ENCODED, np.float32, (len(columns), num_rows))
    places = range(len(columns))
    done = parallel.map_in_threads(lambda at: encode_column(table, columns[at], targets, features[at]), places)
    findings = [finding for finding, _ in done if finding]
    lossy = tuple(at for at, (_, is_exact) in enumerate(done) if not is_exact)

    hashing = parallel.start(row_hash.hash_rows, columns, features)
    split, inputs = None, list[HashInputs]([row_hash.hash_inputs(targets.values, targets.class_names)])
    names = tuple(sorted(column.name for column in columns))
    rule = request.fixed_split or request.split_asked.model_copy(update={"features": names})
    if rule.column:
        rule = rule.model_copy(update={"form": find_time_form(rule, table)})
        values = targets.of_column(table.data[rule.column])
        split, of_column = split_by_column(rule, values, partial(targets.name_row, table), hashing)
        inputs.append(of_column)
    hashes = hashing.result()
    measuring = parallel.start(statistics.measure_columns, columns, num_rows, lambda rows: features[:, rows])
    digests, num_distinct, num_ambiguous = row_hash.digest_rows(hashes, inputs)
    has_few_distinct = num_distinct < num_rows / 2
    if split is None:
        if not request.fixed_split and has_few_distinct:
            rule = rule.model_copy(update={"rule": "copies"})
        split = split_by_hash(digests if rule.rule == "copies" else hashes, rule.test)
    ordering = parallel.start(sort_digests, split, digests)
    stats, sample = measuring.result(), row_hash.sample_rows(digests)

    findings += split.findings
    if split.is_valid:
        findings += check_min_rows(split)
        findings += check_rare_classes(targets, split.split_ids == TRAINING, target)
    findings += quality_checks.check_columns(columns, num_rows, split.count(TRAINING), stats, lossy)
    findings += quality_checks.check_num_weights(columns, stats, split.count(TRAINING), len(targets.class_names))
    findings += quality_checks.check_duplicate_columns(columns, features, sample)
    findings += quality_checks.check_leaks(columns, features, targets, sample)
    findings += quality_checks.check_sum(columns, features, targets, sample)
    findings += quality_checks.check_extremes(
        columns, features, split.split_ids == TRAINING, partial(targets.name_row, table)
    )
    if not request.fixed_split and not rule.column:
        findings += quality_checks.suggest_split(table, columns, features)
    findings += quality_checks.check_conflicts(num_rows, num_ambiguous)

    profiles = parallel.map_in_threads(
        lambda at: statistics.profile_column(columns[at], features[at, sample], stats[at]), places
    )
    of_target = Column(name=target, kind="category" if targets.class_names else "number", levels=targets.class_names)
    profiles.append(statistics.profile_column(of_target, targets.values[sample].astype(np.float32)))
    rows = TableRows(
        table=table,
        features=features,
        targets=targets,
        rule=rule,
        split=split,
        digests=digests,
        has_separate_copies=rule.rule == "column" and has_few_distinct,  # or folds would hold out whole levels
        ordering=ordering,
        profiles=tuple(profiles),
    )
    return rows, findings


def _describe(
    name: str,
    table: Table,
    request: Request,
    features: Features,
    findings: Sequence[Finding],
    targets: TargetValues,
    rows: TableRows | None,
) -> DataReport:
    """All that was found, in one document."""
    num_rows, num_files = len(table.data), len(table.files.files)
    # If the target is unfit, no row counts as unlabelled.
    unlabelled = num_rows - targets.outside - int(targets.is_known.sum()) if len(targets.values) else 0
    kinds = Counter[str](column.kind for column in features.columns if not column.part)
    sides = rows if rows and rows.split.is_valid else None
    told = [
        f"{kinds[kind]:,} {kind if kinds[kind] == 1 else plural}" for kind, plural in PLURALS.items() if kinds[kind]
    ]
    parts: dict[str, list[str]] = defaultdict(list)
    for column in features.columns:
        parts[column.source] += [column.part] * bool(column.part)
    told += [f"{date} ({', '.join(taken)})" for date, taken in parts.items() if taken]
    summary = [
        f"{pluralize(num_rows, 'row')} in {pluralize(num_files, 'file')}",
        f"features: {', '.join(told) or 'none'}",
        sides.describe_split() if sides else "",
        f"{pluralize(targets.outside, 'row')} outside of the window left out" if targets.outside else "",
        f"{pluralize(unlabelled, 'row')} without a target left out" if unlabelled else "",
    ]
    names = table.data.column_names
    has_dates = rows is not None and rows.split.has_dates
    return DataReport(
        name=name,
        summary="; ".join(filter(None, summary)),
        rows=num_rows,
        files=num_files,
        columns=tuple(
            parallel.map_in_threads(lambda each: _describe_column(table, each, request, features, has_dates), names)
        ),
        target=request.target,
        classes=dict(zip(targets.class_names, targets.count_classes().tolist(), strict=True)),
        **(sides.report_split() if sides else {}),
        unlabelled=unlabelled,
        outside=targets.outside,
        findings=tuple(findings),
    )


def _describe_column(table: Table, name: str, request: Request, features: Features, has_dates: bool) -> ColumnReport:
    """One column with its role, kind, missing values, and range or levels; ``has_dates`` if rows are split by date."""
    kinds = {column.input_name: "date" if column.part else column.kind for column in features.columns}
    kind = kinds.get(name) or features.left_out.get(name) or value_kind(table, name)
    if has_dates and name == request.split.column:  # in whatever form
        kind = "date"
    role = {request.split.column: "split", request.target: "target"}.get(
        name, "feature" if name in kinds else "left out"
    )
    missing = pc.sum(pc.is_null(table.data[name], nan_is_null=True)).as_py()
    facts: dict[str, Any] = {"name": name, "role": role, "kind": kind, "missing": missing}
    if parts := tuple(column.part for column in features.columns if column.source == name):
        facts |= {"num_levels": len(parts), "levels": parts}
    elif kind == "number" and np.isfinite(limits := table.limits(name)).all():
        facts |= dict(zip(("minimum", "maximum"), limits, strict=True))
    elif kind in ("category", "text", "boolean") and name not in features.left_out:
        levels = table.levels(name)
        shown = np.argsort(-levels.counts, kind="stable")[: min(levels.num_used, MOST_LEVELS_SHOWN)]
        facts |= {"num_levels": levels.num_used, "levels": tuple(format_values(levels.values.take(shown)))}
    return ColumnReport.model_validate(facts)


class TableDataset(OwnDataset):
    """The table at ``source``."""

    def fetch(self) -> RawDataset:
        """Where the files are and how they look; nothing is copied."""
        files = find_table(self.source)
        paths = tuple(each.path for each in files.files)
        return RawDataset(
            name=self.name,
            source=files.source,
            files={},
            paths=paths,
            look=files.digest,
            is_always_read=files.is_always_read,
        )

    def examine(
        self, data: Data, task: TaskName, previous: Any, champion: ChampionData | None, scratch: Path
    ) -> Examination:
        """Read all rows, and determine the role of each column, the split of each row, and what is wrong."""
        request = Request(data, previous)
        table = read_table(find_files(self.source, request, scratch), request, task, scratch)
        return examine_table(table, self.name, request, task, scratch, champion)
