"""``gradmill schedule`` and ``unschedule``: retrains of an own name; time and parameters of a deployment for good."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.cli import board
from flows.cli.faults import Answer
from flows.cli.operate import nested
from tasks.errors import UsageError
from tasks.parameters import is_name

if TYPE_CHECKING:
    from flows.server.declared import Declared
    from flows.server.schedules import Schedule

Kind = TypeVar("Kind", bound="Schedule")
Argument = Annotated[str, typer.Argument(metavar="NAME|DEPLOYMENT", help="A model, for its retrains, or a deployment.")]


def schedule(
    name: Argument,
    cron: Annotated[str | None, typer.Option("--cron", metavar="CRON", help="When, as '0 3 * * *'.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option("--timezone", metavar="ZONE", help="Whose hours these are, as Europe/Berlin \\[default: UTC]."),
    ] = None,
    on_drift: Annotated[
        bool | None, typer.Option("--on-drift/--no-on-drift", help="Whenever its predictions or its data drift.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="How many of the newest versions stay \\[default: 30]."),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Search settings for it, monthly or by --cron: a schedule of its own.")
    ] = False,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="Of a deployment, as training.lr=0.3; may be given again."),
    ] = None,
) -> Answer:
    """Retrain a kept name by a schedule, on drift, or both, with its champion's model, data and options.

    What is given again is changed, all else stays. It is kept in artifacts/, and gradmill up and register tell each
    server of it. With --tune settings are searched by a schedule: retrains use them if the champion was retrained with
    --tuned when they were scheduled.

    Or change a deployment's time and parameters for good: gradmill schedule predict-daily --param input=/data/today.
    What gradmill up, an upgrade or another server would set is then left; gradmill unschedule predict-daily ends it.
    """
    from flows.server.retrains import Retrains

    _require_name(name)
    of_retrains = on_drift is not None or keep is not None
    if not tune and (wanted := _deployment(name)):
        if of_retrains:
            found = f"--on-drift or --keep of deployment {wanted.name}"
            raise UsageError(found, "--cron, --timezone or --param", "leave it out")
        return _change(wanted, cron, timezone, param)
    if param:
        hint = f"schedule retrain-{name} --param" if Retrains.path(name).exists() else f"schedule {name} --cron first"
        raise UsageError(f"--param, and {name} is no deployment", "a deployment", hint)
    if tune:
        if of_retrains:
            raise UsageError("--on-drift or --keep with --tune", "a time to search at", "schedule retrains apart")
        return _schedule_search(name, cron, timezone)
    added, told, document = _add(Retrains, name, cron=cron, timezone=timezone, on_drift=on_drift, keep=keep)
    document |= {"on_drift": added.on_drift, "keep": added.keep}
    return document, f"{name} is retrained {_when(added, added.on_drift)}: {told}"


def _schedule_search(name: str, cron: str | None, timezone: str | None) -> Answer:
    from flows.server.retrains import Retrains
    from flows.server.searches import Searches

    added, told, document = _add(Searches, name, cron=cron, timezone=timezone)
    untuned = [each for each in Retrains.kept() if each.name == name and not each.parameters.get("tuned")]
    hint = f"\nits scheduled retrains take no notice: gradmill retrain {name} --tuned, then gradmill schedule {name}"
    document |= {"retrains_are_tuned": not untuned}
    return document, f"settings are searched for {name} {_when(added)}: {told}{hint if untuned else ''}"


def _add(kind: "type[Kind]", name: str, **given: Any) -> "tuple[Kind, str, dict[str, Any]]":
    """Keep a schedule and let the server know of it, if there is one; who knows, and what is told of it."""
    from flows.server import registration

    with reach() as there:
        if there:
            kind.keep_what_is_set(name, registration.declarations())
        added = kind.add(name, **given)
        if there:
            added.tell_server(registration.declarations())
    document = added.model_dump(include={"name", "cron", "timezone"})
    return added, who_knows(there, starts_runs=True), document | {"deployment": added.deployment, "registered": there}


def _when(added: "Schedule", on_drift: bool = False) -> str:
    """When a schedule starts runs, as it is set by now: somebody may have switched it off, or paused it."""
    from flows.server import changes

    wanted = changes.named(added.deployment)
    times = changes.times(wanted)
    when = [words(times)] if times or not on_drift else []
    when += ["when it drifts"] if on_drift else []
    paused = f", which is paused until gradmill resume {wanted.name}" if changes.items(wanted)["paused"] else ""
    return f"{' and '.join(when)} by deployment {wanted.name}{paused}"


def words(times: list[dict[str, Any]]) -> str:
    """The times of schedules."""
    return ", ".join(f"at {each.get('cron', each)!r} ({each.get('timezone')})" for each in times) or "at no time"


def _deployment(name: str) -> "Declared | None":
    """The deployment that this is the name of, or that retrains this model; None for a schedule of an own name."""
    from flows.server import changes
    from flows.server.retrains import Retrains

    return changes.named(name) if not Retrains.path(name).exists() and changes.is_named(name) else None


def _change(wanted: "Declared", cron: str | None, timezone: str | None, param: list[str] | None) -> Answer:
    from flows.server import changes

    if not (cron or timezone or param):
        raise UsageError(f"nothing to change of {wanted.name}", "--cron, --timezone or --param", "give one")
    with reach() as there:
        items = changes.change(wanted, there, cron, timezone, nested(param or []))
    times, paused = changes.times(wanted), items["paused"]
    parameters = items["parameters"].get("parameters", {})
    document = {"deployment": wanted.name, "schedules": times, "parameters": parameters}
    runs = f"is paused; after gradmill resume {wanted.name} it runs" if paused else "runs"
    told = f"{wanted.name} {runs} {words(times)} with {json.dumps(parameters)}: {who_knows(there, True)}"
    return document | {"paused": paused, "registered": there}, told


def unschedule(
    name: Argument,
    tune: Annotated[bool, typer.Option("--tune", help="Search settings no more; retrains go on.")] = False,
) -> Answer:
    """Retrain a name by its schedule no more; its versions, and what its runs have done, stay.

    Or forget what was set of a deployment: it is again as prefect.yaml declares it, but for schedules added in the UI.
    """
    from flows.server import changes
    from flows.server.retrains import Retrains
    from flows.server.searches import Searches

    _require_name(name)
    searched = {each.deployment: each.name for each in Searches.kept()}
    if name in searched and not Retrains.path(name).exists():  # its deployment is nothing but a schedule
        name, tune = searched[name], True
    if not tune and (wanted := _deployment(name)):
        with reach() as there:
            added = changes.forget(wanted, there)
        document = {"deployment": wanted.name, "registered": there, "added": added}
        stays = f"\nwhat was added in the UI stays, {words(added)}: delete it there" if added else ""
        return document, f"{wanted.name} is as declared again: {who_knows(there)}{stays}"
    also = f"gradmill unschedule {name} --tune" if name in searched.values() and not tune else ""
    kind: type[Schedule] = Searches if tune else Retrains
    if also and not Retrains.path(name).exists():
        raise UsageError(f"no schedule of {name}, but one that searches settings for it", "--tune", also)
    kind.remove(name)
    with reach() as there:
        if there:
            kind.remove_from_server(name)
    done = f"settings are no longer searched for {name}" if tune else f"{name} is no longer retrained by a schedule"
    hint = f"\nsettings are searched for it as before: {also} ends that" if also else ""
    told = "the server knows it" if there else "no server is running, and the next gradmill up starts without it"
    return {"name": name, "removed_from_server": there}, f"{done}: {told}{hint}"


def _require_name(name: str) -> None:
    if not is_name(name):
        raise UsageError(
            f"{name} is no name of a model", "lower-case letters a to z, digits and hyphens", "see gradmill models"
        )


def who_knows(there: bool, starts_runs: bool = False) -> str:
    """Of what is kept in artifacts/, in words; of what ``starts_runs`` also that none begins without a server."""
    alone = "gradmill up will tell its server" + ", which starts its runs: none begins before" * starts_runs
    return "the server knows it" if there else alone


@contextmanager
def reach() -> Iterator[bool]:
    """Talk to the server of PREFECT_API_URL or of ``gradmill up``, if there is one."""
    board.wait("telling the server, if there is one")
    from prefect.settings import PREFECT_API_URL

    from flows.server import service

    with service.in_use():
        yield bool(PREFECT_API_URL.value())
