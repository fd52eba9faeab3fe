"""Documents on disk: what is read is typed, what is damaged is named."""

import os
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.store.documents import Document


class Pointer(Document):
    """A small document."""

    version: int
    held: tuple[int, ...] = ()
    loss: float | None = None


def test_a_document_reads_what_it_wrote(tmp_path: Path) -> None:
    pointer = Pointer(version=3, held=(1, 2), loss=0.5)
    pointer.write(tmp_path / "pointer.json")
    assert Pointer.read(tmp_path / "pointer.json") == pointer


def test_unknown_fields_are_ignored_and_missing_newer_ones_have_their_default() -> None:
    assert Pointer.parse(b'{"version": 1, "from the future": {"a": [1]}}', "x") == Pointer(version=1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"version": "1"}',
        b'{"version": 1.0}',
        b'{"version": true}',
        b'{"version": 1, "version": 2}',
        b'{"version": 1, "x": {"a": 1, "a": 1}}',
        b'{"version": 1, "loss": NaN}',
        b'{"version": 1, "loss": 1e999}',
        b'{"version": 1, "loss": 1' + 400 * b"0" + b"}",
        b'{"version": 1, "held": [1, null]}',
        b'{"version": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"version": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"version": 1',
        b'\xff\xfe{"version": 1}',
    ],
    ids=lambda content: repr(content[:24]),
)
def test_what_is_not_such_a_document_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pointer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pointer\.json"):
        Pointer.read(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "dangling link"])
def test_what_is_no_regular_file_is_named_and_never_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "pointer.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"pointer\.json"):
        Pointer.read(path)
