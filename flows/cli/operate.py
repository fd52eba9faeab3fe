"""``gradmill up``, ``register``, ``trigger`` and ``status``: scheduled operation."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import Artifacts, Debug, Json, print_json, use
from tasks.errors import UsageError


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server, on 127.0.0.1.")] = 4200,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run server, UI, worker and schedules on this machine until Ctrl-C; joins the server of PREFECT_API_URL if set."""
    use(artifacts)
    typer.echo("starting (the first time takes a minute)", err=True)
    from flows import deployments, operation, registration

    with operation.operation(port) as running:
        idle = deployments.idle(registration.POOL)
        for name, why in idle:
            typer.echo(f"idle        {name}: {why}", err=True)
        ui, upcoming = running.api_url.removesuffix("/api"), deployments.next_runs()
        if as_json:
            following = [{"deployment": name, "at": moment.isoformat()} for moment, name in upcoming]
            waiting = [{"deployment": name, "reason": why} for name, why in idle]
            print_json({"schema_version": 1, "ui": ui, "joined": running.joined, "next": following, "idle": waiting})
            sys.stdout.flush()
        else:
            typer.echo(f"Prefect UI  {ui}{' (joined)' if running.joined else ''}")
            for moment, name in upcoming:
                typer.echo(f"next        {name} at {moment:%Y-%m-%d %H:%M} UTC")
            typer.echo("Ctrl-C ends all of it; gradmill trigger DEPLOYMENT starts a run now")
        operation.wait_for_the_end(running)


def register(artifacts: Artifacts = None, as_json: Json = False, debug: Debug = False) -> None:
    """Tell the server of PREFECT_API_URL of work pool, deployments, GPU limit, automations; again after an upgrade."""
    use(artifacts)
    with _server():
        from flows import registration

        registered = registration.register()
    if as_json:
        print_json({"schema_version": 1, "deployments": registered})
    else:
        typer.echo(f"registered: {', '.join(registered)}")


def trigger(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="softmax-nightly, for example.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", help="KEY=VALUE, as training.lr=0.3; may be given again.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Start a run of a deployment now, on the server of PREFECT_API_URL (gradmill up's: http://127.0.0.1:4200/api)."""
    parameters = _nested(param or [])
    with _server():
        from flows import deployments

        run = deployments.trigger(deployment, parameters)
    if as_json:
        print_json({"schema_version": 1, "deployment": deployment, "run": run})
    else:
        typer.echo(f"{deployment}: run {run} is on its way")


def status(artifacts: Artifacts = None, as_json: Json = False, debug: Debug = False) -> None:
    """Live models, last run of each deployment with its verdict, next runs, stuck runs, workers."""
    use(artifacts)
    with _server():
        from flows.status import status as ask

        found = ask()
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_status(found)


@contextmanager
def _server() -> Iterator[None]:
    """Talk to the server of PREFECT_API_URL, or to the one that ``gradmill up`` starts by default."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.engine import UP_API_URL

    with temporary_settings({PREFECT_API_URL: PREFECT_API_URL.value() or UP_API_URL}):
        yield


def _print_status(found: Any) -> None:
    """A table for each thing, and what to do where something is wrong."""
    console = Console(soft_wrap=True, highlight=False)
    live = Table("live model", "version", "accuracy", "loss", "since", box=None, pad_edge=False)
    for model in found.models:
        accuracy = "" if model.test_accuracy is None else f"{model.test_accuracy:.4f}"
        live.add_row(model.name, str(model.version), accuracy, f"{model.test_loss:.4g}", model.promoted_at[:16])
    runs = Table("deployment", "last run", "state", "verdict", "next run", box=None, pad_edge=False)
    for each in found.deployments:
        due = "paused" if each.paused else _moment(each.next_start)
        runs.add_row(each.name, _moment(each.last_start), each.state or "", each.verdict or "", due)
    console.print(live if found.models else "no live models yet")
    console.print()
    console.print(runs if found.deployments else "no deployments yet: run gradmill up or gradmill register")
    console.print()
    for each in found.deployments:
        if each.message:
            console.print(f"{each.name}: {each.message.splitlines()[0]}", markup=False)
    for run in found.stuck:
        console.print(f"stuck: {run.name} ({run.state}): {run.reason}", markup=False)
    for worker in found.workers:
        console.print(f"worker {worker.name}: {worker.status.lower()}, last seen {_moment(worker.last_heartbeat)}")
    if not any(worker.status == "ONLINE" for worker in found.workers):
        console.print("no worker is online: run gradmill up, or prefect worker start --pool gradmill")


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _nested(assignments: list[str]) -> dict[str, Any]:
    """``training.lr=0.3`` to ``{"training": {"lr": 0.3}}``; values are JSON, or text where they are not."""
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"--param {assignment}", "KEY=VALUE", "see gradmill trigger --help")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *parents, last = key.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UsageError(
                    f"--param {assignment}", f"{parent} as a value or with parts, not both", "leave one out"
                )
        inner[last] = value
    return nested
