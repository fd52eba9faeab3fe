"""The base of every value that is exchanged, and the reference to a file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tasks.store.artifact_paths import ArtifactPath

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """A frozen value that survives a trip through JSON, where files are named relative to artifacts/."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Lasting(Record):
    """A record in documents that stay: what a newer version of Gradmill has added to it is ignored."""

    model_config = ConfigDict(extra="ignore")


class FileRef(Lasting):
    """A file and the SHA-256 (hex) of its content."""

    path: ArtifactPath
    sha256: str
