"""The book's data sets, generated or fetched, and how a data set is found by name.

Fashion-MNIST (github.com/zalandoresearch/fashion-mnist) comes from the folder that the user named, from the cache in
artifacts/, from Debian's package, or from torchvision's mirror. Archives differ between sources, but payloads do not:
the payloads are stored, and compared with their published digests.
"""

import gzip
import socket
import subprocess
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data.image_dataset import ImageDataset
from tasks.data.io.discovery import explain_file_errors
from tasks.data.own_rows import OwnDataset, scratch_folder
from tasks.data.prepared_splits import Examples, ValidatedDataset, Validation, write_splits
from tasks.data.recipe import Column, Columns, Pixels
from tasks.data.report import DataReport
from tasks.data.table_dataset import TableDataset
from tasks.errors import DataError
from tasks.machine.run_messages import print_message
from tasks.machine.settings import Settings
from tasks.machine.words import pluralize
from tasks.parameters import FASHION_MNIST, SYNTHETIC_LINEAR, Data, Use
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths, atomic, regular_files, verified_files
from tasks.store.record_base import FileRef

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where the package, once installed, has its files
APT_OPTIONS = (
    "-oAPT::Sandbox::User=", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20",
)  # fmt: skip
PATIENCE_SECONDS = 20.0  # that torchvision's mirror may be silent
UNREACHABLE = (
    subprocess.SubprocessError,
    FileNotFoundError,  # there is no apt here
    ConnectionError,
    TimeoutError,
    HTTPException,
    RuntimeError,  # torchvision's: no mirror answers, or an archive is damaged
)


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
            return fetch_files(SOURCES)
        return fetch_files([own_folder(user_dir)], use_cache=False)

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


# Where Fashion-MNIST comes from


class Source(NamedTuple):
    """A source of the IDX files: ``provide_folder`` returns their folder, which may lie in the folder it is given."""

    name: str
    provide_folder: Callable[[Path], Path]


def own_folder(folder: Path) -> Source:
    """A folder that the user names."""
    return Source(str(folder), lambda scratch: folder)


def unpack_debian_package(scratch: Path) -> Path:
    """The files of Debian's package, installed, or fetched by apt: no root, nothing installed.

    Raises:
        OSError, subprocess.SubprocessError: apt is missing, or cannot fetch the package, whose signatures it verifies.
    """
    if DEBIAN_FOLDER.is_dir():
        return DEBIAN_FOLDER
    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    folders = f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oDebug::NoLocking=1"
    for command in (["update"], ["download", DEBIAN_PACKAGE]):
        _run("apt-get", *APT_OPTIONS, *folders, *command, folder=scratch)
    unpacked = scratch / "unpacked"
    _run("dpkg-deb", "-x", *map(str, scratch.glob("*.deb")), str(unpacked), folder=scratch)
    return unpacked / DEBIAN_FOLDER.relative_to("/")


def _run(*command: str, folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=600, check=True)


def download_by_torchvision(scratch: Path) -> Path:
    """The archives as torchvision downloads them, which compares them with their MD5.

    Raises:
        OSError, HTTPException, RuntimeError: its mirror does not answer, or sends something else.
    """
    from torchvision.datasets import FashionMNIST  # takes seconds to import, and a full cache needs no source

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_SECONDS)  # torchvision itself would wait for ever
    try:
        return Path(FashionMNIST(scratch, download=True).raw_folder)
    finally:
        socket.setdefaulttimeout(patience)


SOURCES = (
    Source(f"Debian's package {DEBIAN_PACKAGE}", unpack_debian_package),
    Source("torchvision", download_by_torchvision),
)  # that need no help from the user, in the order to try


def fetch_files(sources: Iterable[Source], use_cache: bool = True) -> RawDataset:
    """Fetch what the cache lacks from the first source that can be reached, and verify all.

    Without ``use_cache`` every file is fetched: a fault in a folder that the user named must not hide behind the cache.

    Raises:
        SourceUnreachable: no source answers.
        DataError: a source lacks a file, or its payload fails its checksum.
        OSError: the disk is full.
    """
    missing = [file for file in FILES if not (use_cache and file.is_cached())]
    with scratch_folder(FASHION_MNIST) as scratch:
        source = _fetch_missing(missing, sources, scratch) if missing else "cache"
    files_of = f"{pluralize(len(FILES), 'file')} from {source}, verified by SHA-256"
    print_message(f"{FASHION_MNIST}: {files_of}", short=files_of)
    return RawDataset(name=FASHION_MNIST, source=source, files={file.name: file.cached_file for file in FILES})


def _fetch_missing(missing: list[RawFile], sources: Iterable[Source], scratch: Path) -> str:
    """Put files into the cache, and return the name of the source that has them."""
    reasons = list[str]()
    for source in sources:
        try:
            folder = source.provide_folder(scratch)
        except UNREACHABLE as error:
            reasons.append(f"{source.name}: {_explain(error)}")
            continue
        for file in missing:
            payload = _read_payload(_find_file(file, folder), file.size + 1)
            if (digest := verified_files.sha256(payload)) != file.sha256:
                raise DataError(
                    f"{file.name} from {source.name} has SHA-256 {digest}",
                    f"SHA-256 {file.sha256} ({file.size} bytes, decompressed)",
                    "the source is damaged or is not Fashion-MNIST: use another, e.g. GRADMILL_FASHION_MNIST_DIR",
                )
            atomic.write_bytes(file.cached_file.path, payload)
        return source.name
    raise SourceUnreachable(
        "Fashion-MNIST is not in artifacts/ and no source could be reached: " + "; ".join(reasons),
        "a network, or a folder with the four IDX files",
        f"set GRADMILL_FASHION_MNIST_DIR to such a folder, install {DEBIAN_PACKAGE}, or try again with a network",
    )


def _explain(error: Exception) -> str:
    """Why a source cannot be reached, in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        return f"{error.cmd[0]}: {lines[-1]}"
    return " ".join(str(error).split()) or type(error).__name__


def _find_file(file: RawFile, folder: Path) -> Path:
    """A file in a folder, plain or as ``.gz``.

    Raises:
        DataError: the folder does not have it.
    """
    found = f"no {file.name} in {folder}"
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        try:
            if path.is_file():
                return path
        except OSError as error:  # a folder that we may not read, or a name longer than the system allows
            found = f"{path}: {error.strerror}"
    expected = f"a folder with {', '.join(each.name for each in FILES)}, plain or .gz"
    action = "set GRADMILL_FASHION_MNIST_DIR to that folder, or unset it to download the files"
    raise DataError(found, expected, action)


def _read_payload(path: Path, limit: int) -> bytes:
    """The content of a file, decompressed where it is gzip; at most ``limit`` bytes are read."""
    with regular_files.open_regular(path) as stream, explain_file_errors(path):
        return gzip.GzipFile(fileobj=stream).read(limit) if path.suffix == ".gz" else stream.read(limit)


def describe_source() -> str:
    """Describe where Fashion-MNIST would come from now; nothing is fetched, and nobody is asked.

    Raises:
        DataError: the user's folder lacks a file.
    """
    if (user_dir := Settings().fashion_mnist_dir) is not None:
        for file in FILES:
            _find_file(file, user_dir)
        return f"the four files are in {user_dir}"
    if all(file.is_cached() for file in FILES):
        return "in artifacts/ already, verified by SHA-256"
    return f"not fetched yet; the first retrain fetches it from {' or '.join(source.name for source in SOURCES)}"
