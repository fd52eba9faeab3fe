"""Streams that are closed, full or without a reader, and environments that cannot be used: never a traceback."""

import errno
import json
import math
import os
import ssl
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from command_line import GRADMILL, assert_clear, gradmill
from flows.cli import streams
from flows.cli.errors import as_gradmill_error
from flows.server.environment import settle_prefect
from tasks.errors import EnvironmentProblem


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """``gradmill`` stands for the command of this environment; the exit code is that of the pipe's first part."""
    script = f'set -o pipefail; gradmill() {{ {GRADMILL} "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=180)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["models --json", "retrain --help", "nonsense --json"])
def test_a_reader_that_has_gone_is_silent(command: str) -> None:
    done = shell(f"exec 3> >(:); wait $!; gradmill {command} >&3")
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">&-", "> /dev/full"])
@pytest.mark.parametrize("command", ["models --json", "--help"])
def test_output_that_cannot_be_written_is_three_lines_and_exit_1(command: str, redirection: str) -> None:
    done = shell(f"gradmill {command} {redirection}")
    assert_clear(done, 1)
    assert done.stderr.startswith("gradmill: standard output: ")


def test_a_closed_output_is_told_before_any_work(artifacts: Path) -> None:
    assert_clear(shell("gradmill retrain linear-regression >&-"), 1)
    assert not artifacts.exists()


@pytest.mark.slow
def test_a_run_goes_on_without_standard_error_and_input(two_versions: None, server: str) -> None:
    """Nobody sees its progress; that is no reason to fail. The numbers 0 and 2 are not given to other files."""
    done = shell(f"PREFECT_API_URL={server} gradmill predict --name linear-regression --json 2>&- <&-")
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, 1000)
    assert shell("gradmill nonsense 2> /dev/full").returncode == 2


@pytest.mark.parametrize(("unbuffered", "shown"), [("", "told\n"), ("1", "told\nanswer\n")])
def test_a_line_is_shown_when_it_ends_not_when_the_command_does(unbuffered: str, shown: str) -> None:
    """As `gradmill up`'s, which goes on for months; images for containers set PYTHONUNBUFFERED."""
    lines = "streams.guard(); print('told', file=sys.stderr); print('answer'); os._exit(0)"
    code = f"import os, sys; from flows.cli import streams; {lines}"
    assert shell(f'PYTHONUNBUFFERED={unbuffered} {sys.executable} -c "{code}" 2>&1').stdout == shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "GRADMILL_TIME_LIMIT=maybe retrain",
        "GRADMILL_ARTIFACTS=~no-such-user/x retrain",
        "GRADMILL_ARTIFACTS=~no-such-user/x models",
        "PREFECT_LOGGING_LEVEL=loud retrain",
        "PREFECT_API_REQUEST_TIMEOUT=abc status",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=perhaps remove linear-regression --yes",
    ],
)
def test_a_variable_that_cannot_be_used_is_named_before_any_work(
    line: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, *command = line.split()
    monkeypatch.setenv(*setting.split("="))
    assert_clear(gradmill(*command), 2, f"gradmill: {setting} cannot be used")
    assert {path.name for path in artifacts.glob("*")} <= {".prefect"}, "at most the log of a temporary server"


def test_folders_that_cannot_be_named_or_are_gone_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert_clear(shell(rf"gradmill models --artifacts {tmp_path}/caf$'\xe9'"), 2)
    monkeypatch.delenv("GRADMILL_ARTIFACTS")
    assert_clear(shell(f"mkdir {tmp_path}/x && cd {tmp_path}/x && rmdir {tmp_path}/x && gradmill models"), 1)


@pytest.mark.parametrize("has_home", [False, True])
def test_who_has_no_home_or_whose_prefect_folder_is_another_users_keeps_prefect_in_artifacts(
    has_home: bool, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (of_root := tmp_path / ".prefect").mkdir()
    here = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "PREFECT_HOME")}
    monkeypatch.setattr(os, "environ", here | ({"HOME": str(tmp_path)} if has_home else {}))
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (of_root, os.W_OK))
    settle_prefect()
    assert os.environ["PREFECT_HOME"] == str(artifacts / ".prefect" / "home")
    assert has_home or Path.home() == artifacts / ".prefect" / "home"
    assert Path.home().is_dir()


ERRORS: dict[str | Exception, str] = {  # of the system by their names, or of others; and a part of each line
    "ENOSPC /x/file": "device: /x/file; space; free some",
    "ENOSPC": "device: in /; space; free some",
    "EDQUOT /x/file": "/x/file; quota; free some",
    "EACCES /x/file": "/x/file; permission; permissions",
    "EMFILE /x": "Too many; descriptor; ulimit -n",
    "ENAMETOOLONG /x": "too long; path; shorter",
    "ENOENT /a /b": "/a -> /b; exists; removes",
    "ELOOP /x": "symbolic; come to an end; link",
    "EIO /x": "Input/output; working disk; dmesg",
    "ENOTSUP /x": "not supported: /x; refuse; --debug",
    "ECONNREFUSED": "connection failed; network; try again",
    "EHOSTUNREACH": "failed: No route; network; try again",
    TimeoutError("timed out"): "connection failed: timed out; network; try again",
    ssl.SSLError(1, "bad certificate"): "connection failed; network; try again",
    urllib.error.URLError("no host given"): "no host given; network; try again",
    OSError("cannot identify image file /x"): "OSError: cannot identify image file /x; library; --debug",
    OSError(errno.EROFS, "Read-only file system", b"/x/file"): "/x/file; can be written; mount",
    MemoryError("no more"): "MemoryError; enough memory; --workers",
    ModuleNotFoundError("No module named 'torch'"): "torch; packages; doctor",
    RecursionError("too deep"): "RecursionError; no such error; traceback",
}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_of_the_system_says_which_problem_of_which_file(error: str | Exception) -> None:
    made = error
    if isinstance(made, str):
        name, first, second, *_ = [*made.split(), None, None]
        number = getattr(errno, str(name))
        made = OSError(number, os.strerror(number), first, None, second)
    found = as_gradmill_error(made)
    assert type(found) is EnvironmentProblem
    for line, part in zip((found.found, found.expected, found.action), ERRORS[error].split("; "), strict=True):
        assert part in line


def test_numbers_that_json_has_not_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    streams.print_json({"gates": [{"value": math.nan, "maximum": 1.5}], "bounds": (-math.inf, math.inf, "NaN", 2)})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"gates": [{"value": None, "maximum": 1.5}], "bounds": [None, None, "NaN", 2]}
