"""JSON documents on disk, read strictly as to types and values.

Unknown fields are ignored, so that an older and a newer version of Gradmill share a store.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import DataError
from tasks.store import atomic, verified_files
from tasks.store.record_base import FileRef
from tasks.store.verified_files import RESTORE


class Document(BaseModel):
    """A typed document. What it nests are documents or records."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    @classmethod
    def read(cls, path: Path, action: str = RESTORE) -> Self:
        """The document in a file; ``action`` is what to do where there is none that can be read.

        Raises:
            DataError: it is missing, no regular file, not JSON, or not such a document; the message names it.
        """
        return cls.parse(verified_files.read_content(path, action), path, action)

    @classmethod
    def find(cls, path: Path, action: str = RESTORE) -> Self | None:
        """The same; None where nothing lies at ``path``."""
        return cls.read(path, action) if os.path.lexists(path) else None

    @classmethod
    def parse(cls, content: bytes, source: Path | str, action: str = RESTORE) -> Self:
        """The document in ``content``, which came from ``source``.

        Raises:
            DataError: it is not JSON, or not such a document; the message names ``source``.
        """
        try:
            json.loads(
                content,
                object_pairs_hook=_without_duplicates,
                parse_float=_parse_finite,
                parse_int=_parse_whole,
                parse_constant=_parse_finite,
            )
            return cls.model_validate_json(content, strict=True)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            found = f"{source} is not as gradmill writes it: {where + ': ' if where else ''}{first['msg']}"
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            found = f"{source} is not JSON: {error}"
        raise DataError(found, "the file as it was written", action)

    def write(self, path: Path, is_kept: bool = True) -> FileRef:
        """Replace ``path`` by this document, atomically; what ``is_kept`` is forced to disk."""
        return atomic.write_json(path, self.model_dump(mode="json"), is_kept)


class RootDocument(Document):
    """A whole file."""

    schema_version: Literal[1] = 1


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are unique: of two equal ones each parser would believe another."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands there twice")
    return document


def _parse_finite(token: str) -> float:
    """A number of JSON; neither ``NaN`` nor ``1e999`` is one."""
    if math.isfinite(number := float(token)):
        return number
    raise ValueError(f"{token} is no finite number")


def _parse_whole(token: str) -> int:
    """A whole number, not so large that as a fraction it would be infinite."""
    _parse_finite(token)
    return int(token)
