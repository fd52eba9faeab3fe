"""``gradmill inspect``: what own data are like before anything is trained."""

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from flows.cli import board
from flows.cli.faults import conclude
from flows.cli.options import as_typed
from flows.cli.parameters import given_options, taking, validated
from flows.cli.sources import place, suggested_name
from flows.cli.tables import add_row, on_output, print_line
from tasks.data.report import UnfitData
from tasks.errors import UsageError
from tasks.machine.words import printable, readable
from tasks.parameters import InspectParameters
from tasks.parameters.uses import TABLES
from tasks.serving.task import TASKS

if TYPE_CHECKING:
    from tasks.data.images.examining import Examined as ImagesExamined
    from tasks.data.images.reading import Images
    from tasks.data.report import DataReport, ImageReport
    from tasks.data.table.examining import Examined


@taking(InspectParameters)
def inspect(document: dict[str, Any], as_json: bool) -> None:
    """Show columns or images, their problems, their split and how well they can be learned; nothing is trained.

    It ends with the retrain command to copy. Problems that stop a retrain are exit code 4.
    """
    parameters = validated(InspectParameters, document | {"source": place(document.get("source"))}, "inspect")
    board.wait("reading the data")
    with tempfile.TemporaryDirectory(prefix="gradmill-") as folder:
        examined, images = _examined(parameters, Path(folder))
        losses = _outlook(examined, images, parameters, Path(folder))
    board.end()
    command, report = as_typed(_command(parameters, examined), None), examined.report
    if not as_json:
        _show(examined, losses, command)
    failure = UnfitData(report.errors) if report.errors else None
    conclude(report.model_dump(mode="json") | losses | {"command": command}, None, failure, as_json=as_json)


def _examined(parameters: InspectParameters, folder: Path) -> "tuple[Examined | ImagesExamined, Images | None]":
    from tasks.data.images import finding
    from tasks.data.images import own as images
    from tasks.data.images.fixed import FixedImages
    from tasks.data.sources import tables
    from tasks.data.table import examining, own
    from tasks.store import own_data

    kept, name = None, parameters.name or Path(parameters.source).stem
    if parameters.name and (kept := own_data.fixed(parameters.name)) and parameters.target is None:
        parameters = parameters.model_copy(update={"target": kept.target})
    champion = own_data.of_champion(parameters.name)
    if kept is None and parameters.target is None and finding.is_meant(parameters.source):
        if found := parameters.given(TABLES):
            raise UsageError(f"{found} and images", "options of images", "leave them out, or name a table")
        return images.look(finding.find(parameters.source), name, parameters, None, folder)
    if isinstance(kept, FixedImages):
        return images.look(finding.find(parameters.source), name, parameters, kept, folder, champion)
    task = kept.task if kept else None
    table = own.read(tables.find(parameters.source), parameters, task, kept, folder)
    return examining.examine(table, name, parameters, task, kept, folder, champion), None


def _outlook(
    examined: "Examined | ImagesExamined", images: "Images | None", parameters: InspectParameters, scratch: Path
) -> dict[str, float]:
    """What the best constant and the converged fit come to; nothing of data that are not fit."""
    from tasks.data.table.examining import Examined
    from tasks.judging import outlook

    if examined.recipe is None or examined.rows is None:
        return {}
    if parameters.class_weight != "none" and not examined.recipe.class_names:
        raise UsageError(
            f"--class-weight {parameters.class_weight} and a regression", "classes to balance", "leave it out"
        )
    given = parameters.weight_decay
    asked = parameters.class_weight, given if isinstance(given, float) else None  # auto is chosen in training
    if isinstance(examined, Examined):
        return outlook.losses(examined.recipe, examined.rows, scratch, *asked)
    return outlook.of_images(examined.recipe, examined.rows, images, scratch, *asked) if images else {}


def _command(parameters: InspectParameters, examined: "Examined | ImagesExamined") -> str:
    """The command that trains on this table, with the options that were given here."""
    options = given_options(parameters, leave_out={"source", "name"})
    if parameters.name and examined.recipe:
        return shlex.join(["retrain", parameters.name, "--data", parameters.source, *options])
    model = TASKS[examined.recipe.task].model if examined.recipe else "MODEL"
    options += [] if parameters.target or examined.report.images else ["--target", "COLUMN"]
    name = suggested_name(parameters.source)
    return shlex.join(["retrain", model, "--name", name, "--data", parameters.source, *options])


def _show(examined: "Examined | ImagesExamined", losses: dict[str, float], command: str) -> None:
    console, report = on_output(), examined.report
    print_line(printable(report.summary))
    if report.images:
        _show_images(report, report.images, console)
    else:
        _show_columns(report, console)
    for finding in report.findings:
        if finding.severity != "error":
            print_line(printable(f"{finding.severity}: {finding.sentence}"))
    if losses and examined.recipe:
        whose = "the best constant", f"a {'' if report.images else 'converged '}fit"
        told = [f"{readable(loss)} by {each}" for loss, each in zip(losses.values(), whose, strict=False)]
        print_line(f"test loss ({TASKS[examined.recipe.task].loss_unit}): {', '.join(told)}")
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
