"""Files of a table at a URL: which there are, what tells one state of them from another, and their bytes."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tasks.errors import DataError, UsageError
from tasks.machine.installing import pip_install
from tasks.parameters.addresses import require_no_credentials
from tasks.store.fingerprints import Fingerprint
from tasks.store.remote import OBJECT_STORES

BLOCK_BYTES = 2**20
SECONDS = 10.0  # in which a host must answer
MOST_SAID = 300  # characters of a backend's own words, which may be several lines
STATES = (
    "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "modified", "updated", "created",
    "Content-MD5", "content_md5", "md5Hash", "Digest", "generation", "sha", "blob_id",
)  # fmt: skip  # what backends of fsspec call what changes with a file


def find(url: str, is_table: Callable[[str], bool]) -> list[Fingerprint]:
    """The files that a URL names, or those of a folder that are part of a table, sorted.

    Raises:
        UsageError: the URL has credentials in it.
        DataError: the host does not answer, there is nothing, or the package for the URL is not installed.
    """
    require_no_credentials(url)
    with _reached(url):
        files, path = _file_system(url)
        if not _is_web(url) and files.isdir(path):
            paths = [each for each in sorted(files.find(path)) if is_table(each)]
        else:
            paths = sorted(files.glob(path)) if any(sign in path for sign in "*[") else [path]
        return [_fingerprint(files, each) for each in paths]


@contextmanager
def opened(url: str, is_sequential: bool) -> Iterator[Any]:
    """The bytes of a file; if they are read from the first to the last, its host need not know how to send parts.

    Raises:
        DataError: the host does not answer, or the file is gone.
    """
    with _reached(url):
        files, path = _file_system(url)
        stream = files.open(path, "rb", **({"block_size": 0} if is_sequential and _is_web(url) else {}))
        if _is_web(url) and not is_sequential and not _sends_parts(stream):
            with stream, files.open(path, "rb", block_size=0) as whole:
                stream = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
                shutil.copyfileobj(whole, stream)
                stream.seek(0)
    with stream:
        yield stream


def _sends_parts(stream: Any) -> bool:
    """Whether a web server sends what a file has further on without all before it."""
    try:
        stream.seek(1)
        stream.read(1)
        stream.seek(0)
    except ValueError:
        return False
    return True


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    options = {"client_kwargs": {"timeout": _http_timeout()}} if _is_web(url) else {}
    files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    return files, path


def _http_timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(sock_connect=SECONDS, sock_read=6 * SECONDS)


def _fingerprint(files: Any, path: str) -> Fingerprint:
    """By what its host says of its state; where it says nothing, by all its bytes."""
    facts = files.info(path)
    if state := {name: str(facts[name]) for name in STATES if facts.get(name)}:
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    else:
        with files.open(path, "rb", **({"block_size": 0} if "http" in files.protocol else {})) as stream:
            digest = _digest(stream)
    return Fingerprint(files.unstrip_protocol(path), int(facts["size"] or 0), 0, digest)


def _digest(stream: Any) -> str:
    digest = hashlib.sha256()
    while block := stream.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


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
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # as of fsspec's FileNotFoundError
        reason = " ".join(str(cause).split())[:MOST_SAID]
        raise DataError(
            f"{url} cannot be read: {type(cause).__name__}: {reason}",
            "a host that answers, a file that is there, and credentials in the environment where it needs some",
            "check the URL and the network, or download the file and give its path",
        ) from error
