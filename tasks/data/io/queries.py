"""The answer to a query, batch by batch: PostgreSQL through ADBC (extra ``[sql]``), SQLite by the standard library."""

import hashlib
import itertools
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.io.discovery import explain_file_errors
from tasks.data.io.tabular import check_names, map_batches, without_rows, write_batch
from tasks.errors import DataError
from tasks.machine.words import pip_install
from tasks.parameters.addresses import SQLITE
from tasks.store import artifact_paths, atomic, regular_files

CONNECT_SECONDS = 10
KEPT_SECONDS = 7 * 24 * 3600
FETCHED_ROWS = 2**14  # as Python objects, which take far more memory than Arrow's
# What PostgreSQL skips before a statement; a carriage return ends a comment, and one with another in it is not matched.
BEFORE_STATEMENT = r"""(?:[\s(]|--[^\r\n]*(?:[\r\n]|\Z)|/\*(?:(?!/\*|\*/).)*\*/)*"""
STATEMENT = re.compile(rf"{BEFORE_STATEMENT}(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
TYPE_NAME = b"POSTGRESQL:type"  # a key in a column's metadata
EXPECTED = "a query that answers with rows and columns"
TO_DO = "see whether the database answers and what it says of the query"


def query_batches(address: str, query: str) -> Iterator[pa.RecordBatch]:
    """The rows that a query answers with, after a batch without rows that has all columns.

    The connection is read-only. NUMERIC becomes float64, and MONEY, which the driver reads in cents, is refused. A
    column of SQLite may have another type in each batch.

    Raises:
        DataError: the database does not answer, or not with rows; a column is MONEY; or its package is not installed.
    """
    open_batches = _sqlite_batches if address.startswith(SQLITE) else _postgresql_batches
    with explain_file_errors(f"the query of {address}", EXPECTED, TO_DO):
        batches = open_batches(address, query)
        first = next(batches)
        check_names(first.schema.names, f"the answer of {address}")
        yield from itertools.chain([without_rows(first.schema), first], batches)


def keep_answer(address: str, query: str) -> Path:
    """Keep a query's answer in a Feather file, the same file while the answer is the same; old ones are removed.

    A prediction needs a file, since it returns to rows that it has read. Files are removed after a week.

    Raises:
        DataError: as for ``query_batches``, or a column has different types in different rows.
    """
    folder = artifact_paths.answers()
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder, depth=0)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > KEPT_SECONDS:
            old.unlink(missing_ok=True)
    with atomic.temporary_in(folder) as spill_file, atomic.temporary_in(folder) as temporary:
        schema, num_rows = pa.schema([]), 0
        with explain_file_errors(f"the query of {address}", "one type in each column", "cast the column in the query"):
            with pa.OSFile(str(spill_file), "wb") as sink:
                for batch in query_batches(address, query):
                    schema = pa.unify_schemas([schema, batch.schema], promote_options="permissive")
                    num_rows += batch.num_rows
                    if batch.num_rows:
                        write_batch(sink, batch)
            if not num_rows:
                raise DataError(f"the query of {address} answers with no rows", "at least one row", "see the query")
            with pa.ipc.new_file(str(temporary), schema) as writer:
                for batch in map_batches(spill_file):
                    writer.write_batch(batch.cast(schema))
        asked = hashlib.sha256(f"{address} {query}".encode()).hexdigest()[:16]
        path = folder / f"{asked}-{atomic.file_digest(temporary)[:16]}.feather"
        with suppress(FileExistsError):
            path.hardlink_to(temporary)  # and not replaced: another prediction may be reading it
    return path


def _postgresql_batches(address: str, query: str) -> Iterator[pa.RecordBatch]:
    if not STATEMENT.match(query):  # a read-only transaction lets others through, such as "copy (…) to program '…'"
        found = f"the query of {address} is not a statement that reads"
        raise DataError(found, "one that begins with select, with, values or table", "write it as a select")
    try:
        from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]
    except ImportError as error:
        to_do = f"install the extra [sql], or {pip_install('adbc-driver-postgresql')}"
        raise DataError(f"{address} is a database", "the package adbc-driver-postgresql", to_do) from error
    timeout = f"{'&' if '?' in address else '?'}connect_timeout={CONNECT_SECONDS}"
    with dbapi.connect(address + timeout) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        # The driver puts the query into a statement of its own, where a semicolon is an error; a line ends a comment.
        cursor.execute(query.rstrip("; \t\r\n") + "\n")
        reader = cursor.fetch_record_batch()
        yield from map(_convert_numeric, itertools.chain([without_rows(reader.schema)], reader))


def _convert_numeric(batch: pa.RecordBatch) -> pa.RecordBatch:
    for at, field in enumerate(batch.schema):
        type_ = field.metadata[TYPE_NAME]
        if type_ == b"money":
            to_do = f"cast it to numeric in the query, as in {field.name}::numeric"
            raise DataError(f"{field.name} is of PostgreSQL's type money", "a type of numbers", to_do)
        if type_ == b"numeric":
            batch = batch.set_column(at, field.name, pc.cast(batch.column(at), pa.float64()))
    return batch


def _sqlite_batches(address: str, query: str) -> Iterator[pa.RecordBatch]:
    path = Path(address.removeprefix(SQLITE))
    regular_files.open_regular(path).close()
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        connection.set_authorizer(lambda act, *_: sqlite3.SQLITE_OK if act in READS else sqlite3.SQLITE_DENY)
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description or ()]
        rows: list[Any] = cursor.fetchmany(FETCHED_ROWS)
        while True:
            columns = zip(*rows, strict=True) if rows else ([] for _ in names)
            yield pa.record_batch([_make_array([*each]) for each in columns], names)
            if not (rows := cursor.fetchmany(FETCHED_ROWS)):
                return


def _make_array(values: list[Any]) -> pa.Array:
    """An array with one type for all values; if there are several types, text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
