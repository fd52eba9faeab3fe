"""``gradmill skip``, ``pause`` and ``resume``: the next run left out, or every one until further notice."""

from typing import TYPE_CHECKING

from flows.cli.faults import Answer
from flows.cli.operate import on_server
from flows.cli.schedule import Argument, reach, who_knows, words

if TYPE_CHECKING:
    from flows.server.declared import Declared


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
    wanted, told = _set(name, paused=True)
    document = {"deployment": wanted.name, "paused": True}
    return document, f"{wanted.name} is paused until gradmill resume {wanted.name}: {told}"


def resume(name: Argument) -> Answer:
    """Let the schedule of a paused deployment start runs again."""
    from flows.server import changes

    wanted, told = _set(name, paused=False)
    times = changes.times(wanted)
    document = {"deployment": wanted.name, "paused": False, "schedules": times}
    if not times:
        hint = f"gradmill schedule {wanted.name} --cron sets one"
        return document, f"{wanted.name} is paused no longer, but no schedule of it is on: {told}\n{hint}"
    return document, f"{wanted.name} runs {words(times)} again: {told}"


def _set(name: str, paused: bool) -> "tuple[Declared, str]":
    from flows.server import changes

    wanted = changes.named(name)
    with reach() as there:
        changes.change(wanted, there, paused=paused)
    return wanted, who_knows(there)
