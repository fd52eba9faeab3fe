"""``<name>-overview``: one page that says what is live and how it has developed, in the Prefect UI and as HTML."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

from flows.server import api, connection, service
from flows.story import blocks, overview_page
from flows.story.blocks import Page, Pictures
from tasks.errors import GradmillError, without_credentials
from tasks.store import overview, reading, trend
from tasks.store.overview import Overview
from tasks.store.tried import JUDGED

PAGES = "/artifacts/key"  # of the Prefect UI


def key(name: str) -> str:
    """What the Prefect UI finds the page under."""
    return f"{name}-overview"


def address(name: str) -> str | None:
    """Where the page of a name is to be seen, by the API that Prefect's settings name; None without one."""
    url = PREFECT_API_URL.value()
    return f"{url.rstrip('/').removesuffix('/api')}{PAGES}/{key(name)}" if url else None


def publish(name: str) -> None:
    """Write the page of a name anew, in a run or beside one; without a server that stays nothing is done.

    Nothing that goes wrong here is a fault of whoever calls: it is said.
    """
    try:
        with service.in_use():
            if PREFECT_API_URL.value() and not connection.is_temporary():
                _write(name)
    except Exception as error:
        reason = error.found if isinstance(error, GradmillError) else f"{type(error).__name__}: {error}"
        print(f"{key(name)} could not be written: {without_credentials(reason)}", file=sys.stderr)


def publish_all() -> dict[str, str | None]:
    """Write the page of every name anew; return their addresses."""
    names = [name for name in reading.names() if reading.versions(name)]
    for name in names:
        publish(name)
    return {name: address(name) for name in names}


@contextmanager
def rewritten(name: str) -> Iterator[None]:
    """Write the page anew when the block has ended, whether it has failed or not; one that is cancelled is left."""
    try:
        yield
    except Exception:
        publish(name)
        raise
    publish(name)


def html(facts: Overview) -> str:
    """The page as one file, with links where a server is at work."""
    with service.in_use():
        there = address(facts.name)
    return blocks.html(_page(facts, there and there.removesuffix(f"/{key(facts.name)}")))


def _write(name: str) -> None:
    facts = overview.gather(name)
    text, headline = blocks.markdown(_page(facts, PAGES)), overview_page.headline(facts)
    if flow_run.id:
        create_markdown_artifact(text, key=key(name), description=headline)
        return
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: connection.TELLING_SECONDS}), api.client() as client:
        client.create_artifact(ArtifactCreate(key=key(name), type="markdown", description=headline, data=text))


def _picture(facts: Overview) -> Pictures | None:
    drawn = trend.of(facts)
    if drawn is None or not drawn.points:
        return None
    try:
        from tasks.judging import trend_figures
    except ModuleNotFoundError:  # matplotlib is of the extra ``train``
        return None
    light, dark = (trend_figures.png(drawn, colours) for colours in (trend_figures.LIGHT, trend_figures.DARK))
    return Pictures(light, dark, f"{drawn.figure} of the last runs")


def _page(facts: Overview, pages: str | None) -> Page:
    """All of it, before it is Markdown or HTML; ``pages`` is where the other pages are."""
    links = tuple(_links(facts, pages)) if pages else ()
    told = overview_page.sections(facts, _picture(facts))
    return Page(facts.name, overview_page.headline(facts), told, links)


def _links(facts: Overview, pages: str) -> Iterator[tuple[str, str]]:
    """The pages of the last runs that there are."""
    is_judged = any(run.outcome in JUDGED for run in facts.runs)
    there = {
        "verdict": is_judged or any(run.outcome == "unchanged" for run in facts.runs),
        "pictures": is_judged,
        "data": bool(facts.runs),
        "card": bool(facts.versions),
        "predictions": bool(facts.jobs),
    }
    return ((kind, f"{pages}/{facts.name}-{kind}") for kind, is_there in there.items() if is_there)
