"""``<name>-overview`` in the Prefect UI: updated after each run and change, only by ``gradmill up`` if it runs."""

from asyncio import CancelledError
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.pages import overview
from flows.server import api, connection, deployments
from flows.tags import MODEL_TAG
from tasks.errors import DataError
from tasks.store import artifact_paths, model_folder, state
from tasks.store.page_rendering import Page, markdown_line, render_markdown
from tasks.store.run_folder import read_folder
from tasks.store.state import NameState

WRITING_SECONDS = 20.0  # time for a server to take a page: on a loaded machine five seconds never suffice
OF_EACH_RUN = "Last run", "Disk"  # sections
LINKED = ("verdict", "pictures", "data", "card", "predictions", "judgement", "tuning")

_written: dict[str, str] = {}  # by name, the content that this process last wrote


def publish(*names: str) -> None:
    """Update the pages of names after a run or a change; without a permanent server nothing is done.

    If ``gradmill up`` runs, it writes them: nobody waits for a picture, and no newer page is replaced by an older one.
    Failures are reported, and are not errors of the caller.
    """
    with _report_failure(*names), connection.use_service():
        if _is_seen() and connection.is_configured():
            ask_for(*names)
        else:
            write(*names)


@contextmanager
def publish_at_end(name: str) -> Iterator[None]:
    """Update the page when the block ends, even by an error or its time limit."""
    try:
        yield
    except (Exception, CancelledError):
        publish(name)
        raise
    publish(name)


def ask_for(*names: str) -> None:
    """Ask ``gradmill up`` to write the pages of names."""
    artifact_paths.pages_asked().mkdir(exist_ok=True)
    for name in names:
        (artifact_paths.pages_asked() / name).touch()


def write_asked() -> list[str]:
    """Write the requested pages; return the names that failed, which stay requested."""
    failed = asked = sorted(each.name for each in artifact_paths.pages_asked().glob("*"))
    with _report_failure(*asked):
        for name in asked:
            # Before the state is read, so that later changes are requested again.
            (artifact_paths.pages_asked() / name).unlink()
        failed = write(*asked)
    if failed:
        ask_for(*failed)
    return failed


def list_names() -> Iterator[str]:
    """The names that have a page."""
    return filter(model_folder.list_versions, model_folder.list_names())


def write_all() -> None:
    """Write the pages of all names; failures are requested, and so retried."""
    ask_for(*write(*list_names()))


def write(*names: str) -> list[str]:
    """Write the pages of names in this process; return the names that failed."""
    failed = [*names]
    with _report_failure(*names):
        found = state.read(names[0] if len(names) == 1 else None).names if names and _is_seen() else {}
        for name in names:
            with _report_failure(name):
                if name in found and found[name].is_known:  # a misspelt name would keep its page for good
                    _write(name, found[name])
                failed.remove(name)
    return failed


def delete(name: str) -> None:
    """Delete the page of a removed name from a permanent server; a failure is reported, as by ``publish``."""
    with _report_failure(name), connection.use_service():
        if _is_seen():
            with api.client(WRITING_SECONDS) as client:
                for artifact in api.newest_artifacts(client, [api.overview_key(name)]).values():
                    client.delete_artifact(artifact)


def write_of_runs(runs: Iterable[UUID]) -> None:
    """Write the pages of the names that these runs belong to; runs of other artifacts are ignored."""
    names = set()
    for folder in (folder for run in runs for folder in find_folders(run)):
        with suppress(DataError, OSError):
            names.add(read_folder(folder)[0])
    publish(*sorted(filter(None, names)))


def find_folders(run: UUID) -> list[Path]:
    """The folder of a run, if it is in these artifacts."""
    return [notes.parent for notes in artifact_paths.runs().glob(f"*-{str(run)[:8]}/{artifact_paths.RUN}")]


def _is_seen() -> bool:
    return bool(PREFECT_API_URL.value()) and not connection.is_temporary()


def _report_failure(*names: str) -> AbstractContextManager[None]:
    return connection.report_failure(f"{', '.join(map(api.overview_key, names))} could not be written: ")


def _write(name: str, facts: NameState) -> None:
    """Replace the only artifact of the name's overview, so that its address stays the same.

    An unchanged run only updates the first line, if this process has written the page on the same day: the server
    stores the whole page in an event each time. Outside of a run nobody waits longer than ``WRITING_SECONDS``.
    """
    key, headline = api.overview_key(name), markdown_line(overview.format_headline(facts))
    with get_client(sync_client=True) if flow_run.id else api.client(WRITING_SECONDS) as client:
        there, links = api.newest_artifacts(client, [key]), tuple(list_links(client, name))
        content = _find_content(facts, links)
        if there and _written.get(name) == content:
            description = f"{headline}; {model_folder.format_now()[:16]} UTC"
            client.update_artifact(there[key], ArtifactUpdate(description=description))
            return
        linked = overview.draw_overview(facts)._replace(links=links)
        text = render_markdown(linked)
        if there:
            client.update_artifact(there[key], ArtifactUpdate(data=text, description=headline))
        else:
            client.create_artifact(ArtifactCreate(key=key, type="markdown", description=headline, data=text))
    _written[name] = content


def _find_content(facts: NameState, links: tuple[tuple[str, str], ...]) -> str:
    """The content of a page that unchanged runs do not change, and the day; each run has its own verdict."""
    sections = [each for each in overview.list_sections(facts, None) if each.title not in OF_EACH_RUN]
    last = facts.runs[0] if facts.runs else None
    run = "" if last is None or last.outcome == "unchanged" else last.run
    kept = tuple(each for each in links if each[0] != "verdict")
    return " ".join([model_folder.format_now()[:10], run, render_markdown(Page("", "", sections, kept))])


def list_links(client: SyncPrefectClient, name: str) -> Iterator[tuple[str, str]]:
    """Links to the newest of a name's other pages and to its deployments in the UI.

    The UI can also change or pause their schedules, so only the deployments' own pages are right about these.
    """
    for key, artifact in api.newest_artifacts(client, [f"{name}-{kind}" for kind in LINKED]).items():
        yield key.removeprefix(f"{name}-"), f"/artifacts/artifact/{artifact}"
    for each in deployments.list_deployments(client):
        if MODEL_TAG + name in each.tags:
            yield f"deployment {each.name}", f"/deployments/deployment/{each.id}"
