"""``gradmill show``: a version's page in the browser, and at the terminal how it was learned."""

import math
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import display, pictures
from flows.cli.options import ModelArgument, print_json
from flows.cli.tables import on_output, print_fact
from tasks.machine.words import readable
from tasks.serving import task
from tasks.store import artifact_paths, reading, runs

GRAPHICAL = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # else webbrowser takes the terminal for a browser of text
FIGURES = ("train_loss", "validation_loss", "test_loss", "train_accuracy", "validation_accuracy", "test_accuracy")


def show(
    as_json: bool,
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion].")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Tell the page's path, and open nothing.")] = False,
) -> None:
    """Open the page of the champion, or of a version: its curves, classes, weights, mistakes, gates and lineage.

    The page is one file that needs no server and no network; its path is told. At a terminal the learning curve is
    shown, as a picture where the terminal takes one (Kitty, iTerm2, WezTerm, Ghostty).
    """
    display.wait("looking for the page")
    from flows.story import model_page

    number = reading.resolve(name, version)
    path = model_page.page(name, number)
    display.end()
    wants = not no_browser and os.isatty(1) and _has_desktop()
    is_opened = wants and webbrowser.open(path.absolute().as_uri())
    if as_json:
        print_json({"schema_version": 1, "name": name, "version": number, "path": str(path), "opened": is_opened})
        return
    manifest, champion = reading.manifest(name, number), reading.champion(name)
    standing = ", the champion" if champion and champion.version == number else ""
    quality = task.TASKS[manifest.dataset.task].summary(manifest.metrics.model_dump())
    print_fact("model", f"{name} version {number}{standing}: {quality}")
    _show_curve(name, number, runs.read_learning_curve(manifest.run))
    trained = manifest.trained
    if trained and trained.kept_epoch != trained.num_epochs:
        kept = f"the weights of epoch {trained.kept_epoch} of {trained.num_epochs}"
        print_fact("kept", f"{kept}, whose validation loss was the smallest")
    print_fact("page", str(path))
    if is_opened:
        print_fact("", "opened in the browser")


def _show_curve(name: str, number: int, curve: list[dict[str, Any]]) -> None:
    picture: Path = artifact_paths.version(name, number) / artifact_paths.LEARNING_CURVE
    console = on_output()
    if console.is_terminal and (inline := pictures.protocol(os.environ)) and picture.is_file():
        console.file.write(inline(picture.read_bytes()) + "\n")
        return
    values = {figure: [point[figure] for point in curve if point.get(figure) is not None] for figure in FIGURES}
    shown = {figure: finite for figure in FIGURES if len(finite := list(filter(math.isfinite, values[figure]))) > 1}
    starts = {figure: readable(each[0], 3) for figure, each in shown.items()}
    width, is_ascii = max(map(len, starts.values()), default=0), not console.encoding.startswith("utf")
    for number, (figure, each) in enumerate(shown.items()):
        drawn = f"{starts[figure]:<{width}} {pictures.bars(each, is_ascii=is_ascii)} {readable(each[-1], 3)}"
        print_fact("" if number else "learned", f"{figure.replace('_', ' '):<20}{drawn}")


def _has_desktop() -> bool:
    return sys.platform == "darwin" or any(map(os.environ.get, GRAPHICAL))
