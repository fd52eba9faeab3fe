"""A search by itself: what is asked for and when, what is pruned, what goes on after an end, and what wins."""

import json
import math
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

import flows.cli.app
import own_images
import prepared_tables
from candidate import Candidate
from flows.cli import schedule
from flows.pages import run_artifacts
from flows.pages.run_pages import search_page
from own_images import digits
from tasks.errors import DataError, UsageError
from tasks.fitting import search_space
from tasks.fitting.tune import HyperparameterSearch, TrialResult, TrialSpec, TrialTraining, open_search
from tasks.machine.parallel import run_on_cores
from tasks.parameters import Found, RetrainParameters, Search, Training
from tasks.records import PreparedDataset
from tasks.store import artifact_paths, housekeeping, own_data, reading, tuned
from tasks.store.page import render_markdown
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched, Setting, Trial, Tuned, mean_interval

BOWL = (
    "lr=0.001:10",
    "dropout=0:0.9",
    "schedule=constant|cosine|step",
    "batch-size=256",
    "epochs=10",
    "weight-decay=0",
)
SHORT = ("epochs=10:20", "batch-size=64|128", "lr=0.001:1")
Submit = Callable[[TrialSpec], "Future[TrialResult | None]"]


def book(num_rows: int = 600) -> PreparedDataset:
    """Digits with no rules of own data, and no test split."""
    images, labels = digits()
    prepared = own_images.prepare(images[:num_rows], labels[:num_rows], list("0123456789"))
    prepared.test.path.unlink(missing_ok=True)
    return prepared.model_copy(update={"split": None})


def softmax(**options: Any) -> Training:
    return Training.model_validate({"device": "cpu", "seed": 1, **options})


def here(work: Callable[[TrialSpec], TrialResult | None]) -> Submit:
    """Trials in this process, at once."""

    def submit(spec: TrialSpec) -> "Future[TrialResult | None]":
        future: Future[TrialResult | None] = Future()
        future.set_result(work(spec))
        return future

    return submit


def bowl(spec: TrialSpec) -> TrialResult:
    """Its lowest point is at lr 0.3, dropout 0.2 and the schedule cosine."""
    lr, dropout = float(spec.settings["lr"]), float(spec.settings["dropout"])
    loss = math.log10(lr / 0.3) ** 2 + (dropout - 0.2) ** 2 + (spec.settings["schedule"] != "cosine") * 0.5
    return result(spec, loss)


def result(spec: TrialSpec, loss: float | None) -> TrialResult:
    outcome = "diverged" if loss is None else "complete"
    facts = {"number": spec.number, "settings": spec.settings, "validation_loss": loss, "outcome": outcome}
    return TrialResult(Trial.model_validate(facts | {"epochs": 1, "seconds": 0.1}), None)


def search(
    prepared: PreparedDataset, base: Training, num_trials: int, space: tuple[str, ...], submit: Submit | None = None,
    name: str = "mine",
) -> tuple[Trial, ...]:  # fmt: skip
    """All trials of a search, as far as ``submit`` lets it come."""
    work = TrialTraining(prepared, base)
    with open_search(name, work, Search(trials=num_trials, space=space), afresh=False) as found:
        run(found, submit or here(work))
        return found.trials


def run(found: HyperparameterSearch, submit: Submit) -> None:
    found.run(submit, math.inf, lambda *_: None)


def told(trials: tuple[Trial, ...]) -> list[Any]:
    """Everything but the time they took."""
    return [trial.model_dump(exclude={"seconds"}) for trial in trials]


def test_the_known_optimum_of_a_made_up_objective_is_found() -> None:
    trials = search(book(), softmax(), 64, BOWL, here(bowl))
    best = min(trials, key=lambda trial: trial.validation_loss or 0.0)
    assert best.settings["schedule"] == "cosine"
    assert best.validation_loss is not None
    assert best.validation_loss < 0.02, "a random search of 96 comes to 0.037 in the mean of 12 seeds"
    assert trials[0].settings | {"lr": 0.1, "dropout": 0.0, "schedule": "constant"} == trials[0].settings, "of before"


def test_a_search_that_is_cut_anywhere_goes_on_to_the_same_trials() -> None:
    prepared, base, left = book(), softmax(), [7]

    def cut(spec: TrialSpec) -> TrialResult:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return bowl(spec)

    whole = search(prepared, base, 24, BOWL, here(bowl), "whole")
    for more in (7, 2, 0, 5):
        left[0] = more
        with pytest.raises(KeyboardInterrupt):
            search(prepared, base, 24, BOWL, here(cut))
        for path in artifact_paths.dataset("own").glob("*.journal"):
            with path.open("ab") as journal:
                journal.write(b'{"op_code":4,"worker_')  # as a power cut leaves it
    assert search(prepared, base, 24, BOWL, here(bowl)) == whole


@pytest.mark.slow  # a process that imports torch, while others compute
def test_trials_are_the_same_by_one_core_and_by_two_processes() -> None:
    prepared, base = book(), softmax()
    work = TrialTraining(prepared, base)
    alone = search(prepared, base, 12, SHORT, name="alone")
    with run_on_cores(work, 2, in_processes=True) as submit:
        assert told(search(prepared, base, 12, SHORT, submit, "processes")) == told(alone)
    other = search(prepared, softmax(seed=2), 12, SHORT, name="other")
    assert [trial.settings for trial in other] != [trial.settings for trial in alone]


def test_a_trial_is_pruned_early_by_what_earlier_waves_showed() -> None:
    trials = search(book(), softmax(), 24, SHORT)
    pruned = [trial for trial in trials if trial.outcome == "pruned"]
    assert min(trial.number for trial in pruned) >= 4, "a first wave has nothing to compare with"
    assert len(pruned) >= 8
    for trial in trials:
        assert (trial.epochs == trial.settings["num_epochs"]) == (trial.outcome == "complete")
        assert len(trial.losses) == trial.epochs
    assert max(trial.epochs / float(trial.settings["num_epochs"]) for trial in pruned) <= 0.2
    assert min(trial.validation_loss or 0.0 for trial in pruned) > min(trial.validation_loss or 0.0 for trial in trials)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_trial_is_trained_as_a_retrain_is(dropout: float) -> None:
    """Concise, too, whose trials are trained from scratch: both learn the same."""
    from tasks.fitting import devices
    from tasks.fitting.tune import read_validation_parts

    prepared, base = book(), softmax(num_epochs=3, dropout=dropout)
    (trial,) = search(prepared, base, 1, ("lr=0.2", "schedule=step", "epochs=3", "batch-size=64", "weight-decay=0.01"))
    trainer, parts = read_validation_parts(prepared, base)
    training = TrialTraining(prepared, base).apply(trial.settings)
    with devices.one_thread(), devices.seed_generator(parts.fitted.device, 1) as generator:
        epochs = trainer.with_training(training).start(parts, generator).epochs
        losses = [epoch.validation["loss"] for epoch in epochs]
    np.testing.assert_allclose(trial.losses, losses, rtol=0, atol=1e-6)


def table(seed: int = 0) -> tuple[PreparedDataset, Any, Any]:
    """Six correlated numbers of which the target has little; and the training rows as they are."""
    rng = np.random.default_rng(seed)
    numbers = (rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))).astype(np.float32)
    y = numbers @ rng.normal(size=6) * 0.1 + rng.normal(size=400) * 3
    is_test = np.arange(400) % 5 == 0
    return prepared_tables.prepare(numbers, y, is_test), numbers[~is_test].astype(np.float64), y[~is_test]


def test_of_a_table_each_weight_decay_of_a_grid_is_tried_once_and_no_statistic_sees_validation_rows() -> None:
    from tasks.data.prepared_splits import hold_out, read_split

    prepared, rows, y = table()
    prepared.test.path.unlink()
    base = Training.model_validate({"model": "linear-regression", "device": "cpu", "seed": 1, "defaults": "data"})
    trials = search(prepared, base, 32, ())
    decays = [float(trial.settings["weight_decay"]) for trial in trials]
    assert decays == sorted({*decays})
    assert decays[0] == 0.0
    held_out = hold_out(read_split(prepared.train, prepared).key, 0.2)
    fitted, mean, scale = ~held_out, rows[~held_out].mean(axis=0), rows[~held_out].std(axis=0)
    inputs = (rows - mean) / scale
    for trial, decay in zip(trials, decays, strict=True):
        theirs = Ridge(alpha=decay * fitted.sum()).fit(inputs[fitted], y[fitted])
        loss = np.mean((y[held_out] - theirs.predict(inputs[held_out])) ** 2) / 2
        assert trial.validation_loss == pytest.approx(loss, rel=1e-6)
    assert len(search(prepared, base, 32, ("loss=squared|huber",), name="both")) == 2 * len(trials)
    few = search(prepared, base, 6, (), name="grows")
    more = search(prepared, base, 32, (), name="grows")
    assert more[:6] == few
    assert {trial.settings["weight_decay"] for trial in more} == {*decays}, "with more trials none is left out"
    assert len(search(prepared, base, 8, ("weight-decay=1e-4:1",), name="range")) == 8


@pytest.mark.parametrize(("space", "num_seeds"), [((), 1), (("batch-size=50", "epochs=2"), 5)])
def test_finals_of_a_table_that_any_seed_trains_alike_are_trained_once(space: tuple[str, ...], num_seeds: int) -> None:
    prepared, _, _ = table()
    base = Training.model_validate({"model": "linear-regression", "device": "cpu", "seed": 1, "defaults": "data"})
    training = TrialTraining(prepared, base)
    with open_search("mine", training, Search(trials=20, space=space), afresh=True) as found:
        run(found, here(training))
        tuned = found.compare(here(training), math.inf, lambda: None, "run")
    assert (len(tuned.validation_losses), len(tuned.default_losses)) == (num_seeds, num_seeds)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b"\0" * 100 + b"\n" + path.read_bytes()), "cannot be read"),
        (lambda path: path.write_bytes(b'{"op_code": 99}\n'), "cannot be read"),
        (
            lambda path: shutil.copy(Path(__file__).parent / "golden" / "study-of-c692a25.journal", path),
            "way of searching",
        ),
    ],
)
def test_a_journal_that_is_damaged_or_of_an_earlier_version_is_said_and_begun_anew(
    damage: Callable[[Path], object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, base = book(), softmax()
    whole = search(prepared, base, 8, BOWL, here(bowl))
    (path,) = artifact_paths.dataset("own").glob("*.journal")
    damage(path)
    assert search(prepared, base, 8, BOWL, here(bowl)) == whole
    assert said in capsys.readouterr().out
    moved = prepared.model_copy(update={"digest": "b" * 64})
    assert len(search(moved, base, 4, BOWL, here(bowl))) == 4
    assert "the data changed since this search was begun: it starts afresh" in capsys.readouterr().out


LUCKY, STEADY = 0.5, 0.25


def compare(by_seed: Callable[[float, int], float | None], num_seeds: int = 5) -> Tuned:
    """What a search comes to; ``by_seed`` says the loss of a rate with the seed of the search + 0 to 5."""

    def work(spec: TrialSpec) -> TrialResult | None:
        seed = spec.seed - 1
        return result(spec, by_seed(float(spec.settings["lr"]), seed)) if seed <= num_seeds else None

    training = TrialTraining(book(), softmax(lr=0.125, schedule="step"))
    space = ("lr=0.125|0.25|0.5|0.75", "schedule=step", "batch-size=256", "epochs=10", "weight-decay=0")
    with open_search("mine", training, Search(trials=8, space=space), afresh=True) as found:
        run(found, here(work))
        assert len(found.trials) == 4, "each of a few settings once"
        return found.compare(here(work), math.inf, lambda: None, "run")


def lucky(lr: float, seed: int) -> float | None:
    return {LUCKY: 0.40 + 0.01 * seed, STEADY: 0.405, 0.125: 0.6 + 0.001 * seed}.get(lr, 0.7)


def test_a_trial_that_was_lucky_with_the_seed_of_the_search_does_not_win() -> None:
    tuned = compare(lucky)
    assert (tuned.settings["lr"], tuned.validation_losses) == (STEADY, (0.405,) * 5)
    assert tuned.default_settings["lr"] == 0.125
    assert tuned.is_better


def test_one_that_diverges_with_another_seed_does_not_win() -> None:
    assert compare(lambda lr, seed: None if (lr, seed) == (STEADY, 3) else lucky(lr, seed)).settings["lr"] == LUCKY


@pytest.mark.parametrize(("num_seeds", "losses"), [(2, (0.405, 0.405)), (0, (0.4,))])
def test_seeds_that_the_time_has_cut_off_do_not_count(num_seeds: int, losses: tuple[float, ...]) -> None:
    tuned = compare(lucky, num_seeds)
    assert tuned.validation_losses == losses
    assert len(tuned.default_losses) == len(losses), "of no seed: what the search itself has seen"


def test_a_winner_is_better_only_by_more_than_the_seeds_chance() -> None:
    noise = [0.0, 0.03, -0.02, 0.01, -0.03, 0.02]
    assert not compare(lambda lr, seed: (0.5 if lr == 0.125 else 0.499) + noise[seed] * (lr != 0.125)).is_better
    assert compare(lambda lr, seed: (0.5 if lr == 0.125 else 0.499) + noise[seed]).is_better, "seed by seed"
    assert not compare(lambda *_: 0.5).is_better, "equal losses"


@pytest.mark.parametrize(
    ("item", "values"),
    [
        ("lr=0.05:1", (0.05, 1.0, True)),
        ("epochs=5:9", (5, 9, False)),
        ("dropout=0:0.5", (0.0, 0.5, False)),
        ("weight-decay=0:0.1", (0.0, 0.1, False)),
        ("weight-decay=1e-6:0.1", (1e-6, 0.1, True)),
        ("batch-size=64:300", (64, 300, True)),
        ("epochs=10|20", (10, 20)),
        ("schedule=cosine", ("cosine",)),
        (" --lr = 0.3 ", (0.3,)),
    ],
)
def test_a_space_is_narrowed_as_it_is_typed(item: str, values: tuple[Any, ...]) -> None:
    (found,) = search_space.narrow_space(softmax(), [item]).values()
    range_or_choice = (found.low, found.high, found.log) if hasattr(found, "low") else found.choices  # type: ignore[attr-defined]
    assert range_or_choice == values


@pytest.mark.parametrize(
    ("items", "found", "expected"),
    [
        (["lr=0.1:0.1"], "--space lr=0.1:0.1", "the lower bound first"),
        (["lr=nan:1"], "--space lr, and nan", "a finite number"),
        (["lr=0.1:inf"], "--space lr, and inf", "a finite number"),
        (["lr=-1:1"], "--space lr, and -1", "greater than 0"),
        (["lr"], "--space lr, and nothing", "a value"),
        (["lr=1:2:3"], "--space lr=1:2:3", "values by |, or LOW:HIGH"),
        (["lr=0.1", "lr=0.2"], "--space names lr twice", "each parameter once"),
        (["epochs=1.5"], "--space epochs, and 1.5", "a whole number"),
        (["epochs=0:4"], "--space epochs, and 0", "greater than or equal to 1"),
        (["dropout=0.5:1"], "--space dropout, and 1", "less than 1"),
        (["schedule=warm"], "--space schedule, and warm", "'constant', 'cosine' or 'step'"),
        (["schedule=a:b"], "--space schedule=a:b", "values by |"),
        ([""], "--space", "one of"),
    ],
)
def test_what_cannot_be_searched_is_said(items: list[str], found: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        search_space.narrow_space(softmax(), items)
    assert found in refused.value.found
    assert expected in refused.value.expected


# Pictures and page of a search: what they show is what the trials were


def made_trial(number: int, loss: float | None, settings: dict[str, Setting], outcome: str = "complete") -> Trial:
    return Trial.model_validate(
        {
            "number": number, "settings": settings, "validation_loss": loss, "epochs": 3, "seconds": 1.5,
            "outcome": outcome,
        }
    )  # fmt: skip


def made_tuned(found: tuple[float, ...] = (0.4, 0.5, 0.6), before: tuple[float, ...] = (0.7, 0.8, 0.9)) -> Tuned:
    return Tuned(
        model="softmax-regression", dataset_digest="0" * 64, settings={"lr": 0.25, "schedule": "cosine"},
        validation_losses=found, default_settings={"lr": 0.1, "schedule": "constant"}, default_losses=before,
        num_trials=4, num_validation=200, seed=42, run="run",
    )  # fmt: skip


SOME = [
    made_trial(0, 0.5, {"lr": 0.1, "batch_size": 256}), made_trial(1, None, {"lr": 3.0, "batch_size": 256}, "diverged"),
    made_trial(2, 0.3, {"lr": 0.2, "batch_size": 512}, "pruned"),
    made_trial(3, 0.45, {"lr": 0.3, "batch_size": 512}),
]  # fmt: skip


def test_the_interval_of_a_mean_is_students() -> None:
    losses = [0.41, 0.43, 0.42, 0.44, 0.4]
    expected = stats.ttest_1samp(losses, 0).confidence_interval(0.95)
    np.testing.assert_allclose(mean_interval(losses), (np.mean(losses), expected.low, expected.high))
    assert mean_interval([0.5]) == (0.5, 0.5, 0.5)


def test_the_page_tells_the_best_trials_and_what_the_winner_is_worth() -> None:
    said = render_markdown(search_page("mine", Searched(trials=tuple(SOME), tuned=made_tuned()), ()))
    rows = [line.split("|")[1].strip() for line in said.split("## The best")[1].splitlines() if line.startswith("| ")]
    assert rows[2:5] == ["3", "0", "2"], "a trial that was given up has been measured after fewer epochs"
    assert "| lr | 0.25 | 0.1 |" in said
    assert "is -0.3 with every seed." in said, "no seeds' chance, as where training starts at zero"
    for before, words in (
        ((0.5, 0.59, 0.7), "), more than the seeds' chance"),
        ((0.39, 0.52, 0.6), "), no more than the seeds' chance"),
        ((), "Not every seed came to its end."),
    ):
        found = Searched(trials=tuple(SOME), tuned=made_tuned(before=before))
        assert words in render_markdown(search_page("mine", found, ()))


@pytest.mark.slow  # it draws
def test_the_run_keeps_the_page_with_its_pictures_beside_it() -> None:
    run = RunFolder.open("20261126T000000-tune-mine-00000000", {"name": "mine"})
    shown = render_markdown(run_artifacts.write_search_page(run, Searched(trials=tuple(SOME), tuned=made_tuned())))
    said = run.file("tuning.md").read_text()
    beside = re.findall(r"\]\((.*)\)", said)
    assert len(beside) == shown.count("](data:image/png;base64,") == 4
    assert all(run.file(name).is_file() for name in beside)


# What a search found is used by ``retrain --tuned``: newest, over a champion's settings, under what is given now


NAME = "linear-regression"
LINEAR = {"model": NAME}


def keep_found(name: str = NAME, model: str = NAME, run: str = "a-search", dataset: str = "", **settings: Any) -> Tuned:
    """Keep such settings as those that a search has found."""
    result = Tuned(
        model=model, dataset=dataset, dataset_digest="0" * 64, settings=settings, validation_losses=(0.1,),
        default_settings={}, default_losses=(0.2,), num_trials=1, num_validation=100, seed=42, run=run,
    )  # fmt: skip
    artifact_paths.tuned(name).parent.mkdir(parents=True, exist_ok=True)
    result.write(artifact_paths.tuned(name))
    return result


def resolved(training: dict[str, Any], **more: Any) -> RetrainParameters:
    return tuned.take_found(RetrainParameters.model_validate({"training": LINEAR | training, "tuned": True, **more}))


def test_given_settings_win_over_found_ones_and_these_over_defaults() -> None:
    keep_found(lr=0.5, batch_size=32, schedule="cosine")
    parameters = resolved({"lr": 0.02, "schedule": None, "batch_size": None})  # a form sends nothing as null
    asked = parameters.training
    assert (asked.lr, asked.batch_size, asked.schedule, asked.num_epochs) == (0.02, 32, "cosine", 3)
    assert parameters.found == Found(run="a-search", fields=("batch_size", "schedule"))


def test_the_epochs_that_huber_takes_by_default_are_not_given() -> None:
    keep_found(num_epochs=15)
    assert resolved({"loss": "huber"}).training.num_epochs == 15
    assert resolved({"loss": "huber", "num_epochs": 5}).training.num_epochs == 5


@pytest.mark.parametrize(
    ("written", "code", "said"),
    [
        (None, 2, "no settings were found for linear-regression yet"),
        ({"model": "softmax-regression"}, 2, "settings found for softmax-regression on synthetic-linear"),
        ({"dataset": "houses"}, 2, "settings found for linear-regression on houses"),
        ({"lr": -1.0}, 4, "lr: Input should be greater than 0"),
        ({"dropout": 0.5}, 4, "dropout is for softmax regression"),
        ({"nonsense": 1}, 4, "nonsense: Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_used_are_said_before_a_server_starts(
    written: dict[str, Any] | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if written is not None:
        keep_found(**written)
    assert flows.cli.app.run(["retrain", NAME, "--tuned"]) == code
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 3
    assert said in message[0]
    assert f"gradmill tune {NAME}" in message[2]


def test_a_damaged_document_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    keep_found(lr=0.5)
    path = artifact_paths.tuned(NAME)
    path.write_text(path.read_text().replace("0.5", "NaN"))
    assert flows.cli.app.run(["retrain", NAME, "--tuned"]) == 4
    assert str(path) in capsys.readouterr().err


def kept(candidate: Candidate, name: str, tuned_too: bool = False, **training: Any) -> None:
    """A version under a name of its own whose run was asked so."""
    asked = candidate.parameters.training.given | training
    document = {"name": name, "training": asked, "tuned": tuned_too}
    candidate.parameters = tuned.take_found(RetrainParameters.model_validate(document))
    candidate.publish()


def repeated(name: str, **given: Any) -> RetrainParameters:
    """What ``gradmill retrain NAME`` asks for, as the run takes it."""
    document = json.loads(json.dumps(own_data.again(name, given)))  # as a deployment keeps it
    return tuned.take_found(RetrainParameters.model_validate(document))


@pytest.fixture
def candidate(candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """One that is left as it was."""
    monkeypatch.setattr(candidates[0], "parameters", candidates[0].parameters)
    return candidates[0]


def test_a_kept_name_takes_found_settings_over_its_champions_and_goes_on_with_the_newest(candidate: Candidate) -> None:
    kept(candidate, "mine", lr=0.02, batch_size=16)
    with pytest.raises(UsageError, match="no settings were found for mine"):
        repeated("mine", tuned=True)
    keep_found("mine", lr=0.5)
    first = repeated("mine", tuned=True)
    assert (first.training.lr, first.training.batch_size) == (0.5, 16)
    assert repeated("mine").training.lr == 0.02, "unless asked for, the champion's settings are repeated"


def test_a_name_that_was_tuned_goes_on_so_until_told_otherwise(candidate: Candidate) -> None:
    keep_found("mine", run="first", lr=0.5, num_epochs=4)
    kept(candidate, "mine", tuned_too=True, batch_size=16, num_epochs=3)
    version = reading.manifest("mine", 1).parameters.model_dump()
    assert (version["tuned"], version["training"]["lr"]) == (True, 0.5), "what it was trained with"
    assert version["found"] == {"run": "first", "fields": ["lr"]}
    keep_found("mine", run="second", lr=0.25, num_epochs=4, schedule="cosine")
    again = repeated("mine")
    assert again.training.lr == 0.25
    assert again.training.schedule == "cosine", "a default of the champion was not given"
    assert again.training.batch_size == 16
    assert repeated("mine", training={"lr": 0.1}).training.lr == 0.1
    off = repeated("mine", tuned=False)
    assert (off.training.given.get("lr"), off.training.batch_size, off.found) == (None, 16, None)
    assert own_data.again("mine", {"tuned": False}, with_found=True)["training"]["lr"] == 0.5, "a search starts there"
    asked = schedule.ask_for(schedule.find_target("mine"), None, {"cron": "0 3 * * *"}, {}).parameters
    keep_found("mine", run="third", lr=0.125)
    assert tuned.take_found(RetrainParameters.model_validate(asked)).training.lr == 0.125, "every night the newest"


def test_a_penalty_of_none_that_was_given_for_own_data_is_no_default() -> None:
    """Own data decide where nothing is given."""
    asked = RetrainParameters.model_validate(
        {"name": "own", "data": {"source": "/a.csv", "target": "price"}, "training": LINEAR | {"weight_decay": 0.0}}
    )
    assert asked.training.given["weight_decay"] == 0.0
    assert "lr" not in asked.training.given


def test_a_name_with_found_settings_and_no_version_is_in_nobodys_way(capsys: pytest.CaptureFixture[str]) -> None:
    keep_found("mine", lr=0.5)
    for command, code in {
        ("models",): 0, ("models", "mine"): 2, ("history",): 0, ("verify", "mine"): 2, ("maintain",): 0,
        ("retrain", "mine"): 2, ("retrain", "mine", "--tuned"): 2, ("mirror", "mine", "elsewhere"): 2,
    }.items():  # fmt: skip
        assert flows.cli.app.run([*command]) == code
        assert "Traceback" not in capsys.readouterr().err
    assert not artifact_paths.models().exists(), "Triton does not start on a model's folder without a version"


def test_searches_that_names_or_kept_versions_stand_on_are_evidence(candidate: Candidate) -> None:
    for run in ("first", "second", "third"):
        RunFolder.open(run, {})
    keep_found("mine", run="first", lr=0.5)
    kept(candidate, "mine", tuned_too=True)
    keep_found("mine", run="second", lr=0.25)
    assert {"first", "second"} <= housekeeping.evidence()
    assert "third" not in housekeeping.evidence()
    artifact_paths.tuned("mine").write_text("{}")
    with pytest.raises(DataError, match=r"mine\.json"):
        housekeeping.evidence()
