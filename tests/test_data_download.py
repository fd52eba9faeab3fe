"""Getting the raw files: every source, every way in which one can fail."""

import gc
import gzip
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from http_stand_ins import answered, played
from tasks.data import book_datasets
from tasks.data.book_datasets import (
    RawFile,
    Source,
    SourceUnreachable,
    download_by_torchvision,
    fetch_files,
    own_folder,
    unpack_debian_package,
)
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.store import artifact_paths

REAL_FILES = book_datasets.FILES
IMAGES, LABELS = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1)), bytes((0, 0, 8, 1, 0, 0, 0, 2))
# Two pictures of one pixel, and their labels; all files differ.
CONTENT = {
    file.name: (IMAGES if "images" in file.name else LABELS) + bytes((number, 9))
    for number, file in enumerate(REAL_FILES)
}
FIRST = next(iter(CONTENT))
TORCHVISION = Source("torchvision", download_by_torchvision)


def md5(archive: bytes) -> str:
    return hashlib.md5(archive, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def small_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four small files in place of the real ones, except where a test asks for those."""
    files = tuple(RawFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in CONTENT.items())
    monkeypatch.setattr(book_datasets, "FILES", files)


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Torchvision's own class, for the small files."""
    from torchvision.datasets import FashionMNIST  # takes seconds

    archives = [(f"{name}.gz", md5(gzip.compress(data, mtime=0))) for name, data in CONTENT.items()]
    monkeypatch.setattr(FashionMNIST, "resources", archives)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # where nothing listens
    return FashionMNIST


class Host:
    """An HTTP server on loopback that notes requests; ``answer`` decides what it sends for a path."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[str], bytes | None] = lambda name: gzip.compress(CONTENT[name], mtime=0)


@pytest.fixture
def host(torchvision: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The mirror that torchvision asks."""
    running = Host()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rsplit("/", 1)[-1].removesuffix(".gz")
        running.requests.append(name)
        body = running.answer(name)
        answered(404 if body is None else 200, body or b"")(handler)

    with played(answer) as address:
        monkeypatch.setattr(torchvision, "mirrors", [f"{address}/"])
        yield running


def folder_of(path: Path, **others: bytes) -> Source:
    """A folder with the files."""
    path.mkdir(exist_ok=True)
    for name, data in (CONTENT | others).items():
        (path / name).write_bytes(data)
    return own_folder(path)


def cached() -> dict[str, bytes]:
    """The payloads that were kept; nothing half done lies beside them."""
    folder = artifact_paths.dataset("fashion-mnist")
    assert not [*folder.glob("**/.scratch-*"), *folder.glob("**/*.partial")]
    return {path.name.split(".")[0]: path.read_bytes() for path in (folder / "raw").glob("*-ubyte.*")}


def test_torchvision_fills_the_cache_with_decompressed_payloads_and_is_then_asked_no_more(host: Host) -> None:
    raw = fetch_files([TORCHVISION])
    assert raw.source == "torchvision"
    assert cached() == {name: file.path.read_bytes() for name, file in raw.files.items()} == CONTENT
    host.requests.clear()
    assert fetch_files([TORCHVISION]).source == "cache"
    assert not host.requests
    raw.files[FIRST].path.write_bytes(b"half of i")
    fetch_files([TORCHVISION])
    assert host.requests
    assert cached() == CONTENT


def no_apt(scratch: Path) -> Path:
    """What happens where apt is missing."""
    subprocess.run("/no/apt-get", check=True)
    return scratch


def failing_apt(scratch: Path) -> Path:
    """What happens where apt finds nothing."""
    subprocess.run(["sh", "-c", "echo E: no such package >&2; exit 100"], check=True, capture_output=True, text=True)
    return scratch


@pytest.mark.usefixtures("torchvision")
def test_the_next_source_serves_when_one_cannot_be_reached(tmp_path: Path) -> None:
    unreachable = [Source("no apt", no_apt), Source("apt", failing_apt), TORCHVISION]
    with pytest.raises(SourceUnreachable) as caught:
        fetch_files(unreachable)
    assert caught.value.exit_code == 4
    for words in ("no apt: ", "apt: sh: E: no such package", "torchvision: ", "127.0.0.1:9", "Connection refused"):
        assert words in caught.value.found
    assert all(words in caught.value.action for words in ("GRADMILL_FASHION_MNIST_DIR", "dataset-fashion-mnist"))
    assert fetch_files([*unreachable, folder_of(tmp_path / "files")]).source == str(tmp_path / "files")
    assert cached() == CONTENT


UNFIT: dict[str, Callable[[bytes], bytes | None]] = {
    "another file": lambda good: gzip.compress(b"wrong"),
    "cut off": lambda good: gzip.compress(good, mtime=0)[:-10],
    "nothing": lambda good: None,
}


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of urllib's answer to what is not there
@pytest.mark.parametrize("answer", UNFIT)
def test_a_mirror_without_the_published_archives_is_exit_4_and_nothing_is_kept(answer: str, host: Host) -> None:
    host.answer = lambda name: UNFIT[answer](CONTENT[name])
    with pytest.raises(SourceUnreachable, match=FIRST) as caught:
        fetch_files([TORCHVISION])
    assert caught.value.exit_code == 4
    assert cached() == {}
    gc.collect()  # or torchvision's errors, which refer to themselves and to that socket, would live on to a later test


def test_a_payload_with_another_digest_is_exit_4_whatever_torchvision_says_and_is_not_kept(
    torchvision: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = gzip.compress(CONTENT[FIRST][:-1] + b"!", mtime=0)
    host.answer = lambda name: wrong if name == FIRST else gzip.compress(CONTENT[name], mtime=0)
    others = torchvision.resources[1:]
    monkeypatch.setattr(torchvision, "resources", [(f"{FIRST}.gz", md5(wrong)), *others])
    with pytest.raises(DataError, match=rf"{FIRST} from torchvision has SHA-256") as caught:
        fetch_files([TORCHVISION])
    assert not isinstance(caught.value, SourceUnreachable), "else it would be retried for nothing"
    assert hashlib.sha256(CONTENT[FIRST]).hexdigest() in caught.value.expected
    assert cached() == {}


def test_a_mirror_that_is_silent_is_left_for_the_next(
    torchvision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_datasets, "PATIENCE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(torchvision, "mirrors", [f"http://127.0.0.1:{listener.getsockname()[1]}/"])
        with pytest.raises(SourceUnreachable, match="timed out"):
            fetch_files([TORCHVISION])
        assert fetch_files([TORCHVISION, folder_of(tmp_path / "files")]).source == str(tmp_path / "files")
    assert socket.getdefaulttimeout() is None


def test_a_users_folder_is_verified_and_wins_over_the_cache(tmp_path: Path) -> None:
    mine = folder_of(tmp_path / "mine")
    (tmp_path / "mine" / FIRST).unlink()
    (tmp_path / "mine" / f"{FIRST}.gz").write_bytes(gzip.compress(CONTENT[FIRST]))
    assert fetch_files([mine], use_cache=False).source == mine.name
    for damaged in (gzip.compress(b"wrong"), gzip.compress(CONTENT[FIRST])[:-10], gzip.compress(bytes(2**20))):
        (tmp_path / "mine" / f"{FIRST}.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=FIRST):
            fetch_files([mine], use_cache=False)
    assert cached() == CONTENT, "what was there before is still there"


@pytest.mark.parametrize("name", ["of fifos", "x" * 300, "y/" * 3000])
def test_a_users_folder_without_the_files_is_exit_4_and_not_waited_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("of fifos").mkdir()
    os.mkfifo(f"of fifos/{FIRST}")
    with pytest.raises(DataError, match=name[:40]):
        fetch_files([own_folder(Path(name))])


def test_what_a_killed_download_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = artifact_paths.dataset("fashion-mnist")
    (folder / f"{artifact_paths.DOWNLOAD_PREFIX}deadbeef").mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (folder / f"{artifact_paths.DOWNLOAD_PREFIX}link").symlink_to(tmp_path / "theirs")
    (folder / f"{artifact_paths.DOWNLOAD_PREFIX}file").touch()
    fetch_files([folder_of(tmp_path / "files")])
    assert not (folder / f"{artifact_paths.DOWNLOAD_PREFIX}deadbeef").exists()
    assert (tmp_path / "theirs").is_dir()


@pytest.mark.slow
def test_torchvision_has_archives_of_the_published_names() -> None:
    from torchvision.datasets import FashionMNIST

    assert {file.name for file in REAL_FILES} == {name.removesuffix(".gz") for name, _ in FashionMNIST.resources}


@pytest.mark.slow
def test_the_stage_tries_again_when_nothing_answers_and_only_then(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the real engine, with its real delays of 2 and 8 seconds."""
    import prefect

    import tasks.download as stage
    from tasks.store.run_folder import RunFolder

    @prefect.flow
    def only_download() -> None:
        stage.download(RunFolder.open("test-run", {}), "fashion-mnist", Data())

    attempts: list[float] = []

    def attempt(scratch: Path) -> Path:
        attempts.append(time.monotonic())
        return no_apt(scratch)

    monkeypatch.setattr(book_datasets, "SOURCES", [Source("apt", attempt)])
    with pytest.raises(SourceUnreachable):
        only_download()
    assert len(attempts) == 3
    assert attempts[-1] - attempts[0] >= 10
    attempts.clear()
    wrong = folder_of(tmp_path / "wrong", **{FIRST: b"wrong"})

    def lead_astray(scratch: Path) -> Path:
        attempts.append(time.monotonic())
        return wrong.provide_folder(scratch)

    monkeypatch.setattr(book_datasets, "SOURCES", [Source("wrong", lead_astray)])
    with pytest.raises(DataError, match="SHA-256"):
        only_download()
    assert len(attempts) == 1


def test_debians_package_is_used_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "installed")
    monkeypatch.setattr(book_datasets, "DEBIAN_FOLDER", tmp_path / "installed")
    assert fetch_files([Source("Debian", unpack_debian_package)]).source == "Debian"
    assert cached() == CONTENT


@pytest.mark.slow
def test_debians_package_holds_the_real_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_datasets, "FILES", REAL_FILES)
    try:
        raw = fetch_files([Source("Debian", unpack_debian_package)])
    except SourceUnreachable as unreachable:
        pytest.skip(f"Debian's package cannot be had here: {unreachable.found}")
    assert {file.sha256 for file in raw.files.values()} == {file.sha256 for file in REAL_FILES}
    assert [raw.files[file.name].path.stat().st_size for file in REAL_FILES] == [file.size for file in REAL_FILES]
