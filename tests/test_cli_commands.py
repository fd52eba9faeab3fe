"""The command line from outside: exit codes, messages, JSON, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import GRADMILL, answer, assert_clear, gradmill, output, refused, servers
from conftest import REPOSITORY
from prefect_api import eventually
from tasks.data.book_datasets import FILES
from terminals import Terminal


@pytest.mark.parametrize(
    "command", ["trigger x --list-params --wait", "rollback no-such-model", "freeze no-such-model"]
)
def test_a_wrong_command_of_those_that_import_prefect_is_exit_2_and_leaves_nothing(
    command: str, artifacts: Path
) -> None:
    """All others are in test_cli_checks.py."""
    refused(2, command)
    assert not artifacts.exists()


needs_no_gpu = pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="an NVIDIA driver is here")


@pytest.mark.parametrize(
    ("command", "exit_code", "words"),
    [
        pytest.param("retrain linear-regression --device cuda", 5, "", marks=[needs_no_gpu, pytest.mark.slow]),
        pytest.param("predict --name linear-regression --device cuda", 5, "", marks=[needs_no_gpu, pytest.mark.slow]),
        ("retrain --artifacts /proc/nowhere", 1, ""),
        ("retrain linear-regression --lr 100", 3, "in epoch 1 at lr 100"),
    ],
)
def test_a_device_that_is_not_there_a_folder_that_cannot_be_written_and_divergence_have_their_exit_codes(
    command: str, exit_code: int, words: str, on_server: None, two_versions: None
) -> None:
    assert_clear(gradmill(*command.split()), exit_code, words)


@pytest.mark.slow  # two retrains on a small disk
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_exit_1_and_a_second_run_works(on_server: None, fashion_mnist: Path, tmp_path: Path) -> None:
    """90 MB are enough for the raw files (55 MB), but not for the prepared splits too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", disk]).returncode:
        pytest.skip("no tmpfs can be mounted here")
    arguments = ("retrain", "--epochs", "5", "--no-predict", "--artifacts", str(disk / "artifacts"), "--json")
    try:
        raw = disk / "artifacts" / "datasets" / "fashion-mnist" / "raw"
        raw.mkdir(parents=True)
        for file in FILES:
            shutil.copyfile(fashion_mnist / file.name, raw / f"{file.name}.{file.sha256[:16]}")
        os.environ.pop("GRADMILL_FASHION_MNIST_DIR")  # monkeypatch restores it
        done = gradmill(*arguments)
        assert json.loads(done.stdout)["error"]["exit_code"] == done.returncode == 1
        assert "No space left" in done.stdout
        assert not list(disk.glob("**/*.safetensors*"))
        subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
        assert gradmill(*arguments).returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_refused_retrain_prints_its_document_and_its_gates_and_publishes_nothing(
    on_server: None, artifacts: Path
) -> None:
    done = gradmill("retrain", "linear-regression", "--epochs", "1", "--lr", "0.001", "--json")
    document = json.loads(done.stdout)
    assert (document["outcome"], document["version"]) == ("refused", None)
    evidence = json.loads(Path(document["run"], "evaluation.json").read_text())
    for listed in (document["gates"], evidence["gates"]):
        assert [gate["name"] for gate in listed if not gate["passed"]] == ["test_loss", "parameter_error"]
    assert Path(document["run"], "regression.png").is_file()
    assert not (artifacts / "models").exists()
    assert_clear(done, 3, "gradmill: refused by test_loss ", "gate test_loss refused: ")


@pytest.mark.slow  # several runs of the command line
def test_a_run_that_fails_after_its_model_was_published_reports_both(
    on_server: None, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.mkdir()
    (artifacts / "predictions").write_text("a file where a folder should be")
    document = json.loads(gradmill("retrain", "linear-regression", "--json").stdout)
    assert document["error"]["exit_code"] == 1
    assert (document["outcome"], document["version"], document["champion"]) == ("published", 1, 1)
    assert (document["prediction"], document["provider"]) == (None, None)
    (tmp_path / "share").write_text("a file here too")
    monkeypatch.setenv("GRADMILL_MIRROR", str(tmp_path / "share"))
    document = json.loads(gradmill("retrain", "linear-regression", "--no-predict", "--json").stdout)
    assert (document["error"]["exit_code"], document["outcome"]) == (1, "unchanged")
    done = gradmill("retrain", "linear-regression")
    assert_clear(done, 1)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    same = "which was trained on the same rows with the same options"
    assert lines["unchanged"] == f"linear-regression version 1, {same}, the champion"
    assert lines["predictions"] == "none: the run failed before they were made"
    assert lines["try"] == f"next    {GRADMILL} predict --name linear-regression"


@pytest.mark.slow
def test_interrupted_and_killed_runs_leave_no_server_and_the_next_run_works(
    artifacts: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = servers()

    def trains() -> bool:
        return any('"preprocess"' in run.read_text() for run in artifacts.glob("runs/*/run.json"))

    def has_a_server() -> bool:
        return bool(servers() - before)

    command = [GRADMILL, "retrain", "linear-regression", "--epochs", "10000"]  # so that no machine is done before
    kinds = {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
    for moment, kind in ((trains, signal.SIGINT), (has_a_server, signal.SIGINT), (has_a_server, signal.SIGKILL)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        eventually(moment, 60, moment.__name__)
        process.send_signal(kind)
        _, messages = process.communicate(timeout=180)
        assert (process.returncode, "Traceback" in messages) == (kinds[kind], False)
        eventually(lambda: servers() <= before, 60, "no server is left")
    monkeypatch.setenv("PREFECT_API_URL", server)
    assert gradmill("retrain", "linear-regression").returncode == 0


STAGES = {"download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"}


@pytest.mark.slow
def test_two_newcomers_at_once_see_short_lines_and_get_two_whole_versions_and_one_champion(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two temporary servers, which write nothing to the user's Prefect; the second run is gated against the first.

    Behind a company's proxy, which knows nothing of this host.
    """
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "fresh"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    command, pipe = [GRADMILL, "retrain", "linear-regression", "--seed"], subprocess.PIPE
    for process in [subprocess.Popen([*command, each], stdout=pipe, stderr=pipe, text=True) for each in "01"]:
        summary, shown = process.communicate(timeout=600)
        assert (process.returncode, len(shown.splitlines()) < 30) == (0, True), shown
        # "the": disk is nearly full, where these tests run.
        assert {line.split()[0] for line in shown.splitlines()} - {"waiting", "server", "the"} == STAGES
        assert str(artifacts / "models" / "linear-regression") in summary
    eventually(lambda: not servers(), 60, "nobody waits for the servers' ends, but they end")
    listed = answer("models")["models"]["linear-regression"]
    assert [(row["version"], row["champion"]) for row in listed] == [(1, False), (2, True)]
    assert "champion_loss" in Path(listed[1]["path"]).with_name("manifest.json").read_text()
    assert [*(tmp_path / "fresh").rglob("*")] == []
    assert [path.suffix for path in (artifacts / ".prefect").iterdir() if path.name != "temporary-server.log"] == [
        ".db"
    ]
    for version in "12":
        output(f"verify linear-regression {version}")


def interruption(run: str, double: float = 60, *arguments: str) -> list[str]:
    """A command whose work are these lines; Ctrl-C within ``double`` seconds of another is the same."""
    lines = "".join(f"    {line}\n" for line in run.splitlines())
    code = (
        "import os, signal, sys, time, weakref; from flows import __main__, interrupt; from flows.cli import app\n"
        f"interrupt.DOUBLE_SECONDS = {double}\n"
        "press = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        f"def run(arguments):\n{lines}"
        "app.run = run\n__main__.main()"
    )
    return [sys.executable, "-c", code, *arguments]


def interrupted(run: str, double: float = 60, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """What such a command leaves."""
    command = interruption(run, double, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=REPOSITORY)


STRUCK: dict[str, tuple[str, float]] = {
    # As when numpy is interrupted during its import and raises ImportError.
    "an error of its own": ("try:\n    press()\nexcept KeyboardInterrupt as error:\n    raise ImportError('half')", 60),
    "a panic of a library in Rust": ("try:\n    press()\nexcept BaseException:\n    raise BaseException('panic')", 60),
    # As when what the last line is printed with is, which then can be imported no more.
    "an import": ("import flows.cli\ndel flows.cli.display\nsys.modules['flows.cli.display'] = None\npress()", 60),
    "pressed twice, meant once": ("try:\n    press()\nfinally:\n    press()\n    print('ended', flush=True)", 60),
    "pressed once more": ("try:\n    press()\nfinally:\n    time.sleep(0.01)\n    press()\n    time.sleep(60)", 0),
    # Python drops what is raised in the callback of a weak reference.
    "dropped": ("held = set()\nseen = weakref.ref(held, press)\ndel held\ntime.sleep(60)", 60),
}


@pytest.mark.slow
@pytest.mark.parametrize("struck", STRUCK)
def test_ctrl_c_is_exit_130_and_one_line_whatever_it_strikes(struck: str) -> None:
    done = interrupted(*STRUCK[struck])
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted; running the same command again starts over")
    assert done.stdout == ("ended\n" if "meant once" in struck else "")


def test_ctrl_c_gives_one_document_too() -> None:
    done = interrupted("press()\nsignal.pause()", 60, "retrain", "--json")
    assert json.loads(done.stdout)["error"]["exit_code"] == 130
    assert "Traceback" not in done.stderr


def test_what_ctrl_c_leaves_of_a_search_is_said_in_whole_words_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    seen = Terminal(interruption("press()", 60, "tune"))
    assert seen.returncode == 130
    assert "trials that have ended are kept; run the same command again" in " ".join(seen.lines)
    assert max(map(len, seen.lines)) <= 80


@pytest.mark.slow  # Prefect's import
def test_sigterm_ends_a_flow_also_where_python_drops_the_exception_by_which_prefect_ends_it() -> None:
    lines = """
from prefect.utilities.engine import capture_sigterm
with capture_sigterm():
    held = set()
    seen = weakref.ref(held, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del held
    time.sleep(60)
    print('published', flush=True)
"""
    done = interrupted(lines)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
