"""``<name>-overview``: one page that says what is live and how it has developed, in the Prefect UI and as HTML."""

import sys
import time
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

from flows.server import api, artifacts, connection, deployments, service
from flows.story import blocks, overview_page
from flows.story.blocks import Page, Pictures
from tasks.errors import GradmillError, without_credentials
from tasks.store import artifact_paths, reading, state, trend
from tasks.store.state import NameState

AGAIN_SECONDS = 15.0  # until a page that could not be written is tried once more
WRITING_SECONDS = 20.0  # that a server has for one: on a loaded machine five would never be enough, however often tried
LINKED = ("verdict", "pictures", "data", "card", "predictions", "judgement", "tuning")


def key(name: str) -> str:
    """What the Prefect UI finds the page under."""
    return f"{name}-{artifacts.OVERVIEW}"


def publish(*names: str) -> None:
    """Let the pages of names be written anew, after a run or a change; without a server that stays nothing is done.

    Beside ``gradmill up`` that does so within a second, since nobody should have to wait for a picture, and one who
    writes them all never writes what is no longer so. Nothing that goes wrong is a fault of whoever calls: it is said.
    """
    with _only_said(*names), service.in_use():
        if _is_up():
            for name in names:
                (artifact_paths.pages_asked() / name).touch()
        else:
            write(*names)


def write(*names: str) -> list[str]:
    """Write the pages of names anew here and now; return the names of which that has failed."""
    with _only_said(*names) as failed:
        if names and _is_seen():
            found = state.read(names[0] if len(names) == 1 else None).names
            for name in names:
                if name in found and found[name].is_known:  # one that is misspelt would keep its page for good
                    with _only_said(name) as missed:
                        _write(found[name])
                    failed += missed
    return failed


def every() -> Iterator[str]:
    """The names that have a page."""
    return filter(reading.versions, reading.names())


class Asked:
    """Writes the pages that ``publish`` has asked for, and those that could not be written once more after a while."""

    def __init__(self) -> None:
        self._next = 0.0

    def look(self) -> None:
        """Do so if any are asked for, and it is time."""
        if time.monotonic() < self._next:
            return
        asked = {each.name: each for each in sorted(artifact_paths.pages_asked().glob("*"))}
        with _only_said(*asked) as failed:
            for each in asked.values():
                each.unlink()  # before it is read how things are: what changes then is asked for anew
            failed += write(*asked)
        for name in failed:
            asked[name].touch()
            self._next = time.monotonic() + AGAIN_SECONDS


@contextmanager
def _only_said(*names: str) -> Iterator[list[str]]:
    failed: list[str] = []
    try:
        yield failed
    except Exception as error:
        failed += names
        reason = error.found if isinstance(error, GradmillError) else f"{type(error).__name__}: {error}"
        pages = ", ".join(map(key, names))
        print(f"{pages} could not be written: {without_credentials(reason)}", file=sys.stderr)


@contextmanager
def rewritten(name: str) -> Iterator[None]:
    """Write the page anew when the block has ended, whether it has failed (by its time limit, too) or not."""
    try:
        yield
    except (Exception, CancelledError):
        publish(name)
        raise
    publish(name)


def _is_seen() -> bool:
    return bool(PREFECT_API_URL.value()) and not connection.is_temporary()


def _is_up() -> bool:
    return _is_seen() and artifact_paths.pages_asked().is_dir() and service.is_configured()


def html(facts: NameState) -> str:
    """The page as one file, with links where a server answers."""
    links: tuple[tuple[str, str], ...] = ()
    picture = _picture(facts, on_dark=True)
    with service.in_use(), suppress(Exception):  # a page without links is one, too
        if PREFECT_API_URL.value():
            with _client(connection.TELLING_SECONDS) as client:
                links = tuple((kind, artifacts.ui() + path) for kind, path in _links(client, facts.name))
    return blocks.html(_page(facts, picture, links))


def _write(facts: NameState) -> None:
    picture = _picture(facts, on_dark=False)  # before the talk, whose seconds are counted
    with _client(WRITING_SECONDS) as client:
        page = _page(facts, picture, tuple(_links(client, facts.name)))
        artifacts.rewrite(client, key(facts.name), blocks.markdown(page), blocks.escaped(page.headline))


@contextmanager
def _client(seconds: float) -> Iterator[SyncPrefectClient]:
    """A client as runs have it; elsewhere nobody is kept waiting for longer than ``seconds``."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            yield client
        return
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: seconds}), api.client() as client:
        yield client


def _picture(facts: NameState, on_dark: bool) -> Pictures | None:
    drawn = trend.find_trend(facts)
    if drawn is None or not drawn.points:
        return None
    try:
        from tasks.judging import plots  # matplotlib, of the extra ``train``, takes half a second
    except ModuleNotFoundError:
        return None
    light = plots.draw_trend(drawn)
    dark = plots.draw_trend(drawn, on_dark) if on_dark else light
    return Pictures(light, dark, f"{drawn.figure} of the last runs")


def _page(facts: NameState, picture: Pictures | None, links: tuple[tuple[str, str], ...]) -> Page:
    """All of it, before it is Markdown, which has no way to tell dark paper, or HTML."""
    told = overview_page.sections(facts, picture)
    return Page(facts.name, overview_page.headline(facts), told, links)


def _links(client: SyncPrefectClient, name: str) -> Iterator[tuple[str, str]]:
    """The newest of the other pages of a name, its deployments, and where the UI has them.

    When these run, and whether they are paused, is set there, too: only their own pages are right about it.
    """
    for page, artifact in artifacts.newest(client, [f"{name}-{kind}" for kind in LINKED]).items():
        yield page.removeprefix(f"{name}-"), artifacts.path(artifact)
    for each in deployments.ours(client):
        if f"model:{name}" in each.tags:
            yield f"deployment {each.name}", deployments.path(each.id)
