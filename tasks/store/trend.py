"""How the figure that a gate judges has developed from run to run, beside the version that was live then."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from tasks.records import GateVerdict
from tasks.store.runs import Outcome, RunSummary
from tasks.store.state import NameState

RUNS = 30  # that are drawn
# Of each kind of model the first of these gates that it has: its value is drawn, and its bound.
DRAWN = {"test_accuracy": "test accuracy", "test_loss": "test loss", "reference": "test loss, as trained for"}
AGAINST_CHAMPION = {"test_accuracy": "champion_accuracy", "test_loss": "champion_loss", "reference": "champion_loss"}


class Point(NamedTuple):
    """One run: what was judged of it (None: it did not come so far), by which bound, and what was live after it."""

    date: str
    outcome: Outcome
    value: float | None
    bound: float | None
    live: int | None
    live_value: float | None


class Trend(NamedTuple):
    """The newest runs, the oldest first; ``figure`` is in words, ``is_loss``: less is better."""

    figure: str
    is_loss: bool
    points: tuple[Point, ...]


def find_trend(facts: NameState) -> Trend | None:
    """The trend of a name; None where no run and no version has the figure of a gate."""
    judged = [run.gates for run in facts.runs] + [version.manifest.gates for version in reversed(facts.versions)]
    name = next((gate.name for gates in judged for gate in gates if gate.name in DRAWN), None)
    if name is None:
        return None
    gates = {run.version: _find_gate(run.gates, name) for run in facts.runs if run.outcome == "published"}
    gates |= {version.number: _find_gate(version.manifest.gates, name) for version in facts.versions}
    points = []
    for run in facts.runs[:RUNS][::-1]:
        live, verdict = _live(facts, run), _find_gate(run.gates, name)
        gate_of_live = gates.get(live)
        points.append(
            Point(
                date=run.date,
                outcome=run.outcome,
                value=verdict.value if verdict else None,
                bound=_bound(run.gates, verdict) if verdict else None,
                live=live,
                live_value=gate_of_live.value if gate_of_live else None,
            )
        )
    return Trend(DRAWN[name], name != "test_accuracy", tuple(points))


def _live(facts: NameState, run: RunSummary) -> int | None:
    """The champion when a run ended, by the changes."""
    ended = datetime.fromisoformat(run.ended)
    for change in facts.changes:
        if not change.interrupted and (change.by == run.run or datetime.fromisoformat(change.at) <= ended):
            return change.champion
    return None


def _find_gate(gates: Sequence[GateVerdict], name: str) -> GateVerdict | None:
    return next((gate for gate in gates if gate.name == name), None)


def _bound(gates: Sequence[GateVerdict], drawn: GateVerdict) -> float | None:
    """The strictest on the very figure that is drawn: of accuracy the least that may be, of a loss the most."""
    names = {drawn.name, AGAINST_CHAMPION[drawn.name]}
    same = [gate for gate in gates if gate.name in names and math.isclose(gate.value, drawn.value)]
    if drawn.minimum is None:
        return min((gate.maximum for gate in same if gate.maximum is not None), default=None)
    drops = [gate for gate in gates if gate.name == AGAINST_CHAMPION[drawn.name]]  # below the best of kept versions
    least = [drawn.value + gate.value - gate.maximum for gate in drops if gate.maximum is not None]
    return max(least + [gate.minimum for gate in same if gate.minimum is not None], default=None)
