"""``gradmill trigger``: a run of a deployment now."""

import functools
import json
import sys
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.table import Table

from flows import interrupt
from flows.cli import display
from flows.cli.faults import Answer
from flows.cli.operate import nested, on_server
from flows.cli.parameters import values
from flows.cli.tables import add_row, print_table
from tasks.errors import GradmillError, UsageError


def trigger(
    as_json: bool,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="softmax-nightly, for example.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="KEY=VALUE", help="As training.lr=0.3; may be given again.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and exit with its exit code.")] = False,
    list_params: Annotated[bool, typer.Option("--list-params", help="Only show what --param takes.")] = False,
) -> Answer | None:
    """Start a run of a deployment now, on the server of gradmill up or of PREFECT_API_URL."""
    if list_params:
        if wait or param:
            raise UsageError("--list-params with --wait or --param", "one or the other", "run a command for each")
        return _listed(deployment, as_json)
    parameters = nested(param or [])
    with on_server():
        from flows.server import deployments, status

        run = deployments.trigger(deployment, parameters)
        document: dict[str, Any] = {
            "deployment": deployment,
            "run": run.name,
            "id": str(run.id),
            "url": deployments.find_page(run),
        }
        told = f"{deployment}: run {run.name} is on its way\n{document['url'] or ''}".rstrip()
        if not wait:
            return document, told
        print(told, file=sys.stderr)
        interrupt.achieved(f"run {run.name} goes on")
        display.wait(f"waiting for run {run.name}")
        run = deployments.wait_for_end(run.id, functools.partial(_tell_stage, run.name))
        code, state = deployments.find_exit_code(run), run.state
    reached = (state and state.name) or ""
    document |= {"run": run.name, "state": reached, "message": status.explain_state(state) or "", "exit_code": code}
    return document, f"{run.name}: {reached.lower()}", _failure(document, code) if code else None


def _tell_stage(run: str, stage: str) -> None:
    """What the run that is waited for does: at a terminal in the place of what it did before."""
    display.wait(f"waiting for run {run}: {stage}")
    if not display.is_shown():
        print(f"{run}: {stage}", file=sys.stderr)


def _failure(document: dict[str, Any], code: int) -> GradmillError:
    """What the run has ended with, as an error of this command."""
    found, _, rest = document["message"].partition("\nexpected: ")  # as GradmillError writes them
    expected, _, action = rest.partition("\nto do: ")
    found = found or f"{document['run']}: {document['state'].lower()}: no reason is known"
    failure = GradmillError(found, expected or "a run that completes", action or "see its page")
    failure.exit_code = code
    return failure


def _listed(deployment: str, as_json: bool) -> Answer | None:
    """Every parameter with the value that a run has if nothing is given."""
    with on_server():
        from flows.server import api, deployments

        with api.client() as client:
            found = deployments.find_deployment(client, deployment)
    given, rows = (found.parameters or {}).get("parameters", {}), []
    form = deployments.find_form(found.entrypoint, given)
    for each in filter(lambda each: each.is_shown, values(form) if form else ()):
        part = given.get(each.part) or {} if each.part else given
        value = part.get(each.name, to_jsonable_python(each.field.default))
        about = each.field.description or each.field.title or ""
        rows.append({"name": ".".join(filter(None, (each.part, each.name))), "value": value, "description": about})
    if as_json:
        return {"deployment": deployment, "parameters": rows}, ""
    display.end()
    table = Table("--param", "value", "what it is", box=None, pad_edge=False)
    for row in rows:
        add_row(table, f"{row['name']}=", json.dumps(row["value"]), row["description"])
    print_table(table)
    return None
