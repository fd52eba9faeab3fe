"""Getting the raw files: every source, every way in which one can fail."""

import gzip
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tasks.data import fashion_mnist
from tasks.data.fashion_mnist import fetch
from tasks.data.sources import places
from tasks.data.sources.places import Debian, Directory, RawFile, Source, SourceUnreachable, Torchvision
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.store import artifact_paths, names

CONTENT = {f"file-{number}": bytes([number]) * 1000 for number in range(3)}


@pytest.fixture(autouse=True)
def small_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small files in place of the four real ones, except where a test asks for those."""
    files = tuple(RawFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in CONTENT.items())
    monkeypatch.setattr(fashion_mnist, "FILES", files)


class Mirror:
    """An HTTP server on loopback that counts requests; ``answer`` decides what it sends for a path."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[str], bytes | None] = lambda name: gzip.compress(CONTENT[name.removesuffix(".gz")])
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                mirror.requests.append(name)
                body = mirror.answer(name)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    running = Mirror()
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


class Untouchable:
    """A source that must not be asked."""

    def fetch(self, wanted: Sequence[RawFile], scratch: Path) -> dict[str, Path]:
        raise AssertionError("the cache is filled, nothing may be fetched")


def refused_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def user_folder(path: Path) -> Path:
    path.mkdir()
    for name, data in CONTENT.items():
        (path / name).write_bytes(data)
    return path


def cached() -> dict[str, bytes]:
    folder = artifact_paths.dataset("fashion-mnist")
    return {path.name.split(".")[0]: path.read_bytes() for path in (folder / "raw").glob("file-*")}


def no_scratch_left() -> bool:
    return not list(artifact_paths.dataset("fashion-mnist").glob("**/.scratch-*")) and not list(
        artifact_paths.dataset("fashion-mnist").glob("**/*.partial")
    )


def test_a_mirror_fills_the_cache_with_decompressed_payloads(mirror: Mirror) -> None:
    raw = fetch([Torchvision([mirror.url])])
    assert cached() == CONTENT
    assert {name: file.path.read_bytes() for name, file in raw.files.items()} == CONTENT
    assert no_scratch_left()


def test_a_filled_cache_touches_no_network(mirror: Mirror) -> None:
    fetch([Torchvision([mirror.url])])
    assert fetch([Untouchable()]).source == "cache"


def test_only_what_is_missing_or_damaged_is_fetched_again(mirror: Mirror) -> None:
    raw = fetch([Torchvision([mirror.url])])
    raw.files["file-1"].path.write_bytes(b"half of i")
    mirror.requests.clear()
    fetch([Torchvision([mirror.url])])
    assert mirror.requests == ["file-1.gz"]
    assert cached() == CONTENT


def test_the_next_mirror_and_then_the_next_source_serve_when_one_cannot_be_reached(mirror: Mirror) -> None:
    assert fetch([Torchvision([refused_port(), mirror.url])]).source == "torchvision's mirrors"


def test_the_next_source_serves_when_a_whole_source_is_down(mirror: Mirror, tmp_path: Path) -> None:
    class Second(Torchvision):
        def __str__(self) -> str:
            return "second"

    assert fetch([Torchvision([refused_port()]), Second([mirror.url])]).source == "second"


def test_no_source_and_no_cache_names_every_source_and_the_way_out() -> None:
    with pytest.raises(SourceUnreachable) as caught:
        fetch([Torchvision([refused_port()])])
    assert caught.value.exit_code == 4
    assert "torchvision's mirrors" in caught.value.found
    assert "GRADMILL_FASHION_MNIST_DIR" in caught.value.action


def test_a_file_that_fails_its_checksum_is_fetched_again(mirror: Mirror) -> None:
    good = mirror.answer
    mirror.answer = lambda name: gzip.compress(b"wrong") if mirror.requests.count(name) == 1 else good(name)
    fetch([Torchvision([mirror.url])])
    assert cached() == CONTENT
    assert sorted(mirror.requests) == sorted([f"{name}.gz" for name in CONTENT] * 2)


def test_a_second_wrong_checksum_is_exit_4_with_source_and_both_digests(mirror: Mirror) -> None:
    mirror.answer = lambda name: gzip.compress(b"wrong")
    with pytest.raises(DataError) as caught:
        fetch([Torchvision([mirror.url])])
    assert caught.value.exit_code == 4
    assert not isinstance(caught.value, SourceUnreachable), "would be retried for nothing"
    assert "torchvision's mirrors" in caught.value.found
    assert hashlib.sha256(b"wrong").hexdigest() in caught.value.found
    assert hashlib.sha256(CONTENT["file-0"]).hexdigest() in caught.value.expected
    assert cached() == {}
    assert no_scratch_left()


def test_a_truncated_archive_is_never_taken_for_a_whole_one(mirror: Mirror) -> None:
    mirror.answer = lambda name: gzip.compress(CONTENT[name.removesuffix(".gz")])[:-10]
    with pytest.raises(DataError, match="cannot be read"):
        fetch([Torchvision([mirror.url])])
    assert cached() == {}


def test_a_mirror_that_sends_on_and_on_is_cut_off(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LARGEST_ARCHIVE", 1000)
    mirror.answer = lambda name: bytes(300_000)
    with pytest.raises(SourceUnreachable, match="more than 1000 bytes"):
        fetch([Torchvision([mirror.url])])


def test_a_users_folder_is_verified_and_wins_over_the_cache(tmp_path: Path, mirror: Mirror) -> None:
    folder = user_folder(tmp_path / "mine")
    assert fetch([Directory(folder)]).source == str(folder)
    flipped = bytearray(CONTENT["file-2"])
    flipped[500] ^= 1
    (folder / "file-2").write_bytes(flipped)
    with pytest.raises(DataError, match="file-2"):
        fetch([Directory(folder)])
    assert cached() == CONTENT, "what was there before is still there"


def test_swapped_files_in_a_users_folder_are_found(tmp_path: Path) -> None:
    folder = user_folder(tmp_path / "mine")
    (folder / "file-0").write_bytes(CONTENT["file-1"])
    with pytest.raises(DataError, match="file-0"):
        fetch([Directory(folder)])


def test_a_users_folder_without_the_files_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file-0 in"):
        fetch([Directory(tmp_path)])


def test_a_mirror_that_drips_is_cut_off(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LONGEST_SECONDS", -1)
    with pytest.raises(SourceUnreachable, match="no end after"):
        fetch([Torchvision([mirror.url])])


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 3000])
def test_a_users_folder_with_a_name_that_the_system_does_not_take_is_exit_4(name: str) -> None:
    with pytest.raises(DataError, match=name[:40]):
        fetch([Directory(Path(name))])


def test_a_fifo_in_a_users_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = user_folder(tmp_path / "mine")
    (folder / "file-1").unlink()
    os.mkfifo(folder / "file-1")
    with pytest.raises(DataError, match="no file-1 in"):
        fetch([Directory(folder)])


def test_the_sweep_leaves_what_it_did_not_write(mirror: Mirror, tmp_path: Path) -> None:
    folder = artifact_paths.dataset("fashion-mnist")
    folder.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (folder / f"{names.DOWNLOAD_PREFIX}link").symlink_to(tmp_path / "theirs")
    (folder / f"{names.DOWNLOAD_PREFIX}file").touch()
    fetch([Torchvision([mirror.url])])
    assert (tmp_path / "theirs").is_dir()


def test_what_a_killed_download_left_is_swept(mirror: Mirror) -> None:
    (artifact_paths.dataset("fashion-mnist") / f"{names.DOWNLOAD_PREFIX}deadbeef").mkdir(parents=True)
    fetch([Torchvision([mirror.url])])
    assert no_scratch_left()


def test_torchvisions_mirrors_are_its_own_list() -> None:
    from torchvision.datasets import FashionMNIST

    assert Torchvision().urls == FashionMNIST.mirrors
    assert {file.name for file in REAL_FILES} == {name.removesuffix(".gz") for name, _ in FashionMNIST.resources}


@pytest.mark.slow
def test_the_stage_tries_again_when_nothing_answers_and_only_then(
    prefect_api: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the real engine, with its real delays of 2 and 8 seconds."""
    import prefect

    import tasks.download as stage
    from tasks.store.run_folder import RunFolder

    @prefect.flow
    def only_download() -> None:
        stage.download(RunFolder.open("test-run", {}), "fashion-mnist", Data())

    attempts: list[float] = []

    class Down(Torchvision):
        def fetch(self, wanted: Sequence[RawFile], scratch: Path) -> dict[str, Path]:
            attempts.append(time.monotonic())
            return super().fetch(wanted, scratch)

    monkeypatch.setattr(fashion_mnist, "Torchvision", lambda: Down([refused_port()]))
    monkeypatch.setattr(fashion_mnist, "Debian", lambda: Down([refused_port()]))
    with pytest.raises(SourceUnreachable):
        only_download()
    assert len(attempts) == 3 * 2
    assert attempts[-1] - attempts[0] >= 10
    attempts.clear()
    mirror.answer = lambda name: gzip.compress(b"wrong")
    monkeypatch.setattr(fashion_mnist, "Torchvision", lambda: Down([mirror.url]))
    with pytest.raises(DataError, match="SHA-256"):
        only_download()
    assert len(attempts) == 2, "fetched once again after the first wrong digest, then given up"


REAL_FILES = fashion_mnist.FILES


def test_debians_package_holds_the_real_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "FILES", REAL_FILES)
    source: Source = Debian()
    try:
        raw = fetch([source])
    except SourceUnreachable as unreachable:
        pytest.skip(f"Debian's package cannot be had here: {unreachable.found}")
    assert {file.sha256 for file in raw.files.values()} == {file.sha256 for file in REAL_FILES}
    assert [raw.files[file.name].path.stat().st_size for file in REAL_FILES] == [file.size for file in REAL_FILES]
    assert no_scratch_left()
