"""``gradmill show`` and ``report``: a version's page and a name's overview as files, for people without the server."""

import math
import os
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import display
from flows.cli.faults import Answer
from flows.cli.options import ModelArgument, print_json
from flows.cli.tables import from_here, on_output, print_fact
from tasks.errors import GradmillError, UsageError
from tasks.machine.words import nearest, readable
from tasks.parameters import is_name
from tasks.serving import task
from tasks.store import artifact_paths, atomic, reading, run_folder, state

GRAPHICAL = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # else webbrowser takes the terminal for a browser of text
FIGURES = ("train_loss", "validation_loss", "test_loss", "train_accuracy", "validation_accuracy", "test_accuracy")
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#@"
MOST_BARS = 30  # a line has 80 columns
LOGARITHMIC = 20.0  # from this ratio on, as of losses that fall by powers of ten


def show(
    as_json: bool,
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion].")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Tell the page's path, and open nothing.")] = False,
) -> None:
    """Open the page of the champion, or of a version: its curves, classes, weights, mistakes, gates and lineage.

    The page is one file that needs no server and no network; its path and the learning curve are shown here.
    """
    display.wait("looking for the page")
    from tasks.store import version_page

    number = reading.resolve(name, version)
    path = version_page.find_html(name, number)
    display.end()
    has_desktop = sys.platform == "darwin" or any(map(os.environ.get, GRAPHICAL))
    wants = not no_browser and os.isatty(1) and has_desktop
    is_opened = wants and webbrowser.open(path.absolute().as_uri())
    if as_json:
        print_json({"schema_version": 1, "name": name, "version": number, "path": str(path), "opened": is_opened})
        return
    manifest, champion = reading.manifest(name, number), reading.champion(name)
    standing = ", the champion" if champion and champion.version == number else ""
    quality = task.TASKS[manifest.dataset.task].summary(manifest.metrics.model_dump())
    print_fact("model", f"{name} version {number}{standing}: {quality}")
    _print_curve(run_folder.read_learning_curve(manifest.run))
    if (trained := manifest.trained) and trained.kept_epoch != trained.num_epochs:
        kept = f"the weights of epoch {trained.kept_epoch} of {trained.num_epochs}"
        print_fact("kept", f"{kept}, whose validation loss was the smallest")
    print_fact("page", str(path))
    if is_opened:
        print_fact("", "opened in the browser")


def report(
    name: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="The file \\[default: NAME-overview.html].")
    ] = None,
) -> Answer:
    """Write what is live and how it has developed into one HTML file that needs no other and no server."""
    facts = state.read_name(name) if is_name(name) else None
    if facts is None or not facts.is_known:
        known = reading.names()
        to_do = nearest(name, known, "name one of these, or train one: gradmill retrain")
        raise UsageError(f"nothing is known of {name}", f"one of: {', '.join(known) or 'none yet'}", to_do)
    display.wait("drawing how it has developed")
    from flows.pages.overview import draw_overview, headline
    from tasks.store.page import render_html

    path = (output or Path(f"{name}-overview.html")).absolute()
    atomic.write_bytes(path, render_html(draw_overview(facts)).encode())
    shown, told = from_here(str(path)) if on_output().is_terminal else path, headline(facts)
    return {"name": name, "headline": told, "path": str(path)}, f"{name}: {told}\n{shown}"


def update_overviews(*names: str) -> None:
    """Let the pages of names on the server say what a command has just done, if there is a server."""
    if names and (os.environ.get("PREFECT_API_URL") or artifact_paths.service().exists()):
        with suppress(GradmillError), display.compact(verbose=False, stages=False):
            from flows.server import overviews

            overviews.publish(*names)


def draw_bars(values: Sequence[float], is_ascii: bool = False) -> str:
    """A bar for each value, or for as many as there is room for; the smallest is lowest."""
    every = math.ceil(len(values) / MOST_BARS)
    shown = [*values[:-1:every], values[-1]]
    if min(shown) > 0 and max(shown) / min(shown) > LOGARITHMIC:
        shown = [math.log(value) for value in shown]
    low, height = min(shown), max(shown) - min(shown)
    letters = ASCII if is_ascii else BLOCKS
    return "".join(letters[round((value - low) / height * (len(letters) - 1)) if height else 0] for value in shown)


def _print_curve(curve: list[dict[str, Any]]) -> None:
    label, is_ascii = "learned", not on_output().encoding.startswith("utf")
    for figure in FIGURES:
        values = [point[figure] for point in curve if point.get(figure) is not None and math.isfinite(point[figure])]
        if len(values) > 1:
            first, last = readable(values[0], 3), readable(values[-1], 3)
            print_fact(label, f"{figure.replace('_', ' '):<20}{first:<7} {draw_bars(values, is_ascii)} {last}")
            label = ""
