"""Whoever waits for a lock says for whom; the lock of a dead process is free."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import REPOSITORY
from tasks.store import locks

HOLD = """
import sys, time
from pathlib import Path
from tasks.store import locks
with locks.locked(Path(sys.argv[1]), "busy"):
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
        with locks.locked(path, "busy"):
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


def test_without_a_note_the_holder_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".lock"
    for note, shown in ((b"", "busy\n"), (b"\xff\x1b[2J\n", "busy: \ufffd[2J\n")):
        with held(path) as holder:
            path.write_bytes(note)
            assert told_beside(path, holder, monkeypatch) == shown


def test_a_short_wait_is_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends before the lock is tried for the second time."""
    path, pauses = tmp_path / ".lock", list[float]()
    with contextlib.ExitStack() as holding:
        holding.enter_context(locks.locked(path, "busy"))

        def let_go(seconds: float) -> None:
            pauses.append(seconds)
            holding.close()

        monkeypatch.setattr(time, "sleep", let_go)
        with locks.locked(path, "busy"):
            assert capsys.readouterr().err == ""
    assert pauses == [locks.POLL_SECONDS]


def test_a_lock_file_that_is_removed_or_replaced_meanwhile_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    """Housekeeping removes a folder with its lock while another waits for it: that one must hold what is there then."""
    path = tmp_path / "folder" / ".lock"
    entered, stay = threading.Event(), threading.Event()

    def wait() -> None:
        with locks.locked(path, "busy"):
            entered.set()
            stay.wait(60)

    waiter = threading.Thread(target=wait)
    with locks.locked(path, "busy"):
        waiter.start()
        path.parent.rename(tmp_path / "condemned")
    assert entered.wait(60)
    with locks.locked_if_free(path) as free:
        assert not free, "the waiter holds the lock of the new folder"
    stay.set()
    waiter.join()


def test_a_folder_that_goes_while_it_is_made_is_made_again_and_a_file_in_its_place_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``mkdir`` finds the folder, and its second look, whether it is one, does not."""
    folder, looks = tmp_path / "folder", list[bool]()
    is_dir = Path.is_dir

    def removed_first(path: Path) -> bool:
        if path == folder and not looks:
            folder.rename(tmp_path / "condemned")
        looks.append(is_dir(path))
        return looks[-1]

    folder.mkdir()
    monkeypatch.setattr(Path, "is_dir", removed_first)
    with locks.locked(folder / ".lock", "busy"):
        assert folder.is_dir()
    assert looks[0] is False
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), locks.locked(tmp_path / "file" / ".lock", "busy"):
        pass


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_a_lock_file_of_another_kind_is_an_error_and_no_endless_wait(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".lock"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"\.lock"), locks.locked(path, "busy"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    path = tmp_path / ".lock"

    def wait() -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with locks.locked(path, "busy"):
            pass

    with held(path), pytest.raises(KeyboardInterrupt):
        wait()
