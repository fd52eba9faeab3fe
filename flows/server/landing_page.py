"""Gradmill's own pages beside Prefect's UI: a list of all names, the overview of each, and the page of a version."""

from collections.abc import Iterator
from contextlib import suppress

from prefect.settings import PREFECT_API_URL
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from flows.pages.overview import draw_overview, tabulate_names
from flows.server import api, deployments, registration
from flows.server import status as server_status
from flows.server.session import PLACE, respond
from flows.server.status import Status
from flows.tags import MODEL_TAG
from tasks.errors import EnvironmentProblem, GradmillError
from tasks.machine.words import pluralize
from tasks.parameters import is_name
from tasks.store import model_folder, state, version_page
from tasks.store.page_rendering import Code, Link, Page, PageTable, Section, Text
from tasks.store.state import StoreState

LISTED = 10  # newest versions
LINKED = ("verdict", "pictures", "data", "card", "predictions", "judgement", "tuning")  # kinds of artifacts
HOME = ("All models", PLACE)
IN_PREFECT = PageTable(
    (
        (Link("Runs", "/runs"), "logs and stages; retry, cancel"),
        (Link("Deployments", "/deployments"), "next runs; run now, other settings, pause"),
        (Link("Artifacts", "/artifacts"), "verdicts, pictures and predictions of every run"),
        (Link("Automations", "/automations"), "what sends alerts, and what retrains on drift"),
        (Link("Blocks", "/blocks"), "where alerts can go"),
        (Link("Work pool", f"/work-pools/work-pool/{registration.POOL}"), "workers; pause all runs"),
    )
)


def show_store(_: Request) -> HTMLResponse:
    """Show the champions, what needs a person, past runs and the next ones."""
    store_state = state.read()
    status = _read_status(store_state)
    needs = pluralize(len(status.attention), "thing") if status.attention else "nothing"
    verb = "need" if len(status.attention) > 1 else "needs"
    sections = (
        Section("Needs attention", status.attention),
        Section("Models", tuple(_list_models(store_state))),
        Section("Deployments", (_tabulate_deployments(status),)),
        Section("Operation", (PageTable(tuple(server_status.list_operation(status))),)),
        Section("In Prefect's UI", (IN_PREFECT,)),
    )
    headline = f"{pluralize(len(status.models), 'champion')}; {needs} {verb} attention"
    return respond(Page("Gradmill", headline, sections, (("Prefect's dashboard", "/dashboard"),)))


def _read_status(store_state: StoreState) -> Status:
    """The status that ``gradmill status`` shows; without the server's part if no server answers."""
    known = server_status.describe_store(store_state)
    if PREFECT_API_URL.value():
        try:
            return server_status.describe(store_state)
        except EnvironmentProblem as error:
            known.attention.append(error.found)
    return known


def _list_models(store_state: StoreState) -> Iterator[Text | PageTable]:
    yield tabulate_names(store_state.names.values(), PLACE)
    if not store_state.names:
        yield "There is no model yet: run ", Code("gradmill retrain")


def _tabulate_deployments(status: Status) -> PageTable:
    """A table of next runs and last results, which the names of runs contain."""
    rows = []
    for each in status.deployments:
        starts = [f"{each.next_start:%Y-%m-%d %H:%M}"] if each.next_start else []
        starts += ["on drift"] if each.on_drift else []
        judged = each.judged.run if each.judged and each.judged.run != each.last_run else ""
        due = "paused" if each.paused else ", ".join(starts)
        name = Link(each.name, f"/deployments/deployment/{each.id}")
        last: Text = Link(each.last_run, f"/runs/flow-run/{each.last_run_id}") if each.last_run else ""
        rows.append((name, due, last, each.state or "", judged))
    return PageTable(rows, ("deployment", "next run", "last run", "state", "last verdict"))


def show_name(request: Request) -> HTMLResponse:
    """Show the overview of a name, with links to its versions and its pages in Prefect's UI."""
    name = request.path_params["name"]
    if not is_name(name) or not ((facts := state.read_name(name)).is_known or name in model_folder.list_names()):
        raise HTTPException(404)
    versions = ((f"version {number}", f"{PLACE}/{name}/{number}") for number in facts.numbers[: -LISTED - 1 : -1])
    links = _list_links(name) if PREFECT_API_URL.value() else ()
    return respond(draw_overview(facts)._replace(links=(HOME, *versions, *links)))


def _list_links(name: str) -> Iterator[tuple[str, str]]:
    """Links to the newest of a name's pages and to its deployments in Prefect's UI; none if no server answers."""
    with suppress(EnvironmentProblem), api.client() as client:
        for key, artifact in api.newest_artifacts(client, [f"{name}-{kind}" for kind in LINKED]).items():
            yield key.removeprefix(f"{name}-"), f"/artifacts/artifact/{artifact}"
        for each in deployments.list_deployments(client):
            if MODEL_TAG + name in each.tags:
                yield f"deployment {each.name}", f"/deployments/deployment/{each.id}"


def show_version(request: Request) -> HTMLResponse:
    """Show the page of a kept version, from its verified files."""
    name, number = request.path_params["name"], request.path_params["number"]
    if number not in map(str, model_folder.list_versions(name)):
        raise HTTPException(404)
    links = (HOME, (f"overview of {name}", f"{PLACE}/{name}"))
    return respond(version_page.read_version(name, int(number))._replace(links=links))


def _explain(_: Request, error: Exception) -> HTMLResponse:
    """Explain what cannot be shown, and what to do about it."""
    if isinstance(error, GradmillError):
        words = f"expected: {error.expected}", f"to do: {error.action}"
        return respond(Page("Gradmill", error.found, (Section("", words),), (HOME,)), 500)
    return respond(Page("Gradmill", "There is no such page.", (), (HOME,)), 404)


PAGES = Starlette(
    routes=[
        Route(PLACE, show_store),
        Route(f"{PLACE}/{{name}}", show_name),
        Route(f"{PLACE}/{{name}}/{{number}}", show_version),
    ],
    exception_handlers={404: _explain, GradmillError: _explain},
)
