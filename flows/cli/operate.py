"""``gradmill up``, ``register``, ``trigger`` and ``status``: scheduled operation."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.faults import Answer, conclude
from flows.cli.options import print_json
from flows.cli.store import CHAMPION
from tasks.errors import EnvironmentProblem, UsageError
from tasks.store import artifact_paths


def up(
    as_json: bool,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server, on 127.0.0.1.")] = 4200,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let every user of this machine start runs as you.")
    ] = False,
) -> None:
    """Run server, UI, worker and schedules on this machine until Ctrl-C; joins the server of PREFECT_API_URL if set."""
    typer.echo("starting (the first time takes a minute)", err=True)
    from flows.server import deployments, operation, registration
    from flows.story import overview

    with operation.operation(port, not no_auth) as running:
        idle = deployments.idle(registration.POOL)
        for name, why in idle:
            typer.echo(f"idle        {name}: {why}", err=True)
        ui, upcoming = running.service.api_url.removesuffix("/api"), deployments.next_runs()
        joined, pages = running.service.joined, overview.publish_all()
        document = {
            "ui": ui,
            "joined": joined,
            "credential": str(artifact_paths.credential()) if running.credential else None,
            "overviews": pages,
            "next": [{"deployment": name, "at": moment.isoformat()} for moment, name in upcoming],
            "idle": [{"deployment": name, "reason": why} for name, why in idle],
        }
        lines = [f"Prefect UI  {ui}{' (joined)' if joined else ''}"]
        if running.credential:
            lines += _how_to_sign_in(running.service.api_url, running.credential if running.new else None)
        lines += [f"overview    {name}: {page}" for name, page in pages.items()]
        lines += [f"next        {name} at {moment:%Y-%m-%d %H:%M} UTC" for moment, name in upcoming]
        lines.append(
            "Ctrl-C ends every child, and a second up goes on with the same history; "
            "gradmill trigger DEPLOYMENT starts a run now"
        )
        conclude(document, "\n".join(lines), as_json=as_json)
        sys.stdout.flush()
        operation.wait_for_the_end(running)


def _how_to_sign_in(api_url: str, new: str | None) -> list[str]:
    """A credential is shown when it is made, and named from then on."""
    kept = artifact_paths.credential()
    if new is None:
        return [f"sign in     with what stands in {kept}"]
    return [
        f"sign in     {new}  (shown this once; kept in {kept}, for you alone)",
        "prefect     gradmill's commands sign in by themselves; for those of Prefect:",
        f'            export PREFECT_API_URL={api_url} PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(kept))})"',
    ]


def register() -> Answer:
    """Tell gradmill up's server, or that of PREFECT_API_URL, of pool, deployments, GPU limit, automations."""
    with on_server():
        from flows.server import registration

        registered = registration.register()
    return {"deployments": registered}, f"registered: {', '.join(registered)}"


def trigger(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="softmax-nightly, for example.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", help="KEY=VALUE, as training.lr=0.3; may be given again.")
    ] = None,
) -> Answer:
    """Start a run of a deployment now, on the server of gradmill up or of PREFECT_API_URL."""
    parameters = nested(param or [])
    with on_server():
        from flows.server import deployments

        run = deployments.trigger(deployment, parameters)
    return {"deployment": deployment, "run": run}, f"{deployment}: run {run} is on its way"


def status(as_json: bool) -> None:
    """Live models, last run of each deployment with its verdict, next runs, stuck runs, workers."""
    with on_server():
        from flows.server.status import status as ask

        found = ask()
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_status(found)


@contextmanager
def on_server() -> Iterator[None]:
    """Talk to the server of PREFECT_API_URL, or to the one that ``gradmill up`` has for these artifacts.

    Raises:
        EnvironmentProblem: there is none, it does not answer, or wants other credentials.
    """
    from prefect.settings import PREFECT_API_URL

    from flows.server import service

    with service.in_use():
        if not PREFECT_API_URL.value():
            raise EnvironmentProblem(
                f"no gradmill up is at work in {artifact_paths.root()}, and PREFECT_API_URL is not set",
                "a running server",
                "run gradmill up, name its folder with --artifacts, or set PREFECT_API_URL",
            )
        yield


def _print_status(found: Any) -> None:
    """A table for each thing, and what to do where something is wrong."""
    console = Console(soft_wrap=True, highlight=False)
    champions = Table("champion of", "version", "accuracy", "loss", "since", box=None, pad_edge=False)
    for model in found.models:
        accuracy = "" if model.test_accuracy is None else f"{model.test_accuracy:.4f}"
        champions.add_row(model.name, str(model.version), accuracy, f"{model.test_loss:.4g}", model.promoted_at[:16])
    runs = Table("deployment", "last run", "state", "verdict", "next run", box=None, pad_edge=False)
    for each in found.deployments:
        starts = filter(None, [_moment(each.next_start), "on drift" if each.on_drift else ""])
        due = "paused" if each.paused else ", ".join(starts)
        runs.add_row(each.name, _moment(each.last_start), each.state or "", each.verdict or "", due)
    console.print(champions if found.models else "no champion yet: run gradmill retrain")
    if found.models:
        console.print(f"a champion is {CHAMPION}")
    for model in found.models:
        if model.frozen:
            console.print(f"{model.name} is frozen: no retrain changes it until gradmill unfreeze {model.name}")
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
    if found.pool_paused:
        console.print("the work pool gradmill is paused: no run begins until somebody resumes it")
    if not any(worker.status == "ONLINE" for worker in found.workers):
        console.print("no worker is online: run gradmill up, or prefect worker start --pool gradmill")


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def nested(assignments: list[str]) -> dict[str, Any]:
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
