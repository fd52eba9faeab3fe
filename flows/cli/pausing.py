"""``gradmill skip``, ``pause`` and ``resume``: the next run left out, or every one until further notice."""

from typing import Annotated

import typer

from flows.cli.faults import Answer
from flows.cli.operate import on_server
from flows.cli.schedule import reach, who_knows

Argument = Annotated[str, typer.Argument(metavar="NAME|DEPLOYMENT", help="A model, for its retrains, or a deployment.")]


def skip(name: Argument) -> Answer:
    """Leave out the next run of a deployment by its schedule; the others run as planned."""
    with on_server():
        from flows.server import changes, skipping

        deployment = changes.named(name).name
        due, later = skipping.skip(deployment)
    then = f"the next is at {later:%Y-%m-%d %H:%M} UTC" if later else "no other is planned"
    document = {"deployment": deployment, "skipped": due.isoformat(), "next": later.isoformat() if later else None}
    return document, f"{deployment}: the run at {due:%Y-%m-%d %H:%M} UTC is left out; {then}"


def pause(name: Argument) -> Answer:
    """Start no run of a deployment by its schedule until gradmill resume; trigger still does."""
    deployment, told = _set(name, paused=True)
    document = {"deployment": deployment, "paused": True}
    return document, f"{deployment} is paused until gradmill resume {deployment}: {told}"


def resume(name: Argument) -> Answer:
    """Let the schedule of a paused deployment start runs again."""
    deployment, told = _set(name, paused=False)
    return {"deployment": deployment, "paused": False}, f"{deployment} runs as scheduled again: {told}"


def _set(name: str, paused: bool) -> tuple[str, str]:
    from flows.server import changes

    wanted = changes.named(name)
    with reach() as there:
        changes.change(wanted, there, paused=paused)
    return wanted.name, who_knows(there)
