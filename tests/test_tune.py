"""Searches: what is tried, pruned and found, how one goes on after an end, and what becomes of it."""

import json
import math
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import own_images
from candidate import Contender
from command_line import GRADMILL, gradmill, refused, typed
from documents import ask, load
from flows.tune import tune
from own_images import digits
from store_state import keep_settings
from tasks.errors import DataError
from tasks.fitting import devices
from tasks.fitting.search_space import OPTIONS
from tasks.fitting.tune import TrialSpec, TrialTraining, open_search, read_validation_parts
from tasks.parameters import Found, RetrainParameters, Search, Training, TuneParameters
from tasks.records import PreparedDataset
from tasks.store import artifact_paths, housekeeping, model_folder, own_data, tuning_result
from tasks.store.tuning_result import Trial, TunedSettings, mean_interval
from victims import cluster_with_victim

BOWL = (
    "lr=0.001:10",
    "weight-decay=0:0.9",
    "schedule=constant|cosine|step",
    "batch-size=256",
    "epochs=10",
)
SHORT = ("epochs=10:20", "batch-size=64|128", "lr=0.001:1")
Submit = Callable[[TrialSpec], "Future[list[float]]"]


def book() -> PreparedDataset:
    """Digits with no rules of own data, and no test split."""
    images, labels = digits()
    prepared = own_images.prepare(images[:600], labels[:600], "0123456789")
    prepared.test.path.unlink(missing_ok=True)
    return prepared.model_copy(update={"split": None})


def softmax(**options: Any) -> Training:
    return Training.model_validate({"device": "cpu", "seed": 1, **options})


def here(work: Callable[[TrialSpec], list[float]]) -> Submit:
    """Trials in this process, at once."""

    def submit(spec: TrialSpec) -> "Future[list[float]]":
        future: Future[list[float]] = Future()
        future.set_result(work(spec))
        return future

    return submit


def bowl(spec: TrialSpec) -> list[float]:
    """Its lowest point is at lr 0.3, weight decay 0.2 and the schedule cosine."""
    lr, decay = float(spec.settings["lr"]), float(spec.settings["weight_decay"])
    return [math.log10(lr / 0.3) ** 2 + (decay - 0.2) ** 2 + (spec.settings["schedule"] != "cosine") * 0.5]


def search(
    prepared: PreparedDataset, base: Training, num_trials: int, space: tuple[str, ...], submit: Submit | None = None,
) -> tuple[Trial, ...]:  # fmt: skip
    """All trials of a search, as far as ``submit`` lets it come."""
    work = TrialTraining(prepared, base)
    with open_search("mine", work, Search(trials=num_trials, space=space), afresh=False) as found:
        found.run(submit or here(work), 1, math.inf, lambda *_: None)
        return tuple(trial.model_copy(update={"seconds": 0.0}) for trial in found.trials)


def test_the_known_optimum_of_a_made_up_objective_is_found() -> None:
    trials = search(book(), softmax(), 64, BOWL, here(bowl))
    best = min(trials, key=lambda trial: trial.validation_loss or 0.0)
    assert best.settings["schedule"] == "cosine"
    assert best.validation_loss is not None
    assert best.validation_loss < 0.02, "a random search of 96 comes to 0.037 in the mean of 12 seeds"
    assert trials[0].settings.items() >= {"lr": 0.1, "weight_decay": 0.0, "schedule": "constant"}.items(), "of before"


def test_a_trial_is_pruned_early_by_what_the_others_showed() -> None:
    trials = search(book(), softmax(), 24, SHORT)
    pruned = [trial for trial in trials if trial.outcome == "pruned"]
    assert trials[0].outcome == "complete", "the first has nothing to be compared with"
    assert len(pruned) >= 12
    for trial in trials:
        num_epochs = int(trial.settings["num_epochs"])
        assert trial.epochs == (math.ceil(0.15 * num_epochs) if trial in pruned else num_epochs)
    assert min(trial.validation_loss or 0.0 for trial in pruned) > min(trial.validation_loss or 0.0 for trial in trials)


def test_a_trial_is_trained_as_a_retrain_is() -> None:
    """Concise, too, whose trials are trained from scratch: both learn the same."""
    prepared, base = book(), softmax(num_epochs=3)
    (trial,) = search(prepared, base, 1, ("lr=0.2", "schedule=step", "epochs=3", "batch-size=64", "weight-decay=0.01"))
    trainer, parts = read_validation_parts(prepared, base)
    training = TrialTraining(prepared, base).apply(trial.settings)
    with devices.one_thread():
        epochs = trainer.with_training(training).start(parts, torch.Generator().manual_seed(1)).epochs
        losses = [epoch.validation["loss"] for epoch in epochs]
    np.testing.assert_allclose(trial.losses, losses, rtol=0, atol=1e-6)


def test_each_setting_of_a_few_is_tried_once_whatever_number_of_trials_is_asked_for() -> None:
    prepared, space = book(), ("lr=0.2", "schedule=step", "epochs=2", "batch-size=64", "weight-decay=0|0.01|0.1")
    few, more = (search(prepared, softmax(), number, space) for number in (3, 32))
    assert few == more
    assert [trial.settings["weight_decay"] for trial in more] == [0.0, 0.01, 0.1]


OLD_STUDY = Path(__file__).with_name("study-of-c692a25.journal")
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a power cut": (lambda journal: journal + b'{"op_code":4,"worker_', ""),
    "other bytes first": (lambda journal: b"\0" * 100 + b"\n" + journal, "cannot be read"),
    "an unknown operation": (lambda _: b'{"op_code": 99}\n', "cannot be read"),
    "an earlier version": (lambda _: OLD_STUDY.read_bytes(), "way of searching"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_is_cut_goes_on_and_one_that_is_damaged_or_older_is_said_and_begun_anew(
    damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, base, (change, said) = book(), softmax(), DAMAGES[damage]
    whole = search(prepared, base, 8, BOWL, here(bowl))
    (path,) = artifact_paths.dataset("own").glob("*.journal")
    path.write_bytes(change(path.read_bytes()))
    assert search(prepared, base, 8, BOWL, here(bowl)) == whole
    shown = capsys.readouterr().out
    assert said in shown
    assert ("cannot be read" in shown) == (said == "cannot be read")
    moved = prepared.model_copy(update={"digest": "b" * 64})
    assert len(search(moved, base, 4, BOWL, here(bowl))) == 4
    assert "the data changed since this search was begun: it starts afresh" in capsys.readouterr().out


LUCKY, STEADY = 0.5, 0.25


def compare(by_seed: Callable[[float, int], float | None], num_seeds: int = 5) -> TunedSettings:
    """What a search comes to; ``by_seed`` says the loss of a rate with the seed of the search + 0 to 5."""

    def work(spec: TrialSpec) -> list[float]:
        seed = spec.seed - 1
        if seed > num_seeds:
            return []
        loss = by_seed(float(spec.settings["lr"]), seed)
        return [math.nan if loss is None else loss]

    training = TrialTraining(book(), softmax(lr=0.125, schedule="step"))
    space = ("lr=0.125|0.25|0.5|0.75", "schedule=step", "batch-size=256", "epochs=10", "weight-decay=0")
    with open_search("mine", training, Search(trials=8, space=space), afresh=True) as found:
        found.run(here(work), 1, math.inf, lambda *_: None)
        assert len(found.trials) == 4, "each of a few settings once"
        return found.compare(here(work), math.inf, lambda: None, "run")


def lucky(lr: float, seed: int) -> float | None:
    return {LUCKY: 0.40 + 0.01 * seed, STEADY: 0.405, 0.125: 0.6 + 0.001 * seed}.get(lr, 0.7)


@pytest.mark.parametrize(("num_seeds", "losses"), [(5, (0.405,) * 5), (2, (0.405, 0.405)), (0, (0.4,))])
def test_a_trial_that_was_lucky_with_the_seed_of_the_search_or_diverges_with_another_does_not_win(
    num_seeds: int, losses: tuple[float, ...]
) -> None:
    """Seeds that the time has cut off do not count; of none there is what the search itself has seen."""
    tuned = compare(lucky, num_seeds)
    assert (tuned.validation_losses, len(tuned.default_losses)) == (losses, len(losses))
    assert tuned.default_settings["lr"] == 0.125
    if num_seeds == 5:
        assert (tuned.settings["lr"], tuned.is_better) == (STEADY, True)
        diverged = compare(lambda lr, seed: None if (lr, seed) == (STEADY, 3) else lucky(lr, seed))
        assert diverged.settings["lr"] == LUCKY


def test_a_winner_is_better_only_by_more_than_the_seeds_chance() -> None:
    noise = [0.0, 0.03, -0.02, 0.01, -0.03, 0.02]
    assert not compare(lambda lr, seed: (0.5 if lr == 0.125 else 0.499) + noise[seed] * (lr != 0.125)).is_better
    assert compare(lambda lr, seed: (0.5 if lr == 0.125 else 0.499) + noise[seed]).is_better, "seed by seed"
    assert not compare(lambda *_: 0.5).is_better, "equal losses"


def test_the_interval_of_a_mean_is_students() -> None:
    losses = [0.41, 0.43, 0.42, 0.44, 0.4]
    expected = np.mean(losses), *stats.ttest_1samp(losses, 0).confidence_interval(0.95)
    assert mean_interval(losses) == pytest.approx(expected)
    assert mean_interval([0.5]) == (0.5, 0.5, 0.5)


# What a search found is used by ``retrain --tuned``: newest, over a champion's settings, under what is given now


NAME = "linear-regression"


def resolved(training: dict[str, Any]) -> RetrainParameters:
    asked = {"training": {"model": NAME, **training}, "tuned": True}
    return tuning_result.take_found(RetrainParameters.model_validate(asked))


def test_given_settings_win_over_found_ones_and_these_over_defaults() -> None:
    keep_settings(lr=0.5, batch_size=32, schedule="cosine")
    parameters = resolved({"lr": 0.02, "schedule": None, "batch_size": None})  # a form sends nothing as null
    asked = parameters.training
    assert (asked.lr, asked.batch_size, asked.schedule, asked.num_epochs) == (0.02, 32, "cosine", 3)
    assert parameters.found == Found(run="a-search", fields=("batch_size", "schedule"))
    keep_settings(num_epochs=15)
    assert resolved({"loss": "huber"}).training.num_epochs == 15, "Huber's default is not given"


@pytest.mark.parametrize(
    ("written", "code", "said"),
    [
        (None, 2, "no settings were found for linear-regression yet"),
        ({"model": "softmax-regression"}, 2, "settings found for softmax-regression on synthetic-linear"),
        ({"dataset": "houses"}, 2, "settings found for linear-regression on houses"),
        ({"lr": -1.0}, 4, "lr: Input should be greater than 0"),
        ({"dropout": 0.5}, 4, "dropout was removed"),
        ({"nonsense": 1}, 4, "nonsense: Extra inputs are not permitted"),
        ({"run": "damaged"}, 4, "tuned/linear-regression.json"),
    ],
)
def test_settings_that_cannot_be_used_are_said_before_a_server_starts(
    written: dict[str, Any] | None, code: int, said: str
) -> None:
    if written is not None:
        keep_settings(**written)
        if "run" in written:
            artifact_paths.tuned(NAME).write_text("{")
    refused(code, f"retrain {NAME} --tuned", said, f"gradmill tune {NAME}")


def kept(candidate: Contender, name: str, tuned_too: bool = False, **training: Any) -> None:
    """A version under a name of its own whose run was asked so."""
    asked = candidate.parameters.training.given_values | training
    document = {"name": name, "training": asked, "tuned": tuned_too}
    candidate.parameters = tuning_result.take_found(RetrainParameters.model_validate(document))
    candidate.publish()


def repeated(name: str, **given: Any) -> RetrainParameters:
    """What ``gradmill retrain NAME`` asks for, as the run takes it."""
    document = json.loads(json.dumps(own_data.repeat_parameters(name, given)))  # as a deployment keeps it
    return tuning_result.take_found(RetrainParameters.model_validate(document))


@pytest.fixture
def candidate(candidates: list[Contender], monkeypatch: pytest.MonkeyPatch) -> Contender:
    """One that is left as it was."""
    monkeypatch.setattr(candidates[0], "parameters", candidates[0].parameters)
    return candidates[0]


def test_a_name_that_was_tuned_goes_on_so_until_told_otherwise(candidate: Contender) -> None:
    first, second = "20261101T030000-tune-mine-00000001", "20261102T030000-tune-mine-00000002"
    keep_settings("mine", run=first, lr=0.5, num_epochs=4)
    kept(candidate, "mine", tuned_too=True, batch_size=16, num_epochs=3)
    version = model_folder.find_manifest("mine", 1).parameters.model_dump()
    assert (version["training"]["lr"], version["found"]) == (0.5, {"run": first, "fields": ["lr"]})
    keep_settings("mine", run=second, lr=0.25, num_epochs=4, schedule="cosine")
    assert {first, second} <= housekeeping.References.collect().runs, "searches that names or versions stand on"
    again = repeated("mine").training
    assert (again.lr, again.batch_size) == (0.25, 16)
    assert again.schedule == "cosine", "a default of the champion was not given"
    assert repeated("mine", training={"lr": 0.1}).training.lr == 0.1
    off = repeated("mine", tuned=False)
    assert (off.training.given_values.get("lr"), off.training.batch_size, off.found) == (None, 16, None)
    searched = own_data.repeat_parameters("mine", {"tuned": False}, with_found=True)["training"]
    assert searched["lr"] == 0.5, "a search starts there"
    asked = own_data.repeat_parameters("mine", {})
    keep_settings("mine", run="third", lr=0.125)
    assert tuning_result.take_found(RetrainParameters.model_validate(asked)).training.lr == 0.125, "the newest"
    artifact_paths.tuned("mine").write_text("{}")
    with pytest.raises(DataError, match=r"mine\.json"):
        housekeeping.References.collect()


def test_a_name_with_found_settings_and_no_version_is_in_nobodys_way() -> None:
    keep_settings("mine", lr=0.5)
    for command in ("models", "history", "maintain"):
        assert typed(command).returncode == 0
    for command in ("models mine", "verify mine", "retrain mine", "retrain mine --tuned", "mirror mine elsewhere"):
        refused(2, command)
    assert not artifact_paths.models().exists(), "Triton does not start on a model's folder without a version"


# As commands


COMMAND = ("tune", "linear-regression", "--trials", "14", "--space", "epochs=20:40,loss=squared,batch-size=50")


NOT_SEARCHED = {
    "--trials 0": "--trials 0",
    "--timeout 0": "--timeout 0",
    "--space momentum=1": "--space momentum=1",
    "--space lr=0.1:0.1": "--space lr=0.1:0.1",
    "--space lr=nan:1": "--space lr=nan",
    "--space lr=0.1:inf": "--space lr=inf",
    "--space lr=-1:1": "--space lr=-1",
    "--space lr": "--space lr=",
    "--space lr=1:2:3": "--space lr=1:2:3",
    "--space lr=0.1,lr=0.2": "--space names lr twice",
    "--space epochs=1.5": "--space epochs=1.5",
    "--space schedule=a:b": "--space schedule=a:b",
    "--lr 0.1 --space lr=0.05:1": "--lr 0.1, and lr in --space",
    "linear-regression --space dropout=0.1": "--space dropout=0.1",
    "linear-regression --space loss=cross-entropy": "--space loss=cross-entropy",
    "--workers 2": "options that do not go together",
    "nobody": "no model named nobody",
}


@pytest.mark.parametrize("options", NOT_SEARCHED)
def test_what_cannot_be_searched_is_refused_before_anything_is_done(options: str, artifacts: Path) -> None:
    error = ask("tune", *options.split(), code=2)["error"]
    assert (error["found"].partition(" in /")[0], "<" in error["expected"]) == (NOT_SEARCHED[options], False)
    assert not list(artifacts.glob("**/*.journal"))


def count_ended(artifacts: Path) -> int:
    """How many trials have ended, of all searches."""
    return sum(path.read_text().count('"outcome"') for path in artifacts.glob("datasets/*/*.journal"))


def interrupted(number: int, artifacts: Path, num_trials: int) -> "subprocess.CompletedProcess[str]":
    """The command on one core, which gets a signal when so many trials have ended."""
    command = ["taskset", "-c", "0", GRADMILL, *COMMAND]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        until = time.monotonic() + 180
        while count_ended(artifacts) < num_trials:
            assert time.monotonic() < until
            time.sleep(0.01)
        running.send_signal(number)
        _, said = running.communicate(timeout=180)
    return subprocess.CompletedProcess(COMMAND, running.returncode, "", said)


@pytest.mark.slow  # four commands, of which two search
@pytest.mark.usefixtures("on_server")
def test_interrupted_and_killed_the_same_command_goes_on_and_keeps_what_has_ended(artifacts: Path) -> None:
    done = interrupted(signal.SIGINT, artifacts, 3)
    assert done.returncode == 130, done.stderr
    assert "trials that have ended are kept; run the same command again to continue after them" in done.stderr
    assert interrupted(signal.SIGKILL, artifacts, 9).returncode == -signal.SIGKILL
    resumed, again = (gradmill(*COMMAND, "--json") for _ in range(2))
    assert re.search(r"\b([7-9]|1\d) trials were already done", resumed.stderr)
    assert "14 trials were already done" in again.stderr
    assert not list((artifacts / "models").glob("*/*/model.onnx")), "nothing is published"
    found, document = (json.loads(each.stdout) for each in (resumed, again))
    run = load(Path(document["run"]) / "run.json")
    assert run["stages"]["tune"]["trials"] == document["trials"] == found["trials"], "an entry a trial"
    assert len(found["trials"]) == 14
    complete = [trial for trial in found["trials"] if trial["outcome"] == "complete"]
    finalists = sorted(complete, key=lambda trial: trial["validation_loss"])[:2]
    assert found["settings"] in [trial["settings"] for trial in finalists]
    assert (found["settings"], found["validation_losses"]) == (document["settings"], document["validation_losses"])


@pytest.mark.slow
def test_trials_that_all_diverge_are_exit_3_and_a_time_too_short_is_exit_2(prefect_api: str, artifacts: Path) -> None:
    diverging = "--trials 4 --space lr=50:100,loss=squared,schedule=constant,epochs=5,weight-decay=0"
    refused(3, f"tune linear-regression {diverging}", "all 4 trials diverged", "what was learned is kept")
    assert len(list(artifacts.glob("datasets/*/*.journal"))) == 1
    assert not (artifacts / "tuned").exists()
    refused(2, "tune linear-regression --timeout 0.001", "time ran out before a trial was complete")


@pytest.mark.slow  # a search
def test_a_search_that_finds_nothing_better_keeps_what_was_found_before_and_retrains_nothing(
    prefect_api: str, artifacts: Path
) -> None:
    kept = artifacts / "tuned" / "linear-regression.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("of an earlier search")
    worse = ("--trials", "2", "--space", "lr=0.0001:0.0002,epochs=1", "--then-retrain")
    document = ask("tune", "linear-regression", *worse)
    assert fmean(document["validation_losses"]) > fmean(document["default_losses"])
    assert (document["outcome"], document["path"], document["retrained"]) == ("no better", None, None)
    assert kept.read_text() == "of an earlier search"


@pytest.mark.slow  # a search and a retrain
def test_then_retrain_publishes_what_was_found_and_what_was_given(prefect_api: str, artifacts: Path) -> None:
    """The book's rate is far too small for so few and so large steps."""
    given = ("--epochs", "4", "--batch-size", "50", "--implementation", "scratch", "--name", "mine")
    space = ("--trials", "4", "--space", "lr=0.25|0.3,schedule=cosine,loss=squared,weight-decay=0")
    document = ask("tune", "linear-regression", *space, *given, "--then-retrain")
    assert document["retrained"]["outcome"] == "published"
    training = document["retrained"]["parameters"]["training"]
    assert (training["num_epochs"], training["implementation"]) == (4, "scratch")
    assert {field: training[field] for field in document["settings"]} == document["settings"]
    assert all(trial["settings"]["num_epochs"] == 4 for trial in document["trials"])
    assert (artifacts / "tuned" / "mine.json").is_file()
    page = Path(document["run"], "tuning.md")
    pictures = re.findall(r"\]\((.*)\)", page.read_text())
    assert pictures
    assert all(page.with_name(name).is_file() for name in pictures)  # fewer where all trials but one were given up


@pytest.mark.slow  # a cluster of two processes, of which one is killed
def test_dask_goes_on_though_a_worker_is_killed(prefect_api: str, artifacts: Path) -> None:
    """Each of its trials has the losses that a process of this machine has."""
    asked: dict[str, Any] = {"trials": 10, "space": ("epochs=20:40", "loss=squared", "batch-size=50")}
    with cluster_with_victim(lambda: count_ended(artifacts) > 1) as cluster:
        asked |= {"runner": "dask", "dask_address": cluster.scheduler_address, "workers": 2}
        document = {"training": {"model": "linear-regression"}, "name": "dask", "search": asked}
        found = tune(TuneParameters.model_validate(document))
    assert len(found.trials) == 10
    best = min(found.trials, key=lambda trial: (trial.outcome != "complete", trial.validation_loss))
    space = tuple(f"{option}={best.settings[field]}" for option, field in OPTIONS.items() if field in best.settings)
    document["search"] = {"trials": 1, "space": space}
    (again,) = tune(TuneParameters.model_validate(document)).trials
    assert again.losses == pytest.approx(best.losses, abs=1e-6)
