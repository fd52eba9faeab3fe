"""The base of every value that is exchanged, and the reference to a file."""

from pydantic import BaseModel, ConfigDict

from tasks.store.artifact_paths import ArtifactPath


class Record(BaseModel):
    """A frozen value that survives a trip through JSON, where files are named relative to artifacts/."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRef(Record):
    """A file and the SHA-256 (hex) of its content."""

    path: ArtifactPath
    sha256: str
