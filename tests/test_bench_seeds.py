"""The count of refusals among models that differ in the seed: of answers whose differences are known."""

import numpy as np
from numpy.random import default_rng

from flows.bench.seeds import Judged


def test_pairs_and_those_in_order_are_counted_by_gate() -> None:
    """Of three models two are equal, and one is wrong on a class of a tenth of the rows half the time."""
    truth = np.arange(10_000) % 10
    bad = np.where((truth == 6) & (default_rng(0).random(len(truth)) < 0.5), 0, truth)
    sides = {side.name: side for side in Judged("x", [truth, truth, bad], truth, tuple("0123456789")).sides()}
    assert sides["x: pairs refused"].best == 2
    assert sides["x: pairs refused"].note == "of 6"
    assert sides["x: pairs refused by champion_recall"].best == 2
    assert sides["x: refused in order"].best == 1
    assert sides["x: recall of shirt, largest"].best == 1
    assert sides["x: test accuracy, smallest"].best == np.mean(bad == truth)


def test_of_numbers_the_loss_decides() -> None:
    truth = default_rng(1).normal(size=1000)
    near, far = truth + 0.01, truth + 0.02
    sides = {side.name: side.best for side in Judged("x", [near, far], truth, ()).sides()}
    assert sides == {"x: pairs refused": 1, "x: pairs refused by champion_loss": 1, "x: refused in order": 1}
