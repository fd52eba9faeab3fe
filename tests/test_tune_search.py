"""A search for hyperparameters by itself: what is suggested, what is kept, and that it finds what there is to find."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from tasks.fitting.tuning import study as studies
from tasks.fitting.tuning.space import Choice, Log, Space, Uniform
from tasks.fitting.tuning.study import Asked, Study
from tasks.parameters import Training, TuneParameters
from tasks.store.tuned import Trial

SCHEDULES = ("constant", "cosine", "step")
SPACE: Space = {
    "lr": Log(0.001, 10.0),
    "dropout": Uniform(0.0, 0.9),
    "schedule": Choice(("constant", "cosine", "step")),
}
BASE = TuneParameters().training
ABOUT = {"data": "a" * 64, "space": "one"}


def opened(path: Path, base: Training = BASE, **about: str) -> "studies.contextmanager[Study]":  # type: ignore[type-arg]
    return studies.opened(path, ABOUT | about, SPACE, base, None, afresh=False)


def bowl(settings: dict[str, object]) -> float:
    """Its lowest point is at lr 0.3, dropout 0.2 and the schedule cosine."""
    lr, dropout = float(settings["lr"]), float(settings["dropout"])  # type: ignore[arg-type]
    return math.log10(lr / 0.3) ** 2 + (dropout - 0.2) ** 2 + (settings["schedule"] != "cosine") * 0.5


def ended(asked: Asked, loss: float) -> Trial:
    return Trial(
        number=asked.number, settings=asked.settings, validation_loss=loss, losses=(loss,), epochs=1, seconds=0.1,
        outcome="complete",
    )  # fmt: skip


def search(study: Study, up_to: int, order: Callable[[list[Asked]], Iterable[Asked]] = list) -> None:
    while asked := study.next(up_to, study.tell):
        for each in order(asked):
            study.tell(ended(each, bowl(each.settings)))


def test_the_known_optimum_of_a_made_up_objective_is_found(tmp_path: Path) -> None:
    with opened(tmp_path / "study") as study:
        search(study, 96)
        found = studies.best(study.trials)
    assert found is not None
    assert found.settings["schedule"] == "cosine"
    assert found.validation_loss is not None
    assert found.validation_loss < 0.02, "a random search of 96 comes to 0.06 in the mean"


def test_a_search_killed_in_mid_round_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as study:
        search(study, 48)
        whole = study.trials
    with opened(tmp_path / "cut") as study:
        for each in study.next(48, study.tell)[:5]:
            study.tell(ended(each, bowl(each.settings)))
    with (tmp_path / "cut").open("ab") as journal:
        journal.write(b'{"op_code":4,"worker_')  # as a power cut leaves it
    with opened(tmp_path / "cut") as study:
        assert len(study.trials) == 5
        search(study, 48, order=reversed)
        assert study.trials == whole


def test_equal_seeds_search_alike_and_others_do_not(tmp_path: Path) -> None:
    tried = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        with opened(tmp_path / name, BASE.model_copy(update={"seed": seed})) as study:
            search(study, 20)
            tried[name] = [trial.settings for trial in study.trials]
    assert tried["one"] == tried["again"] != tried["other"]
