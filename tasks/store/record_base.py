"""The base of every value that stages exchange, and how documents name files.

Documents name files relative to the artifacts folder, so that they remain valid when it is moved, copied or restored.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from tasks.store import artifact_paths


def _read_path(value: Any) -> Any:
    """The path that a document names, resolved in this artifacts folder; a ``Path`` did not come from a document."""
    if not isinstance(value, str):
        return value
    if ".." in Path(value).parts:
        raise ValueError(f"the path {value} leads out of the artifacts folder")
    return str(artifact_paths.root() / value)  # an absolute path is unchanged


def _require_inside(value: Any) -> Any:
    """The same as ``_read_path`` for a path that must be in artifacts/."""
    path = _read_path(value)
    if isinstance(value, str) and not Path(path).is_relative_to(artifact_paths.root()):
        raise ValueError(f"the path {value} is not in the artifacts folder")
    return path


_RELATIVE = PlainSerializer(artifact_paths.relative, return_type=str, when_used="json")
_LAX = Field(strict=False)  # so that a strict document accepts text in Python as well as in JSON
ArtifactPath = Annotated[Path, _LAX, BeforeValidator(_require_inside), _RELATIVE]  # a path that is always in artifacts/
ChosenPath = Annotated[Path, _LAX, BeforeValidator(_read_path), _RELATIVE]  # anywhere if a user chose it
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """A frozen value that survives a trip through JSON, where files are named relative to artifacts/."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PersistedRecord(Record):
    """A record in documents that are kept: fields added by a newer version of Gradmill are ignored."""

    model_config = ConfigDict(extra="ignore")


class FileRef(PersistedRecord):
    """A file and the SHA-256 (hex) of its content."""

    path: ArtifactPath
    sha256: str
