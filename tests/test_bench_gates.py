"""The simulation of gates: candidates are as good or as bad as it says, and the real gates judge them."""

import numpy as np
import pytest

from benchmarks import gates


@pytest.mark.parametrize("rows", gates.SPLITS, ids=lambda rows: rows.name)
def test_what_is_drawn_varies_as_it_says(rows: gates.Rows) -> None:
    drawn = rows.draw(np.random.default_rng(0), 110_000)
    assert (drawn.mean(), drawn.std()) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    beside = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    of_groups = gates.IN_COMMON**2 * (1 - 1 / gates.GROUP_SIZE) if rows.rule.rule == "group" else 0.0
    assert beside == pytest.approx(rows.autocorrelation + of_groups, abs=0.02)


def test_a_candidate_that_is_a_point_less_accurate_and_one_with_half_of_the_gain_are_mostly_refused() -> None:
    generators = [np.random.default_rng(seed) for seed in range(40)]
    assert np.mean([gates.refuse_worse(gates.SPLITS[0], each) for each in generators]) > 0.7
    assert np.mean([gates.refuse_by_baselines(0.5, each) for each in generators]) > 0.85
    assert np.mean([gates.refuse_by_baselines(1.0, each) for each in generators]) < 0.15
