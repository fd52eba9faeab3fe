"""``gradmill schedule`` and ``unschedule``: retrains of an own name by a schedule."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.faults import Answer
from flows.cli.options import ModelArgument
from tasks.errors import UsageError
from tasks.parameters import is_name

if TYPE_CHECKING:
    from flows.server.schedules import Schedule


def schedule(
    name: ModelArgument,
    cron: Annotated[str | None, typer.Option("--cron", help="When, as '0 3 * * *'.")] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="Whose hours these are, as Europe/Berlin \\[default: UTC].")
    ] = None,
    on_drift: Annotated[
        bool | None, typer.Option("--on-drift/--no-on-drift", help="Whenever its predictions or its data drift.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, help="So many of the newest versions maintenance leaves \\[default: 30]."),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Search settings for it, monthly or by --cron: a schedule of its own.")
    ] = False,
) -> Answer:
    """Retrain a kept name by a schedule, on drift, or both, with its champion's model, data and options.

    What is given again is changed, all else stays. It is kept in artifacts/, and gradmill up and register tell each
    server of it. With --tune settings are searched by a schedule: retrains use them if the champion was retrained with
    --tuned when they were scheduled.
    """
    from flows.server.retrains import Retrains

    _require_name(name)
    if tune:
        if on_drift is not None or keep is not None:
            raise UsageError("--on-drift or --keep with --tune", "a time to search at", "schedule retrains apart")
        return _schedule_search(name, cron, timezone)
    added = Retrains.add(name, cron=cron, timezone=timezone, on_drift=on_drift, keep=keep)
    told, document = _tell(added)
    when = [f"at {added.cron!r} ({added.timezone})"] if added.cron else []
    when += ["when it drifts"] if added.on_drift else []
    document |= {"on_drift": added.on_drift, "keep": added.keep}
    return document, f"{name} is retrained {' and '.join(when)} by deployment {added.deployment}: {told}"


def _schedule_search(name: str, cron: str | None, timezone: str | None) -> Answer:
    from flows.server.retrains import Retrains
    from flows.server.searches import Searches

    added = Searches.add(name, cron=cron, timezone=timezone)
    told, document = _tell(added)
    when = f"at {added.cron!r} ({added.timezone}) by deployment {added.deployment}: {told}"
    untuned = [each for each in Retrains.kept() if each.name == name and not each.parameters.get("tuned")]
    hint = f"\nits scheduled retrains take no notice: gradmill retrain {name} --tuned, then gradmill schedule {name}"
    document |= {"retrains_are_tuned": not untuned}
    return document, f"settings are searched for {name} {when}{hint if untuned else ''}"


def _tell(added: "Schedule") -> tuple[str, dict[str, Any]]:
    """Let the server know of it, if there is one; who is told, and what is told of it."""
    from flows.server import registration

    with _server() as there:
        if there:
            added.tell_server(registration.declarations())
    document = added.model_dump(include={"name", "cron", "timezone"})
    document |= {"deployment": added.deployment, "registered": there}
    return "the server knows it" if there else "gradmill up will tell its server", document


def unschedule(
    name: ModelArgument,
    tune: Annotated[bool, typer.Option("--tune", help="Search settings no more; retrains go on.")] = False,
) -> Answer:
    """Retrain a name by its schedule no more; its versions, and what its runs have done, stay."""
    from flows.server.retrains import Retrains
    from flows.server.searches import Searches

    _require_name(name)
    kind: type[Schedule] = Searches if tune else Retrains
    kind.remove(name)
    with _server() as there:
        if there:
            kind.remove_from_server(name)
    done = f"settings are no longer searched for {name}" if tune else f"{name} is no longer retrained by a schedule"
    return {"name": name, "removed_from_server": there}, done


def _require_name(name: str) -> None:
    if not is_name(name):
        raise UsageError(
            f"{name} is no name of a model", "lower-case letters, digits and hyphens", "see gradmill models"
        )


@contextmanager
def _server() -> Iterator[bool]:
    """Talk to the server of PREFECT_API_URL or of ``gradmill up``, if there is one."""
    from prefect.settings import PREFECT_API_URL

    from flows.server import service

    with service.in_use():
        yield bool(PREFECT_API_URL.value())
