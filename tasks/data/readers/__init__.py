"""Files of rows, to learn from or to predict, read slice by slice so that memory does not grow with them."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.readers import named
from tasks.data.readers.finding import FORMATS, format_of
from tasks.data.readers.finding import base_of as base_of
from tasks.data.readers.finding import find as find
from tasks.data.readers.formats import Array, Format, Piece, Rows, Wanted, broken
from tasks.data.readers.formats import changed as changed
from tasks.data.readers.image_formats import IDX, PICTURE, PICTURES, classes_of_folders
from tasks.data.readers.tables import CSV, PARQUET
from tasks.data.recipe import Columns, Pixels
from tasks.errors import DataError, UsageError
from tasks.store import regular_files
from tasks.store.fingerprints import Fingerprint

MOST_ROWS = 10**12  # what a header of a sparse file, or of Parquet, may promise; planning takes memory for each shard


class Source(NamedTuple):
    """One file of an input: ``readable`` is the file itself, or what it was unpacked into.

    ``bytes`` and ``mtime_ns`` are the file's own, from before it was read.
    """

    path: str
    format: str
    readable: str
    first_row: int
    rows: int
    bytes: int
    mtime_ns: int
    label: float | None = None  # the class of all its rows, where the folder tells


class Reject(NamedTuple):
    """A row that could not be read; ``row`` counts through all files, ``source_row`` through its own, both from 0."""

    row: int
    source: str
    source_row: int
    reason: str
    ids: tuple[str | None, ...] = ()  # its values of the columns that go along


class Chunk(NamedTuple):
    """Rows as the recipe encodes them, from one file or several small ones."""

    values: Rows  # (n, …) in the dtype and shape of the model's input
    rows: NDArray[np.int64]  # (n,) numbers within all files
    sources: list[str]
    source_index: NDArray[np.int32]  # (n,) into ``sources``
    truth: Array | None  # (n,) that the input brought along: labels, or of a table's target float64, NaN if missing
    rejects: list[Reject]
    notes: list[str]
    extra: pa.Table | None = None  # columns of text that go to the output as they are


def measure(files: list[Path], wanted: Wanted, spool: Path, base: Path | None = None) -> list[Source]:
    """Count the rows of every file; unpack into ``spool`` what cannot be read from the middle.

    Pictures below the folder ``base`` have the class whose name a folder there has.

    Raises:
        DataError: a file is broken, does not fit what is wanted, or there is not a single row.
    """
    sources: list[Source] = []
    first = 0
    truth = classes_of_folders(files, base, wanted) if base and {*map(format_of, files)} == {PICTURE} else None
    for index, path in enumerate(files):
        try:
            facts = path.stat()
        except OSError as error:
            raise changed(str(path)) from error
        if not stat.S_ISREG(facts.st_mode):
            raise regular_files.irregular(path)
        is_own = isinstance(wanted.recipe, Columns) and wanted.recipe.target is not None
        kind = format_of(path)
        kind = PICTURES if kind is PARQUET and isinstance(wanted.recipe, Pixels) else kind
        kind = CSV if is_own and kind is IDX else kind  # as in training, whatever its name
        if index == 0 and kind.header and is_own:
            named.tell_of(kind.header(path), wanted)
        if wanted.ids and kind.header is None:
            raise UsageError(f"--id-column {wanted.ids[0]} and {path}", "the rows of a table", "leave it out")
        readable = path
        if kind.unpack is not None and kind.is_packed(path):
            readable = spool / f"{index:05d}{kind.unpacked_suffix}"
            if not readable.is_file():
                kind.unpack(path, readable, wanted)
        if not 0 <= (rows := _count(path, kind, readable, wanted)) <= MOST_ROWS:
            raise broken(path, f"it promises {rows} rows")
        label = truth[index] if truth else None
        size, changed_at = facts.st_size, facts.st_mtime_ns
        sources.append(Source(str(path), kind.name, str(readable), first, rows, size, changed_at, label))
        first += rows
    if not first:
        raise DataError(f"{files[0]} holds no rows", "at least one row", "name an input with rows")
    return sources


def _count(path: Path, kind: Format, readable: Path, wanted: Wanted) -> int:
    try:
        return kind.count(readable, wanted)
    except DataError as error:  # the user knows nothing of what it was unpacked into
        expected = error.expected.replace(f"whole {readable.suffix}", f"whole {path.suffix}")
        raise DataError(error.found.replace(str(readable), str(path)), expected, error.action) from error


def check_unchanged(files: Iterable[Source | Fingerprint]) -> None:
    """Whether files are still as they were seen.

    Raises:
        DataError: one is gone, or has been written to.
    """
    for file in files:
        try:
            facts = os.stat(file.path)  # noqa: PTH116  (a folder of pictures has very many)
        except OSError as error:
            raise changed(file.path) from error
        if (facts.st_size, facts.st_mtime_ns) != (file.bytes, file.mtime_ns):
            raise changed(file.path)


def shard_rows(sources: list[Source], wanted: Wanted) -> int:
    """The most rows of a shard: enough work to be worth a Prefect task, not so much that a kill would hurt."""
    return min(FORMATS[name].shard_rows(wanted) for name in {source.format for source in sources})


def tolerated_rejects(sources: list[Source]) -> int:
    """How many rejected rows are no reason to stop: none of arrays, 1 % of tables and pictures."""
    return sum(FORMATS[source.format].tolerated_percent * source.rows for source in sources) // 100


def chunks(sources: list[Source], start: int, stop: int, wanted: Wanted) -> Iterator[Chunk]:
    """The rows ``start`` to ``stop`` of all files, in order, a bounded number at a time."""
    held: list[tuple[Source, Piece]] = []
    size = 0
    for source in sources:
        first, last = max(start, source.first_row), min(stop, source.first_row + source.rows)
        if first >= last:
            continue
        kind = FORMATS[source.format]
        for piece in kind.pieces(Path(source.readable), first - source.first_row, last - source.first_row, wanted):
            size += piece.num_rows
            if source.label is not None:
                piece = piece._replace(truth=np.full(len(piece.values), source.label))
            is_last = source.first_row + piece.first + piece.num_rows == stop
            if size < wanted.chunk_rows and not is_last:  # no file stays open while its rows wait for those of others
                piece = piece._replace(values=np.asarray(piece.values))
            held.append((source, piece))
            if size >= wanted.chunk_rows:
                yield _chunk(held)
                held, size = [], 0
    if held:
        yield _chunk(held)


def _chunk(held: list[tuple[Source, Piece]]) -> Chunk:
    pieces = [piece for _, piece in held]
    rows = [source.first_row + piece.first + piece.kept_offsets() for source, piece in held]
    truths = [piece.truth for piece in pieces if piece.truth is not None]
    place = {path: number for number, path in enumerate(dict.fromkeys(source.path for source, _ in held))}
    index = np.array([place[source.path] for source, _ in held], np.int32)
    return Chunk(
        values=pieces[0].values if len(pieces) == 1 else np.concatenate([piece.values for piece in pieces]),
        rows=rows[0] if len(rows) == 1 else np.concatenate(rows),
        sources=list(place),  # each once: Parquet's writer is slow with a dictionary that has one twice
        source_index=np.repeat(index, [len(piece.values) for piece in pieces]),
        truth=np.concatenate(truths) if len(truths) == len(pieces) else None,
        rejects=[
            Reject(source.first_row + at, source.path, at, reason, _ids(piece, at - piece.first))
            for source, piece in held
            for at, reason in ((piece.first + offset, reason) for offset, reason in piece.rejects)
        ],
        notes=[note for piece in pieces for note in piece.notes],
        extra=None
        if pieces[0].extra is None
        else pa.Table.from_batches([_good(piece.extra, piece.kept) for piece in pieces]),
    )


def _good(extra: pa.RecordBatch, kept: Array | None) -> pa.RecordBatch:
    return extra if kept is None else extra.take(pa.array(kept))


def _ids(piece: Piece, offset: int) -> tuple[str | None, ...]:
    return () if piece.extra is None else tuple(column[offset].as_py() for column in piece.extra.columns)
