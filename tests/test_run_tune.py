"""``gradmill tune`` as a run: interrupted and killed, on Dask, what comes of it, and what it refuses."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest

import flows.cli.app
from command_line import GRADMILL, assert_clear, gradmill

COMMAND = ("tune", "linear-regression", "--trials", "14", "--space", "epochs=20:40,loss=squared,batch-size=50")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--trials 0", "--trials 0"),
        ("--timeout 0", "--timeout 0.0"),
        ("--space momentum=1", "--space momentum=1"),
        ("--space lr=1:0.1", "--space lr=1:0.1"),
        ("--lr 0.1 --space lr=0.05:1", "--lr 0.1, and lr in --space"),
        ("linear-regression --space dropout=0.1", "--space dropout"),
        ("--space batch-size=0:10", "--space batch-size, and 0"),
        ("linear-regression --space loss=cross-entropy", "--space loss, and cross-entropy"),
        ("--workers 2", "options that do not go together"),
        ("nobody", "no model nobody"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_done(
    options: str, found: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["tune", *options.split(), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == 2
    assert error["found"] == found
    assert error["expected"]
    assert "<" not in error["expected"]
    assert error["action"]
    assert not list(artifacts.glob("**/*.journal"))


def without_times(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in document["trials"]]


def interrupted(number: int, artifacts: Path, num_trials: int) -> "subprocess.CompletedProcess[str]":
    """The command on one core, which gets a signal when so many trials have ended."""
    command = ["taskset", "-c", "0", GRADMILL, *COMMAND]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 180
    while sum(path.read_text().count('"outcome"') for path in artifacts.glob("datasets/*/*.journal")) < num_trials:
        assert time.monotonic() < until
        time.sleep(0.01)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=180)
    return subprocess.CompletedProcess(COMMAND, running.returncode, stdout, stderr)


@pytest.mark.slow  # five commands, of which three search
@pytest.mark.usefixtures("on_server")
def test_interrupted_and_killed_the_same_command_goes_on_to_the_same_winner(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they have one core, and the whole search has all."""
    done = interrupted(signal.SIGINT, artifacts, 3)
    assert done.returncode == 130, done.stderr
    assert "what was learned is kept, and the same command again goes on from there" in done.stderr
    assert interrupted(signal.SIGKILL, artifacts, 9).returncode == -signal.SIGKILL
    resumed = gradmill(*COMMAND, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert "trials are there from before" in resumed.stderr
    again = gradmill(*COMMAND, "--json")
    assert "14 trials are there from before" in again.stderr
    assert not list((artifacts / "models").glob("*/*/model.onnx")), "nothing is published"
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "whole"))
    whole = json.loads(gradmill(*COMMAND, "--json").stdout)
    for each in (resumed, again):
        document = json.loads(each.stdout)
        assert without_times(document) == without_times(whole)
        assert document["settings"] == whole["settings"]
        assert document["validation_losses"] == whole["validation_losses"]
    run = json.loads((Path(document["run"]) / "run.json").read_text())
    assert run["stages"]["tune"]["trials"] == document["trials"], "an entry a trial"


@pytest.mark.slow  # commands of ten seconds each
@pytest.mark.usefixtures("on_server")
def test_trials_that_all_diverge_are_exit_3_and_a_time_too_short_is_exit_2(artifacts: Path) -> None:
    options = ("--trials", "4", "--space", "lr=50:100,loss=squared,schedule=constant,epochs=5,weight-decay=0")
    done = gradmill("tune", "linear-regression", *options)
    assert_clear(done, 3)
    assert "all 4 trials diverged" in done.stderr
    assert "what was learned is kept" in done.stderr
    assert len(list(artifacts.glob("datasets/*/*.journal"))) == 1
    assert not (artifacts / "tuned").exists()
    short = gradmill("tune", "linear-regression", "--timeout", "0.001")
    assert_clear(short, 2)
    assert "the time was over before a trial came to its end" in short.stderr


@pytest.mark.slow  # a search
@pytest.mark.usefixtures("on_server")
def test_a_search_that_finds_nothing_better_keeps_what_was_found_before_and_retrains_nothing(artifacts: Path) -> None:
    kept = artifacts / "tuned" / "linear-regression.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("of an earlier search")
    worse = ("--trials", "2", "--space", "lr=0.0001:0.0002,epochs=1", "--then-retrain")
    done = gradmill("tune", "linear-regression", *worse, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert fmean(document["validation_losses"]) > fmean(document["default_losses"])
    assert (document["outcome"], document["path"], document["retrained"]) == ("no better", None, None)
    assert kept.read_text() == "of an earlier search"
    assert "no better, and nothing is kept" in done.stderr


@pytest.mark.slow  # a search and a retrain
@pytest.mark.usefixtures("on_server")
def test_then_retrain_publishes_what_was_found_and_what_was_given(artifacts: Path) -> None:
    """The book's rate is far too small for so few and so large steps."""
    given = ("--epochs", "4", "--batch-size", "50", "--implementation", "scratch", "--name", "mine")
    space = ("--trials", "4", "--space", "lr=0.1:0.3,loss=squared,weight-decay=0")
    done = gradmill("tune", "linear-regression", *space, *given, "--then-retrain", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["retrained"]["outcome"] == "published"
    training = document["retrained"]["parameters"]["training"]
    assert (training["num_epochs"], training["implementation"]) == (4, "scratch")
    assert {field: training[field] for field in document["settings"]} == document["settings"]
    assert all(trial["settings"]["num_epochs"] == 4 for trial in document["trials"])
    assert (artifacts / "tuned" / "mine.json").is_file()


@pytest.mark.slow  # a cluster of two processes, of which one is killed
def test_dask_finds_what_processes_find_though_a_worker_is_killed(prefect_api: str, artifacts: Path) -> None:
    from distributed import LocalCluster

    from flows.tune import tune
    from tasks.parameters import TuneParameters

    base: dict[str, Any] = {"training": {"model": "linear-regression"}}
    search = {"trials": 10, "space": ("epochs=20:40", "loss=squared", "batch-size=50")}
    threads = tune(TuneParameters.model_validate(base | {"name": "threads", "search": search}))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        victims = [worker.pid for worker in cluster.workers.values()]

        def kill() -> None:
            while not all(worker.processing for worker in cluster.scheduler.workers.values()):
                time.sleep(0.01)
            time.sleep(0.5)
            os.kill(victims[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        on_dask = search | {"runner": "dask", "dask_address": cluster.scheduler_address, "workers": 2}
        dask = tune(TuneParameters.model_validate(base | {"name": "dask", "search": on_dask}))
        killer.join()
        assert not psutil.pid_exists(victims[0]) or psutil.Process(victims[0]).status() == psutil.STATUS_ZOMBIE
    for of_threads, of_dask in zip(threads.trials, dask.trials, strict=True):
        assert of_threads.settings == of_dask.settings
        assert of_threads.losses == pytest.approx(of_dask.losses, abs=1e-6)
    assert threads.settings == dask.settings
