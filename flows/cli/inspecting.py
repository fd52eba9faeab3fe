"""``gradmill inspect``: what own data are like before anything is trained."""

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from flows.cli import display
from flows.cli.checks import place, suggested_name
from flows.cli.faults import conclude
from flows.cli.options import as_typed
from flows.cli.parameters import given_options, taking, validated
from flows.cli.tables import add_row, on_output, print_line
from tasks.data.report import UnfitData
from tasks.errors import UsageError
from tasks.machine.words import printable, readable
from tasks.parameters import InspectParameters, Use
from tasks.serving.task import TASKS, TaskName

if TYPE_CHECKING:
    from tasks.data.own_rows import Examined, OwnRows
    from tasks.data.report import DataReport, ImageReport

LEAVE_OUT = {"counts-rows", "duplicate-column"}  # rules of warnings that advise --ignore, whatever else is known


@taking(InspectParameters)
def inspect(document: dict[str, Any], as_json: bool) -> None:
    """Show columns or images, their problems, their split and how well they can be learned; nothing is trained.

    It ends with the retrain command to copy. Problems that stop a retrain are exit code 4.
    """
    parameters = validated(InspectParameters, document | {"source": place(document.get("source"))}, "inspect")
    display.wait("reading the data")
    with tempfile.TemporaryDirectory(prefix="gradmill-") as folder:
        examined = _examined(parameters, Path(folder))
        losses = _expect_losses(examined, parameters, Path(folder))
    display.end()
    command, report = as_typed(_command(parameters, examined), None), examined.report
    if not as_json:
        _show(examined, losses, command)
    failure = UnfitData(report.errors) if report.errors else None
    conclude(report.model_dump(mode="json") | losses | {"command": command}, None, failure, as_json=as_json)


def _examined(parameters: InspectParameters, folder: Path) -> "Examined[OwnRows | None]":
    from tasks.data import image_dataset
    from tasks.data.io.discovery import find_table
    from tasks.data.schema import ImageSchema, Request
    from tasks.data.table_dataset import examine_table, read_table
    from tasks.store import own_data

    kept, name = None, parameters.name or Path(parameters.source).stem
    if parameters.name and (kept := own_data.fixed(parameters.name)) and parameters.target is None:
        parameters = parameters.model_copy(update={"target": kept.target})
    champion = own_data.of_champion(parameters.name)
    may_be_images = kept is None and parameters.target is None
    if isinstance(kept, ImageSchema) or (may_be_images and image_dataset.is_images(parameters.source)):
        if kept is None and (found := parameters.list_given(Use.TABLES)):
            raise UsageError(f"{found} and images", "options of images", "leave them out, or name a table")
        images = image_dataset.find_images(parameters.source)
        previous = kept if isinstance(kept, ImageSchema) else None
        return image_dataset.inspect_images(images, name, parameters, previous, folder, champion)
    files, request = find_table(parameters.source), Request(parameters, kept)

    def examine(task: TaskName | None, scratch: Path) -> "Examined[OwnRows | None]":
        return examine_table(read_table(files, request, task, scratch), name, request, task, scratch, champion)

    examined = examine(kept.task if kept else None, folder)
    few_values = tuple(each for each in examined.report.findings if each.rule == "few-values")
    if kept is None and few_values:  # which are classes, if each has rows enough to be one
        (scratch := folder / "classes").mkdir()
        of_classes = examine("classification", scratch)
        if not of_classes.report.errors:
            report = of_classes.report.model_copy(update={"findings": (*of_classes.report.findings, *few_values)})
            examined = of_classes._replace(report=report)
    return examined


def _expect_losses(
    examined: "Examined[OwnRows | None]", parameters: InspectParameters, scratch: Path
) -> dict[str, float]:
    """What the best constant and the converged fit come to on a validation part; nothing of data that are not fit.

    Both parts are written to the folder ``scratch``, as a retrain would to the store: memory need not hold them.
    """
    from tasks.data.split import TRAINING, hold_out_validation
    from tasks.judging import baselines

    if examined.schema is None or examined.rows is None:
        return {}
    if parameters.class_weight != "none" and not examined.schema.class_names:
        raise UsageError(
            f"--class-weight {parameters.class_weight} and a regression", "classes to balance", "leave it out"
        )
    given, num_train = parameters.weight_decay, examined.rows.split.count(TRAINING)
    asked = parameters.class_weight, given if isinstance(given, float) else None  # auto is chosen in training
    if (split := hold_out_validation(examined.rows.split)) is None:
        return {}
    rows = replace(examined.rows, split=split)
    train, validation = (rows.map_side(side, examined.schema, scratch) for side in ("train", "validation"))
    return baselines.expected_losses(examined.schema, train, validation, num_train, rows.has_missing, *asked)


def _command(parameters: InspectParameters, examined: "Examined[OwnRows | None]") -> str:
    """The command that trains on this table: with the options that were given, and what the findings advise."""
    is_known = bool(parameters.name and examined.schema)  # such a name keeps its model and columns
    ignore = (*parameters.ignore, *([] if is_known else _advised_ignores(parameters, examined.report)))
    options = given_options(parameters.model_copy(update={"ignore": ignore}), leave_out={"source", "name"})
    if is_known:
        return shlex.join(["retrain", parameters.name, "--data", parameters.source, *options])
    model = TASKS[examined.schema.task].model if examined.schema else "MODEL"
    options += [] if parameters.target or examined.report.images else ["--target", "COLUMN"]
    name = suggested_name(parameters.source)
    return shlex.join(["retrain", model, "--name", name, "--data", parameters.source, *options])


def _advised_ignores(parameters: InspectParameters, report: "DataReport") -> list[str]:
    """The columns that a warning advises to leave out, unless they were asked for or no other is left."""
    advised = [each.column for each in report.findings if each.rule in LEAVE_OUT and each.column]
    advised = [name for name in dict.fromkeys(advised) if name not in {*parameters.features, *parameters.category}]
    others = {each.name for each in report.columns if each.role == "feature"} - {*advised}
    return advised if others else []


def _show(examined: "Examined[OwnRows | None]", losses: dict[str, float], command: str) -> None:
    console, report = on_output(), examined.report
    print_line(printable(report.summary))
    if report.images:
        _show_images(report, report.images, console)
    else:
        _show_columns(report, console)
    for finding in report.findings:
        if finding.severity != "error":
            print_line(printable(f"{finding.severity}: {finding.sentence}"))
    if losses and examined.schema:
        whose = "the best constant", f"a {'' if report.images else 'converged '}fit"
        told = [f"{readable(loss)} by {each}" for loss, each in zip(losses.values(), whose, strict=False)]
        print_line(f"validation loss ({TASKS[examined.schema.task].loss_unit}): {', '.join(told)}")
    elif examined.schema:
        print_line("validation loss: unknown, since no part of the training rows can stand for the others")
    if not report.errors:
        console.print("\n[bold]train it[/]")
        print_line(printable(command), is_command=True)


def _show_columns(report: "DataReport", console: Console) -> None:
    columns = Table(
        Column("column", overflow="fold"), "role", "kind", "missing", "range or levels", box=None, pad_edge=False
    )
    for column in report.columns:
        missing = f"{100 * column.missing / report.rows:.3g} %" if column.missing else ""
        add_row(columns, column.name, column.role, column.kind, missing, column.content)
    console.print(columns)


def _show_images(report: "DataReport", images: "ImageReport", console: Console) -> None:
    for name, value in images.facts().items():
        print_line(f"{name}: {value}")
    classes = Table("class", "images", box=None, pad_edge=False)
    for name, count in report.classes.items():
        add_row(classes, name, f"{count:,}")
    console.print(classes)
