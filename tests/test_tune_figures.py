"""Pictures and page of a search: what they show is what the trials were."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from flows.story import tuning
from tasks.judging import search_facts, tuning_figures
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched, Setting, Trial, Tuned


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
    trial(3, 0.45, {"lr": 0.3, "batch_size": 512, "dropout": 0.1}),
]  # fmt: skip


def test_the_interval_of_a_mean_is_students() -> None:
    losses = [0.41, 0.43, 0.42, 0.44, 0.4]
    found = search_facts.interval(losses)
    expected = stats.ttest_1samp(losses, 0).confidence_interval(0.95)
    np.testing.assert_allclose(found, (np.mean(losses), expected.low, expected.high))
    assert search_facts.interval([0.5]) == (0.5, 0.5, 0.5)


def test_what_alone_decides_has_nearly_all_the_importance() -> None:
    trials = drawn_at_random(60)
    fields = ["lr", "weight_decay", "schedule", "batch_size"]
    assert search_facts.searched(trials) == fields
    shares = search_facts.importances(trials, fields)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.7
    assert search_facts.importances(trials[:9], fields) == {}, "too few to say"


def test_a_weight_decay_that_the_ridge_path_has_chosen_has_no_importance() -> None:
    trials = []
    for each in drawn_at_random(40):
        loss = ("squared", "huber")[each.number % 2]
        decay: dict[str, Setting] = {"weight_decay": 0.25} if loss == "squared" else {}
        trials.append(each.model_copy(update={"settings": each.settings | {"loss": loss} | decay}))
    fields = ["lr", "weight_decay", "loss"]
    assert search_facts.importances(trials, fields).keys() == {"lr", "loss"}
    free = [each for each in trials if each.settings["loss"] == "huber"]
    assert search_facts.importances(free, fields[:2]).keys() == {"lr", "weight_decay"}


def test_the_best_so_far_is_that_of_trials_that_came_to_their_end(drawn: list[Figure], tmp_path: Path) -> None:
    tuning_figures.history(SOME, tmp_path / "history.png")
    (axes,) = drawn[0].axes
    (line,) = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_ydata()), [0.5, 0.5, 0.5, 0.45])
    assert {each.get_label() for each in axes.collections} == {"complete", "pruned", "diverged"}
    assert [len(np.asarray(each.get_offsets())) for each in axes.collections] == [2, 1, 1]
    assert axes.get_yscale() == "linear"
    tuning_figures.history(
        [trial(number, loss, {}) for number, loss in enumerate((1e-5, 9.0, 2.0))], tmp_path / "decades.png"
    )
    assert drawn[1].axes[0].get_yscale() == "log"


def test_one_bad_trial_does_not_flatten_the_others(drawn: list[Figure], tmp_path: Path) -> None:
    trials = [*(trial(number, 0.5 + number / 100, {}) for number in range(20)), trial(20, 1e9, {})]
    tuning_figures.history(trials, tmp_path / "history.png")
    assert drawn[0].axes[0].get_ylim()[1] < 1


def test_each_setting_has_its_panel_and_its_scale(drawn: list[Figure], tmp_path: Path) -> None:
    trials = drawn_at_random(12)
    tuning_figures.slices(trials, search_facts.searched(trials), tmp_path / "slices.png")
    panels = {axes.get_xlabel(): axes for axes in drawn[0].axes if axes.get_xlabel()}
    scales = {name: axes.get_xscale() for name, axes in panels.items()}
    assert scales == {"learning rate": "log", "weight decay": "log", "schedule": "linear", "batch size": "linear"}
    assert [label.get_text() for label in panels["schedule"].get_xticklabels()] == ["constant", "cosine"]
    assert [label.get_text() for label in panels["batch size"].get_xticklabels()] == ["256", "512"]
    np.testing.assert_allclose(
        np.asarray(panels["learning rate"].collections[0].get_offsets())[:, 0],
        [float(each.settings["lr"]) for each in trials],
    )


def test_the_best_goes_through_its_own_settings(drawn: list[Figure], tmp_path: Path) -> None:
    trials = [trial(0, 0.5, {"lr": 0.1, "schedule": "step"}), trial(1, 0.4, {"lr": 1.0, "schedule": "constant"})]
    trials.append(trial(2, 0.3, {"lr": 0.5, "schedule": "step"}, "pruned"))
    tuning_figures.parallel(trials, ["lr", "schedule"], tmp_path / "parallel.png")
    best = drawn[0].axes[0].lines[-1]
    np.testing.assert_allclose(np.asarray(best.get_ydata())[:2], [1, 0])


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
    said = tuning.page("mine", Searched(trials=tuple(SOME), tuned=tuned()))
    rows = [line.split("|")[1].strip() for line in said.split("## The best")[1].splitlines() if line.startswith("| ")]
    assert rows[2:5] == ["3", "0", "2"], "a trial that was given up has been measured after fewer epochs"
    assert "| learning rate | 0.25 | 0.1 |" in said
    assert "is -0.3 with every seed." in said, "no seeds' chance, as where training starts at zero"
    assert "1.50 (median)" in said


@pytest.mark.slow  # it draws
def test_the_run_keeps_the_page_with_its_pictures_beside_it() -> None:
    run = RunFolder.open("20261126T000000-tune-mine-00000000", {"name": "mine"})
    shown = tuning.told(run, Searched(trials=tuple(SOME), tuned=tuned()))
    said = run.file("tuning.md").read_text()
    beside = re.findall(r"\]\((.*)\)", said)
    assert len(beside) == shown.count("](data:image/png;base64,") == 4
    assert all(run.file(name).is_file() for name in beside)


@pytest.mark.parametrize(("before", "said"), [((0.5, 0.59, 0.7), "), more"), ((0.39, 0.52, 0.6), "), no more")])
def test_a_winner_may_be_no_better_than_by_the_seeds_chance(before: tuple[float, ...], said: str) -> None:
    page = tuning.page("mine", Searched(trials=tuple(SOME), tuned=tuned(before=before)))
    assert f"{said} than the seeds' chance" in page
    assert "Not every seed came to its end." in tuning.page(
        "mine", Searched(trials=tuple(SOME), tuned=tuned(before=()))
    )
