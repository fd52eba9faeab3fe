"""What the Prefect UI shows of a stage while it works: a progress artifact, and a picture that is drawn anew."""

import base64
import time
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import TaskRunContext

UPDATE_SECONDS = 2.0  # an update is a request to the server


def in_a_run() -> bool:
    """Whether this code runs inside a Prefect task; plain calls of a stage's function have nobody to tell."""
    return TaskRunContext.get() is not None


def picture(path: Path) -> str:
    """A PNG inside markdown: the UI can show no local files."""
    return f"![{path.stem}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"


class Progress:
    """A progress artifact of this task, updated at most once in 2 seconds and at the end."""

    def __init__(self, total: float, description: str, done: float = 0) -> None:
        self._total, self._done = total, done
        self._artifact: UUID | None = None
        self._updated = time.monotonic()
        if in_a_run():
            created = create_progress_artifact(self._percent(), description=description)
            self._artifact = created if isinstance(created, UUID) else None

    def update(self, done: float) -> bool:
        """Note how far the work is; returns whether it was time to show it."""
        self._done = done
        due = self._artifact is not None and time.monotonic() - self._updated > UPDATE_SECONDS
        if due:
            self.show()
        return due

    def show(self) -> None:
        """Bring the artifact up to date now."""
        if self._artifact is not None:
            update_progress_artifact(self._artifact, self._percent())
            self._updated = time.monotonic()

    def _percent(self) -> float:
        return 100 * self._done / self._total


class Picture:
    """A markdown artifact with one picture, replaced by every ``show``."""

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        self._artifact: UUID | None = None

    def show(self, path: Path) -> None:
        """Show the PNG at ``path``."""
        if self._artifact is None:
            created = create_markdown_artifact(picture(path), key=self._key, description=self._description)
            self._artifact = created if isinstance(created, UUID) else None
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifact, ArtifactUpdate(data=picture(path)))
