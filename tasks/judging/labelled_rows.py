"""A kept version on labelled rows: its answers, how good they are, and how good they were at publication.

The rows are a table, images or the version's test split, in the form that it takes; it is known which it was trained
on.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.data import image_dataset, row_hash
from tasks.data.io.discovery import find_table
from tasks.data.io.images import LabelledImages, are_numbers
from tasks.data.io.table_builder import build_table
from tasks.data.prepared_splits import PREPARE_ANEW, Examples, read_arrays
from tasks.data.recipe import SplitRule
from tasks.data.report import Finding, UnfitData, require_fit
from tasks.data.schema import ImageSchema, Request, Schema, assign_roles, find_schema
from tasks.data.split import TRAINING, read_times
from tasks.data.table_dataset import examine_table, make_selection
from tasks.errors import DataError, UsageError
from tasks.fitting.objective import Objective
from tasks.judging import metrics
from tasks.judging.champion import score_by_session
from tasks.judging.evaluation_result import EvaluationResult, PeriodMetrics
from tasks.judging.metrics import Answers, find_row_times, number_units
from tasks.machine.arrays import Array
from tasks.machine.run_messages import print_message
from tasks.parameters import Device, EvaluateParameters, Loss
from tasks.parameters.data import NO_WINDOW, OwnData
from tasks.records import ChampionData
from tasks.serving import runtime
from tasks.store.artifact_paths import ONNX, version
from tasks.store.model_folder import Manifest

PUBLISHED = {"accuracy": "test_accuracy", "loss": "test_loss", "rmse": "rmse", "r2": "r2"}  # names in a manifest
# Faults of rows as training data that do not matter in rows to be judged by.
OF_TRAINING = {
    "class-gone", "constant-target", "fewer-rows", "nameless-column", "new-column", "one-class", "other-scale",
    "other-split", "rare-class", "split-column", "split-missing", "too-few-rows", "turned-constant", "turned-missing",
}  # fmt: skip
# What advice may name and ``evaluate`` does not take: a version has fixed what is read, and how.
RETRAIN_OPTIONS = ("--category", "--ignore", "--missing", "--name", "--target", "--task")
CORRECT_ROWS = "correct the data, or remove the rows that cannot be corrected; version 1 has fixed how they are read"
CHANGES = {"drift", "other-scale", "turned-missing"}  # from the data that the version was made of: these are reported


class LabelledRows(NamedTuple):
    """Rows that have labels."""

    read: Callable[[slice], Array]  # some of them, each ``(m, …)`` as the model takes them
    y_true: Array  # (n,)
    keys: Array  # (n,) of the split ``rule``: which rows are not independent evidence; none for the book's data
    rule: SplitRule | None
    was_trained: Array | None = None  # (n,) whether the version was trained on the row; None if unknown
    times: Array | None = None  # (n,) of the time column, if it has dates: microseconds since 1970
    unlabelled: int = 0  # rows that were left out
    unreadable: int = 0  # images that were
    changes: tuple[Finding, ...] = ()  # from the data that the version was made of
    size: int = 2**16  # that are read at a time
    name_row: Callable[[int], str] = "row {}".format  # where one of them is, in words

    def select(self, only_unseen: bool) -> Array | slice:
        """All rows, or those that the version was not trained on.

        Raises:
            DataError: there is none, or it is not known which they are.
        """
        if not only_unseen:
            return slice(None)
        found, expected = "the version was trained on every row", "rows that it has not seen"
        if self.was_trained is None:
            found = "it is not known which of these rows the version was trained on"
            expected = "rows with the columns of the version's split, by which this can be told"
        elif len(rows := np.flatnonzero(~self.was_trained)):
            return rows
        raise DataError(found, expected, "leave --unseen out")


def evaluate_version(
    manifest: Manifest, model: bytes, parameters: EvaluateParameters, scratch: Path
) -> EvaluationResult:
    """Measure a version, given its manifest and an ONNX file; data that are read lie in the folder ``scratch``.

    The ``model`` is the published one, or, without data, the one that the version's figures are of.

    Raises:
        UsageError: the rows are not of the kind that the version takes.
        DataError: rows cannot be read, are unfit, or none can be judged by; the message lists all that is wrong. Or
            the values of one are too large for a prediction.
    """
    schema = table_schema(manifest, parameters)
    if parameters.data is None:
        labelled = _read_split(manifest)
    elif schema:
        labelled = _read_table(manifest, schema, parameters.data, parameters.time_column, scratch)
    else:
        labelled = _read_images(manifest, parameters.data, parameters.max_rejects, scratch)
    objective = Objective(Loss.CROSS_ENTROPY if manifest.dataset.class_names else Loss.SQUARED)
    path, rows = version(manifest.name, manifest.version) / ONNX, labelled.select(parameters.unseen)
    score = partial(score_by_session, runtime.open_session(model, Device.CPU, path))
    answers = Answers.ask(score, labelled.read, labelled.y_true, objective, labelled.size)
    if len(overflows := np.flatnonzero(~np.isfinite(answers.losses))):
        why = "is not a finite number, because a value is too large"
        found = f"the prediction for {labelled.name_row(int(overflows[0]))} {why}"
        raise DataError(found, "values of the size of those in training", "correct or remove the row")
    answers = answers.choose(rows)
    known = manifest.metrics.model_dump()
    units = number_units(labelled.keys[rows], labelled.rule) if len(labelled.keys) else None
    num_units = None if units is None else int(units.max()) + 1
    in_time = bool(labelled.rule and labelled.rule.is_by_time)
    measured = metrics.measure(answers, units, manifest.dataset.class_names)
    periods: Iterable[PeriodMetrics] = ()
    if labelled.times is not None:
        periods = metrics.measure_by_period(answers, labelled.times[rows], units, in_time)
    return EvaluationResult(
        name=manifest.name,
        version=manifest.version,
        model_sha256=manifest.files[manifest.evaluated_file if parameters.data is None else ONNX],
        **dict(measured),
        published={name: known[each] for name, each in PUBLISHED.items() if each in known and name in measured.metrics},
        published_rows=manifest.dataset.num_test,
        published_recall=known.get("recall") or {},
        unlabelled=labelled.unlabelled,
        broken=labelled.unreadable,
        groups=None if in_time else num_units,
        blocks=(num_units or 1) if in_time else None,
        trained_on=None if labelled.was_trained is None else int(np.count_nonzero(labelled.was_trained)),
        unseen=parameters.unseen,
        is_before_refit=manifest.trained.refit is not None and parameters.data is None,
        changes=labelled.changes,
        periods=tuple(periods),
    )


# Checks of a table before a run begins


def table_schema(manifest: Manifest, parameters: EvaluateParameters) -> Schema | None:
    """What the version fixed about a table's columns; None if it takes images, or its own test split is requested.

    Raises:
        UsageError: the rows are not of the kind that the version takes.
    """
    # Only here it is asked whether a version takes tables: the book's versions have no target among their columns.
    if not (parameters.data and manifest.recipe.columns):
        if parameters.time_column:
            raise UsageError(f"--time-column {parameters.time_column}", "a table that has this column", "leave it out")
        return None
    schema: Schema | None = find_schema(manifest.dataset, manifest.recipe)
    if schema is None:
        expected = "its own test split: no column of a table is its target"
        raise UsageError(f"{parameters.data} for the book's {manifest.name}", expected, "leave DATA out")
    return schema


def require_columns(header: Sequence[str], schema: Schema, parameters: EvaluateParameters) -> None:
    """Check only the names of a table's columns.

    Raises:
        DataError: one that the version or the options need is missing.
    """
    by = _adapt_split(schema, header)
    _require_fit(assign_roles(Request(OwnData(source=parameters.data, target=schema.target), by), header)[2])
    if parameters.time_column:
        _require_time_column(parameters.time_column, header)


def _require_time_column(name: str, header: Sequence[str]) -> None:
    if name not in header:
        raise DataError(f"no column {name} (--time-column)", "a column of dates, times or numbers", "name another")


def _adapt_split(schema: Schema, header: Sequence[str]) -> Schema:
    """The same schema, without the split rule if its column is missing: then every row is independent evidence."""
    if schema.split.column is None or schema.split.column in header:
        return schema
    return schema.model_copy(update={"split": SplitRule(rule="rows", test=schema.split.test)})


# Reading


def _read_split(manifest: Manifest) -> LabelledRows:
    """The test split that the version was judged on."""
    dataset = manifest.dataset
    inputs, y_true, key = Examples.from_arrays(read_arrays(dataset.test, PREPARE_ANEW), manifest.recipe, dataset.task)
    known, times = np.zeros(len(y_true), bool), find_row_times(key, dataset)
    return LabelledRows(inputs.__getitem__, y_true, key, dataset.split, known, times)


def _read_table(manifest: Manifest, schema: Schema, source: str, time: str | None, scratch: Path) -> LabelledRows:
    """The rows of a table whose target is known, by column names, read in the same way as for training."""
    data = OwnData(source=source, target=schema.target)
    request = Request(data, schema)
    names = schema.target, schema.split.column, time, *request.taken
    selection = make_selection(request, schema.task)
    selection = selection._replace(only=frozenset(filter(None, names)), ignore=frozenset(), time_column=time or "")
    table = build_table(find_table(source), selection, scratch / "spool.arrow")
    by = _adapt_split(schema, table.data.column_names)
    before = ChampionData.from_splits(manifest.dataset, NO_WINDOW) if by is schema else None
    report, _, rows = examine_table(table, manifest.name, Request(data, by), schema.task, scratch, before)
    _require_fit(report.findings)
    if rows is None:
        raise ValueError("a table without faults and without rows")
    moments, time = None, time or (by.split.column if by.split.is_by_time else None)
    if time is not None:
        _require_time_column(time, table.data.column_names)
        column = rows.targets.of_column(table.data[time])
        form = by.split.form if time == by.split.column else ""
        moments = read_times(time, column, form, partial(rows.targets.name_row, table))
        if moments.fault:
            raise UnfitData((moments.fault,))
    return LabelledRows(
        read=rows.read_inputs,
        y_true=rows.targets.values,
        keys=rows.split.keys,
        rule=by.split,
        was_trained=_find_trained(manifest, rows.digests) if by is schema else None,
        times=moments.values if moments and moments.are_dates else None,
        unlabelled=report.unlabelled,
        changes=tuple(each for each in report.findings if each.rule in CHANGES),
        name_row=partial(rows.targets.name_row, table),
    )


def _require_fit(findings: Sequence[Finding]) -> None:
    """Accept rows that can be judged by, and report what is new in them."""
    require_fit(map(_keep_useful_advice, findings), OF_TRAINING)
    for each in findings:
        if each.rule == "new-levels":
            print_message(f"{each.sentence}: the average effect stands for them")


def _keep_useful_advice(finding: Finding) -> Finding:
    """The finding, without advice that names what only a retrain takes."""
    clauses = re.split(", (?:or )?", finding.action)
    useful = [each for each in clauses if not any(option in each for option in RETRAIN_OPTIONS)]
    if useful == clauses:
        return finding
    return finding.model_copy(update={"action": ", or ".join(useful) or CORRECT_ROWS})


def _find_trained(manifest: Manifest, digests: Array) -> Array | None:
    """Which rows of these digests the version's weights were fitted to; None if its training rows are unknown."""
    if (rows := manifest.dataset.rows) is None:
        return None
    known = read_arrays(rows, "restore it from a backup")
    parts = row_hash.PARTS if manifest.trained.refit else ("train",)
    return np.isin(digests, np.concatenate([known[part] for part in parts]))


def _read_images(manifest: Manifest, source: str, max_rejects: float, scratch: Path) -> LabelledRows:
    """Images with their classes; the classes may be fewer than the version's."""
    rule = manifest.dataset.split or SplitRule(rule="rows", test=0.5)
    dataset = manifest.dataset.model_copy(update={"split": rule})
    data = OwnData(source=source, max_rejects=max_rejects)
    images, schema = find_images(source), ImageSchema.from_manifest(dataset, manifest.recipe)
    numbers, names = images.class_names, dataset.class_names
    is_named = are_numbers(names) or set(numbers) & set(names)
    if not is_named and all(each.isdecimal() and int(each) < len(names) for each in numbers):
        # Whole-number labels stand for the classes in their order if no class is named like that.
        images = images._replace(class_names=tuple(names[int(each)] for each in numbers))
    report, _, rows = image_dataset.inspect_images(images, manifest.name, data, schema, scratch)
    _require_fit(report.findings)
    digests = rows.digests
    if rule.rule == "folders":  # as they would be in the training folder, each the first of its copies
        keys, labels = rows.split.keys, rows.targets.values
        digests = image_dataset.row_digests(keys, labels, names, TRAINING, row_hash.FIRST_COPY)
    return LabelledRows(
        read=rows.read_inputs,
        size=rows.block_rows,
        y_true=rows.targets.values,
        keys=rows.split.keys,
        rule=rule,
        was_trained=_find_trained(manifest, digests),
        unreadable=len(rows.images.unreadable),
    )


def find_images(source: str) -> LabelledImages:
    """The labelled images at a path.

    Raises:
        UsageError: a table is there.
        DataError: there is nothing, or there are no images.
    """
    try:
        return image_dataset.find_images(source)
    except UsageError as error:
        raise UsageError(f"{source} is a table", image_dataset.EXPECTED, "name images, or a model of tables") from error
