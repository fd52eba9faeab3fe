"""Where Fashion-MNIST can be had: torchvision's mirrors, Debian's package, a folder of the user's."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx
from rich.progress import DownloadColumn, Progress

from tasks.errors import DataError
from tasks.machine import progress

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
LONGEST_SECONDS = 1800.0  # for one archive; a server that sends a byte a minute is cut off here
LARGEST_ARCHIVE = 64 * 2**20  # the largest is 26 MB; a server that sends on and on is cut off here
COMMAND_SECONDS = 600
DEBIAN_PACKAGE = "dataset-fashion-mnist"


class RawFile(NamedTuple):
    """A file as its decompressed payload: archives differ from place to place, payloads do not."""

    name: str
    sha256: str
    size: int


class SourceUnreachable(DataError):
    """This source does not answer now; another may, or this one later."""


class Source(Protocol):
    """Something that has the archives; ``str()`` of it names it to people."""

    def fetch(self, wanted: Sequence[RawFile], scratch: Path) -> dict[str, Path]:
        """Return the path of each wanted archive by file name; temporary files go into ``scratch``.

        Raises:
            SourceUnreachable: the source cannot be reached.
        """


class Directory:
    """A folder that the user named, with the IDX files plain or as ``.gz``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def fetch(self, wanted: Sequence[RawFile], scratch: Path) -> dict[str, Path]:
        """Find the archives; nothing is copied."""
        return {file.name: self._find(file, wanted) for file in wanted}

    def _find(self, file: RawFile, wanted: Sequence[RawFile]) -> Path:
        found = f"no {file.name} in {self.path}"
        for path in (self.path / file.name, self.path / f"{file.name}.gz"):
            try:
                if path.is_file():
                    return path
            except OSError as error:  # a folder that is closed to us, or a name longer than the system takes
                found = f"{path}: {error.strerror}"
        raise DataError(
            found,
            "a folder with " + ", ".join(each.name for each in wanted) + ", plain or .gz",
            "set GRADMILL_FASHION_MNIST_DIR to that folder, or unset it to download the files",
        )


class Torchvision:
    """The addresses that torchvision downloads from."""

    def __init__(self, urls: list[str] | None = None) -> None:
        self._urls = urls

    def __str__(self) -> str:
        return "torchvision's mirrors"

    @property
    def urls(self) -> list[str]:
        """Base addresses, tried in order."""
        if self._urls is None:
            from torchvision.datasets import FashionMNIST

            self._urls = list(FashionMNIST.mirrors)
        return self._urls

    def fetch(self, wanted: Sequence[RawFile], scratch: Path) -> dict[str, Path]:
        """Download each archive from the first mirror that answers."""
        with progress.bar(DownloadColumn()) as bar:
            return {file.name: self._fetch_one(f"{file.name}.gz", scratch, bar) for file in wanted}

    def _fetch_one(self, filename: str, scratch: Path, bar: Progress) -> Path:
        reasons = []
        for url in self.urls:
            try:
                return _stream(url + filename, scratch / filename, bar)
            except httpx.HTTPError as error:
                reasons.append(f"{url} {error or type(error).__name__}")
        raise SourceUnreachable("; ".join(reasons), "an answer", "check the network")


def _stream(url: str, target: Path, bar: Progress) -> Path:
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    with httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response:
        response.raise_for_status()
        size = int(response.headers.get("content-length", 0)) or None
        shown = bar.add_task("download", total=size)
        deadline = time.monotonic() + LONGEST_SECONDS
        with target.open("wb") as stream:
            for chunk in response.iter_raw():
                stream.write(chunk)
                bar.advance(shown, len(chunk))
                if stream.tell() > LARGEST_ARCHIVE:
                    raise httpx.HTTPError(f"more than {LARGEST_ARCHIVE} bytes")
                if time.monotonic() > deadline:
                    raise httpx.HTTPError(f"no end after {LONGEST_SECONDS:.0f} s")
    return target


class Debian:
    """Debian's package of the same files, fetched by apt into a private folder: no root, nothing installed."""

    def __str__(self) -> str:
        return f"Debian's package {DEBIAN_PACKAGE}"

    def fetch(self, wanted: Sequence[RawFile], scratch: Path) -> dict[str, Path]:
        """Download and unpack the package; apt verifies its signature chain."""
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise SourceUnreachable(
                "apt-get and dpkg-deb are not on this machine", "Debian or Ubuntu", "use another source"
            )
        with progress.bar() as bar:
            bar.add_task("download", total=None)
            self._apt(scratch, "update")
            self._apt(scratch, "download", DEBIAN_PACKAGE)
        (package,) = scratch.glob("*.deb")
        unpacked = scratch / "unpacked"
        _run(["dpkg-deb", "-x", str(package), str(unpacked)], scratch)
        folder = unpacked / "usr/share/datasets/fashion-mnist"
        return Directory(folder).fetch(wanted, scratch)

    def _apt(self, scratch: Path, *arguments: str) -> None:
        lists, cache = scratch / "lists", scratch / "cache"
        for folder in (lists / "partial", cache / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        options = [
            f"Dir::State::Lists={lists}",
            f"Dir::Cache={cache}",
            "Debug::NoLocking=1",
            "APT::Sandbox::User=",
        ]
        options += ["Acquire::http::Timeout=20", "Acquire::https::Timeout=20", "Acquire::Retries=1"]
        _run(["apt-get", *(f"-o{option}" for option in options), *arguments], scratch)


def _run(command: list[str], folder: Path) -> None:
    name = f"{command[0]} {next(each for each in command[1:] if not each.startswith('-o'))}"
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=COMMAND_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {error.returncode}"]
        raise SourceUnreachable(f"{name}: {lines[-1]}", "an answer", "check apt's sources") from error
    except subprocess.TimeoutExpired as error:
        raise SourceUnreachable(
            f"{name}: no end after {COMMAND_SECONDS} s", "an answer", "check the network"
        ) from error
