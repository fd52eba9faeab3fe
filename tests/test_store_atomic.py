"""Files that are whole or absent, and the sweep that never takes what is still being written."""

import fcntl
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from conftest import REPOSITORY
from tasks.store import atomic

WRITES = 60  # a sweep that does not wait for the lock takes one in forty


def write_half(path: Path) -> None:
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(b"half of the new")
        raise OSError("disk full")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_an_error_and_not_a_token_that_other_parsers_reject(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "file.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_sweep_takes_what_a_killed_writer_left_but_not_what_is_being_written(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tasks.store import atomic\n"
        "with atomic.replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)"
    )
    folder = tmp_path / "models" / "name"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "champion.json")], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    atomic.sweep(tmp_path)
    assert len(list(folder.iterdir())) == 1, "its writer is alive"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    atomic.sweep(tmp_path)
    assert not list(folder.iterdir())
    atomic.write_json(folder / "champion.json", {})
    assert json.loads((folder / "champion.json").read_text()) == {}


def write_often(path: Path, lost: "Synchronized[int]", writing: "Synchronized[int]") -> None:
    for _ in range(WRITES):
        try:
            atomic.write_bytes(path, b"content")
        except FileNotFoundError:
            with lost.get_lock():
                lost.value += 1
    with writing.get_lock():
        writing.value -= 1


def sweep_meanwhile(folder: Path, writing: "Synchronized[int]") -> None:
    while writing.value:
        atomic.sweep(folder)


@pytest.mark.parametrize("disk", ["/tmp", "/dev/shm"])  # noqa: S108  (which disk it is, is what is tested)
def test_sweepers_take_nothing_from_writers(disk: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A sweep between the creation of a temporary file and its lock took one in forty on a disk."""
    if not os.access(disk, os.W_OK):
        pytest.skip(f"no {disk} here")
    context = multiprocessing.get_context("fork")
    lost, writing = context.Value("i", 0), context.Value("i", 3)
    folder = tmp_path_factory.mktemp("beside") if disk == "/tmp" else Path(disk, f"gradmill-{os.getpid()}")  # noqa: S108
    folder.mkdir(exist_ok=True)
    path = folder / "file"
    workers = [context.Process(target=write_often, args=(path, lost, writing)) for _ in range(3)]
    workers += [context.Process(target=sweep_meanwhile, args=(folder, writing)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert lost.value == 0
    assert [each.name for each in folder.iterdir()] == ["file"]
    path.unlink()
    folder.rmdir()


def test_a_sweep_just_before_the_lock_costs_only_another_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept: list[Path] = []

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(tmp_path.iterdir())
            atomic.sweep(tmp_path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    atomic.write_bytes(tmp_path / "file", b"content")
    assert len(swept) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


OURS = ".gradmill-0123456789abcdef.partial"


@pytest.mark.parametrize("name", [OURS, "x.partial", ".cache.partial"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "link", "dangling link"])
def test_the_sweep_looks_at_regular_files_only(tmp_path: Path, kind: str, name: str) -> None:
    path, outside = tmp_path / "swept" / name, tmp_path / "outside" / OURS
    for each in (path, outside):
        each.parent.mkdir()
    outside.write_text("of another folder")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.open(path.parent, os.O_RDONLY)
            listening.bind(f"/proc/self/fd/{here}/{name}" if sys.platform == "linux" else str(path))
            os.close(here)
    else:
        path.symlink_to(outside if kind == "link" else "nowhere")
    (path.parent / "behind-a-link").symlink_to(outside.parent)
    atomic.sweep(path.parent)
    assert os.path.lexists(path)
    assert outside.exists()


@pytest.mark.parametrize(
    "name", ["download.partial", ".download.partial", ".model.onnx.0123abcd.partial", f"{OURS}.gz"]
)
def test_files_that_others_name_so_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / OURS).touch()
    atomic.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
