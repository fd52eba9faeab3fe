"""Pictures and page of a search: what they show is what the trials were."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from flows.pages import run_artifacts
from flows.pages.run_pages import search_page
from tasks.judging import tuning_figures
from tasks.store.page import render_markdown
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched, Setting, Trial, Tuned, mean_interval


def trial(number: int, loss: float | None, settings: dict[str, Setting], outcome: str = "complete") -> Trial:
    return Trial.model_validate(
        {
            "number": number, "settings": settings, "validation_loss": loss, "epochs": 3, "seconds": 1.5,
            "outcome": outcome,
        }
    )  # fmt: skip


def tuned(found: tuple[float, ...] = (0.4, 0.5, 0.6), before: tuple[float, ...] = (0.7, 0.8, 0.9)) -> Tuned:
    return Tuned(
        model="softmax-regression", dataset_digest="0" * 64, settings={"lr": 0.25, "schedule": "cosine"},
        validation_losses=found, default_settings={"lr": 0.1, "schedule": "constant"}, default_losses=before,
        num_trials=4, num_validation=200, seed=42, run="run",
    )  # fmt: skip


def drawn_at_random(count: int) -> list[Trial]:
    """Trials of which the learning rate alone matters: 0.1 is best."""
    rng, trials = np.random.default_rng(3), []
    for number in range(count):
        lr, decay = 10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-6, -2)
        schedule = str(rng.choice(["constant", "cosine"]))
        settings: dict[str, Setting] = {"lr": lr, "weight_decay": decay, "schedule": schedule}
        settings["batch_size"] = int(rng.choice([256, 512]))
        trials.append(trial(number, 0.4 + abs(math.log10(lr) + 1), settings))
    return trials


SOME = [
    trial(0, 0.5, {"lr": 0.1, "batch_size": 256}), trial(1, None, {"lr": 3.0, "batch_size": 256}, "diverged"),
    trial(2, 0.3, {"lr": 0.2, "batch_size": 512}, "pruned"),
    trial(3, 0.45, {"lr": 0.3, "batch_size": 512}),
]  # fmt: skip


def test_the_interval_of_a_mean_is_students() -> None:
    losses = [0.41, 0.43, 0.42, 0.44, 0.4]
    expected = stats.ttest_1samp(losses, 0).confidence_interval(0.95)
    np.testing.assert_allclose(mean_interval(losses), (np.mean(losses), expected.low, expected.high))
    assert mean_interval([0.5]) == (0.5, 0.5, 0.5)


def test_pictures_have_every_trial_and_one_bad_loss_does_not_flatten_the_others() -> None:
    trials = [*drawn_at_random(20), trial(20, 1e9, drawn_at_random(1)[0].settings), SOME[1]]
    trials[-1] = trials[-1].model_copy(update={"settings": trials[0].settings})
    study = tuning_figures.build_study(trials, 3.0)
    assert [each.value for each in study.trials[:20]] == [each.validation_loss for each in trials[:20]]
    assert (study.trials[20].value, study.trials[21].state.name) == (3.0, "PRUNED")
    assert study.trials[0].params["learning rate"] == trials[0].settings["lr"]
    assert study.trials[0].params.keys() == {"learning rate", "weight decay", "schedule", "batch size"}


@pytest.mark.slow  # it draws every picture
@pytest.mark.parametrize(
    ("trials", "record", "names"),
    [
        (SOME, tuned(), ["history", "slices", "parallel", "winner"]),
        (SOME[:1], tuned(before=()), ["history"]),
        (drawn_at_random(10), tuned(found=(0.4,)), ["history", "slices", "parallel", "importances", "winner"]),
    ],
)
def test_as_many_pictures_are_drawn_as_the_trials_are_enough_for(
    trials: list[Trial], record: Tuned, names: list[str], tmp_path: Path
) -> None:
    files = tuning_figures.draw(trials, record, tmp_path)
    assert [file.path.name for file in files] == [f"tuning-{name}.png" for name in names]
    assert all(file.path.read_bytes().startswith(b"\x89PNG") for file in files)


def test_the_page_tells_the_best_trials_and_what_the_winner_is_worth() -> None:
    said = render_markdown(search_page("mine", Searched(trials=tuple(SOME), tuned=tuned()), ()))
    rows = [line.split("|")[1].strip() for line in said.split("## The best")[1].splitlines() if line.startswith("| ")]
    assert rows[2:5] == ["3", "0", "2"], "a trial that was given up has been measured after fewer epochs"
    assert "| lr | 0.25 | 0.1 |" in said
    assert "is -0.3 with every seed." in said, "no seeds' chance, as where training starts at zero"


@pytest.mark.slow  # it draws
def test_the_run_keeps_the_page_with_its_pictures_beside_it() -> None:
    run = RunFolder.open("20261126T000000-tune-mine-00000000", {"name": "mine"})
    shown = render_markdown(run_artifacts.write_search_page(run, Searched(trials=tuple(SOME), tuned=tuned())))
    said = run.file("tuning.md").read_text()
    beside = re.findall(r"\]\((.*)\)", said)
    assert len(beside) == shown.count("](data:image/png;base64,") == 4
    assert all(run.file(name).is_file() for name in beside)


@pytest.mark.parametrize(("before", "said"), [((0.5, 0.59, 0.7), "), more"), ((0.39, 0.52, 0.6), "), no more")])
def test_a_winner_may_be_no_better_than_by_the_seeds_chance(before: tuple[float, ...], said: str) -> None:
    page = render_markdown(search_page("mine", Searched(trials=tuple(SOME), tuned=tuned(before=before)), ()))
    assert f"{said} than the seeds' chance" in page
    page = render_markdown(search_page("mine", Searched(trials=tuple(SOME), tuned=tuned(before=())), ()))
    assert "Not every seed came to its end." in page
