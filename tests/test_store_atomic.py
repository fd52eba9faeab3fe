"""Files that are whole or absent, locks that a dead process lets go, and nothing half done in ``models/``."""

import copy
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candidate import Candidate, plain
from conftest import REPOSITORY
from tasks.data.prepared_splits import write_arrays
from tasks.download import download
from tasks.parameters import RetrainParameters
from tasks.preprocess import preprocess
from tasks.store import artifact_paths, atomic, locks, publishing, reading
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate
from victims import fork
from written_tables import written

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


def test_sweepers_take_nothing_from_writers(tmp_path: Path) -> None:
    """A sweep between the creation of a temporary file and its lock took one in forty."""
    context = multiprocessing.get_context("fork")
    lost, writing = context.Value("i", 0), context.Value("i", 3)
    path = tmp_path / "file"
    workers = [context.Process(target=write_often, args=(path, lost, writing)) for _ in range(3)]
    workers += [context.Process(target=sweep_meanwhile, args=(tmp_path, writing)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert lost.value == 0
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


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


# Locks


HOLD = """
import sys, time
from pathlib import Path
from tasks.store import locks
with locks.hold_lock(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The lock in the hands of another process, which is killed in the end."""
    command = [sys.executable, "-c", HOLD, str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


class Listening(io.StringIO):
    """A stderr whose first line is the holder's end."""

    def __init__(self, holder: "subprocess.Popen[str]") -> None:
        super().__init__()
        self.holder = holder

    def write(self, text: str) -> int:
        self.holder.kill()
        return super().write(text)


def told_beside(path: Path, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch) -> str:
    """What somebody is told who waits for the lock; its holder is killed as soon as anything is said."""
    stream = Listening(holder)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with locks.hold_lock(path, "busy"):
            pass
    return stream.getvalue()


def test_whoever_waits_says_for_whom_and_a_dead_holder_is_named_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / ".lock"
    for command in ("first", "second"):
        with held(path, "retrain", command, "https://user:secret@host/") as holder:
            told = told_beside(path, holder, monkeypatch)
        assert capsys.readouterr().out == ""
        assert told.startswith(f"busy: process {holder.pid} on {socket.gethostname()} since 20")
        assert f" UTC, -c {path} retrain {command} https://host/"[:40] in told
        assert "secret" not in told
        assert told.count("\n") == 1
    assert path.read_text() == "", "free"


def test_a_lock_file_that_is_removed_or_replaced_meanwhile_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    """Housekeeping removes a folder with its lock while another waits for it: that one must hold what is there then."""
    path = tmp_path / "folder" / ".lock"
    entered, stay = threading.Event(), threading.Event()

    def wait() -> None:
        with locks.hold_lock(path, "busy"):
            entered.set()
            stay.wait(60)

    waiter = threading.Thread(target=wait)
    with locks.hold_lock(path, "busy"):
        waiter.start()
        path.parent.rename(tmp_path / "condemned")
    assert entered.wait(60)
    with locks.locked_if_free(path) as free:
        assert not free, "the waiter holds the lock of the new folder"
    stay.set()
    waiter.join()


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_a_lock_file_of_another_kind_is_an_error_and_no_endless_wait(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".lock"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"\.lock"), locks.hold_lock(path, "busy"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    path = tmp_path / ".lock"

    def wait() -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with locks.hold_lock(path, "busy"):
            pass

    with held(path), pytest.raises(KeyboardInterrupt):
        wait()


# models/ is a Triton repository at any time: no folder without a version stays in it


NAME = "linear-regression"


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_publication_that_is_cut_off_leaves_nothing_half_done(
    candidates: list[Candidate], fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "model.onnx").write_bytes(b"half of it")
        raise fault

    def cut_off(candidate: Candidate) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "fill", half)
            with pytest.raises(type(fault)):
                candidate.publish()

    cut_off(candidates[0])
    assert not list(artifact_paths.models().iterdir()), "nor a folder without a version"
    assert candidates[0].publish().version == 1
    before = {*artifact_paths.model(NAME).iterdir()}
    cut_off(candidates[1])
    assert {*artifact_paths.model(NAME).iterdir()} == before


def test_whoever_waits_for_the_lock_of_a_folder_that_goes_publishes_into_a_new_one(candidates: list[Candidate]) -> None:
    published: list[int | None] = []
    waiting = threading.Thread(target=lambda: published.append(candidates[0].publish().version))
    with publishing.turn(NAME, to_publish=True):
        waiting.start()
        waiting.join(0.3)
        assert published == []
    waiting.join(60)
    assert published == [1]
    assert reading.versions(NAME) == [1]


def killed_in_its_turn(artifacts: str) -> None:
    """The body of a victim: the first candidate of a name, killed while it is staged."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    with publishing.turn("new", to_publish=True):
        (artifact_paths.model("new") / ".staging-0123456789abcdef").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_run_of_any_name_removes_what_others_have_left(two_versions: None, artifacts: Path) -> None:
    victim = fork(killed_in_its_turn, str(artifacts))
    victim.join()
    assert artifact_paths.model("new").is_dir()
    for name in ("empty", "theirs", "busy", "lost+found", f"{NAME}/.staging-0123456789abcdef"):
        artifact_paths.model(name).mkdir()
    (artifact_paths.model("theirs") / "notes.txt").touch()
    with locks.hold_lock(artifact_paths.lock(artifact_paths.model("busy")), "busy"):
        RunFolder.open("a-run", {})
        assert {path.name for path in artifact_paths.models().iterdir()} == {"busy", NAME, "lost+found", "theirs"}
        assert reading.names() == ["busy", NAME, "theirs"], "a model cannot have the other one's name"
    assert not [*artifact_paths.model(NAME).glob(".staging-*")]


# What waits for the disk: versions and all that they name, and nothing that a run can make again


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file and folder that is forced to disk, in order; and a renamed one as it is called afterwards."""
    found: list[Path] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def noted_rename(source: Path, target: Path, **options: int) -> None:
        rename(source, target, **options)
        found.append(Path(target))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    return found


def test_from_a_table_to_its_weights_only_the_notes_of_the_run_wait_for_the_disk(
    artifacts: Path, tmp_path: Path, forced: list[Path]
) -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(size=300)
    columns = {"size": size, "late": np.where(size > 0, "yes", "no"), "split": ["train"] * 250 + ["test"] * 50}
    artifact_paths.make_root()
    data = {"source": str(written(tmp_path / "table.csv", columns)), "target": "late", "split_column": "split"}
    document = {"name": "late", "training": {"model": "softmax-regression", "device": "cpu"}, "data": data}
    asked, run = RetrainParameters.model_validate(document), RunFolder.open("late", {})
    raw = plain(download)(run, asked.dataset, asked.data)
    prepared = plain(preprocess)(run, plain(validate)(run, raw, asked.data, "classification"), asked.data, 0)
    trained = plain(train)(run, prepared, asked.training)
    assert trained.weights.path.is_file()
    folder = trained.weights.path.parent
    assert {path.parent if path != folder else path for path in forced} == {folder}
    assert len(forced) == 2, "run.json, as it is called until it is whole, and its folder"


def test_row_digests_are_on_disk_before_the_version_that_names_them(
    candidates: list[Candidate], artifacts: Path, forced: list[Path]
) -> None:
    rows = artifacts / "rows"
    artifacts.mkdir()
    sha256 = write_arrays(rows, {"train": (np.uint64, (3,))}, {"train": [np.arange(3, dtype=np.uint64)]})
    assert not forced
    made = copy.copy(candidates[0])
    made.prepared = made.prepared.model_copy(update={"rows": FileRef(path=rows, sha256=sha256)})
    assert made.publish().version == 1
    version = artifact_paths.version("linear-regression", 1)
    assert forced.index(rows) < forced.index(artifacts) < forced.index(version)
