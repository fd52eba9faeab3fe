"""``gradmill report``: a name's overview as one file, for people without the server; and its page on the server."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import display
from flows.cli.faults import Answer
from flows.cli.options import ModelArgument
from flows.cli.tables import from_here, on_output
from tasks.errors import GradmillError, UsageError
from tasks.machine.words import nearest
from tasks.parameters import is_name
from tasks.store import artifact_paths, atomic, reading, state


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
    from flows.story import overview as story
    from flows.story import overview_page

    path = (output or Path(f"{name}-overview.html")).absolute()
    atomic.write_bytes(path, story.html(facts).encode())
    headline = overview_page.headline(facts)
    shown = from_here(str(path)) if on_output().is_terminal else path
    return {"name": name, "headline": headline, "path": str(path)}, f"{name}: {headline}\n{shown}"


def rewrite(*names: str) -> None:
    """Let the pages of names on the server say what a command has just done, if there is a server."""
    if names and ("PREFECT_API_URL" in os.environ or artifact_paths.service().exists()):
        with suppress(GradmillError), display.compact(verbose=False, stages=False):
            from flows.story import overview as story

            story.publish(*names)
