"""``gradmill status``: what the person on duty wants to know first."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli import display
from flows.cli.faults import conclude
from flows.cli.operate import on_server
from flows.cli.store import CHAMPION, tell_faults
from flows.cli.tables import TEST_FIGURES, add_row, figures_of_test, print_fact, print_line, print_table
from tasks.errors import EnvironmentProblem, GradmillError
from tasks.store import state

if TYPE_CHECKING:
    from flows.server.status import Deployment, Status


def status(
    as_json: bool,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when something needs a person.")] = False,
) -> None:
    """Live models, last run of each deployment with its verdict, next runs, stuck runs, workers, alerts, disk.

    The models are shown without a server, too.
    """
    from flows.server import status as server_status

    stored = state.read()
    failure: GradmillError | None = None
    try:
        with on_server():
            found = server_status.describe(stored)
    except EnvironmentProblem as error:
        found, failure = server_status.describe_store(stored), error
    display.end()
    if not as_json:
        _print(found, any(fault.kind == "champion" for fault in stored.faults))
    damaged = [fault for fault in stored.faults if fault.kind in ("champion", "version")][:1]  # attention has all
    failure = failure or tell_faults(damaged, "champion", "version")
    conclude(found.model_dump(mode="json"), None, failure, as_json=as_json)
    if check and found.attention:
        raise typer.Exit(EnvironmentProblem.exit_code)


def _print(found: "Status", is_damaged: bool = False) -> None:
    """A table for each thing, and what to do where something is wrong."""
    if found.models:
        _print_models(found)
    elif not is_damaged:  # else there is a champion of which nothing can be told
        print_line("no champion yet: run gradmill retrain\n")
    print_fact("artifacts", f"{found.artifacts}, {found.free / 2**30:.1f} GiB free ({found.free / found.total:.0%})")
    if found.api_url is not None:
        _print_server(found)
    for each in found.attention:
        print_line(f"! {each}")


def _print_models(found: "Status") -> None:
    champions = Table("champion of", "version", *TEST_FIGURES, "since", box=None, pad_edge=False)
    for model in found.models:
        figures = figures_of_test(model.test_accuracy, model.test_loss)
        add_row(champions, model.name, str(model.version), *figures, model.promoted_at[:16])
    print_table(champions, ("log loss",))
    print_line(f"a champion is {CHAMPION}")
    for model in found.models:
        if model.frozen:
            print_line(f"{model.name} is frozen: no retrain changes it until gradmill unfreeze {model.name}")
        for number in model.held:
            print_line(f"{model.name} version {number} is held until gradmill promote {model.name} {number}")
    print_line("")


def _print_server(found: "Status") -> None:
    print_fact("server", f"{found.api_url}; every time here is {found.timezone}")
    print_fact("alerts", found.alerts or "none: see gradmill notify")
    for worker in found.workers:
        seen = f", last seen {worker.last_heartbeat:%Y-%m-%d %H:%M}" if worker.last_heartbeat else ""
        print_fact("worker", f"{worker.name}: {worker.status.lower()}{seen}")
    for model in found.models:
        if model.overview:
            print_fact("overview", f"{model.name}: {model.overview}")
    print_line("")
    if found.deployments:
        runs = Table("deployment", "last run", "state", "last verdict", "next run", box=None, pad_edge=False)
        for each in found.deployments:
            cells = (each.name, _moment(each.last_start), each.state or "", _verdict(each), _due(each))
            add_row(runs, *cells)
        print_table(runs)
    else:
        print_line("no deployments yet: run gradmill up or gradmill register")
    print_line("")
    for each in found.deployments:
        if each.judged and each.judged.message and not each.ended_badly:
            print_line(f"{each.name}: {each.judged.verdict}: {each.judged.message.splitlines()[0]}")
        elif each.message and not each.ended_badly:
            print_line(f"{each.name}: {each.message.splitlines()[0]}")
    for run in found.queued:
        print_line(f"queued: {run.name}: {run.reason}")


def _verdict(of: "Deployment") -> str:
    """That of the last run; one that has none, such as a run that crashed, leaves the one before, with its day."""
    if of.verdict or of.judged is None:
        return of.verdict or ""
    return f"{of.judged.verdict} {of.judged.start:%m-%d}" if of.judged.start else of.judged.verdict


def _due(of: "Deployment") -> str:
    starts = filter(None, [_moment(of.next_start), "on drift" if of.on_drift else ""])
    return "paused" if of.paused else ", ".join(starts)


def _moment(moment: datetime | None) -> str:
    """Without the year, which nobody needs to be told, so that a row fits 80 characters."""
    return f"{moment:%m-%d %H:%M}" if moment else ""
