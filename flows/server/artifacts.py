"""Where the Prefect UI shows the newest artifact of a key: a key's own page is a list of all that it ever had."""

from collections.abc import Iterable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.settings import PREFECT_UI_URL

from tasks.errors import without_credentials
from tasks.store import reading

OVERVIEW = "overview"


def overviews(client: SyncPrefectClient, names: Iterable[str]) -> dict[str, str]:
    """The address of each name's overview, of those that have one on the server that Prefect's settings name."""
    keys = {f"{name}-{OVERVIEW}": name for name in names}
    return {keys[key]: f"{ui()}{path(there)}" for key, there in newest(client, keys).items()}


def ui() -> str:
    """Where browsers find the UI: Prefect derives it from PREFECT_API_URL where PREFECT_UI_URL is not set."""
    return without_credentials(PREFECT_UI_URL.value() or "").rstrip("/")


def overviews_of_store() -> dict[str, str]:
    """The same of every name of the store."""
    with get_client(sync_client=True) as client:
        return overviews(client, reading.names())


def newest(client: SyncPrefectClient, keys: Iterable[str]) -> dict[str, UUID]:
    """The newest artifact of each key that has one, in the order of the keys."""
    wanted = [*keys]
    of_these = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=wanted))
    found = {each.key: each.latest_id for each in client.read_latest_artifacts(artifact_filter=of_these)}
    return {key: found[key] for key in wanted if key in found}


def path(artifact: UUID) -> str:
    """Its place in the UI."""
    return f"/artifacts/artifact/{artifact}"


def rewrite(client: SyncPrefectClient, key: str, page: str, description: str) -> None:
    """Replace the only artifact of a key, which so keeps its address."""
    if there := newest(client, [key]):
        client.update_artifact(there[key], ArtifactUpdate(data=page, description=description))
    else:
        client.create_artifact(ArtifactCreate(key=key, type="markdown", description=description, data=page))
