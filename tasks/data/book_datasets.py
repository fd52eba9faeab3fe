"""The book's data sets, generated or fetched, and how a data set is found by name.

Fashion-MNIST (github.com/zalandoresearch/fashion-mnist) comes from the folder that the user named, from the cache in
artifacts/, from torchvision's mirrors, or from Debian's package. Archives differ between sources, but payloads do not:
the payloads are stored, and compared with their published digests.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.progress import DownloadColumn, Progress

from tasks.data.image_dataset import ImageDataset
from tasks.data.io import arrays
from tasks.data.own_rows import OwnDataset, scratch_folder
from tasks.data.prepared_splits import Examples, ValidatedDataset, Validation, write_splits
from tasks.data.recipe import Column, Columns, Pixels
from tasks.data.report import DataReport
from tasks.data.table_dataset import TableDataset
from tasks.errors import DataError
from tasks.machine import progress
from tasks.machine.run_messages import print_message
from tasks.machine.settings import Settings
from tasks.machine.words import pluralize
from tasks.parameters import FASHION_MNIST, SYNTHETIC_LINEAR, Data, Use
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths, atomic, verified_files
from tasks.store.record_base import FileRef

LARGEST_ARCHIVE = 64 * 2**20  # the largest archive is 26 MB; a server that never stops sending is cut off here
SLOWEST = 2**15  # bytes of payload a second
PATIENCE_SECONDS = 20.0  # with a mirror beyond the time that it takes at this rate
PROBE_SECONDS = 3.0
DEBIAN_PACKAGE = "dataset-fashion-mnist"
APT_OPTIONS = (
    "-oAPT::Sandbox::User=", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20",
)  # fmt: skip


class SourceUnreachable(DataError):
    """This source does not answer now; another may, or this one later."""


class RawFile(NamedTuple):
    """An IDX file: its name, and digest and size of its payload."""

    name: str
    sha256: str
    size: int

    @property
    def cached_file(self) -> FileRef:
        """Where its payload is in artifacts/, whether it exists or not."""
        return FileRef(path=artifact_paths.raw_file(FASHION_MNIST, self.name, self.sha256), sha256=self.sha256)

    def is_cached(self) -> bool:
        """Whether the payload is there, bit for bit."""
        return self.cached_file.path.is_file() and atomic.file_digest(self.cached_file.path) == self.sha256


FILES = (
    RawFile("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47_040_016),
    RawFile("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60_008),
    RawFile("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7_840_016),
    RawFile("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10_008),
)
CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class FashionMnist:
    """60 000 + 10 000 grey images of 28 by 28 pixels in 10 classes."""

    name = FASHION_MNIST
    title = "Fashion-MNIST"
    identifier = "zalando-datasets/fashion_mnist"

    def fetch(self) -> RawDataset:
        """Fetch from the folder that the user named, or from wherever possible; raises as ``fetch_files`` does."""
        if (user_dir := Settings().fashion_mnist_dir) is None:
            return fetch_files(find_sources())
        return fetch_files([Folder(str(user_dir))], use_cache=False)

    def validate(self, raw: RawDataset, data: Data, *_: object) -> Validation:
        """A one-line report: these files were compared with their published digests when they were fetched."""
        summary = f"{self.title} is as published: 60,000 and 10,000 images; as many in each class"
        return Validation(DataReport(name=self.name, summary=summary))

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits as published.

        Raises:
            DataError: a raw file has changed since it was fetched.
        """
        files = (verified_files.read(file.cached_file, "run it again: it fetches the file") for file in FILES)
        train_images, train_labels, test_images, test_labels = (np.frombuffer(file, np.uint8) for file in files)
        train = Examples(train_images[16:].reshape(-1, 28, 28), train_labels[8:])  # after the headers of the IDX files
        test = Examples(test_images[16:].reshape(-1, 28, 28), test_labels[8:])
        side = data.resize or 28
        recipe = Pixels(shape=(side, side), scale=1 / 255, resize="bilinear" if data.resize else None)
        return write_splits(
            self.name,
            train,
            test,
            recipe,
            "classification",
            title=self.title,
            identifier=self.identifier,
            class_names=CLASS_NAMES,
        )


class SyntheticLinear:
    """Two independent draws from ``y = Xw + b + noise``, the data of linear regression (section 3.2.1)."""

    name = identifier = SYNTHETIC_LINEAR
    title = "Synthetic linear data"

    def fetch(self) -> RawDataset:
        """Fetch nothing: there are no files."""
        return RawDataset(name=self.name, source="generated", files={})

    def validate(self, raw: RawDataset, data: Data, *_: object) -> Validation:
        """Report the formula that the data are drawn from: there are no files that could be wrong."""
        weights = " ".join(f"{w:+g}·x{number}" for number, w in enumerate(data.synthetic_w, 1))
        law = f"y = {weights} {data.synthetic_b:+g}, noise {data.synthetic_noise:g}"
        summary = f"{self.title}; {data.num_examples:,} training and as many test examples of {law}"
        return Validation(DataReport(name=self.name, summary=summary))

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The training split, then the test split, drawn from one generator."""
        rng = np.random.default_rng(seed)
        w, b, noise = np.asarray(data.synthetic_w), data.synthetic_b, data.synthetic_noise
        train, test = (Examples(*synthetic_data(w, b, data.num_examples, rng, noise)) for _ in range(2))
        recipe = Columns(columns=tuple(Column(name=f"x{number}") for number in range(1, len(w) + 1)))
        return write_splits(
            self.name,
            train,
            test,
            recipe,
            "regression",
            title=self.title,
            identifier=self.identifier,
            true_parameters=(*data.synthetic_w, b),
        )


def synthetic_data(
    w: NDArray[np.float64], b: float, num_examples: int, rng: np.random.Generator, noise: float = 0.01
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``y = Xw + b + noise`` with standard normal ``X`` (section 3.2.1): features ``(n, len(w))``, target ``(n,)``."""
    X = rng.standard_normal((num_examples, len(w)))  # noqa: N806  (the book's letter)
    y = X @ w + b + rng.normal(0, noise, num_examples)
    return X.astype(np.float32), y.astype(np.float32)


def find_dataset(name: str, data: Data) -> FashionMnist | SyntheticLinear | OwnDataset:
    """The data set with this name; own data are kept under their model's name. All have the same three methods."""
    if own := {Use.IMAGES: ImageDataset, Use.TABLES: TableDataset}.get(data.use):
        return own(name, str(data.source))
    return FashionMnist() if name == FASHION_MNIST else SyntheticLinear()


class Folder(NamedTuple):
    """A folder with the IDX files plain or as ``.gz``; nothing in it is copied."""

    name: str

    def fetch(self, file: RawFile, scratch: Path) -> Path:
        """The file in the folder.

        Raises:
            DataError: the folder does not have it.
        """
        found = f"no {file.name} in {self.name}"
        for path in (Path(self.name, file.name), Path(self.name, f"{file.name}.gz")):
            try:
                if path.is_file():
                    return path
            except OSError as error:  # a folder that we may not read, or a name longer than the system allows
                found = f"{path}: {error.strerror}"
        expected = f"a folder with {', '.join(each.name for each in FILES)}, plain or .gz"
        action = "set GRADMILL_FASHION_MNIST_DIR to that folder, or unset it to download the files"
        raise DataError(found, expected, action)


class Mirror(NamedTuple):
    """A URL below which the archives lie."""

    name: str

    def fetch(self, file: RawFile, scratch: Path) -> Path:
        """Download the archive; temporary files go into the folder ``scratch``.

        Raises:
            httpx.HTTPError, ConnectionError, TimeoutError: the mirror cannot be reached, does not have the file, or is
            slow.
        """
        target = scratch / f"{file.name}.gz"
        with target.open("wb", buffering=0) as stream, progress.make_bar(DownloadColumn()) as bar:
            limit = PATIENCE_SECONDS + file.size / SLOWEST
            _call_within(limit, lambda: _download(self.name + target.name, stream, bar))
        return target

    def probe(self) -> None:
        """Ask for an archive without fetching it; raises the errors of ``fetch``."""
        address = f"{self.name}{FILES[0].name}.gz"
        _call_within(PROBE_SECONDS, lambda: httpx.head(address, follow_redirects=True).raise_for_status())


def _download(url: str, stream: IO[bytes], bar: Progress) -> None:
    with httpx.stream("GET", url, timeout=PATIENCE_SECONDS, follow_redirects=True) as response:
        response.raise_for_status()
        shown = bar.add_task("download", total=int(response.headers.get("content-length", 0)) or None)
        for chunk in response.iter_raw():
            bar.advance(shown, stream.write(chunk))
            if stream.tell() > LARGEST_ARCHIVE:
                raise ConnectionError(f"more than {LARGEST_ARCHIVE} bytes")


def _call_within(seconds: float, request: Callable[[], Any]) -> None:
    """Call ``request`` in a thread that is left behind when the time is up: httpx limits each read, not their sum.

    Raises:
        TimeoutError: it did not end in time.
    """
    done: Future[None] = Future()

    def call() -> None:
        try:
            done.set_result(request())
        except BaseException as error:  # raised by ``result``, where somebody still waits for it
            done.set_exception(error)

    Thread(target=call, daemon=True).start()
    done.result(seconds)


class DebianPackage:
    """Debian's package of the same files, fetched by apt into a private folder: no root, nothing installed."""

    name = f"Debian's package {DEBIAN_PACKAGE}"

    def fetch(self, file: RawFile, scratch: Path) -> Path:
        """Download and unpack the package once; apt verifies its signature chain."""
        unpacked = scratch / "unpacked"
        if not unpacked.exists():
            for folder in ("lists/partial", "cache/archives/partial"):
                (scratch / folder).mkdir(parents=True, exist_ok=True)
            folders = f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oDebug::NoLocking=1"
            for command in (["update"], ["download", DEBIAN_PACKAGE]):
                _run("apt-get", *APT_OPTIONS, *folders, *command, cwd=scratch)
            _run("dpkg-deb", "-x", *map(str, scratch.glob("*.deb")), str(unpacked))
        return Folder(f"{unpacked}/usr/share/datasets/fashion-mnist").fetch(file, scratch)

    def probe(self) -> None:
        """Fetch one signed index the way apt is configured here, with its proxies: 0.1 MB."""
        listed = _run("apt-get", "update", "--print-uris")
        index = re.search(r"'(https?://[^']*/InRelease)'", listed)
        if index is None:
            raise ConnectionError("apt has no source")
        with tempfile.TemporaryDirectory() as scratch:
            target = f"{scratch}/InRelease"
            _run("/usr/lib/apt/apt-helper", *APT_OPTIONS, "download-file", index[1], target, seconds=2 * PROBE_SECONDS)


def _run(*command: str, cwd: Path | None = None, seconds: float = 600) -> str:
    """The output of a command; raises the errors of ``subprocess.run``."""
    return subprocess.check_output(
        command, cwd=cwd, stderr=subprocess.PIPE, text=True, errors="replace", timeout=seconds
    )


Source = Folder | Mirror | DebianPackage


def find_sources() -> Iterator[Mirror | DebianPackage]:
    """Where the files can be obtained without the user's help, in the order to try."""
    from torchvision.datasets import FashionMNIST  # takes seconds to import, and a full cache needs no source

    yield from map(Mirror, FashionMNIST.mirrors)
    yield DebianPackage()


def fetch_files(sources: Iterable[Source], use_cache: bool = True) -> RawDataset:
    """Fetch what the cache lacks, each file from the first source that can be reached, and verify all.

    Without ``use_cache`` every file is fetched: a fault in a folder that the user named must not hide behind the cache.

    Raises:
        SourceUnreachable: no source answers.
        DataError: what a source has fails its checksum, or the user's folder lacks a file.
        OSError: the disk is full.
    """
    with scratch_folder(FASHION_MNIST) as scratch:
        # The smallest first: a mirror that only trickles is noticed within seconds.
        missing = sorted((file for file in FILES if not (use_cache and file.is_cached())), key=lambda file: file.size)
        sources = list(sources) if missing else ()
        used = dict.fromkeys(_ask_each(sources, partial(_fetch_file, file, scratch)) for file in missing)
    source = ", ".join(used) or "cache"
    files_of = f"{pluralize(len(FILES), 'file')} from {source}, verified by SHA-256"
    print_message(f"{FASHION_MNIST}: {files_of}", short=files_of)
    return RawDataset(name=FASHION_MNIST, source=source, files={file.name: file.cached_file for file in FILES})


def _ask_each(sources: Iterable[Any], question: Callable[[Any], str]) -> str:
    """The answer of the first source that can be reached."""
    reasons = []
    for source in sources:
        try:
            return question(source)
        except httpx.HTTPStatusError as error:
            reason = f"HTTP {error.response.status_code}"
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
            reason = f"{error.cmd[0]}: {said[-1]}"
        except (httpx.HTTPError, subprocess.TimeoutExpired, TimeoutError, ConnectionError, FileNotFoundError) as error:
            reason = str(error) or "no end in time"
        reasons.append(f"{source.name}: {reason}")
    raise SourceUnreachable(
        "Fashion-MNIST is not in artifacts/ and no source could be reached: " + "; ".join(reasons),
        "a network, or a folder with the four IDX files",
        "set GRADMILL_FASHION_MNIST_DIR to such a folder, or try again with a network",
    )


def _fetch_file(file: RawFile, scratch: Path, source: Source) -> str:
    """Put the payload of ``file`` into the cache if it is the published one, and return the name of its source."""
    for _ in range(2):  # a payload that fails its checksum is fetched once again
        archive = source.fetch(file, scratch)
        try:
            payload = arrays.read_payload(archive, file.size + 1)  # bounded: a decompression bomb is read no further
        except DataError as damaged:
            found = f"none ({damaged.found})"
            continue
        if (found := verified_files.sha256(payload)) == file.sha256:
            atomic.write_bytes(file.cached_file.path, payload)
            return source.name
    raise DataError(
        f"{file.name} from {source.name} has SHA-256 {found}",
        f"SHA-256 {file.sha256} ({file.size} bytes, decompressed)",
        "the source is damaged or is not Fashion-MNIST: use another, e.g. GRADMILL_FASHION_MNIST_DIR",
    )


def describe_source() -> str:
    """Describe where Fashion-MNIST would come from now; sources are probed, but nothing is fetched.

    Raises:
        DataError: the user's folder lacks a file, or the cache is not whole and nothing answers.
    """
    user_dir = Settings().fashion_mnist_dir
    if user_dir is not None:
        for file in FILES:
            Folder(str(user_dir)).fetch(file, user_dir)
        return f"the four files are in {user_dir}"
    if all(file.is_cached() for file in FILES):
        return "in artifacts/ already, verified by SHA-256"
    return _ask_each(find_sources(), lambda source: source.probe() or f"not fetched yet; {source.name} answers")
