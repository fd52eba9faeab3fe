"""A search for hyperparameters by itself: what is suggested, what is kept, and that it finds what there is to find."""

import math
import statistics
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tasks.fitting.tuning import space as spaces
from tasks.fitting.tuning import study as studies
from tasks.fitting.tuning.batches import Stopping, late
from tasks.fitting.tuning.domains import Choice, Log, Uniform
from tasks.fitting.tuning.space import Space
from tasks.fitting.tuning.study import Asked, Study

from tasks.errors import UsageError
from tasks.parameters import Training, TuneParameters
from tasks.parameters.uses import BOOK, IMAGES, OF_MODEL, TABLES
from tasks.store.tuned import Setting, Trial

SCHEDULES = ("constant", "cosine", "step")
SPACE: Space = {
    "lr": Log(0.001, 10.0),
    "dropout": Uniform(0.0, 0.9),
    "schedule": Choice(("constant", "cosine", "step")),
}
BASE = TuneParameters().training
ABOUT = {"data": "a" * 64, "search space": "one"}


def opened(path: Path, base: Training = BASE, about: dict[str, str] = ABOUT) -> AbstractContextManager[Study]:
    return studies.opened(path, about, SPACE, base, None, afresh=False)


def bowl(settings: dict[str, Setting]) -> float:
    """Its lowest point is at lr 0.3, dropout 0.2 and the schedule cosine."""
    lr, dropout = float(settings["lr"]), float(settings["dropout"])
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
    assert found.validation_loss < 0.01, "as of 12 seeds; a random search of 96 comes to 0.037 in the mean"


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


def test_other_data_start_afresh_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for about, left in (({}, 0), ({}, 20), ({"data": "b" * 64}, 0), ({"data": "b" * 64, "search space": "two"}, 0)):
        with opened(tmp_path / "study", about=ABOUT | about) as study:
            assert len(study.trials) == left
            search(study, 20)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"the {each} changed since this search was begun: it starts afresh" for each in ("data", "search space")
    ]


def test_a_damaged_journal_is_said_and_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for damage in (b"\0" * 100 + b"\n", b'{"op_code": 99}\n', b"not ours"):
        with opened(tmp_path / "study") as study:
            search(study, 3)
        path = tmp_path / "study"
        path.write_bytes(damage + path.read_bytes())
        with opened(path) as study:
            assert not study.trials
        assert "cannot be read" in capsys.readouterr().out


def test_equal_settings_are_tried_once(tmp_path: Path) -> None:
    trained = []
    two: Space = {"dropout": Choice((0.0, 0.5)), "lr": Choice((0.1,))}
    with studies.opened(tmp_path / "study", ABOUT, two, BASE, None, afresh=False) as study:
        while asked := study.next(20, study.tell):
            for each in asked:
                trained.append(each.settings)
                study.tell(ended(each, float(each.settings["dropout"])))
        assert len(study.trials) == 20
    assert sorted(str(each) for each in trained) == ["{'dropout': 0.0, 'lr': 0.1}", "{'dropout': 0.5, 'lr': 0.1}"]


def test_the_first_trial_is_what_would_be_used_without_a_search(tmp_path: Path) -> None:
    with opened(tmp_path / "study") as study:
        assert study.next(2, study.tell)[0].settings == {"lr": 0.1, "dropout": 0.0, "schedule": "constant"}


def test_a_trial_that_falls_behind_the_median_of_earlier_rounds_is_given_up(tmp_path: Path) -> None:
    def curve(asked: Asked) -> Trial:
        losses = tuple(2.0 - 0.1 * epoch + asked.number for epoch in range(6))
        return ended(asked, losses[-1]).model_copy(update={"losses": losses})

    with opened(tmp_path / "study") as study:
        first = study.next(40, study.tell)
        for each in first:
            study.tell(curve(each))
        assert study.limits(first[-1].number) == (), "those of its own round do not count"
        limits = study.limits(len(first))
    assert limits == pytest.approx([2.0 - 0.1 * epoch + statistics.median(range(len(first))) for epoch in range(6)])
    stopping = Stopping([6, 6, None], limits, math.inf)
    assert not stopping(0, 3, 1e9), "nothing is given up in the first half"
    assert stopping(0, 4, limits[3] + 0.01)
    assert not stopping(1, 4, limits[5] - 0.01)
    assert not stopping(1, 5, 1e9), "its best loss counts, and one bad epoch does not"
    assert not stopping(2, 3, 1e9), "nobody knows how far it goes: as far as others did"


def test_what_the_time_has_cut_off_is_no_result() -> None:
    stopping = Stopping([9] * 4, (), deadline=0.0)
    assert stopping(3, 1, 0.1)
    assert stopping.cut_off == {3}


SOFTMAX, LINEAR = BASE, TuneParameters.model_validate({"training": {"model": "linear-regression"}}).training


@pytest.mark.parametrize(
    ("item", "domain"),
    [
        ("lr=0.05:1", Log(0.05, 1.0)),
        ("epochs=10|20", Choice((10, 20))),
        ("epochs=5:9", Uniform(5, 9)),
        ("dropout=0:0.5", Uniform(0.0, 0.5)),
        ("weight-decay=0:0.1", Uniform(0.0, 0.1)),
        ("weight-decay=1e-6:0.1", Log(1e-6, 0.1)),
        ("batch-size=64:300", Choice((64, 128, 256, 300))),
        ("schedule=cosine", Choice(("cosine",))),
        (" --lr = 0.3 ", Choice((0.3,))),
    ],
)
def test_a_space_is_narrowed_as_it_is_typed(item: str, domain: object) -> None:
    (found,) = spaces.narrowed(SOFTMAX, [item]).values()
    assert found == domain


@pytest.mark.parametrize(
    ("items", "found", "expected"),
    [
        (["momentum=1"], "--space momentum=1", "one of lr, batch-size, epochs"),
        (["lr=1:0.1"], "--space lr=1:0.1", "the lower bound first"),
        (["lr=0.1:0.1"], "--space lr=0.1:0.1", "the lower bound first"),
        (["lr=nan:1"], "--space lr=nan:1", "the lower bound first"),
        (["lr=0.1:inf"], "--space lr, and inf", "a finite number"),
        (["lr=-1:1"], "--space lr, and -1.0", "greater than 0"),
        (["lr"], "--space lr, and nothing", "a number"),
        (["lr=1:2:3"], "--space lr=1:2:3", "values by |, or LOW:HIGH"),
        (["lr=0.1", "lr=0.2"], "--space names lr twice", "each parameter once"),
        (["epochs=1.5"], "--space epochs, and 1.5", "a whole number"),
        (["epochs=0:4"], "--space epochs, and 0", "greater than or equal to 1"),
        (["dropout=0.5:1"], "--space dropout, and 1.0", "less than 1"),
        (["schedule=warm"], "--space schedule, and warm", "'constant', 'cosine' or 'step'"),
        (["schedule=a:b"], "--space schedule=a:b", "values by |"),
        (["loss=huber"], "--space loss", "linear regression"),
        ([""], "--space", "one of"),
    ],
)
def test_what_cannot_be_searched_is_said(items: list[str], found: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        spaces.narrowed(SOFTMAX, items)
    assert found in refused.value.found
    assert expected in refused.value.expected


def test_every_default_value_can_be_trained_with() -> None:
    """Of book, tables and pictures alike, from ten examples to ten millions."""
    for training, kind in ((SOFTMAX, BOOK), (SOFTMAX, TABLES), (SOFTMAX, IMAGES), (LINEAR, BOOK), (LINEAR, TABLES)):
        for row in spaces.ROWS:
            if OF_MODEL[training.model] & kind <= row.of:
                for domain in (row.values(10, 1), row.values(10_000_000, 200_000)):
                    ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
                    for value in ends:
                        own = {"defaults": "data"} if kind is not BOOK else {}
                        type(training).model_validate(training.model_dump() | own | {row.field: value})


def test_the_weight_decay_of_a_squared_loss_needs_no_trial(tmp_path: Path) -> None:
    space: Space = {"loss": Choice(("squared", "huber")), "weight_decay": Log(1e-6, 1.0)}
    with studies.opened(tmp_path / "study", ABOUT, space, LINEAR, 0.25, afresh=False) as study:
        asked = study.next(16, study.tell)
    decays = {each.settings["weight_decay"] for each in asked if each.settings["loss"] == "squared"}
    assert decays == {0.25}
    assert len({each.settings["weight_decay"] for each in asked if each.settings["loss"] == "huber"}) > 3


def test_a_trial_is_chosen_by_its_late_epochs_not_by_a_lucky_last_one() -> None:
    leaping = (0.5, 0.45, 0.49, 0.44, 0.48, 0.45, 0.49, 0.44, 0.49, 0.43)
    assert late(leaping, converges=False) == (0.49, 0.43)
    assert late(leaping, converges=True) == (0.43,)
    assert late((0.5,), converges=False) == (0.5,)
    assert late((), converges=False) == ()
