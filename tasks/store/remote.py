"""A mirror's folder by fsspec URL: each file is replaced in one step, or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.machine.words import pip_install
from tasks.parameters.addresses import require_no_credentials
from tasks.store import atomic, folders, regular_files

LOCAL = ("file", "local")
# The package that fsspec uses for each protocol. An object appears only once its put has succeeded.
OBJECT_STORES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
}  # fmt: skip


def check(url: str) -> None:
    """Fail before any work if nothing can be written to this URL. The network is not used.

    Raises:
        UsageError: the URL has credentials, or a protocol without a package or without atomic replacement.
    """
    from fsspec.core import url_to_fs

    protocol, path = split(url)
    if protocol in LOCAL:
        # Neither the working directory nor the root is meant; fsspec resolves ~ and file:/
        if not path.strip() or os.path.realpath(url_to_fs(url)[1]) == "/":
            raise UsageError(f"{url!r} names no folder", "a URL, or a path", "name one")
        if path.startswith("~") and os.path.expanduser(path) == path:  # noqa: PTH111  (no error)
            raise UsageError(f"{url}: no such user", "a path", "name another")
    else:
        require_no_credentials(url)
        if protocol not in OBJECT_STORES:
            known = ", ".join(f"{each}://" for each in (*OBJECT_STORES, "file"))
            raise UsageError(
                f"{url} uses a protocol that cannot replace a file in one step",
                f"{known}, or a path",
                "name an object store, or mount the share and give its path",
            )
        if not path.strip("/"):
            raise UsageError(f"{url} names no bucket", f"{protocol}://BUCKET/FOLDER", "name one")
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UsageError(
            f"{protocol}:// cannot be used here: {error}",
            "the package that fsspec uses for it",
            pip_install(OBJECT_STORES[protocol]),
        ) from error


class RemoteFolder:
    """A folder by URL; on a local disk or a mounted share files are written as in ``artifacts/``."""

    def __init__(self, url: str) -> None:
        """Open the folder, whether it exists or not.

        Raises:
            UsageError: as for ``check``; or the folder is in ``artifacts/``: copies would be beside their originals.
        """
        check(url)
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        with self._explain_errors(self.url):
            # A worker lives for weeks, so neither credentials nor folder listings are cached.
            self._files, self._path = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
        self.local = Path(self._path) if split(url)[0] in LOCAL else None
        if self.local and (place := folders.find_folder_of(self.local)):
            found = f"{self.url} is in the artifacts folder itself, in {place}"
            raise UsageError(found, "a folder outside of it", "choose one on another disk or host")

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None if there is none.

        Raises:
            EnvironmentProblem: the store does not answer, or refuses.
        """
        with self._explain_errors(f"{self.url}/{path}"), suppress(FileNotFoundError), self._open(path) as stream:
            return bytes(stream.read())
        return None

    def write(self, path: str, content: bytes) -> None:
        """Replace a file: readers find either the old or the new content, whenever this process is killed.

        Raises:
            EnvironmentProblem: the store does not answer, or refuses.
        """
        with self._explain_errors(f"{self.url}/{path}"):
            if self.local:
                atomic.write_bytes(self.local / path, content)
            else:
                self._files.pipe_file(f"{self._path}/{path}", content)

    def sweep(self, path: str) -> None:
        """Remove what killed writers left below a folder; object stores show no such files."""
        if self.local:
            with self._explain_errors(f"{self.url}/{path}"):
                atomic.sweep(self.local / path)

    def _open(self, path: str) -> Any:
        """Open a file for reading; a local one must be regular, so that no link is followed and no FIFO waited for."""
        if self.local is None:
            return self._files.open(f"{self._path}/{path}", "rb")
        file = self.local / path
        if not stat.S_ISREG(os.lstat(file).st_mode):
            raise regular_files.irregular_file(file)
        return regular_files.open_regular(file)

    @contextmanager
    def _explain_errors(self, what: str) -> Iterator[None]:
        """Convert the exceptions of every backend into ours, which name the file and say that nothing is lost."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise EnvironmentProblem(
                f"{what} cannot be read or written: {type(error).__name__}: {reason}",
                "a bucket or folder that exists, and credentials in the environment that may read and write it",
                "fix that, then run the same command again: nothing is lost here, and what is there is still valid",
            ) from error


def split(url: str) -> tuple[str, str]:
    """Split a URL into its protocol, which is ``file`` for a plain path, and what follows it."""
    protocol, separator, path = url.partition("://")
    return (protocol, path) if separator else ("file", url)
