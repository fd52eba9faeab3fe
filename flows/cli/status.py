"""``gradmill status``: what the person on duty wants to know first."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flows.cli.faults import conclude
from flows.cli.operate import on_server
from flows.cli.store import CHAMPION
from flows.cli.tables import WIDE
from tasks.errors import EnvironmentProblem

if TYPE_CHECKING:
    from flows.server.status_document import Deployment, Status


def status(
    as_json: bool,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when something needs a person.")] = False,
) -> None:
    """Live models, last run of each deployment with its verdict, next runs, stuck runs, workers, alerts, disk.

    The models are shown without a server, too.
    """
    from flows.server import status as asked

    fault = None
    try:
        with on_server():
            found = asked.status()
    except EnvironmentProblem as error:
        found, fault = asked.of_store(), error
    if not as_json:
        _print(found)
    conclude(found.model_dump(mode="json"), None, fault, as_json=as_json)
    if check and found.attention:
        raise typer.Exit(EnvironmentProblem.exit_code)


def _print(found: "Status") -> None:
    """A table for each thing, and what to do where something is wrong."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    _print_models(console, found)
    console.print(f"artifacts  {found.artifacts}, {found.free / 2**30:.1f} GiB free ({found.free / found.total:.0%})")
    if found.api_url is not None:
        _print_server(console, found)
    for each in found.attention:
        console.print(f"! {each}")


def _print_models(console: Console, found: "Status") -> None:
    champions = Table(
        Column("champion of", overflow="fold"), "version", "accuracy", "loss", "since", box=None, pad_edge=False
    )
    for model in found.models:
        accuracy = "" if model.test_accuracy is None else f"{model.test_accuracy:.4f}"
        champions.add_row(model.name, str(model.version), accuracy, f"{model.test_loss:.4g}", model.promoted_at[:16])
    console.print(champions if found.models else "no champion yet: run gradmill retrain")
    if found.models:
        console.print(f"a champion is {CHAMPION}")
    for model in found.models:
        if model.frozen:
            console.print(f"{model.name} is frozen: no retrain changes it until gradmill unfreeze {model.name}")
    console.print()


def _print_server(console: Console, found: "Status") -> None:
    console.print(f"server     {found.api_url}; every time here is {found.timezone}")
    console.print(f"alerts     {found.alerts or 'none: see gradmill notify'}")
    for worker in found.workers:
        seen = f"{worker.last_heartbeat:%Y-%m-%d %H:%M}" if worker.last_heartbeat else "never"
        console.print(f"worker     {worker.name}: {worker.status.lower()}, last seen {seen}")
    for model in found.models:
        if model.overview:
            console.print(f"overview   {model.name}: {model.overview}")
    runs = Table(
        Column("deployment", overflow="fold"), "last run", "state", "last verdict", "next run", box=None, pad_edge=False
    )
    for each in found.deployments:
        runs.add_row(each.name, _moment(each.last_start), each.state or "", _verdict(each), _due(each))
    console.print()
    console.print(runs if found.deployments else "no deployments yet: run gradmill up or gradmill register")
    console.print()
    for each in found.deployments:
        if each.judged and each.judged.message and not each.ended_badly:
            console.print(f"{each.name}: {each.judged.verdict}: {each.judged.message.splitlines()[0]}")
        elif each.message and not each.ended_badly:
            console.print(f"{each.name}: {each.message.splitlines()[0]}")
    for run in found.queued:
        console.print(f"queued: {run.name}: {run.reason}")


def _verdict(of: "Deployment") -> str:
    """With its day where a newer run was not judged."""
    if of.judged is None:
        return of.verdict or ""
    same = of.judged.run == of.last_run or of.judged.start is None
    return of.judged.verdict if same else f"{of.judged.verdict} {of.judged.start:%m-%d}"


def _due(of: "Deployment") -> str:
    starts = filter(None, [_moment(of.next_start), "on drift" if of.on_drift else ""])
    return "paused" if of.paused else ", ".join(starts)


def _moment(moment: datetime | None) -> str:
    """Without the year, which nobody needs to be told, so that a row fits 80 characters."""
    return f"{moment:%m-%d %H:%M}" if moment else ""
