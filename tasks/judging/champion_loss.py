"""Own data's candidate against kept versions: by the loss of each test row, paired."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.judging import gates, max_statistic
from tasks.judging.candidate import Measured
from tasks.judging.objective import Objective
from tasks.parameters import Gates
from tasks.records import GateVerdict

Array = NDArray[Any]

MIN_ROWS = 200  # fewer, or fewer groups, decide nothing
MIN_GROUPS = 20
SMALLEST = np.finfo(np.float32).tiny  # a probability that is 0 in float32 has a finite loss


class ComparedRows(NamedTuple):
    """Of what they are the answers."""

    truth: Array
    clusters: Array | None  # rows of one number vary together
    are_groups: bool  # of --split-by


def against_kept(
    ours: Measured, kept: list[Measured], rows: ComparedRows, objective: Objective, bounds: Gates
) -> GateVerdict:
    """The mean loss against that of every kept version, of which there is one at least; all by ``losses`` of rows.

    A rise refuses only when it is both large (beyond its margin) and real (``max_statistic``). A regression's margin
    has the allowance of the gate ``reference`` in it: of a target without noise all losses are those of rounding.
    """
    weights = objective.row_weights(rows.truth)
    shares = weights / weights.sum()
    parts = [shares * each.output for each in (ours, *kept)]
    totals = np.array([each.sum() for each in parts])
    reference = _named(totals[1:], kept)
    if too_few := _too_few(rows):
        return gates.judge("champion_loss", totals[0], detail=f"{too_few} compare nothing with {reference}")
    margins = np.full(len(kept), bounds.max_nats_rise)
    if not objective.is_of_classes:
        margins = (bounds.max_error_rise - 1) * totals[1:] + objective.loss_of(bounds.max_standardised_error)
    found = max_statistic.rises(*_by_unit(parts, rows.clusters), margins)
    refused = found.beyond & (found.p < bounds.max_drop_p)
    worst = max(range(len(kept)), key=lambda at: (refused[at], found.drop[at]))
    reason = found.reason(worst, "rise", margins[worst], bounds.max_drop_p)
    return GateVerdict(
        name="champion_loss",
        value=float(totals[0]),
        maximum=None if found.beyond[worst] and not refused[worst] else float(totals[1 + worst] + margins[worst]),
        passed=not refused[worst],
        detail=f"{totals[0]:.5g} against {totals[1 + worst]:.5g} of version {kept[worst].version}, {reason}",
    )


def losses(output: Array, truth: Array, objective: Objective) -> Array:
    """What a version is compared by ``(n,)``, of its probabilities ``(n, classes)`` or predictions ``(n,)``."""
    if objective.is_of_classes:
        return objective.losses(np.log(np.maximum(output, SMALLEST)), truth)
    return objective.losses(output[:, None], truth)


def _named(totals: Array, kept: list[Measured]) -> str:
    return ", ".join(f"{total:.5g} of version {each.version}" for total, each in zip(totals, kept, strict=True))


def _too_few(rows: ComparedRows) -> str:
    """Why nothing is compared; empty where it is."""
    if len(rows.truth) < MIN_ROWS:
        return f"{len(rows.truth)} test rows, fewer than {MIN_ROWS},"
    if rows.are_groups and rows.clusters is not None and (count := len(np.unique(rows.clusters))) < MIN_GROUPS:
        return f"{count} groups, fewer than {MIN_GROUPS},"
    return ""


def _by_unit(losses: list[Array], clusters: Array | None) -> tuple[Array, Array]:
    """The candidate's shares of its mean loss ``(units,)`` and the versions' ``(versions, units)``."""
    if clusters is not None:
        _, numbers = np.unique(clusters, return_inverse=True)
        losses = [np.bincount(numbers, weights=each) for each in losses]
    return losses[0], np.stack(losses[1:])
