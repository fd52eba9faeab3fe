"""``gradmill up``, ``register``, ``trigger``, ``status``, ``metrics`` and ``doctor``."""

import functools
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from flows import interrupt
from flows.cli import display
from flows.cli.display import draw_blocks
from flows.cli.errors import Answer, conclude, report_faults
from flows.cli.models import CHAMPION, TEST_FIGURES, format_test_figures
from flows.cli.options import PORT, DeviceOption, OnlyModel, Param, nest_assignments, values
from flows.server import environment
from tasks.errors import EnvironmentProblem, GradmillError, UsageError, without_credentials
from tasks.parameters import Device, is_name
from tasks.store import artifact_paths, atomic, mirror_sync, model_folder, state
from tasks.store.page_rendering import Code, Page, PageTable, Section, Strong, Text

if TYPE_CHECKING:
    from flows.doctor import Diagnosis
    from flows.server.connection import Need
    from flows.server.status import Champion, Deployment, Status
    from flows.server.up import Operation

MIRROR_SECONDS = 300  # between two attempts to bring the mirror up to date
HOW_IT_ENDS = (
    "Ctrl-C stops all child processes; the next gradmill up continues with the same history; "
    "gradmill trigger DEPLOYMENT starts a run now"
)


Adopt = Annotated[
    bool,
    typer.Option("--adopt", help="Take over the deployments of the store that this one was copied from, or replaces."),
]


def up(
    as_json: bool,
    port: Annotated[int, typer.Option(**PORT, help="The port of the Prefect server, on 127.0.0.1.")] = 4200,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let every user of this machine start runs as you.")
    ] = False,
    adopt: Adopt = False,
) -> None:
    """Run server, UI, worker and schedules on this machine until Ctrl-C; joins the server of PREFECT_API_URL if set.

    Where it is running already, it prints a new link to its page and ends.

    Example: [bold]gradmill up[/]
    """
    display.wait("starting server and worker (the first time takes a minute)")
    if not display.is_shown():
        typer.echo("starting (the first time takes a minute)", err=True)
    from flows.server.session import ONCE
    from flows.server.up import find_link, operation, wait_for_the_end

    if not adopt and (link := find_link()):
        text = f"open        {link} ({ONCE})\ngradmill up is running already in {artifact_paths.root()}"
        display.end()
        conclude(Answer({"open": link}, text), as_json=as_json)
        return
    mirror_sync.save_given_url()
    os.environ.pop("GRADMILL_MIRROR", None)  # it is saved: the worker's runs must not undo later changes
    with operation(port, not no_auth, adopt) as running:
        document, page = _describe_operation(running)
        display.end()
        typer.echo("", err=True)  # separates the important lines from earlier ones
        conclude(Answer(document, lambda: page), as_json=as_json)
        sys.stdout.flush()
        threading.Thread(target=_keep_the_mirror, daemon=True).start()  # a slow mirror delays nothing
        wait_for_the_end(running)


def _describe_operation(running: "Operation") -> tuple[dict[str, Any], Page]:
    """Addresses, how to sign in, and the next runs."""
    from flows.server import deployments, session

    upcoming = deployments.next_runs()
    service, kept = running.service, artifact_paths.credential()
    ui = without_credentials(service.api_url).removesuffix("/api")
    once = f" ({session.ONCE})" if running.link and session.TICKET in running.link else ""
    facts: list[tuple[str, Text]] = [
        ("open", f"{running.link}{once}" if running.link else ""),
        ("Prefect UI", f"{ui}{' (joined)' if service.joined else ''}"),
        ("reports", str(artifact_paths.reports()) if service.joined else ""),
    ]
    if running.credential and running.new:  # it is shown once, when it is created
        what = "paste all of it into the page's only field; shown only this time, stored in"
        facts += [
            ("sign in", f"{running.credential}  ({what} {kept} for you alone)"),
            ("prefect", "gradmill's commands sign in by themselves; for those of Prefect:"),
            ("", Code(f"export PREFECT_API_URL={service.api_url}")),
            ("", Code(f'export PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(kept))})"')),
        ]
    elif running.credential:
        facts.append(("sign in", f"with the content of {kept}: paste all of it into the page's only field"))
    facts += [("next", f"{name} at {moment:%Y-%m-%d %H:%M} UTC") for moment, name in upcoming]
    document = {
        "open": running.link,
        "ui": ui,
        "joined": service.joined,
        "credential": kept if running.credential else None,
        "next": [{"deployment": name, "at": moment.isoformat()} for moment, name in upcoming],
    }
    return document, draw_blocks(PageTable(facts), HOW_IT_ENDS)


def _keep_the_mirror() -> None:
    """Copy champions that the mirror lacks, now and every few minutes, and report each failure once."""
    told: set[str] = set()
    while True:
        missed = set(mirror_sync.catch_up())
        for each in sorted(missed - told):
            print(f"mirror      {each}", file=sys.stderr, flush=True)
        told = missed
        time.sleep(MIRROR_SECONDS)


def register(
    reset: Annotated[
        list[str] | None,
        typer.Option(metavar="DEPLOYMENT", help="Set this deployment to its defaults; may be given several times."),
    ] = None,
    adopt: Adopt = False,
) -> Answer:
    """Register work pool, deployments and automations with the server of gradmill up or PREFECT_API_URL.

    Example: [bold]gradmill register --reset softmax-nightly[/]
    """
    with on_server():
        from flows.server import registration

        registered = registration.register(strictly=True, reset=reset or (), adopt=adopt)
    return Answer({"deployments": registered}, f"registered: {', '.join(registered)}")


def trigger(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="softmax-nightly, for example.")],
    param: Param = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and exit with its exit code.")] = False,
    list_params: Annotated[bool, typer.Option("--list-params", help="Only show what --param takes.")] = False,
) -> Answer:
    """Start a run of a deployment now, on the server of gradmill up or of PREFECT_API_URL.

    Example: [bold]gradmill trigger retrain-houses --wait[/]
    """
    if list_params:
        if wait or param:
            raise UsageError("--list-params with --wait or --param", "one or the other", "run a command for each")
        rows = _list_parameters(deployment)
        cells = [(f"{row['name']}=", json.dumps(row["value"]), row["description"]) for row in rows]
        listing = {"deployment": deployment, "parameters": rows}
        return Answer(listing, lambda: draw_blocks(PageTable(cells, ("--param", "value", "what it is"))))
    parameters = nest_assignments(param or [])
    with on_server():
        from flows.server import api, deployments, registration, status

        with api.client() as client:
            registration.require_own(client)
            run = deployments.trigger(client, deployment, parameters)
        document: dict[str, Any] = {
            "deployment": deployment,
            "run": run.name,
            "id": run.id,
            "url": deployments.find_page(run),
        }
        told = f"{deployment}: run {run.name} is on its way\n{document['url'] or ''}".rstrip()
        if not wait:
            return Answer(document, told)
        print(told, file=sys.stderr)
        interrupt.note_achievement(f"run {run.name} goes on")
        display.wait(f"waiting for run {run.name}")
        run = deployments.wait_for_end(run.id, functools.partial(_report_stage, run.name))
        code, message = deployments.find_exit_code(run), status.explain_state(run.state) or ""
    reached = (run.state and run.state.name) or ""
    document |= {"run": run.name, "state": reached, "message": message, "exit_code": code}
    told = f"{run.name}: {reached.lower()}"
    return Answer(document, told, read_failure(message, code, told) if code else None)


def _list_parameters(deployment: str) -> list[dict[str, Any]]:
    """Every parameter with its default value for a run."""
    with on_server():
        from flows.server import api, deployments

        with api.client() as client:
            found = deployments.find_deployment(client, deployment)
    given, rows = deployments.own_parameters(found), []
    form = deployments.find_form(found.entrypoint, given)
    for each in values(form) if form else ():
        if each.is_shown:
            part = given.get(each.part) or {} if each.part else given
            value = part.get(each.name, to_jsonable_python(each.field.default))
            about = each.field.description or each.field.title or ""
            rows.append({"name": ".".join(filter(None, (each.part, each.name))), "value": value, "description": about})
    return rows


def _report_stage(run: str, stage: str) -> None:
    """Show the current stage of the run that is waited for; a terminal replaces the previous one."""
    display.wait(f"waiting for run {run}: {stage}")
    if not display.is_shown():
        print(f"{run}: {stage}", file=sys.stderr)


def read_failure(message: str, code: int, state: str) -> GradmillError:
    """The failure of a run as an error of this command: the message of its state is a ``GradmillError`` as text."""
    found, _, rest = message.partition("\nexpected: ")
    expected, _, action = rest.partition("\nto do: ")
    found = found or f"{state}: no reason given"
    failure = GradmillError(found, expected or "a run that completes", action or "see its page")
    failure.exit_code = code
    return failure


@contextmanager
def on_server(need: "Need" = "server") -> Iterator[bool]:
    """Connect to the server of PREFECT_API_URL, or to that of ``gradmill up``; see ``connection.connect``."""
    display.wait("asking the server")
    from flows.server import connection

    with connection.connect(need) as is_running:
        try:
            yield is_running
        finally:
            if "prefect.events.worker" in sys.modules:  # using a block, for example, emits events
                connection.send_what_is_queued()


def status(
    name: OnlyModel = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if something needs a person.")] = False,
) -> Answer:
    """Show live models, the last run of each deployment with its verdict, next and stuck runs, workers, alerts, disk.

    With a name it shows only what concerns that name and the server. The models are shown without a server, too.

    Example: [bold]gradmill status --check[/]
    """
    from flows.server import status as server_status

    stored = state.read(name) if name is None or is_name(name) else state.StoreState()
    if name and not (stored.faults or (name in stored.names and stored.names[name].is_known)):
        raise UsageError(f"no model {name}", f"one of {', '.join(model_folder.list_names()) or 'none'}", "name another")
    failure: Exception | None = None
    try:
        with on_server():
            found = server_status.describe(stored, name)
    except EnvironmentProblem as error:
        found, failure = server_status.describe_store(stored), error
    damaged = [fault for fault in stored.faults if fault.kind in ("champion", "version")][:1]  # attention lists all
    failure = failure or report_faults(damaged, "champion", "version")
    if check and found.attention:
        failure = failure or typer.Exit(EnvironmentProblem.exit_code)
    is_damaged = any(fault.kind == "champion" for fault in stored.faults)
    return Answer(found, lambda: draw_status(found, is_damaged), failure)


def draw_status(status: "Status", is_damaged: bool) -> Page:
    """A table for each part, and what to do about problems."""
    from flows.server.status import list_operation

    head = ("champion of", "version", *TEST_FIGURES, "since")
    champions: list[Text | PageTable] = [PageTable([*map(_list_champion, status.models)], head, spare=("log loss",))]
    if status.models:
        champions += [f"a champion is {CHAMPION}", *_list_model_notes(status)]
    elif not is_damaged:  # otherwise there is an unreadable champion
        champions.append("no champion yet: run gradmill retrain")
    leftovers = ""
    if status.leftovers:
        leftovers = f"left by older versions, no longer read, safe to delete: {', '.join(status.leftovers)}"
    sections = (
        Section("", champions),
        Section("", (PageTable([*list_operation(status)]),)),
        Section("", [*_describe_deployments(status)] if status.api_url else ()),
        Section("", [*(f"! {need}" for need in status.attention), leftovers]),
    )
    return Page(sections=sections)


def _list_champion(model: "Champion") -> tuple[str, ...]:
    figures = format_test_figures(model.test_accuracy, model.test_loss)
    return model.name, str(model.version), *figures, model.promoted_at[:16]


def _list_model_notes(status: "Status") -> Iterator[str]:
    for model in status.models:
        if model.overview:
            yield f"{model.name}: {model.overview}"
        if model.drift:
            yield f"{model.name}: {model.drift}"
        if model.frozen:
            yield f"{model.name} is frozen: no retrain changes it until gradmill unfreeze {model.name}"
        for number in model.held:
            yield f"{model.name} version {number} is held until gradmill promote {model.name} {number}"


def _describe_deployments(status: "Status") -> Iterator[Text | PageTable]:
    if not status.deployments:
        yield "no deployments yet: run gradmill up or gradmill register"
    head = ("deployment", "last run", "state", "last verdict", "next run")
    yield PageTable([*map(_list_cells, status.deployments)], head)
    for deployment in status.deployments:
        if deployment.ended_badly:
            continue
        if deployment.judged and deployment.judged.message:
            reason = deployment.judged.message.splitlines()[0]
            yield f"{deployment.name}: {deployment.judged.verdict}: {reason}"
        elif deployment.message:
            yield f"{deployment.name}: {deployment.message.splitlines()[0]}"


def _list_cells(deployment: "Deployment") -> tuple[str, ...]:
    """A row of the table in 80 characters; dates are without the year."""
    moments = (deployment.last_start, deployment.next_start)
    start, due = (f"{moment:%m-%d %H:%M}" if moment else "" for moment in moments)
    verdict, judged = deployment.verdict or "", deployment.judged
    if not verdict and judged:  # a crashed run has none: show the previous verdict with its day
        verdict = f"{judged.verdict} {judged.start:%m-%d}" if judged.start else judged.verdict
    starts = "paused" if deployment.paused else ", ".join(filter(None, (due, "on drift" * deployment.on_drift)))
    return deployment.name, start, deployment.state or "", verdict, starts


def metrics(
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Write them to this file, such as *.prom for the node exporter's textfile collector."
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(**PORT, help="Answer at /metrics on this port until Ctrl-C.")] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With --port: the address to listen at \\[default: 127.0.0.1]."),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --port: another address that /health asks, such as a worker's own."),
    ] = None,
) -> Answer | None:
    """Print figures for Prometheus: champions, runs, predictions, drift, disk, read from the artifacts folder alone.

    A document that cannot be read is named on stderr, the rest is printed, and the exit code is 4.

    Example: [bold]gradmill metrics --port 9100[/]
    """
    if output and not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: no such folder", "a folder that exists", "make it, or name another")
    if output and port:
        raise UsageError("--output and --port", "one of them", "run a command for each")
    if not port and (host or health):
        raise UsageError("--host or --health without --port", "the port to answer at", "give --port, or leave them out")
    if port:
        from flows.server import metrics as exporter

        exporter.serve(host or "127.0.0.1", port, health or "")
        return None
    return _collect_metrics(output)


def _collect_metrics(output: Path | None) -> Answer:
    from prometheus_client import generate_latest

    from flows.server.metrics import RUNS, StoreCollector

    found = state.read(newest=RUNS)
    collector = StoreCollector(found)
    text = generate_latest(collector).decode()
    if output:
        atomic.write_bytes(output, text.encode())
    families = [
        {
            "name": family.samples[0].name,
            "type": family.type,
            "help": family.documentation,
            "samples": [{"labels": sample.labels, "value": sample.value} for sample in family.samples],
        }
        for family in collector.collect()
    ]
    document = {"metrics": families, "damaged": [fault.found for fault in found.faults]}
    text = f"written to {output.absolute()}" if output else text.rstrip("\n")
    return Answer(document, text, report_faults(found.faults, *state.KINDS))


def doctor(debug: bool, device: DeviceOption = Device.AUTO) -> Answer:
    """Show what this machine offers, what is wrong with it and what to do.

    Exit code 0: ready; 5: --device cuda and no GPU that works; 4: no source of the data; 1: anything else that is
    required does not work. If several apply, it is the highest.

    Example: [bold]gradmill doctor[/]
    """
    with suppress(ValueError, RuntimeError, OSError):  # invalid variables are reported as findings
        environment.settle_prefect()
    from flows.doctor import examine

    display.wait("examining this machine")
    findings = [*examine(device, debug)]
    exit_code = max(finding.exit_code for finding in findings)
    problems = ", ".join(finding.name for finding in findings if finding.exit_code)
    conclusion = f"not ready: {problems} (exit code {exit_code})" if problems else "ready"
    facts = PageTable([row for finding in findings for row in _list_finding(finding)])
    document = {"ready": not exit_code, "exit_code": exit_code, "checks": findings}
    return Answer(
        document, lambda: draw_blocks(facts, Strong(conclusion)), typer.Exit(exit_code) if exit_code else None
    )


def _list_finding(finding: "Diagnosis") -> Iterator[tuple[str, str]]:
    """A finding, and a second row if there is something to do."""
    yield finding.name.replace("_", " "), f"{finding.status}: {finding.found}"
    if finding.action:
        yield "", f"to do: {finding.action}"
