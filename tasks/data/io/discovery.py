"""Which files a path, a folder, a glob or a URL stands for. What is half written, or ours, is none of them."""

import fnmatch
import functools
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine.installing import pip_install
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters.addresses import require_no_credentials
from tasks.store import artifact_paths, fingerprints, predictions, regular_files
from tasks.store.fingerprints import Fingerprint
from tasks.store.regular_files import holds, shown
from tasks.store.remote import OBJECT_STORES

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TEXT_SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES)  # read from the first byte to the last
TYPED_SUFFIXES = (".parquet", ".feather", ".arrow", ".ipc")  # of files that keep the types of columns
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *TYPED_SUFFIXES)  # .txt is about data
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
PARTIAL_SUFFIXES = (".tmp", ".part", ".partial", ".filepart", ".crdownload")  # of what somebody is still writing
GZIP = ".gz"
MAX_BUFFERED = 128 * 2**20  # bytes of an Arrow file, of which one record batch may be all
UNREADABLE = "unreadable"  # in the place of a digest; why it is so is found when it is read
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
LISTED = 3  # names that a message has
BLOCK_BYTES = 2**20
CONNECT_SECONDS, READ_SECONDS = 10.0, 20.0  # in which a host must answer, and go on
MIN_RATE, GRACE_SECONDS = 2**10, 30.0  # bytes a second that a host must send, and after how long that counts
MAX_REASON = 300  # characters of a backend's own words, which may be several lines
STATES = (
    "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "modified", "updated", "created",
    "Content-MD5", "content_md5", "md5Hash", "Digest", "generation", "sha", "blob_id",
)  # fmt: skip  # what backends of fsspec call what changes with a file


class DataFile(NamedTuple):
    """One file, and the values that all its rows have by the folders that it lies in (Hive partitions)."""

    fingerprint: Fingerprint
    partition: dict[str, str | None] = {}  # noqa: RUF012  (never written to)

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
    def name(self) -> str:
        """The path in small letters, of a URL without its query."""
        is_web = self.path.lower().startswith(("http://", "https://"))
        return (urlsplit(self.path).path if is_web else self.path).lower()

    @property
    def suffix(self) -> str:
        """What tells its format."""
        return Path(self.name.removesuffix(GZIP)).suffix

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Its bytes as a stream, unpacked: of pyarrow, unless it is local text, which need not be copied once more.

        Raises:
            DataError: it is gone, is no regular file, or its host does not answer.
        """
        import pyarrow as pa

        is_sequential = self.suffix not in TYPED_SUFFIXES
        with ExitStack() as stack:
            if self.is_remote:
                raw = stack.enter_context(open_remote(self.path, is_sequential))
            else:
                raw = stack.enter_context(regular_files.opened(Path(self.path)))
                if not os.fstat(raw.fileno()).st_size:  # of /proc, some of which wait for ever, too
                    raise empty(Path(self.path))
            if self.name.endswith(GZIP):
                yield pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip")
            elif not is_sequential and self.suffix != ".parquet" and self.fingerprint.bytes > MAX_BUFFERED:
                copy = stack.enter_context(tempfile.TemporaryFile())  # mapped: others may cut the file itself short
                shutil.copyfileobj(raw, copy, BLOCK_BYTES)
                copy.flush()
                yield stack.enter_context(pa.memory_map(f"/proc/self/fd/{copy.fileno()}"))
            else:
                yield raw if is_sequential and not self.is_remote else pa.PythonFile(raw, mode="r")


class DataFiles(NamedTuple):
    """What a source stands for."""

    source: str  # an absolute path or glob, or a URL
    files: tuple[DataFile, ...]

    @property
    def digest(self) -> str:
        """Changes where a file looks touched, comes or goes."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()

    def by_content(self) -> Self:
        """The same files in an order in which their names have no say; of remote ones only where sizes are equal."""
        count = Counter(file.look for file in self.files)

        def key(file: DataFile) -> tuple[object, ...]:
            is_alone = count[file.look] == 1 or file.is_remote
            whole = [] if is_alone else fingerprints.of([Path(file.path)], True, UNREADABLE)
            return (*file.look, [each.digest for each in whole], file.path)

        return self._replace(files=tuple(sorted(self.files, key=key)))


def is_table(path: Path) -> bool:
    """Whether a file found in a folder is part of a table, by its name; none that tools write for themselves."""
    name = path.name.lower().removesuffix(GZIP)
    return name.endswith(TABLE_SUFFIXES) and not name.startswith("_")


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, by its name."""
    return path.name.lower().endswith(PICTURE_SUFFIXES)


def find_table(source: str) -> DataFiles:
    """The files of a table that a path, a folder, a glob or a URL stands for, sorted by name.

    Raises:
        UsageError: a URL has credentials in it.
        DataError: nothing is there, a file is half written, a host does not answer, or a URL's package is missing.
    """
    if is_url(source):
        prints = list_remote(source, is_table)
        if not prints:
            raise _nothing_readable(source, TABLE_SUFFIXES, "see the URL")
        return with_partitions(source, prints)
    source = source.removeprefix("file://")
    absolute = regular_files.absolute(source)
    require_whole(absolute)
    try:
        paths = find_files(source, is_table, (*TABLE_SUFFIXES, GZIP), check_size=False)
    except UsageError as error:  # a nightly run's data that are gone are no mistyped option
        raise DataError(error.found, "a file, a folder or a glob", "check the path, or give another") from error
    return with_partitions(str(absolute), fingerprints.of(paths, unreadable=UNREADABLE))


def is_url(source: str) -> bool:
    """Whether a source lies on another host, or is to be asked of a backend."""
    return "://" in source and not source.startswith("file://")


def with_partitions(source: str, prints: Iterable[Fingerprint]) -> DataFiles:
    """Files, and what the folders that they lie in say of their rows."""
    return DataFiles(source, tuple(DataFile(each, _partition(source, each.path)) for each in prints))


def _partition(source: str, path: str) -> dict[str, str | None]:
    """The values in names of folders such as ``year=2024``, below those that ``source`` itself names."""
    given = Path(source).parts
    parts = Path(path).parts[:-1]
    below = [part for at, part in enumerate(parts) if "=" in part and (at >= len(given) or given[at] != part)]
    pairs = [part.split("=", 1) for part in below]
    if "" in (name for name, _ in pairs):
        raise DataError(f"{path} lies in a folder with nothing before its =", "COLUMN=VALUE", "rename the folder")
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, value in pairs}


# On this machine


def find_files(
    text: str,
    is_data: Callable[[Path], bool],
    suffixes: Iterable[str],
    output: Path | None = None,
    check_size: bool = True,
) -> list[Path]:
    """The files that a path, a folder or a glob stands for, each once, sorted by name.

    Of a folder those that are ``is_data``, by their ``suffixes``. Unless ``check_size`` some may be empty.

    Left out is what lies in ``output`` and, below what ``text`` names, in artifacts/ or in the folder of a job: a job
    that found its own parts there would have another input each time. Links to files are files; links to folders are
    followed only where ``text`` itself names them, for below it they would give rows twice, or without end.

    Raises:
        UsageError: nothing is there, or all of it lies in ``output``.
        DataError: no file can be read, or the name of one is not UTF-8.
    """
    if not text:
        raise UsageError("an empty input", "a file, a folder or a glob", "name one; leave it out for the test split")
    path = regular_files.absolute(text)
    search = _search(path)
    search.tell()
    is_ours = _whether_ours(search.base, output)
    everything = search.named | search.below
    others = [each for each in sorted(everything) if not is_ours(each.parent)]
    files = [each for each in others if each in search.named or is_data(each)]
    if any(map(is_picture, files)):  # what describes pictures lies among them
        files = [each for each in files if each in search.named or not _is_text(each)]
    if left_out := len(everything) - len(others):
        tell(f"left out {counted(left_out, 'file')} of artifacts/ and of predictions")
    if ignored := sorted(each for each in {*others} - {*files} if not describes_labels(each)):
        tell(f"ignored {counted(len(ignored), 'file')} of no known kind, the first is {shown(ignored[0])}")
    if not files:
        if output is not None and left_out and not others:
            raise UsageError(f"the input {path} in the output folder {output}", "two places", "choose another --output")
        if search.below or path.is_dir():
            raise _nothing_readable(path, suffixes, "name the file itself")
        raise UsageError(f"no file {shown(path)}", "a file, a folder or a glob of inputs", "check the path")
    for each in files:
        if shown(each) != str(each):
            raise DataError(f"the name of {shown(each)} is not UTF-8", "names in UTF-8", "rename it")
        if check_size and not is_picture(each) and not each.stat().st_size:
            raise empty(each)
    return files


def _is_text(path: Path) -> bool:
    return path.name.lower().removesuffix(GZIP).endswith(TEXT_SUFFIXES)


def describes_labels(path: Path) -> bool:
    """Whether a file says of which classes the images beside it are, by its name."""
    return "idx1" in path.name or path.name == "labels.txt"


def _nothing_readable(source: object, suffixes: Iterable[str], action: str) -> DataError:
    return DataError(f"{source} holds nothing that can be read", f"files named *{' *'.join(suffixes)}", action)


def empty(path: Path) -> DataError:
    """The error of a file without a byte; of /proc, some of which wait for ever, too."""
    return DataError(f"{path} is empty, or no file on disk", "a file of rows", "write it again, or leave it out")


def base_folder(path: Path) -> Path:
    """The folder in which everything lies that a path, absolute, stands for."""
    if path.is_dir():
        return path
    return path.parent if path.is_file() else next(each for each in path.parents if not glob.has_magic(str(each)))


@dataclass
class _Search:
    """What a path stands for: files that it names itself, and those in the folders that it names."""

    base: Path
    named: set[Path] = field(default_factory=set)
    below: set[Path] = field(default_factory=set)
    links: set[Path] = field(default_factory=set)
    irregular: set[Path] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)

    def look(self, pattern: tuple[str, ...]) -> None:
        """Add what matches a pattern of one name or ``**`` a level; of a folder that matches, everything below.

        Folders wait in a list, each with the places in the pattern from which its entries go on, so that neither depth
        nor stars cost more than the folders that are there.
        """
        last, names = len(pattern) - 1, (*pattern, "**")  # the last stands for what is below a folder that matches
        waiting = [(self.base, _skip_stars({0}, pattern))]
        while waiting:
            folder, places = waiting.pop()
            for entry in self._entries(folder):
                matched = {at for at in places if _matches(entry.name, names[at])}
                if not matched:
                    continue
                path = Path(entry.path)
                if holds(entry.is_dir):
                    following = {at if names[at] == "**" else at + 1 for at in matched}
                    if entry.is_symlink():
                        self.links.add(path)
                    else:
                        waiting.append((path, _skip_stars(following, pattern)))
                elif matched & {last, last + 1}:
                    (self.named if last in matched else self.below).add(path)
                    if not holds(entry.is_file):
                        self.irregular.add(path)
        self.named -= self.irregular
        self.below -= self.irregular | self.named

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            self.closed.add(f"{shown(folder)}: {error.strerror}")
            return []

    def tell(self) -> None:
        """Say what was left out."""
        if links := sorted(self.links):
            tell(f"links to folders are not followed, name them to read them: {len(links)}, first {shown(links[0])}")
        if irregular := sorted(self.irregular):
            tell(f"left out what is no regular file: {len(irregular)}, first {shown(irregular[0])}")
        if closed := sorted(self.closed):
            tell(f"left out folders that cannot be read: {len(closed)}, first {closed[0]}")


def _matches(name: str, pattern: str) -> bool:
    """Whether an entry of a folder is meant; what is hidden only by a pattern that says so."""
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return pattern == "**" or fnmatch.fnmatchcase(name, pattern)


def _skip_stars(places: set[int], pattern: tuple[str, ...]) -> set[int]:
    """The places in a pattern, and those after each ``**`` among them, which stands for no folder, too."""
    for at in range(min(places, default=0), len(pattern) - 1):
        if at in places and pattern[at] == "**":
            places.add(at + 1)
    return places


def _search(path: Path) -> _Search:
    """Look at the disk.

    Raises:
        DataError: the path is a FIFO, a socket or a device.
    """
    search = _Search(base_folder(path))
    if path.is_file():
        search.named.add(path)
    elif path.is_dir():
        search.look(())
    elif path.exists():
        raise regular_files.irregular(shown(path))
    elif glob.has_magic(str(path)) and search.base.is_dir():
        search.look(path.relative_to(search.base).parts)
    return search


def _whether_ours(base: Path, output: Path | None) -> Callable[[Path], bool]:
    """Whether what lies in a folder was written by predictions and their like rather than to be predicted."""
    root, target = artifact_paths.root(), None if output is None else output.resolve()

    @functools.cache
    def is_ours(folder: Path) -> bool:
        if target is not None and folder.resolve().is_relative_to(target):
            return True
        if base in root.parents and folder.is_relative_to(root):
            return True
        return folder != base and predictions.holds_job(folder)

    return is_ours


def require_whole(path: Path) -> None:
    """Let a folder pass in which nothing is half written, and a file or a glob beside which none of its own is.

    Raises:
        DataError: something is, or seems so since it was never ended.
    """
    if path.is_dir():
        refuse_partial(map(str, _search(path).below))
    elif glob.has_magic(str(path)) and not path.exists():
        search, name = _Search(base_folder(path)), path.name
        search.look((*path.relative_to(search.base).parts[:-1], name if name == "**" else f"{name}*"))
        refuse_partial(map(str, search.named))
    else:
        refuse_partial(f"{path}{suffix}" for suffix in ("", *PARTIAL_SUFFIXES) if Path(f"{path}{suffix}").exists())


def refuse_partial(paths: Iterable[str]) -> None:
    """Let files pass none of which is half written by its name.

    Raises:
        DataError: one is.
    """
    partial = sorted(path for path in paths if path.lower().endswith(PARTIAL_SUFFIXES))
    if partial:
        more = f" and {len(partial) - LISTED:,} more" if len(partial) > LISTED else ""
        raise DataError(
            f"half written, by the name: {', '.join(map(shown, partial[:LISTED]))}{more}",
            "files that are whole",
            "run it again once they are, or remove what nobody writes any more",
        )


# At a URL


def list_remote(url: str, is_data: Callable[[Path], bool]) -> list[Fingerprint]:
    """The files that a URL names, or those of a folder that are data, sorted.

    Raises:
        UsageError: the URL has credentials in it.
        DataError: the host does not answer, there is nothing, or the package for the URL is not installed.
    """
    require_no_credentials(url)
    with _reaching(url):
        files, path = _file_system(url)
        if not _is_web(url) and files.isdir(path):
            paths = [each for each in sorted(files.find(path)) if is_data(Path(each))]
        else:
            paths = sorted(files.glob(path)) if any(sign in path for sign in "*[") else [path]
        return [_fingerprint(files, each) for each in paths]


@contextmanager
def open_remote(url: str, is_sequential: bool) -> Iterator[Any]:
    """The bytes of a file; if they are read from the first to the last, its host need not know how to send parts.

    Raises:
        DataError: the host does not answer, or the file is gone.
    """
    with _reaching(url):
        files, path = _file_system(url)
        if is_sequential or not _is_web(url):
            options = {"block_size": 0} if is_sequential and _is_web(url) else {}
            stream = files.open(path, "rb", **options)
        else:  # many a server sends no parts: once, and whole
            with files.open(path, "rb", block_size=0) as whole:
                stream = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
                shutil.copyfileobj(_Timed(whole), stream, BLOCK_BYTES)
                stream.seek(0)
    with stream:
        yield _Timed(stream) if is_sequential else stream


class _Timed(RawIOBase):
    """A stream that is given up where its host sends next to nothing for long."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._started, self._bytes = stream, time.monotonic(), 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes.

        Raises:
            TimeoutError: they come too slowly.
        """
        content: bytes = self._stream.read(size)
        self._bytes += len(content)
        seconds = time.monotonic() - self._started
        if seconds > GRACE_SECONDS and self._bytes < MIN_RATE * seconds:
            raise TimeoutError(f"its host sent {self._bytes:,} bytes in {seconds:.0f} s")
        return content


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    options = {"client_kwargs": {"timeout": _http_timeout()}} if _is_web(url) else {}
    files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    return files, path


def _http_timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)


def _fingerprint(files: Any, path: str) -> Fingerprint:
    """By what its host says of its state; where it says nothing, by all its bytes."""
    facts = files.info(path)
    if state := {name: str(facts[name]) for name in STATES if facts.get(name)}:
        digest = hashlib.sha256(json.dumps(state).encode())
    else:
        digest = hashlib.sha256()
        with files.open(path, "rb", **({"block_size": 0} if "http" in files.protocol else {})) as stream:
            timed = _Timed(stream)
            while block := timed.read(BLOCK_BYTES):
                digest.update(block)
    return Fingerprint(files.unstrip_protocol(path), int(facts["size"] or 0), 0, digest.hexdigest())


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Every backend has exceptions of its own; ours say which URL, and what may help."""
    try:
        yield
    except GradmillError:
        raise
    except ImportError as error:
        package = OBJECT_STORES.get(url.partition("://")[0], "aiohttp")
        raise DataError(
            f"{url} cannot be read here: {error}",
            "the packages of the extra [remote]",
            f"install the extra [remote], or {pip_install('fsspec', package)}",
        ) from error
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # as of fsspec's FileNotFoundError
        reason = " ".join(str(cause).split())[:MAX_REASON]
        raise DataError(
            f"{url} cannot be read: {type(cause).__name__}: {reason}",
            "a host that answers, a file that is there, and credentials in the environment where it needs some",
            "check the URL and the network, or download the file and give its path",
        ) from error
