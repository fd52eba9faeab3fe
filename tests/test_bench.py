"""How benchmarks measure, and the simulation of gates: what is drawn is as good or as bad as it says.

Sides take turns, the best and the median count, another checkout runs its own code.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gates
from benchmarks.measure import Checkout, Sample, Setup, compare

TOY = """
import json, os, pathlib, sys
def main():
    turns = pathlib.Path(os.environ["GRADMILL_ARTIFACTS"], "..", "turns")
    with turns.open("a") as file:
        file.write(f"{name} {{' '.join(sys.argv[1:])}}\\n")
    folder = pathlib.Path(os.environ["GRADMILL_ARTIFACTS"], "runs", str(len(turns.read_text().splitlines())))
    folder.mkdir(parents=True)
    seconds = {seconds}[turns.read_text().count("{name} measured") - 1]
    (folder / "run.json").write_text(json.dumps({{"seconds": {{"train": seconds}}, "stages": {{}}}}))
    sys.exit(3 if "fail" in sys.argv else 0)
"""


@pytest.fixture
def checkouts(tmp_path: Path) -> list[Checkout]:
    """Trees whose command notes its turn, and the seconds that it is to have taken."""
    found = [Checkout(name, tmp_path / name, tmp_path / f"store-{name}") for name in ("ours", "before")]
    for each, seconds in zip(found, ([4, 2, 3], [1, 9, 2]), strict=True):
        (each.path / "flows").mkdir(parents=True)
        (each.path / "flows" / "__init__.py").touch()
        (each.path / "flows" / "__main__.py").write_text(TOY.format(name=each.name, seconds=seconds))
        each.store.mkdir()
    return found


def run_toy(checkout: Checkout) -> Sample:
    (*_, run) = checkout.gradmill(["warm"], ["measured"])
    return Sample(run.seconds["train"], "a note")


def test_checkouts_take_turns_and_the_document_has_what_the_page_on_speed_reads(
    checkouts: list[Checkout], tmp_path: Path
) -> None:
    works = {f"{each.name}, toy": partial(run_toy, each) for each in checkouts}
    setup = Setup(quick=False, rounds=None, checkouts=checkouts, folder=tmp_path)
    sides = setup.measure(works, "s", usual_rounds=3)
    turns = [f"{name} {command}" for name in ("ours", "before") for command in ("warm", "measured")]
    assert (tmp_path / "turns").read_text().splitlines() == turns * 3
    document = json.loads(setup.report("train", sides, []).model_dump_json())
    assert [(side["figures"], side["best"], side["median"], side["note"]) for side in document["sides"]] == [
        ([4, 2, 3], 2, 3, "a note"), ([1, 9, 2], 1, 2, "a note"),
    ]  # fmt: skip
    assert [(each["name"], each["value"], each["reached"]) for each in document["ratios"]] == [
        ("before, toy over ours, toy", 1 / 2, False), ("before, toy over ours, toy, medians", 2 / 3, False),
    ]  # fmt: skip
    assert {"date", "commit", "cpu", "cores", "load", "python", "packages"} <= set(document["conditions"])
    with pytest.raises(RuntimeError, match="ended with 3"):
        checkouts[0].gradmill(["fail"])


def test_of_a_rate_the_largest_figure_is_the_best_and_the_larger_one_the_faster() -> None:
    figures = {"ours, toy": iter([10.0, 20.0]), "before, toy": iter([40.0, 5.0])}
    works = {name: lambda each=each: Sample(next(each)) for name, each in figures.items()}
    sides = Setup(quick=True, rounds=2, checkouts=[], folder=Path()).measure(works, "rows/s", usual_rounds=9)
    assert [each.best for each in sides.values()] == [20, 40]
    assert compare(sides, "before, toy", "ours, toy")[0].value == 0.5


# The simulation of gates


@pytest.mark.parametrize("rows", gates.SPLITS, ids=lambda rows: rows.name)
def test_what_is_drawn_varies_as_it_says(rows: gates.Rows) -> None:
    drawn = rows.draw(np.random.default_rng(0), 110_000)
    assert (drawn.mean(), drawn.std()) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    beside = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    of_groups = gates.IN_COMMON**2 * (1 - 1 / gates.GROUP_SIZE) if rows.rule.rule == "group" else 0.0
    assert beside == pytest.approx(rows.autocorrelation + of_groups, abs=0.02)


def test_a_candidate_that_is_a_point_less_accurate_and_a_fit_to_noise_are_mostly_refused() -> None:
    generators = [np.random.default_rng(seed) for seed in range(40)]
    assert np.mean([gates.refuse_worse(gates.SPLITS[0], each) for each in generators]) > 0.7
    assert np.mean([gates.refuse_by_baseline(0.0, each) for each in generators]) > 0.85
    assert np.mean([gates.refuse_by_baseline(gates.R2, each) for each in generators]) < 0.15
