"""``gradmill inspect``, and checks of paths and headers before a server starts.

It imports neither Prefect nor torch. A run repeats all checks, because scheduled runs have no command line.
"""

import glob
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flows.cli import display
from flows.cli.errors import Answer
from flows.cli.options import Given, as_typed, given_options, validate_document
from tasks.data.io.discovery import JSON_SUFFIXES, DataFile, find_table
from tasks.data.recipe import Recipe
from tasks.data.report import UnfitData
from tasks.data.schema import Request, Schema, require_columns
from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_number
from tasks.parameters import InspectParameters, ModelName, Use, addresses, is_name
from tasks.serving.task import TASKS, TaskName
from tasks.store import own_data
from tasks.store.page_rendering import Code, Page, Section

if TYPE_CHECKING:
    from tasks.data.own_rows import Examination

LEAVE_OUT = {"counts-rows", "duplicate-column"}  # rules whose warnings recommend --ignore in any case


def inspect(given: Annotated[Given, InspectParameters]) -> Answer:
    """Show columns or images, their problems, their split and how well they can be learned; nothing is trained.

    It ends with the retrain command to copy. Problems that stop a retrain are exit code 4.

    Example: [bold]gradmill inspect houses.csv --target price[/]
    """
    parameters = validate_document(InspectParameters, given, "inspect")
    display.wait("reading the data")
    with tempfile.TemporaryDirectory(prefix="gradmill-") as folder:
        examined = _examine(parameters, Path(folder))
        losses = _expect_losses(examined, parameters, Path(folder))
    command, report = as_typed(_advise_command(parameters, examined)), examined.report
    failure = UnfitData(report.errors) if report.errors else None
    document = dict(report) | losses | {"command": command}
    return Answer(document, lambda: _draw(examined, losses, parameters.class_weight, command), failure)


def _examine(parameters: InspectParameters, folder: Path) -> "Examination":
    from tasks.data import image_dataset
    from tasks.data.table_dataset import examine_table, find_files, read_table

    kept, name = None, parameters.name or Path(addresses.split_source(parameters.source)[0]).stem
    if parameters.name and (kept := own_data.find_fixed(parameters.name)) and parameters.target is None:
        parameters = parameters.model_copy(update={"target": kept.target})
    champion = own_data.of_champion(parameters.name, parameters.forget_accepted)
    if (kept or parameters).target is None and (kept or image_dataset.is_images(parameters.source)):
        if kept is None and (found := parameters.list_given(Use.TABLES)):
            raise UsageError(f"{found} and images", "options of images", "leave them out, or name a table")
        return image_dataset.inspect_images(
            image_dataset.find_images(parameters.source), name, parameters, kept, folder, champion
        )
    request = Request(parameters, kept)
    files = find_files(parameters.source, request, folder)

    def examine(task: TaskName | None, scratch: Path) -> "Examination":
        return examine_table(read_table(files, request, task, scratch), name, request, task, scratch, champion)

    examined = examine(kept.task if kept else None, folder)
    few_values = tuple(each for each in examined.report.findings if each.rule == "few-values")
    if kept is None and few_values:  # which may be classes, if each has enough rows
        (scratch := folder / "classes").mkdir()
        of_classes = examine("classification", scratch)
        if not of_classes.report.errors:
            report = of_classes.report.model_copy(update={"findings": (*of_classes.report.findings, *few_values)})
            examined = of_classes._replace(report=report)
    return examined


def choose_model(data: dict[str, Any]) -> ModelName:
    """The model of a new name's table: that of the task which its target has for ``gradmill inspect``.

    Of most tables no other column is read. A target of few whole numbers may have classes, which depends on the split.

    Raises:
        UsageError: the options make no sense.
        DataError: there are no such data, or the target is unfit.
    """
    from tasks.data.table_dataset import find_files, read_targets

    options = {name: value for name, value in data.items() if name in InspectParameters.model_fields}
    parameters = validate_document(InspectParameters, options, "retrain")
    request = Request(parameters, None)
    check_header(parameters.source, request, partial(require_columns, request=request))
    with tempfile.TemporaryDirectory(prefix="gradmill-") as folder:
        files = find_files(parameters.source, request, Path(folder))
        targets = read_targets(files, request, Path(folder))
        task: TaskName = "classification" if targets.class_names else "regression"
        why = "classes" if targets.class_names else "numbers"
        if any(finding.rule == "few-values" for finding in targets.findings):
            schema = _examine(parameters, Path(folder)).schema
            task = schema.task if schema else task
            why = "a few whole numbers"
    other = next(name for name in TASKS if name != task)
    print_message(f"{task}: {request.target} has {why} (otherwise: --task {other})", file=sys.stderr)
    return ModelName(TASKS[task].model)


def _expect_losses(examined: "Examination", parameters: InspectParameters, scratch: Path) -> dict[str, Any]:
    """The losses of the best constant and of the models that a retrain would compare; empty if the data are unfit.

    Those of a table are cross-validated on its training rows. Of images, one fit is measured on a validation part of
    them. Parts are written to the folder ``scratch``, as a retrain writes them to the store: they may not fit into
    memory.
    """
    schema, rows = examined.schema, examined.rows
    if schema is None or rows is None:
        return {}
    if parameters.class_weight != "none" and not schema.class_names:
        found = f"--class-weight {parameters.class_weight} and a regression"
        raise UsageError(found, "classes to balance", "leave it out")
    decay = parameters.weight_decay if isinstance(parameters.weight_decay, float) else None  # training resolves auto
    from tasks.data.split import TRAINING

    if isinstance(schema, Schema):
        from tasks.fitting.tables import FitOptions, expect_losses

        shape = None if parameters.shape == "auto" else parameters.shape
        kept_fit = own_data.find_kept_fit(parameters.name, parameters, parameters.new_recipe)
        kept_shape = kept_fit.keep_shape(rows.split.count(TRAINING)) if kept_fit else None
        options = FitOptions(shape, kept_shape, decay, schema.split.is_by_time)
        comparison = expect_losses(schema, rows.map_side("train", schema, scratch), parameters.class_weight, options)
        return {
            "baseline_loss": comparison.null_loss,
            "cv_losses": comparison.losses,
            "shape": comparison.chosen.shape,
            "is_kept": comparison.chosen.shape == kept_shape,
            "is_better": comparison.is_better,
        }
    from tasks.data.split import hold_out_validation
    from tasks.judging.baselines import expect_image_losses

    if (split := hold_out_validation(rows.split)) is None:
        return {}
    num_train = rows.split.count(TRAINING)
    train, validation = (replace(rows, split=split).map_side(side, schema, scratch) for side in ("train", "validation"))
    return expect_image_losses(schema, train, validation, num_train, parameters.class_weight, decay)


def _advise_command(parameters: InspectParameters, examined: "Examination") -> str:
    """The command that trains on this table, with the given options and those that the findings recommend."""
    report, schema = examined.report, examined.schema
    is_known = bool(parameters.name and schema)  # such a name keeps its model and columns
    ignore = parameters.ignore
    if not is_known:
        asked_for = {*parameters.features, *parameters.category}
        advised = [each.column for each in report.findings if each.rule in LEAVE_OUT and each.column]
        advised = [name for name in dict.fromkeys(advised) if name not in asked_for]
        if {each.name for each in report.columns if each.role == "feature"} - {*advised}:  # a feature must be left
            ignore = (*ignore, *advised)
    options = given_options(parameters.model_copy(update={"ignore": ignore}), leave_out={"source", "name"})
    source = addresses.source_options(parameters.source)
    if is_known:
        return shlex.join(["retrain", parameters.name, *source, *options])
    options += [] if parameters.target or report.images else ["--target", "COLUMN"]
    name = suggest_name(parameters.source)
    if (kept := own_data.find_fixed(name)) and schema and (kept.task, kept.target) != (schema.task, schema.target):
        name = "NAME"  # another model has it
    return shlex.join(["retrain", "--name", name, *source, *options])


def _draw(examined: "Examination", losses: dict[str, float], class_weight: str, command: str) -> Page:
    """The report's page with the losses to expect and the command to copy; errors are told as the failure."""
    report = examined.report
    warnings = tuple(finding for finding in report.findings if not finding.is_error)
    page = report.model_copy(update={"findings": warnings}).page()
    loss = ""
    if examined.schema:
        unit, has_decay = TASKS[examined.schema.task].loss_unit, "--weight-decay" in command
        loss = _describe_losses(losses, class_weight, unit, has_decay)
    advice = Section("train it", () if report.errors else (Code(command),))
    return page._replace(title="", sections=(*page.sections, Section("", (loss,)), advice))


def _describe_losses(losses: Mapping[str, Any], class_weight: str, unit: str, has_decay: bool) -> str:
    """The losses to expect, in words."""
    if not losses:
        return "validation loss: unknown, since no part of the training rows can stand for the others"
    unit = f"{'' if class_weight == 'none' else 'class-weighted '}{unit}"
    constant = f"{format_number(losses['baseline_loss'])} by the best constant"
    if (cv_losses := losses.get("cv_losses")) is None:
        fit = losses.get("reference_loss")
        said = f"validation loss ({unit}): {constant}" + ("" if fit is None else f", {format_number(fit)} by a fit")
        is_better = fit is None or fit < losses["baseline_loss"]
    else:
        named = [f"{format_number(loss)} {shape}" for shape, loss in cv_losses.items()]
        verb = "a retrain keeps" if losses["is_kept"] else "a retrain takes"
        said = f"cross-validated loss ({unit}): {', '.join([constant, *named])}; {verb} {losses['shape']}"
        is_better = losses["is_better"]
    if not is_better:
        said += "\nthe fit is no better than the constant, and a gate would refuse such a model: "
        penalty = "" if cv_losses is not None or has_decay else " --weight-decay auto,"
        said += f"try{penalty} more rows or other columns"
    return said


# Checks of commands that read own data


def suggest_name(source: str) -> str:
    """A model name derived from the data's file name, or NAME if that is not possible."""
    stem = re.sub("[^a-z0-9]+", "-", Path(addresses.split_source(source)[0]).stem.lower()).strip("-")
    return stem if is_name(stem) and stem not in [*ModelName] else "NAME"


def is_there(path: str) -> bool:
    """Whether a path or a glob matches anything."""
    return os.path.exists(path) or next(glob.iglob(path, recursive=True), None) is not None  # noqa: PTH110, PTH207


def check_header(
    source: str, text: Request | Schema | Recipe, check: Callable[[list[str]], None], has_options: bool = True
) -> None:
    """Check the columns of a local table's first file; the run checks all its files together.

    ``has_options``: the command has --header and --names. URLs are not checked, since their hosts may be slow, nor the
    columns of JSON lines, each of which has its own names.
    """
    from tasks.data.io.batches import read_header
    from tasks.data.io.tabular import Selection

    if "://" in source.removeprefix("file://"):
        return
    with redirect_stdout(None):  # the run reports files that are skipped
        files = find_table(source).files
    selection = Selection(header=text.header, names=text.header_names, encoding=text.encoding)
    if not any(file.suffix in JSON_SUFFIXES for file in files):
        try:
            check(read_header(files[:1], selection, has_options=has_options))
        except DataError:
            # a column that only some files have is not misspelt
            check(read_header(files, selection, has_options=has_options))
    if len(files) == 1:
        require_rows(files[0], text)


def require_rows(file: DataFile, text: Request | Schema | Recipe) -> None:
    """Refuse a table that has only a header.

    Raises:
        DataError: it has no rows.
    """
    from tasks.data.io.batches import table_batches
    from tasks.data.io.tabular import Selection

    selection = Selection(header=text.header, names=text.header_names, encoding=text.encoding)
    # the run reports encodings
    rows = table_batches(file, selection._replace(only=frozenset(), is_again=True), "reject")
    if not any(batch.num_rows for batch in rows):
        raise DataError(f"{file.path} holds no rows", "rows below the header", "name data with at least one row")
