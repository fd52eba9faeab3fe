"""Pictures are decoded by processes of our own: what they find is the same, and they end when they should."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from image_folders import drawn, write
from tasks.data.image_dataset import find_images
from tasks.data.io import images
from tasks.errors import EnvironmentProblem
from tasks.machine import cores
from tasks.machine.processes import Process, by_all_cores

ORPHANED = """
import os, signal
from tasks.machine import cores
from tasks.machine.processes import Process
other = Process(os.getppid)
print(other._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_find_what_this_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "pets", {"cat": 40, "dog": 30})
    (source / "cat" / "broken.png").write_bytes(b"\x89PNG")
    Image.fromarray(drawn(0, 99, channels=3)).save(source / "dog" / "colour.jpg")
    labelled, found, spools = find_images(str(source)), [], []
    monkeypatch.setattr(cores, "available", lambda: 3)
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(images, "LONG_SECONDS", seconds)
        decoded = images.read_images(labelled, tmp_path / f"pixels-{seconds}")
        spools.append(decoded.spool.read_bytes())
        found.append((decoded.facts.tolist(), decoded.unreadable))
    assert found[0] == found[1]
    assert spools[0] == spools[1] != bytes(len(spools[0]))
    assert len(found[0][1]) == 1


def test_an_error_comes_back_as_it_was() -> None:
    with by_all_cores(os.listdir, 2, in_processes=True) as begin:
        for done in [begin(f"/nowhere/{number}") for number in range(4)]:
            with pytest.raises(FileNotFoundError, match="/nowhere"):
                done.result()


def test_a_process_that_was_killed_is_told_of() -> None:
    other: Process[int, None] = Process(partial(os.kill, os.getpid()))
    other(0)
    os.kill(other._process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentProblem, match="ended"):
        other(0)
    other.close()


def test_no_process_outlives_a_parent_that_was_killed() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANED], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    child, deadline = int(done.stdout), time.monotonic() + 60
    while os.path.exists(f"/proc/{child}/fd/0") and time.monotonic() < deadline:  # noqa: PTH110  (gone, or a zombie)
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}/fd/0")  # noqa: PTH110
