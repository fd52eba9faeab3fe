"""Which files a path, a folder, a glob or a URL stands for, except files that are half written or our own."""

import errno
import fnmatch
import functools
import glob
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine.run_messages import print_message
from tasks.machine.words import pip_install, pluralize
from tasks.parameters.addresses import A_WORKBOOK, WORKBOOKS, is_database, require_no_credentials, split_source
from tasks.parameters.data import TYPED_FORMATS
from tasks.store import artifact_paths, predictions, regular_files, verified_files
from tasks.store.regular_files import format_path, is_true
from tasks.store.remote import OBJECT_STORES
from tasks.store.verified_files import Fingerprint

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TEXT_SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES)  # read from the first byte to the last
TYPED_SUFFIXES = tuple(TYPED_FORMATS)
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *TYPED_SUFFIXES)  # .txt files are about data
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
GZIP = ".gz"
LABELS_FILE = "labels.txt"  # the classes of the images beside it, one a line
MAX_BUFFERED = 128 * 2**20  # bytes of an Arrow file, of which one record batch may be all
PARTIAL_SUFFIXES = (".tmp", ".part", ".partial", ".filepart", ".crdownload")  # of what somebody is still writing
LISTED = 3  # names that a message has
HIDDEN = (".", "~$")  # beginnings of names; the latter of the file that Excel keeps while a workbook is open
CLOSED_FOLDERS, LINKS, IRREGULAR = "closed-folder", "links", "irregular"
WORDS = {
    CLOSED_FOLDERS: "left out folders that cannot be read",
    LINKS: "links to folders are not followed, name them to read them",
    IRREGULAR: "left out what is not a regular file",
}
LeftOut = defaultdict[str, list[str]]  # the names of files that were left out, by reason
Patterns = set[tuple[str, ...]]  # what is still to be matched, one entry per level; empty: everything below a match
ALWAYS_READ = "always read "  # begins what replaces a digest where nothing is known of the state, and is never equal
UNREADABLE = "unreadable"  # replaces a digest; the reason is found when the file is read
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
CONNECT_SECONDS, READ_SECONDS = 10.0, 20.0  # in which a host must answer, and go on
MAX_REASON = 300  # characters of a backend's own words, which may be several lines
STATES = (
    "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "modified", "updated", "created",
    "Content-MD5", "content_md5", "md5Hash", "Digest", "generation", "sha", "blob_id",
)  # fmt: skip  # what backends of fsspec call what changes with a file


class DataFile(NamedTuple):
    """One file, and the values that the folders in which it lies give to all its rows (Hive partitions)."""

    fingerprint: Fingerprint
    partition: dict[str, str | None] = {}  # noqa: RUF012  (never written to)
    selected: str = ""  # a workbook's sheet (empty: the first), or a database's query
    copy: str = ""  # a file with what was read from a host or a database

    @property
    def path(self) -> str:
        """An absolute path or a URL."""
        return self.fingerprint.path

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is read, from which file, and in which state."""
        return (*self.fingerprint, self.selected) if self.selected else self.fingerprint

    @property
    def is_remote(self) -> bool:
        """Whether the file is at a URL."""
        return "://" in self.path

    @property
    def is_always_read(self) -> bool:
        """Whether nothing says if it has changed since it was last read."""
        return self.fingerprint.digest.startswith(ALWAYS_READ)

    @property
    def name(self) -> str:
        """The path in lower case, for a URL without its query."""
        return (urlsplit(self.path).path if _is_web(self.path) else self.path).lower()

    @property
    def suffix(self) -> str:
        """The suffix that determines the file's format."""
        return Path(self.name.removesuffix(GZIP)).suffix

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The file's bytes as an unpacked stream, which is seekable if the file keeps the types of columns.

        Raises:
            DataError: the file is gone, is not a regular file, or its host does not answer.
        """
        import pyarrow as pa

        with ExitStack() as stack:
            if self.is_remote and not self.copy:
                raw = stack.enter_context(self._open_remote())
            else:
                raw = stack.enter_context(regular_files.open_regular(Path(self.copy or self.path)))
                if not (self.copy or os.fstat(raw.fileno()).st_size):  # as in /proc, where some files never end either
                    raise empty_file(Path(self.path))
            is_large_batch = self.suffix != ".parquet" and self.fingerprint.bytes > MAX_BUFFERED
            if self.name.endswith(GZIP):
                yield pa.CompressedInputStream(raw, "gzip")
            elif self.suffix in TYPED_SUFFIXES and ((self.is_remote and not self.copy) or is_large_batch):
                # many servers serve no ranges, and others may truncate a file
                place = artifact_paths.root()  # /tmp may be memory
                copy = stack.enter_context(tempfile.TemporaryFile(dir=place if place.is_dir() else None))
                shutil.copyfileobj(raw, copy)
                copy.flush()
                yield stack.enter_context(pa.memory_map(f"/proc/self/fd/{copy.fileno()}"))
            else:
                yield raw

    @contextmanager
    def _open_remote(self) -> Iterator[Any]:
        with _explain_url_errors(self.path):  # from the first byte to the last: not every host sends parts
            files, path = _file_system(self.path)
            with files.open(path, "rb") as raw:
                yield raw

    def download(self, path: Path) -> Self:
        """The file with a copy at a path.

        Raises:
            DataError: its host does not answer.
        """
        with self._open_remote() as raw, path.open("wb") as copy:
            shutil.copyfileobj(raw, copy)
        return self._replace(copy=str(path))


class DataFiles(NamedTuple):
    """What a source stands for."""

    source: str  # an absolute path or glob, or a URL
    files: tuple[DataFile, ...]

    @property
    def is_always_read(self) -> bool:
        """Whether nothing says if a file has changed since it was last read."""
        return any(file.is_always_read for file in self.files)

    @property
    def digest(self) -> str:
        """A digest that changes if a file appears to be modified, appears or disappears."""
        files = [file[:3] if file.selected else file[:2] for file in self.files]
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    def by_content(self) -> Self:
        """The same files in an order that does not depend on their names; remote ones only where sizes are equal.

        The state that a host reports for a file may change with each upload.
        """

        def sort_key(file: DataFile) -> tuple[str, int, str, str]:
            _, size, _, digest = file.fingerprint
            return json.dumps(file.partition), size, "" if file.is_remote else digest, file.path

        return self._replace(files=tuple(sorted(self.files, key=sort_key)))


def is_table(path: Path) -> bool:
    """Whether a file found in a folder is, by its name, part of a table and not written by a tool for itself."""
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
    try:
        if not is_url(source):
            refuse_partial(local_path(split_source(source)[0]))
        found = find_data(source, is_table, (*TABLE_SUFFIXES, GZIP), unreadable=UNREADABLE, has_identity=False)
    except UsageError as error:
        if is_url(source):
            raise
        # if a nightly run's data are gone, no option was mistyped
        raise DataError(error.found, "a file, a folder or a glob", "check the path, or give another") from error
    return select_sheet(found, source)


def select_sheet(files: DataFiles, source: str) -> DataFiles:
    """The files with the sheet that their source names, if any.

    Raises:
        UsageError: none of them is a workbook.
    """
    place, sheet = split_source(source)
    if not sheet or is_database(place):
        return files
    if not any(file.suffix in WORKBOOKS for file in files.files):
        raise UsageError(f"--sheet {sheet} and {format_path(place)}", A_WORKBOOK, "leave --sheet out")
    selected = (file._replace(selected=sheet) if file.suffix in WORKBOOKS else file for file in files.files)
    return DataFiles(source, tuple(selected))


def find_data(
    source: str,
    is_data: Callable[[Path], bool],
    suffixes: Iterable[str],
    output: Path | None = None,
    full_digest: bool = False,
    unreadable: str = "",
    has_identity: bool = True,
) -> DataFiles:
    """The files of a path, a folder, a glob or a URL, sorted by name; in a folder, only those that are ``is_data``.

    If ``unreadable`` is given, it replaces the digests of files that cannot be read, which is then no error yet.
    ``has_identity``: a remote file whose host says nothing about its state is read whole, for a digest of its content.

    Raises:
        UsageError: nothing is there, all of it lies in ``output``, or a URL has credentials in it.
        DataError: no file can be read, the name of one is not UTF-8, or a host does not answer.
    """
    given, (source, query) = source, split_source(source)
    if is_database(source):  # the state of its answer is not known: it is always read
        require_no_credentials(source)
        return DataFiles(given, (DataFile(Fingerprint(source, 0, 0, _never_equal()), selected=query),))
    if is_url(source):
        prints = _list_remote(source, is_data, has_identity)
        if not prints:
            raise _nothing_readable(source, suffixes, "see the URL")
    else:
        if not source:
            expected, action = "a file, a folder or a glob", "name one; leave it out for the test split"
            raise UsageError("an empty input", expected, action)
        path = local_path(source)
        paths, source = _find_files(path, is_data, suffixes, output), str(path)
        for each in paths:
            if not unreadable and not is_picture(each) and not each.stat().st_size:
                raise empty_file(each)
        prints = verified_files.fingerprint_files(paths, full_digest, unreadable)
    return DataFiles(source, tuple(DataFile(each, _partition(source, each.path)) for each in prints))


def is_url(source: str) -> bool:
    """Whether a source lies on another host, or has to be read through a backend."""
    return "://" in source and not source.startswith("file://")


def local_path(source: str) -> Path:
    """The absolute path of a source on this machine, which may be a glob."""
    return regular_files.make_absolute(source.removeprefix("file://"))


def _partition(source: str, path: str) -> dict[str, str | None]:
    """The values in names of folders such as ``year=2024``, below those that ``source`` itself names."""
    if is_picture(Path(path)):  # whose folder may be called like any class
        return {}
    given = Path(source).parts
    parts = Path(path).parts[:-1]
    below = [part for at, part in enumerate(parts) if "=" in part and (at >= len(given) or given[at] != part)]
    pairs = [part.split("=", 1) for part in below]
    if "" in (name for name, _ in pairs):
        raise DataError(f"{path} lies in a folder with nothing before its =", "COLUMN=VALUE", "rename the folder")
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, value in pairs}


# On this machine


def refuse_partial(path: Path, listed: Iterable[str] | None = None) -> None:
    """Accept a folder or glob without half-written files, judged by name, and a file without one of its own name.

    ``listed`` are the files of a folder, if they have already been listed.

    Raises:
        DataError: a file is half written, or seems so because writing was never completed.
    """
    if path.is_dir() or (glob.has_magic(str(path)) and not path.exists()):
        if listed is None:
            within = path if path.is_dir() or path.name == "**" else path.with_name(f"{path.name}*")
            listed = (
                f"{folder}{os.sep}{name}" for folder, names in walk_files(within, LeftOut(list)) for name in names
            )
    else:
        beside = (f"{path}{suffix}" for suffix in ("", *PARTIAL_SUFFIXES))
        listed = [each for each in beside if Path(each).exists()]
    if partial := sorted(each for each in listed if Path(each).suffix.lower() in PARTIAL_SUFFIXES):
        more = f" and {len(partial) - LISTED:,} more" if len(partial) > LISTED else ""
        listing = f"half-written, judging by the name: {', '.join(map(format_path, partial[:LISTED]))}{more}"
        to_do = "run it again once they are complete, or remove files that nothing is writing any more"
        raise DataError(listing, "complete files", to_do)


def _find_files(
    path: Path, is_data: Callable[[Path], bool], suffixes: Iterable[str], output: Path | None
) -> list[Path]:
    """The files that a path, a folder or a glob stands for, sorted by name.

    Files in ``output`` are left out, as are those in artifacts/ or in the folder of a job that lie below what ``path``
    names, and single files that jobs wrote: a job that found its own output there would have another input each time.
    Links to files count as files; links to folders are followed only where ``path`` itself names them, since further
    down they would give rows twice, or never end.

    Raises:
        UsageError: nothing is there, or all of it lies in ``output``.
        DataError: no file can be read, or the name of one is not UTF-8.
    """
    left_out = LeftOut(list)
    folders = walk_files(path, left_out)
    found = {Path(folder, name): is_named for folder, inside in folders for name, is_named in inside.items()}
    for reason, names in left_out.items():
        print_message(f"{WORDS[reason]}: {len(names)}, first {min(names)}")
    is_ours = _whether_ours(base_folder(path), output)
    written = set[Path]() if path.is_file() else predictions.find_written_files(found)
    others = [each for each in sorted(found) if each not in written and not is_ours(each.parent)]
    files = [each for each in others if found[each] or is_data(each)]
    if any(map(is_picture, files)):  # files that describe pictures lie among them
        texts = {each for each in files if each.name.lower().removesuffix(GZIP).endswith(TEXT_SUFFIXES)}
        files = [each for each in files if found[each] or each not in texts]
    if ours := len(found) - len(others):
        print_message(f"left out {pluralize(ours, 'file')} of artifacts/ and of predictions")
    if ignored := sorted(each for each in {*others} - {*files} if each.name != LABELS_FILE):
        print_message(
            f"ignored {pluralize(len(ignored), 'file')} of no known kind, the first is {format_path(ignored[0])}"
        )
    if not files:
        if output is not None and ours and not others:
            raise UsageError(f"the input {path} in the output folder {output}", "two places", "choose another --output")
        if found or path.is_dir():
            raise _nothing_readable(path, suffixes, "name the file itself")
        raise UsageError(f"no file {format_path(path)}", "a file, a folder or a glob of inputs", "check the path")
    for each in files:
        if format_path(each) != str(each):
            raise DataError(f"the name of {format_path(each)} is not UTF-8", "names in UTF-8", "rename it")
    return files


def _nothing_readable(source: object, suffixes: Iterable[str], action: str) -> DataError:
    return DataError(f"{source} holds nothing that can be read", f"files named *{' *'.join(suffixes)}", action)


def empty_file(path: Path) -> DataError:
    """The error for a file without a byte; the files of /proc look like this, and reading some of them never ends."""
    return DataError(f"{path} is empty, or no file on disk", "a file of rows", "write it again, or leave it out")


def base_folder(path: Path) -> Path:
    """The folder that contains everything for which an absolute path stands."""
    if path.is_dir():
        return path
    return path.parent if path.is_file() else next(each for each in path.parents if not glob.has_magic(str(each)))


def walk_files(path: Path, left_out: LeftOut) -> Iterator[tuple[str, dict[str, bool]]]:
    """The folders that a path or glob stands for, each with its sorted file names and whether it names them itself.

    Among sibling folders the last by name comes first, and each comes before its contents. What is left out is added to
    ``left_out``, by reason.

    A pattern is one name or ``**`` per level; for a matching folder, everything below it matches. Folders wait in a
    list, each with the patterns for its entries, so that neither depth nor stars cost more than the folders that exist.

    Raises:
        DataError: the path is a FIFO, a socket or a device.
    """
    if path.is_file():
        yield str(path.parent), {path.name: True}
        return
    if path.exists() and not path.is_dir():
        raise regular_files.irregular_file(format_path(path))
    base = base_folder(path)
    waiting = [(str(base), {path.relative_to(base).parts})] if base.is_dir() else []
    while waiting:
        folder, patterns = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            left_out[CLOSED_FOLDERS].append(f"{format_path(folder)}: {error.strerror}")
            continue
        files = dict[str, bool]()
        for entry in inside:
            below, is_found, is_named = _match_entry(entry.name, patterns)
            if below and is_true(entry.is_dir):
                if entry.is_symlink():
                    left_out[LINKS].append(format_path(entry.path))
                else:
                    waiting.append((entry.path, below))
            elif is_found and is_true(entry.is_file):
                files[entry.name] = is_named
            elif is_found:
                left_out[IRREGULAR].append(format_path(entry.path))
        yield folder, files


def _match_entry(name: str, patterns: Patterns) -> tuple[Patterns, bool, bool]:
    """The patterns for what lies below an entry; whether the entry is found; whether it is named.

    Hidden entries and Excel's lock files match only patterns that explicitly say so.
    """
    below, is_found, is_named, waiting = Patterns(), False, False, [*patterns]
    while waiting:
        pattern = waiting.pop()
        first = pattern[0] if pattern else "**"
        if first == "**" and len(pattern) > 1:  # it also stands for no folder at all
            waiting.append(pattern[1:])
        if fnmatch.fnmatchcase(name, first) and (first.startswith(HIDDEN) or not name.startswith(HIDDEN)):
            below.add(pattern if first == "**" else pattern[1:])
            is_found |= len(pattern) < 2
            is_named |= len(pattern) == 1
    return below, is_found, is_named


def _whether_ours(base: Path, output: Path | None) -> Callable[[Path], bool]:
    """A function that says whether a folder's contents were written by predictions and the like."""
    root, target = artifact_paths.root(), None if output is None else output.resolve()

    @functools.cache
    def is_ours(folder: Path) -> bool:
        if target is not None and folder.resolve().is_relative_to(target):
            return True
        if base in root.parents and folder.is_relative_to(root):
            return True
        return folder != base and predictions.holds_job(folder)

    return is_ours


# At a URL


def _list_remote(url: str, is_data: Callable[[Path], bool], has_identity: bool) -> list[Fingerprint]:
    """The files that a URL names, or the data files in a folder that it names, sorted.

    Raises:
        UsageError: the URL has credentials in it.
        DataError: the host does not answer, there is nothing, or the package for the URL is not installed.
    """
    require_no_credentials(url)
    with _explain_url_errors(url):
        files, path = _file_system(url)
        if not _is_web(url) and files.isdir(path):
            paths = [each for each in sorted(files.find(path)) if is_data(Path(each))]
        else:
            paths = sorted(files.glob(path)) if any(sign in path for sign in "*[") else [path]
        return [_fingerprint(files, each, has_identity) for each in paths]


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    options = dict[str, Any]()
    if _is_web(url):
        import aiohttp

        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        options = {"client_kwargs": {"timeout": timeout}, "block_size": 0}  # a stream: no ranges are requested
    files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    return files, path


def _fingerprint(files: Any, path: str, has_identity: bool) -> Fingerprint:
    """A fingerprint from what the host says about the file's state, or from all its bytes if it says nothing."""
    facts = files.info(path)
    if state := {name: str(facts[name]) for name in STATES if facts.get(name)}:
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    elif has_identity:
        with files.open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    else:
        digest = _never_equal()
    return Fingerprint(files.unstrip_protocol(path), int(facts["size"] or 0), 0, digest)


def _never_equal() -> str:
    return f"{ALWAYS_READ}{uuid.uuid4().hex}"


@contextmanager
def _explain_url_errors(url: str) -> Iterator[None]:
    """Translate the exceptions that each backend has into ours, which name the URL and what may help."""
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
        if _is_full_disk(error):
            raise
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # as of fsspec's FileNotFoundError
        reason = " ".join(str(cause).split())[:MAX_REASON]
        raise DataError(
            f"{url} cannot be read: {type(cause).__name__}: {reason}",
            "a host that answers, a file that exists, and credentials in the environment where it needs some",
            "check the URL and the network, or download the file and give its path",
        ) from error


# The errors for a file that is damaged, is not what its name says, or changes while it is read


@contextmanager
def explain_file_errors(path: object, expected: str = "", action: str = "") -> Iterator[None]:
    """Treat any exception as the file's fault: parsers and decompressors raise too many kinds to list.

    Only a full disk is none.

    Raises:
        DataError: something was raised.
    """
    try:
        yield
    except GradmillError:
        raise
    except Exception as error:
        if _is_full_disk(error):
            raise
        raise broken_file(path, next(iter(str(error).splitlines()), type(error).__name__), expected, action) from error


def _is_full_disk(error: Exception) -> bool:
    """Whether a copy of the data could not be written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def broken_file(path: object, reason: object, expected: str = "", action: str = "") -> DataError:
    """The error for a file, by path or URL, that is not what was ``expected``, or else what its name says."""
    action = action or ("fix it, or leave it out" if expected else "write it again")
    expected = expected or f"a whole {Path(str(path)).suffix} file"
    return DataError(f"{path} cannot be read: {reason}", expected, action)


def changed_file(path: str) -> DataError:
    """The error for an input file that has changed since the job was planned."""
    return DataError(
        f"{path} is gone or was written to while the job was running",
        "an input that stays as it is until the job is done",
        "run the command again: it makes a new job (into the same --output: with --restart)",
    )
