"""Where a table to train on lies: a file, a folder, a glob or a URL, and the files that this stands for."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from tasks.data.readers import finding
from tasks.data.readers.columnar import OF_BATCHES
from tasks.data.sources import half_written, remote_files
from tasks.errors import DataError, UsageError
from tasks.store import fingerprints, regular_files
from tasks.store.fingerprints import Fingerprint

OF_TEXT = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")  # read from the first byte to the last; .txt is about data
WITH_PARTS = (".parquet", *OF_BATCHES)
SUFFIXES = (*OF_TEXT, *WITH_PARTS)
HELD_BYTES = 128 * 2**20  # of a file of which one record batch may be all
PACKED = ".gz"
UNREADABLE = "unreadable"  # in the place of a digest; why it is so is found when it is read
NOT_A_VALUE = "__HIVE_DEFAULT_PARTITION__"


class TableFile(NamedTuple):
    """One file of a table, and the values that all its rows have by the folders it lies in (Hive partitions)."""

    fingerprint: Fingerprint
    partition: dict[str, str | None]

    @property
    def path(self) -> str:
        """An absolute path or a URL."""
        return self.fingerprint.path

    @property
    def is_remote(self) -> bool:
        """Whether it is at a URL."""
        return "://" in self.path

    @property
    def look(self) -> tuple[str, int, str]:
        """What it has in it, as far as one can tell: what a host says of a file may be another after each upload."""
        known = "" if self.is_remote else self.fingerprint.digest
        return json.dumps(self.partition), self.fingerprint.bytes, known

    @property
    def suffix(self) -> str:
        """What tells its format."""
        return Path(self._name.removesuffix(PACKED)).suffix

    @property
    def _name(self) -> str:
        """In small letters, of a URL without its query."""
        is_web = self.path.lower().startswith(("http://", "https://"))
        return (urlsplit(self.path).path if is_web else self.path).lower()

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Its bytes as a stream, unpacked: of pyarrow, unless it is local text, which need not be copied once more.

        Raises:
            DataError: it is gone, is no regular file, or its host does not answer.
        """
        import pyarrow as pa

        has_parts = self.suffix in WITH_PARTS
        local = None if self.is_remote else regular_files.opened(Path(self.path))
        if local and not self.fingerprint.bytes:  # of /proc, some of which wait for ever, too
            local.close()
            raise finding.empty(Path(self.path))
        with local or remote_files.opened(self.path, not has_parts) as raw:
            if self._name.endswith(PACKED):
                yield pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip")
            elif self.suffix in OF_BATCHES and not self.is_remote and self.fingerprint.bytes > HELD_BYTES:
                with pa.memory_map(self.path) as mapped:
                    yield mapped
            elif local and not has_parts:
                yield raw
            else:
                yield pa.PythonFile(raw, mode="r")


class TableFiles(NamedTuple):
    """What a source stands for."""

    source: str  # an absolute path or glob, or a URL
    files: tuple[TableFile, ...]

    @property
    def digest(self) -> str:
        """Changes where a file looks touched, comes or goes."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()

    def by_content(self) -> Self:
        """The same files in an order in which their names have no say; of remote ones only where sizes are equal."""
        count = Counter(file.look for file in self.files)

        def key(file: TableFile) -> tuple[object, ...]:
            is_alone = count[file.look] == 1 or file.is_remote
            whole = [] if is_alone else fingerprints.of([Path(file.path)], True, UNREADABLE)
            return (*file.look, [each.digest for each in whole], file.path)

        return self._replace(files=tuple(sorted(self.files, key=key)))


def is_table(path: Path) -> bool:
    """Whether a file found in a folder is part of a table, by its name; none that tools write for themselves."""
    name = path.name.lower().removesuffix(PACKED)
    return name.endswith(SUFFIXES) and not name.startswith("_")


def find(source: str) -> TableFiles:
    """The files that a path, a folder, a glob or a URL stands for, sorted by name.

    Raises:
        UsageError: a URL has credentials in it.
        DataError: nothing is there, a file is half written, a host does not answer, or a URL's package is missing.
    """
    if "://" in source and not source.startswith("file://"):
        return _find_remote(source)
    source = source.removeprefix("file://")
    absolute = regular_files.absolute(source)
    half_written.require_none(absolute)
    try:
        paths = finding.find(source, known=is_table, suffixes=(*SUFFIXES, PACKED), are_checked=False)
    except UsageError as error:  # a nightly run's data that are gone are no mistyped option
        raise DataError(error.found, "a file, a folder or a glob", "check the path, or give another") from error
    return _with_partitions(str(absolute), fingerprints.of(paths, unreadable=UNREADABLE))


def _with_partitions(source: str, prints: list[Fingerprint]) -> TableFiles:
    return TableFiles(source, tuple(TableFile(each, _partition(source, each.path)) for each in prints))


def _partition(source: str, path: str) -> dict[str, str | None]:
    """The values in names of folders such as ``year=2024``, below those that ``source`` itself names."""
    given = Path(source).parts
    parts = Path(path).parts[:-1]
    below = [part for at, part in enumerate(parts) if "=" in part and (at >= len(given) or given[at] != part)]
    pairs = (part.split("=", 1) for part in below)
    return {unquote(name): None if value == NOT_A_VALUE else unquote(value) for name, value in pairs}


def _find_remote(url: str) -> TableFiles:
    prints = remote_files.find(url, lambda path: is_table(Path(path)))
    if not prints:
        raise DataError(f"{url} holds nothing that can be read", f"files named *{' *'.join(SUFFIXES)}", "see the URL")
    return _with_partitions(url, prints)
