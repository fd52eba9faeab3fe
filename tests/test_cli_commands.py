"""The command line from outside: exit codes, messages, JSON, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from candidate import Contender
from command_line import GRADMILL, answer, assert_clear, gradmill, plant_strangers, servers, typed
from conftest import REPOSITORY
from prefect_api import eventually
from tasks.data.book_datasets import FILES
from tasks.judging import gates


@pytest.mark.slow
def test_status_on_a_server_without_our_work_pool_says_what_to_do(on_server: None) -> None:
    done = gradmill("status")
    assert done.returncode == 0, done.stderr
    assert "no worker is online: run gradmill up" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        "retrain nonsense",
        "retrain --implementation magic",
        "retrain --name ../x",
        "retrain --name UPPER",
        "retrain --epochs 0",
        "retrain --epochs -1",
        "retrain --epochs abc",
        "retrain --epochs 1e99",
        "retrain --lr nan",
        "retrain --lr inf",
        "retrain linear-regression --max-loss-ratio inf",
        "retrain linear-regression --synthetic-w nan,1",
        "retrain linear-regression --min-test-accuracy 0.9",
        "retrain --num-examples 100",
        "retrain --lr 0",
        "retrain --batch-size 0",
        "retrain --seed x",
        "retrain --seed=--5",
        "retrain --seed=-1",
        f"retrain --seed={'9' * 5000}",
        "retrain --loss huber",
        "retrain --schedule magic",
        "retrain --weight-decay -1",
        "retrain --dropout 1",
        "retrain linear-regression --dropout 0.5",
        "retrain --patience 3",
        "retrain --validation 1",
        "retrain --nonsense",
        "predict",
        "predict --name ../x",
        "predict --version 0",
        "predict ~no-such-user/x.csv",
        "predict --shard-rows 0",
        "predict --max-rejects -1",
        "predict --runner magic",
        "predict --dask-address tcp://127.0.0.1:1",
        "predict https://me:secret@host/x.csv",
        "metrics --host 0.0.0.0",
        "metrics --health http://127.0.0.1:8081/health",
        "trigger softmax-nightly --list-params --wait",
        "schedule predict-daily --param input=https://host/x.csv?token=secret",
        "models no-such-model",
        "maintain --keep 0",
        "retrain --target y",
        "retrain --class-weight balanced",
        "retrain --weight-decay auto",
        "nonsense",
    ],
)
def test_a_wrong_command_is_exit_2_and_leaves_nothing(arguments: str, artifacts: Path) -> None:
    done = typed(*arguments.split())
    assert_clear(done, 2)
    assert "secret" not in done.stderr
    assert not artifacts.exists()


def test_an_error_is_json_on_stdout_when_json_is_asked_for() -> None:
    done = gradmill("retrain", "--epochs", "0", "--json")
    error = json.loads(done.stdout)["error"]
    assert set(error) == {"exit_code", "found", "expected", "action"}
    assert error["exit_code"] == done.returncode == 2
    assert error["found"] == "--epochs 0"


@pytest.mark.slow
@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("command", ["retrain", "predict"])
def test_a_device_that_is_not_there_is_exit_5(command: str, on_server: None, candidates: list[Contender]) -> None:
    candidates[0].publish()
    name = ["--name", "linear-regression"] if command == "predict" else []
    assert_clear(gradmill(command, *name, "--device", "cuda"), 5)


def test_an_unwritable_artifacts_folder_is_exit_1(on_server: None) -> None:
    assert_clear(gradmill("retrain", "--artifacts", "/proc/nowhere"), 1)


@pytest.mark.slow
def test_a_prefect_server_that_does_not_answer_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert_clear(gradmill("retrain"), 1)


@pytest.mark.slow  # two retrains on a small disk
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_exit_1_and_a_second_run_works(on_server: None, fashion_mnist: Path, tmp_path: Path) -> None:
    """90 MB are enough for the raw files (55 MB), but not for the prepared splits too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
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


def test_a_flipped_bit_in_a_file_of_the_users_is_exit_4(
    on_server: None, fashion_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truncated, swapped and missing files are in test_data_download."""
    for file in fashion_mnist.iterdir():
        (tmp_path / file.name).symlink_to(file)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.unlink()
    labels.write_bytes(content[:4321] + bytes([content[4321] ^ 1]) + content[4322:])
    monkeypatch.setenv("GRADMILL_FASHION_MNIST_DIR", str(tmp_path))
    assert_clear(gradmill("retrain"), 4, labels.name)


@pytest.mark.slow
def test_a_refused_retrain_prints_its_document_and_its_gates_and_publishes_nothing(
    on_server: None, artifacts: Path
) -> None:
    done = gradmill("retrain", "linear-regression", "--epochs", "1", "--lr", "0.001", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["outcome"], document["version"]) == (3, "refused", None)
    assert [gate["name"] for gate in document["gates"] if not gate["passed"]] == ["test_loss", "parameter_error"]
    assert Path(document["run"], "evaluation.json").is_file()
    assert not (artifacts / "models").exists()
    assert_clear(done, 3)
    assert "gradmill: refused by test_loss " in done.stderr
    assert "gate test_loss refused: " in done.stderr


@pytest.mark.slow  # several runs of the command line
def test_a_run_that_fails_after_its_model_was_published_reports_both(
    on_server: None, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.mkdir()
    (artifacts / "predictions").write_text("a file where a folder should be")
    done = gradmill("retrain", "linear-regression", "--json")
    document = json.loads(done.stdout)
    assert document["error"]["exit_code"] == done.returncode != 0
    assert (document["outcome"], document["version"], document["champion"]) == ("published", 1, 1)
    assert (document["prediction"], document["provider"]) == (None, None)
    assert "Traceback" not in done.stderr
    (tmp_path / "share").write_text("a file here too")
    monkeypatch.setenv("GRADMILL_MIRROR", str(tmp_path / "share"))
    done = gradmill("retrain", "linear-regression")
    summary = {line[:12].strip(): line[12:] for line in done.stdout.splitlines()}
    assert_clear(done, 1)
    assert {name: summary[name] for name in ("unchanged", "predictions", "try next")} == {
        "unchanged": "linear-regression version 1, whose bytes are the same, the champion",
        "predictions": "none: the run failed before they were made",
        "try next": f"{GRADMILL} predict --name linear-regression",
    }


def test_a_gate_without_a_bound_is_recorded() -> None:
    verdicts = [
        gates.judge("latency_ms", 1.0), gates.judge("memory_mb", 1.0, maximum=2.0),
        gates.judge("train_loss", 1.0, below=0.5), gates.judge("test_loss", float("nan")),
    ]  # fmt: skip
    assert [verdict.verdict for verdict in verdicts] == ["recorded", "passed", "refused", "refused"]


def test_the_version_is_printed() -> None:
    done = gradmill("--version")
    assert (done.returncode, done.stdout) == (0, f"gradmill {metadata.version('gradmill')}\n")


def test_divergence_is_exit_3_and_names_epoch_loss_and_lr(on_server: None) -> None:
    assert_clear(gradmill("retrain", "linear-regression", "--lr", "100"), 3, "in epoch 1 at lr 100")


def test_retrain_models_and_predict_tell_one_story(on_server: None, artifacts: Path) -> None:
    """Whatever somebody has put where temporary files may lie: none of it is opened, waited for or removed."""
    places = [artifacts, *(artifacts / name for name in ("datasets", "models", "predictions", "runs", ".stages"))]
    strangers = [each for place in places for each in plant_strangers(place)]
    retrained = gradmill("retrain", "linear-regression", "--json", "--name", "nightly-2")
    assert retrained.returncode == 0, retrained.stderr
    document = json.loads(retrained.stdout)
    assert set(document) >= {
        "schema_version", "model", "name", "implementation", "outcome", "version", "model_path", "model_sha256",
        "metrics", "gates", "prediction", "device", "provider", "parameters", "seconds",
    }  # fmt: skip
    (row,) = answer("models")["models"]["nightly-2"]
    assert (row["version"], row["champion"], row["model_sha256"]) == (1, True, document["model_sha256"])
    predicted = json.loads(gradmill("predict", "--name", "nightly-2", "--json").stdout)
    assert predicted["path"] == document["prediction"]["path"], "the same job, hence the same folder"
    assert all(map(os.path.lexists, strangers))


@pytest.mark.slow
def test_interrupted_and_killed_runs_leave_no_server_and_the_next_run_works(
    artifacts: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = servers()
    interrupt, kill = signal.SIGINT, signal.SIGKILL

    def imports() -> bool:
        return b"pydantic_core" in Path(f"/proc/{process.pid}/maps").read_bytes()

    def trains() -> bool:
        new = set(artifacts.glob("runs/*/run.json")) - runs_before
        return any("preprocess" in json.loads(run.read_text())["seconds"] for run in new)

    def has_a_server() -> bool:
        return bool(servers() - before)

    command = [GRADMILL, "retrain", "linear-regression", "--epochs", "10000"]  # so that no machine is done before
    for kind, moment in ((interrupt, imports), (interrupt, has_a_server), (interrupt, trains), (kill, has_a_server)):
        runs_before = set(artifacts.glob("runs/*/run.json"))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        eventually(moment, 60, moment.__name__)
        process.send_signal(kind)
        _, messages = process.communicate(timeout=180)
        assert process.returncode == (130 if kind is interrupt else -kill)
        assert "Traceback" not in messages
        eventually(lambda: servers() <= before, 60, "no server is left")
    monkeypatch.setenv("PREFECT_API_URL", server)
    again = gradmill("retrain", "linear-regression", "--json")
    assert json.loads(again.stdout)["outcome"] in {"published", "unchanged"}


@pytest.mark.slow
def test_two_newcomers_at_once_see_short_lines_and_get_two_whole_versions_and_one_champion(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two temporary servers that meet on a fresh PREFECT_HOME; the second run is gated against the first.

    Behind a company's proxy, which knows nothing of this host.
    """
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "fresh"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    command, pipe = [GRADMILL, "retrain", "linear-regression", "--seed"], subprocess.PIPE
    for process in [subprocess.Popen([*command, each], stdout=pipe, stderr=pipe, text=True) for each in ("0", "1")]:
        summary, shown = process.communicate(timeout=600)
        assert process.returncode == 0, shown
        assert "Traceback" not in shown
        lines = shown.splitlines()
        assert 5 < len(lines) < 30
        # "the": disk is nearly full, where these tests run.
        assert {line.split()[0] for line in lines} - {"waiting", "server", "the"} == {
            "download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict",
        }  # fmt: skip
        assert str(artifacts / "models" / "linear-regression") in summary
    eventually(lambda: not servers(), 60, "nobody waits for the servers' ends, but they end")
    listed = answer("models")["models"]["linear-regression"]
    assert [(row["version"], row["champion"]) for row in listed] == [(1, False), (2, True)]
    manifest = json.loads(Path(listed[1]["path"]).with_name("manifest.json").read_text())
    assert "champion_loss" in {gate["name"] for gate in manifest["gates"]}
    for version in ("1", "2"):
        assert typed("verify", "linear-regression", version).returncode == 0


def interrupted(run: str, double: float) -> "subprocess.CompletedProcess[str]":
    """A command whose work are these lines; Ctrl-C within ``double`` seconds of another is the same."""
    lines = "".join(f"    {line}\n" for line in run.splitlines())
    code = (
        "import os, signal, sys, time, weakref; from flows import __main__, interrupt; from flows.cli import app\n"
        f"interrupt.DOUBLE_SECONDS = {double}\n"
        "press = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        f"def run(arguments):\n{lines}"
        "app.run = run\n__main__.main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, cwd=REPOSITORY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "double", "said"),
    [
        # As when numpy is interrupted during its import and raises ImportError.
        ("try:\n    press()\nexcept KeyboardInterrupt as error:\n    raise ImportError('half') from error", 60, []),
        # As when a library written in Rust is.
        ("try:\n    press()\nexcept KeyboardInterrupt as error:\n    raise BaseException('panic') from error", 60, []),
        # As when what the last line is printed with is, which then can be imported no more.
        ("import flows.cli\ndel flows.cli.display\nsys.modules['flows.cli.display'] = None\npress()", 60, []),
        ("try:\n    press()\nfinally:\n    press()\n    print('all is ended', flush=True)", 60, ["all is ended"]),
        ("try:\n    press()\nfinally:\n    time.sleep(0.01)\n    press()\n    time.sleep(60)", 0, []),
        # Python drops what is raised in the callback of a weak reference.
        ("held = set()\nseen = weakref.ref(held, press)\ndel held\ntime.sleep(60)", 60, []),
    ],
    ids=[
        "an error of its own",
        "a panic",
        "an import broken off",
        "pressed twice, meant once",
        "pressed once more",
        "dropped",
    ],
)
def test_ctrl_c_is_exit_130_and_one_line_whatever_it_strikes(run: str, double: float, said: list[str]) -> None:
    done = interrupted(run, double)
    assert (done.returncode, done.stdout.splitlines()) == (130, said), done.stderr
    assert done.stderr.strip() == "interrupted; the same command again starts afresh"


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
    done = interrupted(lines, 60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
