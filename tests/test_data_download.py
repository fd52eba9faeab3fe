"""Getting the raw files: every source, every way in which one can fail."""

import contextlib
import gzip
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from http_stand_ins import answered, played
from tasks.data import book_datasets
from tasks.data.book_datasets import (
    DebianPackage,
    Folder,
    Mirror,
    RawFile,
    SourceUnreachable,
    describe_source,
    fetch_files,
    find_sources,
)
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.store import artifact_paths

CONTENT = {f"file-{number}": bytes([number]) * (1000 + number) for number in range(3)}
REAL_FILES = book_datasets.FILES


@pytest.fixture(autouse=True)
def small_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small files in place of the four real ones, except where a test asks for those."""
    files = tuple(RawFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in CONTENT.items())
    monkeypatch.setattr(book_datasets, "FILES", files)


class Host:
    """An HTTP server on loopback that counts requests; ``answer`` decides what it sends for a path."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[str], bytes | None] = lambda name: gzip.compress(CONTENT[name.removesuffix(".gz")])
        self.mirror = Mirror("")


@pytest.fixture
def host() -> Iterator[Host]:
    running = Host()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rsplit("/", 1)[-1]
        running.requests.append(name)
        body = running.answer(name)
        answered(404 if body is None else 200, body or b"")(handler)

    with played(answer) as address:
        running.mirror = Mirror(f"{address}/")
        yield running


@pytest.fixture
def dripping(request: pytest.FixtureRequest) -> Iterator[Mirror]:
    """A host that answers at once with some bytes, and then with one every 20 ms, as long as the test lasts."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(request.param)
            while not over.wait(0.02):
                client.sendall(b"x")

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield Mirror(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    over.set()
    listener.close()


REFUSED = Mirror("http://127.0.0.1:9/")  # where nothing listens


def cached() -> dict[str, bytes]:
    """The payloads that were kept; nothing half done lies beside them."""
    folder = artifact_paths.dataset("fashion-mnist")
    assert not [*folder.glob("**/.scratch-*"), *folder.glob("**/*.partial")]
    return {path.name.split(".")[0]: path.read_bytes() for path in (folder / "raw").glob("file-*")}


def test_a_mirror_fills_the_cache_with_decompressed_payloads_and_is_then_asked_no_more(host: Host) -> None:
    raw = fetch_files([host.mirror])
    assert raw.source == host.mirror.name
    assert cached() == {name: file.path.read_bytes() for name, file in raw.files.items()} == CONTENT
    host.requests.clear()
    assert fetch_files([host.mirror]).source == "cache"
    assert not host.requests
    raw.files["file-1"].path.write_bytes(b"half of i")
    fetch_files([host.mirror])
    assert host.requests == ["file-1.gz"], "what is damaged, and nothing else"
    assert cached() == CONTENT


def test_the_next_source_serves_when_one_cannot_be_reached_or_has_not_the_file(host: Host) -> None:
    assert fetch_files([REFUSED, Mirror(f"{host.mirror.name}no/"), host.mirror]).source == f"{host.mirror.name}no/"
    host.answer = lambda name: None
    next(artifact_paths.dataset("fashion-mnist").glob("raw/file-0*")).unlink()
    with pytest.raises(SourceUnreachable) as caught:
        fetch_files([REFUSED, host.mirror])
    assert caught.value.exit_code == 4
    assert all(words in caught.value.found for words in (REFUSED.name, f"{host.mirror.name}: HTTP 404"))
    assert "GRADMILL_FASHION_MNIST_DIR" in caught.value.action


def test_a_file_that_fails_its_checksum_is_fetched_again(host: Host) -> None:
    good = host.answer
    host.answer = lambda name: gzip.compress(b"wrong") if host.requests.count(name) == 1 else good(name)
    fetch_files([host.mirror])
    assert cached() == CONTENT
    assert sorted(host.requests) == sorted([f"{name}.gz" for name in CONTENT] * 2)


WRONG = hashlib.sha256(b"wrong").hexdigest()
UNFIT: dict[str, tuple[Callable[[bytes], bytes], type[DataError], str]] = {
    "another file": (lambda good: gzip.compress(b"wrong"), DataError, f"file-0 from http.* has SHA-256 {WRONG}"),
    "cut off": (lambda good: gzip.compress(good)[:-10], DataError, "cannot be read"),
    "on and on": (lambda good: bytes(300_000), SourceUnreachable, "more than 1000 bytes"),
}


@pytest.mark.parametrize("answer", UNFIT)
def test_what_is_not_the_published_file_is_exit_4_and_never_kept(
    answer: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, kind, said = UNFIT[answer]
    monkeypatch.setattr(book_datasets, "LARGEST_ARCHIVE", 1000)
    host.answer = lambda name: make(CONTENT[name.removesuffix(".gz")])
    with pytest.raises(DataError, match=said) as caught:
        fetch_files([host.mirror])
    assert caught.value.exit_code == 4
    assert type(caught.value) is kind, "else it would be retried for nothing"
    assert kind is SourceUnreachable or hashlib.sha256(CONTENT["file-0"]).hexdigest() in caught.value.expected
    assert cached() == {}


HEAD, BODY = b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("dripping", [HEAD, BODY], indirect=True)
def test_a_mirror_that_drips_header_or_body_is_left_for_the_next(
    dripping: Mirror, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_datasets, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(SourceUnreachable, match="no end in time"):
        fetch_files([dripping])
    assert fetch_files([dripping, host.mirror]).source == host.mirror.name
    assert cached() == CONTENT


@pytest.mark.parametrize("dripping", [HEAD], indirect=True)
def test_whoever_asks_where_the_files_would_come_from_waits_for_no_mirror_that_drips(
    dripping: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_datasets, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(book_datasets, "find_sources", lambda: iter([dripping]))
    with pytest.raises(SourceUnreachable, match=r"no source could be reached: http.*no end in time"):
        describe_source()


def test_a_users_folder_is_verified_and_wins_over_the_cache(tmp_path: Path) -> None:
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    assert fetch_files([Folder(str(tmp_path))], use_cache=False).source == str(tmp_path)
    (tmp_path / "file-2").write_bytes(CONTENT["file-1"])
    with pytest.raises(DataError, match="file-2"):
        fetch_files([Folder(str(tmp_path))], use_cache=False)
    assert cached() == CONTENT, "what was there before is still there"


@pytest.mark.parametrize("name", ["of fifos", "x" * 300, "y/" * 3000])
def test_a_users_folder_without_the_files_is_exit_4_and_not_waited_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("of fifos").mkdir()
    os.mkfifo("of fifos/file-0")
    with pytest.raises(DataError, match=name[:40]):
        fetch_files([Folder(name)])


def test_what_a_killed_download_left_is_swept_and_nothing_else(host: Host, tmp_path: Path) -> None:
    folder = artifact_paths.dataset("fashion-mnist")
    (folder / f"{artifact_paths.DOWNLOAD_PREFIX}deadbeef").mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (folder / f"{artifact_paths.DOWNLOAD_PREFIX}link").symlink_to(tmp_path / "theirs")
    (folder / f"{artifact_paths.DOWNLOAD_PREFIX}file").touch()
    fetch_files([host.mirror])
    assert not (folder / f"{artifact_paths.DOWNLOAD_PREFIX}deadbeef").exists()
    assert (tmp_path / "theirs").is_dir()


@pytest.mark.slow
def test_torchvisions_mirrors_are_asked_first_for_files_of_its_names() -> None:
    from torchvision.datasets import FashionMNIST

    *mirrors, last = find_sources()
    assert [mirror.name for mirror in mirrors] == FashionMNIST.mirrors
    assert isinstance(last, DebianPackage)
    assert {file.name for file in REAL_FILES} == {name.removesuffix(".gz") for name, _ in FashionMNIST.resources}


@pytest.mark.slow
def test_the_stage_tries_again_when_nothing_answers_and_only_then(
    prefect_api: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the real engine, with its real delays of 2 and 8 seconds."""
    import prefect

    import tasks.download as stage
    from tasks.store.run_folder import RunFolder

    @prefect.flow
    def only_download() -> None:
        stage.download(RunFolder.open("test-run", {}), "fashion-mnist", Data())

    attempts: list[float] = []

    def attempt(mirror: Mirror) -> Iterator[Mirror]:
        attempts.append(time.monotonic())
        yield mirror

    monkeypatch.setattr(book_datasets, "find_sources", lambda: attempt(REFUSED))
    with pytest.raises(SourceUnreachable):
        only_download()
    assert len(attempts) == 3
    assert attempts[-1] - attempts[0] >= 10
    attempts.clear()
    host.answer = lambda name: gzip.compress(b"wrong")
    monkeypatch.setattr(book_datasets, "find_sources", lambda: attempt(host.mirror))
    with pytest.raises(DataError, match="SHA-256"):
        only_download()
    assert len(attempts) == 1


@pytest.mark.slow
def test_debians_package_holds_the_real_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_datasets, "FILES", REAL_FILES)
    try:
        raw = fetch_files([DebianPackage()])
    except SourceUnreachable as unreachable:
        pytest.skip(f"Debian's package cannot be had here: {unreachable.found}")
    assert {file.sha256 for file in raw.files.values()} == {file.sha256 for file in REAL_FILES}
    assert [raw.files[file.name].path.stat().st_size for file in REAL_FILES] == [file.size for file in REAL_FILES]
