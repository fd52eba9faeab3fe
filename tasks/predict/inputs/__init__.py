"""What can be predicted: files of rows, read slice by slice so that memory does not grow with them."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError, UsageError
from tasks.predict.inputs.arrays import IDX, NPY, NPZ, SAFETENSORS
from tasks.predict.inputs.formats import Array, Format, Piece, Wanted
from tasks.predict.inputs.pictures import PICTURE
from tasks.predict.inputs.tables import CSV, PARQUET

FORMATS = {each.name: each for each in (IDX, NPY, NPZ, SAFETENSORS, PARQUET, CSV, PICTURE)}
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}


class Source(NamedTuple):
    """One file of a job's input: ``readable`` is the file itself, or what it was unpacked into."""

    path: str
    format: str
    readable: str
    first_row: int
    rows: int


class Reject(NamedTuple):
    """A row that could not be read; ``row`` counts through the job, ``source_row`` through its file, both from 0."""

    row: int
    source: str
    source_row: int
    reason: str


class Chunk(NamedTuple):
    """Rows ready for the model, from one file or several small ones."""

    values: Array  # (n, …) in the model's dtype and shape
    rows: NDArray[np.int64]  # (n,) numbers within the job
    sources: list[str]
    source_index: NDArray[np.int32]  # (n,) into ``sources``
    truth: Array | None  # (n,) labels that the input brought along
    rejects: list[Reject]
    notes: list[str]


def find(text: str) -> list[Path]:
    """The files that a path, a folder or a glob stands for, sorted by name.

    Raises:
        UsageError: nothing is there.
        DataError: the folder holds no file that can be read.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return _in_folder(path)
    found = [path] if path.is_file() else [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  (a pattern may be absolute)
    files = [each.absolute() for each in found if each.is_file()]
    if not files:
        raise UsageError(f"no file {path}", "a file, a folder or a glob of inputs", "check the path")
    return files


def _in_folder(folder: Path) -> list[Path]:
    relative = sorted(each.relative_to(folder) for each in folder.rglob("*") if each.is_file())
    visible = [each for each in relative if not any(part.startswith(".") for part in each.parts)]
    files = [each for each in visible if each.suffix.lower() in BY_SUFFIX or "idx3" in each.name]
    if not files:
        raise DataError(
            f"{folder} holds nothing that can be read", f"files named *{' *'.join(BY_SUFFIX)}", "name the file itself"
        )
    if ignored := [str(each) for each in visible if each not in set(files)]:
        print(f"ignored {len(ignored)} files of no known kind, the first is {ignored[0]}")
    return [(folder / each).absolute() for each in files]


def format_of(path: Path) -> Format:
    """How to read a file, by its suffix; files without a known one are IDX, which have none."""
    return BY_SUFFIX.get(path.suffix.lower(), IDX)


def measure(files: list[Path], wanted: Wanted, spool: Path) -> list[Source]:
    """Count the rows of every file; unpack into ``spool`` what cannot be read from the middle.

    Raises:
        DataError: a file is broken, does not fit the model, or there is not a single row.
    """
    sources: list[Source] = []
    first = 0
    for index, path in enumerate(files):
        kind = format_of(path)
        readable = path
        if kind.unpack is not None and kind.is_packed(path):
            readable = spool / f"{index:05d}{kind.unpacked_suffix}"
            if not readable.is_file():
                kind.unpack(path, readable, wanted)
        rows = kind.count(readable, wanted)
        sources.append(Source(str(path), kind.name, str(readable), first, rows))
        first += rows
    if not first:
        raise DataError(f"{files[0]} holds no rows", wanted.describe(), "name an input with at least one row")
    return sources


def shard_rows(sources: list[Source], wanted: Wanted) -> int:
    """The most rows of a shard: enough work to be worth a Prefect task, not so much that a kill would hurt."""
    return min(FORMATS[name].shard_rows(wanted) for name in {source.format for source in sources})


def tolerated_rejects(sources: list[Source]) -> int:
    """How many rejected rows are no reason to stop: none of arrays, 1 % of tables and pictures."""
    return int(sum(FORMATS[source.format].tolerated_share * source.rows for source in sources))


def chunks(sources: list[Source], start: int, stop: int, wanted: Wanted) -> Iterator[Chunk]:
    """The rows ``start`` to ``stop`` of a job, in order, a bounded number at a time."""
    held: list[tuple[Source, Piece]] = []
    size = 0
    for source in sources:
        first, last = max(start, source.first_row), min(stop, source.first_row + source.rows)
        if first >= last:
            continue
        kind = FORMATS[source.format]
        for piece in kind.pieces(
            Path(source.readable), first - source.first_row, last - source.first_row, wanted.chunk_rows, wanted
        ):
            held.append((source, piece))
            size += piece.num_rows
            if size >= wanted.chunk_rows:
                yield _chunk(held)
                held, size = [], 0
    if held:
        yield _chunk(held)


def _chunk(held: list[tuple[Source, Piece]]) -> Chunk:
    pieces = [piece for _, piece in held]
    rows = [source.first_row + piece.first + piece.kept_offsets() for source, piece in held]
    truths = [piece.truth for piece in pieces if piece.truth is not None]
    return Chunk(
        values=pieces[0].values if len(pieces) == 1 else np.concatenate([piece.values for piece in pieces]),
        rows=np.concatenate(rows),
        sources=[source.path for source, _ in held],
        source_index=np.repeat(np.arange(len(held), dtype=np.int32), [len(piece.values) for piece in pieces]),
        truth=np.concatenate(truths) if len(truths) == len(pieces) else None,
        rejects=[
            Reject(source.first_row + piece.first + offset, source.path, piece.first + offset, reason)
            for source, piece in held
            for offset, reason in piece.rejects
        ],
        notes=[note for piece in pieces for note in piece.notes],
    )
