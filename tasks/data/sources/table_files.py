"""Where a table to train on lies: a file, a folder, a glob or a URL, and the files that this stands for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tasks.data.readers import finding
from tasks.errors import DataError, UsageError
from tasks.machine.installing import pip_install
from tasks.parameters.addresses import has_credentials
from tasks.store import fingerprints, regular_files
from tasks.store.fingerprints import BLOCK_BYTES, Fingerprint
from tasks.store.remote import OBJECT_STORES

SUFFIXES = (
    ".csv",
    ".tsv",
    ".parquet",
    ".feather",
    ".arrow",
    ".ipc",
    ".jsonl",
    ".ndjson",
    ".json",
)  # .txt is what is said of data
PACKED = ".gz"
NOT_A_VALUE = "__HIVE_DEFAULT_PARTITION__"
SECONDS = 10.0  # in which a host must answer


class TableFile(NamedTuple):
    """One file of a table, and the values that all its rows have by the folders it lies in (Hive partitions)."""

    fingerprint: Fingerprint
    partition: dict[str, str | None]

    @property
    def path(self) -> str:
        """An absolute path or a URL."""
        return self.fingerprint.path

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
        """Its bytes as a stream of pyarrow, unpacked.

        Raises:
            DataError: it is gone, is no regular file, or its host does not answer.
        """
        import pyarrow as pa

        with regular_files.opened(Path(self.path)) if "://" not in self.path else _remote(self.path) as raw:
            stream = pa.PythonFile(raw, mode="r")
            yield pa.CompressedInputStream(stream, "gzip") if self._name.endswith(PACKED) else stream


class TableFiles(NamedTuple):
    """What a source stands for."""

    source: str  # an absolute path or glob, or a URL
    files: tuple[TableFile, ...]

    @property
    def digest(self) -> str:
        """Changes where a file looks touched, comes or goes."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()


def is_table(path: Path) -> bool:
    """Whether a file found in a folder is part of a table, by its name; none that tools write for themselves."""
    name = path.name.lower().removesuffix(PACKED)
    return name.endswith(SUFFIXES) and not name.startswith("_")


def find(source: str) -> TableFiles:
    """The files that a path, a folder, a glob or a URL stands for, sorted by name.

    Raises:
        UsageError: nothing is there, or a URL has credentials in it.
        DataError: no file can be read, a host does not answer, or the package for a URL is not installed.
    """
    if "://" in source and not source.startswith("file://"):
        return _find_remote(source)
    source = source.removeprefix("file://")
    absolute = str(regular_files.absolute(source))
    paths = finding.find(source, known=is_table, suffixes=(*SUFFIXES, PACKED))
    return _with_partitions(absolute, fingerprints.of(paths))


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
    _refuse_credentials(url)
    with _reached(url):
        files, path = _file_system(url)
        if files.isdir(path) and not url.startswith("http"):
            paths = sorted(files.find(path))
        else:
            paths = sorted(files.glob(path)) if any(sign in path for sign in "*[") else [path]
        if len(paths) != 1:
            paths = [each for each in paths if is_table(Path(each))]
        prints = [_fingerprint(files, each) for each in paths]
    if not prints:
        raise DataError(f"{url} holds nothing that can be read", f"files named *{' *'.join(SUFFIXES)}", "see the URL")
    return _with_partitions(url, prints)


def _refuse_credentials(url: str) -> None:
    if has_credentials(url):
        raise UsageError(
            f"{url.partition('?')[0]} has credentials in it",
            "a URL that may be kept and logged",
            "give credentials in the environment or in the store's own configuration files, as AWS_ACCESS_KEY_ID",
        )


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    options = {"client_kwargs": {"timeout": _http_timeout()}} if url.startswith("http") else {}
    files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    return files, path


def _http_timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(sock_connect=SECONDS, sock_read=6 * SECONDS)


def _fingerprint(files: Any, path: str) -> Fingerprint:
    """Of a remote file, whose time of change not every host tells, by sampled blocks."""
    size = int(files.info(path)["size"] or 0)
    digest = fingerprints.sampled(size, lambda start: files.cat_file(path, start=start, end=start + BLOCK_BYTES))
    return Fingerprint(files.unstrip_protocol(path), size, 0, digest)


@contextmanager
def _remote(url: str) -> Iterator[Any]:
    with _reached(url):
        files, path = _file_system(url)
        stream = files.open(path, "rb")
    with stream:
        yield stream


@contextmanager
def _reached(url: str) -> Iterator[None]:
    """Every backend has exceptions of its own; ours say which URL, and what may help."""
    try:
        yield
    except (DataError, UsageError):
        raise
    except ImportError as error:
        package = OBJECT_STORES.get(url.partition("://")[0], "aiohttp")
        raise DataError(
            f"{url} cannot be read here: {error}",
            "the packages of the extra [remote]",
            f"install the extra [remote], or {pip_install('fsspec', package)}",
        ) from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{url} cannot be read: {type(error).__name__}: {reason}",
            "a host that answers, a file that is there, and credentials in the environment where it needs some",
            "check the URL and the network, or download the file and give its path",
        ) from error
