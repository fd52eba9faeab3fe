"""JSON documents on disk, validated strictly for types and values.

Unknown fields are ignored, so that older and newer versions of Gradmill can share a store.
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
    """A typed document. Nested values are documents or records."""

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
        """The document in a file; ``action`` is the advice given when it cannot be read.

        Raises:
            DataError: the file is missing, not regular, not JSON, or not such a document; the message names it.
        """
        return cls.parse(verified_files.read_content(path, action), path, action)

    @classmethod
    def find(cls, path: Path, action: str = RESTORE) -> Self | None:
        """The same as ``read``, but None where nothing is at ``path``."""
        return cls.read(path, action) if os.path.lexists(path) else None

    @classmethod
    def parse(cls, content: bytes, source: Path | str, action: str = RESTORE) -> Self:
        """The document in ``content``, which came from ``source``.

        Raises:
            DataError: the content is not JSON, or not such a document; the message names ``source``.
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

    def write(self, path: Path, is_durable: bool = True) -> FileRef:
        """Replace ``path`` by this document, atomically; if ``is_durable``, force it to disk."""
        return atomic.write_bytes(path, self.to_json(), is_durable)

    def to_json(self) -> bytes:
        """The bytes that ``write`` writes."""
        return atomic.as_json(self.model_dump(mode="json"))


class RootDocument(Document):
    """A document that is a whole file."""

    schema_version: Literal[1] = 1


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object with unique keys: parsers disagree about which of two equal keys counts."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _parse_finite(token: str) -> float:
    """A finite JSON number; ``NaN`` and ``1e999`` are errors."""
    if math.isfinite(number := float(token)):
        return number
    raise ValueError(f"{token} is not a finite number")


def _parse_whole(token: str) -> int:
    """An integer that is not too large to be a finite float."""
    _parse_finite(token)
    return int(token)
