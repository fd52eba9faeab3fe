"""``gradmill up``, ``register`` and ``notify``: scheduled operation."""

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from flows.cli import display
from flows.cli.faults import Answer, conclude
from tasks.errors import EnvironmentProblem, UsageError, without_credentials
from tasks.store import artifact_paths, locks, mirroring, reading

NO_SERVER = ("a running server", "run gradmill up, name its folder with --artifacts, or set PREFECT_API_URL")

MIRROR_SECONDS = 300  # between two looks at what the mirror has not got


def up(
    as_json: bool,
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="Of the Prefect server, on 127.0.0.1.")
    ] = 4200,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let every user of this machine start runs as you.")
    ] = False,
) -> None:
    """Run server, UI, worker and schedules on this machine until Ctrl-C; joins the server of PREFECT_API_URL if set."""
    display.wait("starting server and worker (the first time takes a minute)")
    if not display.is_shown():
        typer.echo("starting (the first time takes a minute)", err=True)
    from flows.server import api, deployments, overviews, registration
    from flows.server.up import operation, wait_for_the_end

    mirroring.destination()
    os.environ.pop("GRADMILL_MIRROR", None)  # it is kept: the worker's runs must not name it again after another shell
    with operation(port, not no_auth) as running:
        idle = deployments.list_idle(registration.POOL)
        for name, why in idle:
            typer.echo(f"idle        {name}: {why}", err=True)
        ui, upcoming = without_credentials(running.service.api_url).removesuffix("/api"), deployments.next_runs()
        joined = running.service.joined
        overviews.write_all()
        with api.client() as client:
            pages = api.find_overviews(client, reading.names())
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
            lines += [*_how_to_sign_in(running.service.api_url, running.credential if running.new else None), ""]
        lines += [f"overview    {name}: {page}" for name, page in pages.items()]
        lines += [f"next        {name} at {moment:%Y-%m-%d %H:%M} UTC" for moment, name in upcoming]
        lines.append(
            "Ctrl-C ends every child, and a second up goes on with the same history; "
            "gradmill trigger DEPLOYMENT starts a run now"
        )
        display.end()
        typer.echo("", err=True)  # what one needs stands apart from what went before
        conclude(document, "\n".join(lines), as_json=as_json)
        sys.stdout.flush()
        threading.Thread(target=_keep_the_mirror, daemon=True).start()  # however slow, it keeps nobody waiting
        wait_for_the_end(running)


def _keep_the_mirror() -> None:
    """Copy what is behind, now and every few minutes, and tell what could not be copied, once."""
    told: set[str] = set()
    while True:
        missed = set(mirroring.catch_up())
        for each in sorted(missed - told):
            print(f"mirror      {each}", file=sys.stderr, flush=True)
        told = missed
        time.sleep(MIRROR_SECONDS)


def _how_to_sign_in(api_url: str, new: str | None) -> list[str]:
    """A credential is shown when it is made, and named from then on."""
    kept = artifact_paths.credential()
    if new is None:
        return [f"sign in     with what stands in {kept}: all of it in the page's one field"]
    return [
        f"sign in     {new}  (all of it in the page's one field; shown this once, kept in {kept} for you alone)",
        "prefect     gradmill's commands sign in by themselves; for those of Prefect:",
        f"            export PREFECT_API_URL={api_url}",
        f'            export PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(kept))})"',
    ]


def register(
    reset: Annotated[
        list[str] | None,
        typer.Option("--reset", metavar="DEPLOYMENT", help="Take its defaults; may be given again."),
    ] = None,
) -> Answer:
    """Tell gradmill up's server, or that of PREFECT_API_URL, of pool, deployments, GPU limit, automations."""
    with on_server():
        from flows.server import registration

        registered = registration.register(strictly=True, reset=reset or ())
    return {"deployments": registered}, f"registered: {', '.join(registered)}"


def notify(
    test: Annotated[bool, typer.Option("--test", help="Send one now, and say whether it was accepted.")] = False,
) -> Answer:
    """Say where alerts go and of what; set GRADMILL_NOTIFY=TYPE/NAME and run gradmill register to have some."""
    with on_server():
        from flows.server import alerts, api

        with api.client() as client:
            block, found = alerts.find_receiver(client), alerts.list_alerts(client)
            sent = alerts.send_test(client) if test else None
    told = [{"name": each.name, "on": each.enabled} for each in found]
    if sent:
        text = f"{sent} has accepted a test"
    else:
        lines = [f"alerts go to {block}" if block else f"no alerts: {alerts.MAKE_ONE}"]
        text = "\n".join([*lines, *(f"{'on ' if each['on'] else 'off'} {each['name']}" for each in told)])
    return {"block": block, "accepted": sent is not None if test else None, "alerts": told}, text


@contextmanager
def on_server(is_needed: bool = True) -> Iterator[bool]:
    """Talk to the server of PREFECT_API_URL, or to the one that ``gradmill up`` has for these artifacts.

    Yields whether there is one: without any that is the user's to correct, unless none ``is_needed``.

    Raises:
        EnvironmentProblem: there is none, or it is starting.
    """
    display.wait("asking the server")
    from prefect.settings import PREFECT_API_URL

    from flows.server import connection

    with connection.use_service():
        is_there = bool(PREFECT_API_URL.value())
        if not is_there and locks.is_held(artifact_paths.up_lock()):
            found = f"the gradmill up of {artifact_paths.root()} is starting, or ending"
            raise EnvironmentProblem(found, "a running server", "try again once it says where its UI is")
        if not is_there and is_needed:
            found = f"no gradmill up is at work in {artifact_paths.root()}, and PREFECT_API_URL is not set"
            raise EnvironmentProblem(found, *NO_SERVER)
        try:
            yield is_there
        finally:
            if "prefect.events.worker" in sys.modules:  # a block, for one, tells of its use
                from flows.server import connection

                connection.send_what_is_queued()


def nested(assignments: list[str]) -> dict[str, Any]:
    """``training.lr=0.3`` to ``{"training": {"lr": 0.3}}``; values are JSON, or text where they are not."""
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"--param {assignment}", "KEY=VALUE", "see gradmill trigger --help")
        try:
            value = json.loads(text)
        except RecursionError as error:
            raise UsageError(
                f"--param {key}: {text[:20]}… is nested too deep", "a value", "write it flatter"
            ) from error
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
