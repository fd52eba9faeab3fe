"""Files that are whole or absent, and the sweep that never takes what is still being written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from tasks import atomic


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
        "import sys, time; from pathlib import Path; from tasks import atomic\n"
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
