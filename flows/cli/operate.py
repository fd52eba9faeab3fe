"""``gradmill up`` and ``gradmill trigger``: scheduled operation."""

import json
from typing import Annotated, Any

import typer

from flows.cli.options import Artifacts, Debug, Json, print_json, use
from tasks.errors import EnvironmentProblem, UsageError


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server, on 127.0.0.1.")] = 4200,
    artifacts: Artifacts = None,
    debug: Debug = False,
) -> None:
    """Run server, UI, worker and schedules on this machine until Ctrl-C; joins the server of PREFECT_API_URL if set."""
    use(artifacts)
    typer.echo("starting (the first time takes a minute)", err=True)
    from flows import operation

    with operation.operation(port) as running:
        typer.echo(f"Prefect UI  {running.api_url.removesuffix('/api')}{' (joined)' if running.joined else ''}")
        for moment, name in operation.next_runs():
            typer.echo(f"next        {name} at {moment:%Y-%m-%d %H:%M} UTC")
        typer.echo("Ctrl-C ends all of it; gradmill trigger DEPLOYMENT starts a run now")
        operation.wait_for_the_end(running)


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
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import operation

    api_url = PREFECT_API_URL.value() or "http://127.0.0.1:4200/api"
    with temporary_settings({PREFECT_API_URL: api_url}):
        try:
            run = operation.trigger(deployment, parameters)
        except OSError as error:
            raise EnvironmentProblem(
                f"no Prefect server answers at {api_url}", "a running server", "run gradmill up, or set PREFECT_API_URL"
            ) from error
    if as_json:
        print_json({"schema_version": 1, "deployment": deployment, "run": run})
    else:
        typer.echo(f"{deployment}: run {run} is on its way")


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
        inner[last] = value
    return nested
