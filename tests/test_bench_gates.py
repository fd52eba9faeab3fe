"""The simulation of gates: made-up candidates are as good or as bad as it says, and the real gates judge them."""

from functools import partial

import numpy as np
import pytest

from benchmarks import gates


@pytest.mark.parametrize(
    ("judged", "much"),
    [
        (partial(gates.by_accuracy, 3, 10, 1000), 0.03),
        (partial(gates.by_loss, "log loss", 3), 0.03),
        (partial(gates.by_loss, "squared error", 3), 0.03),
        (partial(gates.by_loss, "log loss", 3, groups=100), 0.3),
    ],
)
def test_much_worse_candidates_are_refused_and_much_better_ones_are_not(judged: gates.Judged, much: float) -> None:
    drawn = [np.random.default_rng(seed) for seed in range(5)]
    assert all(judged(rng, worse=much) for rng in drawn)  # type: ignore[call-arg]
    assert not any(judged(rng, worse=-much) for rng in drawn)  # type: ignore[call-arg]


@pytest.mark.slow  # ten thousand verdicts
def test_the_short_simulation_finds_every_share_within_chance_of_what_is_wanted() -> None:
    report = gates.bench(quick=True)
    assert [ratio.name for ratio in report.ratios if not ratio.reached] == []
    shares = {side.name: side.best for side in report.sides}
    assert shares["accuracy, as good as 100 kept, the best of them alone"] > shares["accuracy, as good as 100 kept"]
    groups = "log loss, as good as 1 kept, 100 groups of 100 rows"
    assert shares[f"{groups}, row by row"] > shares[groups]
