"""The end of a search: the best few trials with other seeds, and which of them has won."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tasks.fitting.tuning import finals
from tasks.fitting.tuning.batches import Batch

from own_images import prepare
from tasks.parameters import SoftmaxTraining
from tasks.store.tuned import Trial

LUCKY, STEADY, OTHERS = 0.5, 0.25, (0.01, 0.02, 0.03)
BASE = SoftmaxTraining.model_validate({"device": "cpu", "seed": 7, "lr": 0.125})
BLANK = Batch("", prepare(np.zeros((20, 2, 2), np.uint8), np.arange(20) % 2, ["a", "b"]), BASE, ())


def trial(number: int, lr: float, loss: float | None, outcome: str = "complete") -> Trial:
    return Trial.model_validate(
        {
            "number": number, "settings": {"lr": lr}, "validation_loss": loss, "epochs": 1, "seconds": 0.1,
            "outcome": outcome,
        }
    )  # fmt: skip


TRIALS = [trial(0, 0.125, 0.6), trial(1, LUCKY, 0.40), trial(2, STEADY, 0.41), trial(3, STEADY, 0.41)]
TRIALS += [trial(4 + at, lr, 0.5 + lr) for at, lr in enumerate(OTHERS)] + [trial(9, 0.9, 0.1, "pruned")]


def running(num_seeds: int, diverging: float | None = None) -> Callable[..., None]:
    """Of the lucky one the loss depends on the seed, which the time allows so many of."""

    def run(batches: Sequence[Batch], ended: Callable[[Trial], None]) -> None:
        for batch in batches[:num_seeds]:
            for number, settings, seed in batch.asked:
                lr = float(settings["lr"])
                loss = {LUCKY: 0.40 + 0.01 * (seed - 7), STEADY: 0.41, 0.125: 0.6}.get(lr, 0.5)
                ended(trial(number, lr, None, "diverged") if lr == diverging else trial(number, lr, loss))
        for number, settings, _ in batches[-1].asked[1:] if num_seeds < len(batches) else ():
            ended(trial(number, float(settings["lr"]), 0.0))  # cut off in mid-seed

    return run


def test_a_trial_that_was_lucky_with_the_seed_of_the_search_does_not_win() -> None:
    final = finals.held(TRIALS, BLANK, running(5))
    assert (final.best.settings, final.losses) == ({"lr": STEADY}, (0.41,) * 5)
    assert (final.before, final.before_losses) == ({"lr": 0.125}, (0.6,) * 5)


def test_one_that_diverges_with_another_seed_does_not_win() -> None:
    assert finals.held(TRIALS, BLANK, running(5, diverging=STEADY)).best.settings == {"lr": LUCKY}


def test_each_setting_is_a_finalist_once_and_none_that_was_given_up() -> None:
    assert [each.settings["lr"] for each in finals.finalists(TRIALS, BLANK)] == [LUCKY, STEADY, *OTHERS[:2]]


@pytest.mark.parametrize(("num_seeds", "losses"), [(2, (0.41, 0.41)), (1, (0.41,)), (0, (0.40,))])
def test_seeds_that_the_time_has_cut_off_do_not_count(num_seeds: int, losses: tuple[float, ...]) -> None:
    final = finals.held(TRIALS, BLANK, running(num_seeds))
    assert final.losses == pytest.approx(losses)
    assert len(final.before_losses) == len(losses), "of no seed: what the search itself has seen"
