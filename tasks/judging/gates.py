"""Verdicts: a measured value against its bounds, and the refusal of a candidate that misses one."""

import math
from collections.abc import Collection, Sequence

from tasks.errors import GateFailed
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_names, tell_apart
from tasks.records import GateVerdict
from tasks.store.record_base import Record
from tasks.store.run_folder import RunFolder

SHOWN = 10  # columns that are listed
REMEDIES = {  # by gate
    "baseline": "see that inputs and target belong together in every row; get more rows, or inputs that tell more",
    "parity": "give --weight-decay, or leave out columns that others determine: large weights cancel badly in float32",
}


def judge(
    name: str,
    value: float,
    *,
    above: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    detail: str = "",
) -> GateVerdict:
    """Compare ``value`` with its bounds: ``above`` and ``below`` are strict, ``maximum`` is not; NaN never passes."""
    passed = (
        math.isfinite(value)
        and (above is None or value > above)
        and (below is None or value < below)
        and (maximum is None or value <= maximum)
    )
    bounds = [("more than", above), ("less than", below), ("at most", maximum)]
    required = " and ".join(f"{words} {tell_apart(bound, value)}" for words, bound in bounds if bound is not None)
    return GateVerdict(
        name=name,
        value=value,
        minimum=above,
        maximum=below if below is not None else maximum,
        passed=passed,
        detail=(f"{required} required" if required else "no bound") + (f" ({detail})" if detail else ""),
    )


def format_value(verdict: GateVerdict) -> str:
    """What was found, in words, with enough digits to be told from its bounds."""
    return tell_apart(verdict.value, verdict.minimum, verdict.maximum)


def raise_if_failed(
    record: Record,
    verdicts: tuple[GateVerdict, ...],
    run: RunFolder,
    left_out: Collection[str] = (),
    extremes: Sequence[str] = (),
) -> None:
    """Print every verdict, and refuse the candidate if any of them did not pass.

    ``left_out`` are columns that were automatically excluded from the features, and ``extremes`` describe test rows far
    beyond the training rows: they may explain what the model misses.

    Raises:
        GateFailed: it carries ``record``, which the stage would have returned.
    """
    failed = [verdict for verdict in verdicts if not verdict.passed]
    short = f"refused by {', '.join(verdict.name for verdict in failed)}" if failed else ""
    for verdict in verdicts:
        print_message(f"gate {verdict.name} {verdict.verdict}: {format_value(verdict)}, {verdict.detail}", short=short)
    if not failed:
        return
    known = (REMEDIES[verdict.name] for verdict in failed if verdict.name in REMEDIES)
    remedy = next(known, "train longer or change the parameters")
    is_no_better = any(verdict.name == "baseline" for verdict in failed)
    if extremes and is_no_better:
        remedy = f"and mind that {extremes[0]}"
    if left_out and is_no_better:
        remedy += (
            f"; left out as dates or ids: {format_names(left_out, SHOWN)} (--category takes them under a new --name)"
        )
    refusal = GateFailed(
        "refused by " + "; ".join(f"{verdict.name} {format_value(verdict)}" for verdict in failed),
        "; ".join(f"{verdict.name}: {verdict.detail}" for verdict in failed),
        f"nothing was published; see the evidence in {run.path}, {remedy}",
    )
    refusal.record = record
    raise refusal
