"""Own data's candidate against kept versions: by the loss of each test row, paired."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.judging import gates, max_statistic
from tasks.judging.candidate import Measured
from tasks.judging.objective import Objective
from tasks.machine.words import beside
from tasks.parameters import Gates
from tasks.records import GateVerdict

Array = NDArray[Any]

MIN_ROWS = 200  # fewer, or fewer groups, decide nothing
MIN_GROUPS = 20
BLOCKS = 100_000  # of units that are taken as one each, where there are more: their sums vary as the units' do
SMALLEST = np.finfo(np.float32).tiny  # a probability that is 0 in float32 has a finite loss


class ComparedRows(NamedTuple):
    """Of what they are the answers."""

    truth: Array
    clusters: Array | None  # rows of one number vary together
    are_groups: bool  # of --split-by


class Pair(NamedTuple):
    """The candidate and a version on the rows that neither was trained on."""

    version: int | None
    ours: float  # mean losses
    theirs: float
    rise: Array  # (units,) parts of the difference of both, one of every row, cluster or block of them
    num_rows: int
    too_few: str  # why they decide nothing; empty where they do

    def said(self, of: int) -> str:
        """Both losses, and on which of so many test rows."""
        known = f" ({of - self.num_rows} left out: it was trained on them)" if self.num_rows < of else ""
        ours, theirs = beside(self.ours, self.theirs), beside(self.theirs, self.ours)
        return f"{ours} against {theirs} of version {self.version} on {self.num_rows} test rows{known}"


def against_kept(
    ours: Measured, kept: Iterable[Measured], rows: ComparedRows, objective: Objective, bounds: Gates
) -> tuple[GateVerdict, ...]:
    """The mean loss against that of every kept version, if there is one; all by ``losses`` of rows.

    A rise refuses only when it is both large (beyond its margin) and real (``max_statistic``). A regression's margin
    has the allowance of the gate ``reference`` in it: of a target without noise all losses are those of rounding.
    """
    weights = objective.row_weights(rows.truth)
    units = np.arange(len(weights))
    if rows.clusters is not None:
        units = np.unique(rows.clusters, return_inverse=True)[1]
    units = units % BLOCKS
    everyone = [_paired(ours.output, each, weights, units, rows.are_groups) for each in kept]
    few = [f"{each.said(len(weights))}, {each.too_few}" for each in everyone if each.too_few]
    if not (pairs := [each for each in everyone if not each.too_few]):
        why, mean = "; ".join(few), float(np.average(ours.output, weights=weights))
        return (gates.judge("champion_loss", mean, detail=why),) if everyone else ()
    margins = np.full(len(pairs), bounds.max_nats_rise)
    if not objective.is_of_classes:
        theirs = np.array([each.theirs for each in pairs])
        margins = (bounds.max_error_rise - 1) * theirs + objective.loss_of(bounds.max_standardised_error)
    found = max_statistic.rises(np.stack([each.rise for each in pairs]), margins)
    refused = found.beyond & (found.p < bounds.max_drop_p)
    worst = max(range(len(pairs)), key=lambda at: (refused[at], found.drop[at]))
    reason = found.reason(worst, "rise", margins[worst], bounds.max_drop_p)
    verdict = GateVerdict(
        name="champion_loss",
        value=pairs[worst].ours,
        maximum=None if found.beyond[worst] and not refused[worst] else float(pairs[worst].theirs + margins[worst]),
        passed=not refused[worst],
        detail="; ".join([f"{pairs[worst].said(len(weights))}, {reason}", *few]),
    )
    return (verdict,)


def _paired(ours: Array, version: Measured, weights: Array, units: Array, are_groups: bool) -> Pair:
    """``units`` ``(n,)`` number the clusters, whose rows vary together, or blocks of them."""
    counted = weights if version.is_new is None else weights * version.is_new
    shares, count = counted / (counted.sum() or 1), int(np.count_nonzero(counted))
    too_few = f"fewer than the {MIN_ROWS} that decide" if count < MIN_ROWS else ""
    if are_groups and (num_groups := np.count_nonzero(np.bincount(units, weights=counted))) < MIN_GROUPS:
        too_few = too_few or f"of {num_groups} groups, fewer than the {MIN_GROUPS} that decide"
    return Pair(
        version=version.version,
        ours=float(shares @ ours),
        theirs=float(shares @ version.output),
        rise=np.bincount(units, weights=shares * (ours - version.output)),
        num_rows=count,
        too_few=too_few,
    )


def losses(output: Array, truth: Array, objective: Objective) -> Array:
    """What a version is compared by ``(n,)``, of its probabilities ``(n, classes)`` or predictions ``(n,)``."""
    if objective.is_of_classes:
        return objective.losses(np.log(np.maximum(output, SMALLEST)), truth)
    return objective.losses(output[:, None], truth)
