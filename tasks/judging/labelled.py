"""A kept version on labelled rows: what it says of them, how good that is, and how good it was.

The rows are a table, images or its test split, as the version takes them; it is known which it was trained on.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.data import image_dataset, schema
from tasks.data.inference import value_kind
from tasks.data.io.discovery import find_table
from tasks.data.io.images import DecodedImages, LabelledImages
from tasks.data.io.table import Table, build_table
from tasks.data.io.tabular import Selection
from tasks.data.prepared_splits import PREPARE_ANEW, SPLIT_KEY, read_arrays
from tasks.data.recipe import Pixels, SplitRule
from tasks.data.report import DataReport, Finding, UnfitData, require_fit
from tasks.data.schema import ImageSchema, Request, Schema
from tasks.data.split import TRAINING, check_times, decode_times, read_times
from tasks.data.table_dataset import examine_table
from tasks.errors import DataError, UsageError
from tasks.judging import metrics
from tasks.judging.judged import Judged
from tasks.judging.metrics import Answers, Moments
from tasks.judging.resampling import number_units
from tasks.machine.arrays import Array
from tasks.machine.telling import tell
from tasks.parameters import Device, EvaluateParameters
from tasks.parameters.data import NO_WINDOW, OwnData
from tasks.records import ChampionData
from tasks.serving import runtime
from tasks.serving.task import TASKS
from tasks.store.artifact_paths import ONNX
from tasks.store.versions import Manifest

PIECE = 2**16  # rows of a table
PUBLISHED = {"accuracy": "test_accuracy", "loss": "test_loss", "rmse": "rmse", "r2": "r2"}  # in a manifest
# What is wrong with rows to be trained on, and not with rows to be judged by.
OF_TRAINING = {
    "class-gone", "constant-target", "fewer-rows", "new-column", "one-class", "other-scale", "other-split",
    "rare-class", "split-column", "split-missing", "too-few-rows", "turned-constant", "turned-missing",
}  # fmt: skip
CHANGES = {"drift", "other-scale", "turned-missing"}  # from the data that the version was made of: they are told


class Labelled(NamedTuple):
    """Rows that have a label."""

    pieces: Iterable[Array]  # one after another, each ``(m, …)`` as the model takes them
    truth: Array  # (n,)
    keys: Array | None  # (n,) of the split ``rule``: which rows are no independent evidence
    rule: SplitRule | None
    was_trained: Array | None = None  # (n,) whether the version was trained on it; None where that is not known
    moments: Moments | None = None  # of the time column
    unlabelled: int = 0  # rows that were left out
    broken: int = 0  # images that were
    changes: tuple[Finding, ...] = ()  # from the data that the version was made of


def evaluate_version(manifest: Manifest, model: bytes, asked: EvaluateParameters, scratch: Path) -> Judged:
    """Judge a version, of which these are manifest and ONNX file; what is read lies in the folder ``scratch``.

    Raises:
        UsageError: rows of another kind than the version takes.
        DataError: they cannot be read, are not fit, or there is none to judge by.
    """
    labelled = read_labelled(manifest, asked, scratch)
    answers, known = _answer(model, labelled, manifest.dataset.class_names), manifest.metrics.model_dump()
    rows = _select_unseen(labelled) if asked.unseen else slice(None)
    answers, moments = answers.of_rows(rows), labelled.moments
    moments = moments and moments._replace(values=moments.values[rows])
    units = None if labelled.keys is None else number_units(labelled.keys[rows], labelled.rule)
    in_time = labelled.rule is not None and labelled.rule.rule == "time"
    now = metrics.measure(answers, units)
    return Judged(
        name=manifest.name,
        version=manifest.version,
        model_sha256=manifest.files[ONNX],
        **dict(now),
        published={name: known[kept] for name, kept in PUBLISHED.items() if kept in known and name in now.metrics},
        published_rows=manifest.dataset.num_test,
        published_recall=known.get("recall") or {},
        unlabelled=labelled.unlabelled,
        broken=labelled.broken,
        groups=None if units is None or in_time else int(units.max()) + 1,
        blocks=None if not in_time else 1 if units is None else int(units.max()) + 1,
        trained_on=None if labelled.was_trained is None else int(np.count_nonzero(labelled.was_trained)),
        unseen=asked.unseen,
        changes=labelled.changes,
        periods=tuple(metrics.measure_by_period(answers, moments, units, in_time)) if moments else (),
    )


def _answer(model: bytes, labelled: Labelled, class_names: tuple[str, ...]) -> Answers:
    """What the model says of all rows; of its outputs only what is judged stays in memory."""
    session, parts, start = runtime.open_session(model, Device.CPU), list[Answers](), 0
    for piece in labelled.pieces:
        truth = labelled.truth[start : start + len(piece)]
        parts.append(Answers.from_outputs(runtime.run_model(session, np.ascontiguousarray(piece)), truth, class_names))
        start += len(piece)
    return Answers.concatenate(parts)


def _select_unseen(labelled: Labelled) -> Array:
    """The rows that the version was not trained on."""
    if labelled.was_trained is None:
        expected = "rows that tell, with the columns of the version's split"
        raise DataError(
            "it is not known which of these rows the version was trained on", expected, "leave --unseen out"
        )
    rows = np.flatnonzero(~labelled.was_trained)
    if not len(rows):
        raise DataError("the version was trained on every row", "rows that it has not seen", "leave --unseen out")
    return rows


def read_labelled(manifest: Manifest, asked: EvaluateParameters, scratch: Path) -> Labelled:
    """The rows that are asked for; what is read lies in the folder ``scratch``.

    Raises:
        UsageError: rows of another kind than the version takes.
        DataError: they cannot be read, or are not fit; the message has all that is wrong.
    """
    kept = table_recipe(manifest, asked)
    if asked.data is None:
        return _of_split(manifest)
    if isinstance(manifest.recipe, Pixels):
        return _of_images(manifest, manifest.recipe, asked, asked.data, scratch)
    assert kept is not None  # noqa: S101  (what takes no images takes a table)
    return _of_table(manifest, kept, asked, asked.data, scratch)


def table_recipe(manifest: Manifest, asked: EvaluateParameters) -> Schema | None:
    """What the version fixed of a table's columns; None where it takes images, or its own test split is asked for.

    Raises:
        UsageError: rows of another kind than the version takes.
    """
    is_table = asked.data is not None and not isinstance(manifest.recipe, Pixels)
    if asked.time_column and not is_table:
        raise UsageError(f"--time-column {asked.time_column}", "a table that has this column", "leave it out")
    kept = Schema.from_manifest(manifest.dataset, manifest.recipe) if is_table else None
    if is_table and kept is None:
        expected = "its own test split: no column of a table is its target"
        raise UsageError(f"{asked.data} for the book's {manifest.name}", expected, "leave DATA out")
    return kept


def require_columns(header: Sequence[str], kept: Schema, asked: EvaluateParameters) -> None:
    """Check the names of a table's columns alone.

    Raises:
        DataError: one that the version or the options need is missing.
    """
    is_split_known = kept.split.column is None or kept.split.column in header
    by = kept if is_split_known else kept.model_copy(update={"split": SplitRule(rule="rows", test=kept.split.test)})
    schema.require_columns(header, Request(OwnData(source=asked.data, target=kept.target), by), OF_TRAINING)
    if asked.time_column:
        _require_time_column(asked.time_column, header)


def _require_time_column(name: str, header: Sequence[str]) -> None:
    if name not in header:
        raise DataError(f"no column {name} (--time-column)", "a column of dates, times or numbers", "name another")


def _of_split(manifest: Manifest) -> Labelled:
    """The test split that the version was judged on."""
    dataset, recipe = manifest.dataset, manifest.recipe
    arrays = read_arrays(dataset.test, PREPARE_ANEW)
    inputs, truth = arrays[recipe.input.name], arrays[TASKS[dataset.task].target]
    in_time = dataset.split is not None and dataset.split.rule == "time"
    times = Moments(decode_times(arrays[SPLIT_KEY]), dataset.has_dates) if in_time else None
    pieces = (inputs[start : start + PIECE] for start in range(0, len(truth), PIECE))
    return Labelled(pieces, truth, arrays.get(SPLIT_KEY), dataset.split, np.zeros(len(truth), bool), times)


def _of_table(manifest: Manifest, kept: Schema, asked: EvaluateParameters, source: str, scratch: Path) -> Labelled:
    """The rows of a table whose target is known, by the names of its columns, read as for training."""
    names = [column.name for column in kept.columns]
    only = frozenset(filter(None, (kept.target, kept.split.column, asked.time_column, *names)))
    data = OwnData(source=source, target=kept.target)
    selection = Selection(
        as_text=Request(data, kept).text_columns(kept.task == "classification"),
        as_boolean=frozenset(column.name for column in kept.columns if column.kind == "boolean"),
        only=only,
    )
    table = build_table(find_table(source), selection, scratch / "spool.arrow")
    is_split_known = kept.split.column is None or kept.split.column in table.data.column_names
    time = asked.time_column or (kept.split.column if kept.split.rule == "time" and is_split_known else None)
    by = kept if is_split_known else kept.model_copy(update={"split": SplitRule(rule="rows", test=kept.split.test)})
    before = ChampionData.of(manifest.dataset, NO_WINDOW) if is_split_known else None
    report, _, rows = examine_table(table, manifest.name, Request(data, by), kept.task, scratch, before)
    _require_fit(report)
    if rows is None:
        raise ValueError("a table without faults and without rows")
    return Labelled(
        pieces=(rows.matrix(slice(start, start + PIECE)) for start in range(0, len(rows.digests), PIECE)),
        truth=rows.truth.values,
        keys=rows.split.keys,
        rule=by.split,
        was_trained=_was_trained(manifest, rows.digests) if is_split_known else None,
        moments=_moments(table, time, rows.truth.is_known),
        unlabelled=report.unlabelled,
        changes=tuple(each for each in report.findings if each.rule in CHANGES),
    )


def _require_fit(report: DataReport) -> None:
    """Let rows pass that can be judged by, and say what is new in them."""
    require_fit(report.findings, OF_TRAINING)
    for each in report.findings:
        if each.rule == "new-levels":
            tell(f"{each.sentence}: the average effect stands for them")


def _moments(table: Table, name: str | None, is_known: Array) -> Moments | None:
    """The time of each row that has a target, by a column of this name."""
    if name is None:
        return None
    _require_time_column(name, table.data.column_names)
    column = table.data[name].filter(is_known)
    times = read_times(column)
    if fault := check_times(name, column, times, lambda row: table.named(int(np.flatnonzero(is_known)[row]))):
        raise UnfitData((fault,))
    return Moments(times, value_kind(table, name) == "date")


def _was_trained(manifest: Manifest, digests: Array) -> Array | None:
    """Which rows of these digests are among the version's training rows; None where it is not known which those are."""
    if (rows := manifest.dataset.rows) is None:
        return None
    found: Array = np.isin(digests, read_arrays(rows, "restore it from a backup")["train"])
    return found


def _of_images(manifest: Manifest, recipe: Pixels, asked: EvaluateParameters, source: str, scratch: Path) -> Labelled:
    """Images with their classes; the classes may be fewer than the version's."""
    kept = ImageSchema.from_manifest(manifest.dataset, recipe) or ImageSchema(
        class_names=manifest.dataset.class_names, recipe=recipe, split=SplitRule(rule="rows", test=0.5)
    )
    found = _as_named(find_images(source), kept.class_names)
    data = OwnData(source=source, max_rejects=asked.max_rejects)
    report, _, rows = image_dataset.inspect_images(found, manifest.name, data, kept, scratch)
    _require_fit(report)
    digests = rows.digests
    if kept.split.rule == "folders":  # as they would be in the training folder, each the first of its copies
        first = np.zeros(len(digests), np.uint64)
        labels, names = rows.truth.values, kept.class_names
        digests = image_dataset.row_digests(rows.split.keys, labels, names, TRAINING, first)
    return Labelled(
        pieces=_whole(rows.images),
        truth=rows.truth.values,
        keys=rows.split.keys,
        rule=kept.split,
        was_trained=_was_trained(manifest, digests),
        broken=len(rows.images.unreadable),
    )


def find_images(source: str) -> LabelledImages:
    """The labelled images at a path.

    Raises:
        UsageError: a table is there.
        DataError: nothing is there, or no images.
    """
    try:
        return image_dataset.find_images(source)
    except UsageError as error:
        raise UsageError(f"{source} is a table", image_dataset.EXPECTED, "name images, or a model of tables") from error


def _whole(images: DecodedImages) -> Iterator[Array]:
    is_whole = images.facts["is_readable"]
    return (pixels if is_whole[at].all() else pixels[is_whole[at]] for at, pixels in images.blocks())


def _as_named(source: LabelledImages, class_names: tuple[str, ...]) -> LabelledImages:
    """Labels that are whole numbers stand for the classes in their order where no class is called so."""
    names = source.class_names
    if not set(names) & set(class_names) and all(name.isdecimal() and int(name) < len(class_names) for name in names):
        return source._replace(class_names=tuple(class_names[int(name)] for name in names))
    return source
