"""Whether the exported file is right: it answers as the trained weights do, and a fresh process can serve it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.prepared_splits import BATCH_ROWS, read_batches
from tasks.data.recipe import Columns
from tasks.errors import DataError
from tasks.judging import gates
from tasks.machine.arrays import Array
from tasks.machine.words import counted, readable
from tasks.parameters import Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import drift, raw_units, runtime
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES
from tasks.serving.drift import Histogram
from tasks.serving.runtime import TOLERANCE
from tasks.serving.task import TASKS
from tasks.store.record import FileRef

Weights = Mapping[str, NDArray[np.float32]]
SCORES = 2**22  # that are compared at a time, of many classes: 16 MB
IN_FLOAT64 = 10  # times the error that torch is allowed: float32 rounds raw rows before anything is computed of them
SMALL_OFFSET = 10  # deviations of a column, which cost float32 one digit
LARGE_WEIGHT = 100  # of a standardised column: target deviations, or logits
# Its code as this process knows it: a newer one, written there under a run, might wait for what is never sent.
PROBE = Path(__file__).with_name("probe.py").read_text()
TIMEOUT_SECONDS = 120
MOST_COARSE = 1e-3  # deviations of a target, that rounding to float32 may take


class Parity:
    """Answers of the file beside what they should be, piece by piece.

    Predictions may differ by ``max_error`` deviations, and by two spacings of float32 at the largest prediction. The
    spacings leave room for a target that never changes. Of one that does, they may be no more than ``MOST_COARSE``
    deviations: where float32 tells its values apart no better, the model is of no use.

    Probabilities may differ by ``max_error + 0.1·max_error·max|score|``, and labels must be equal unless the two best
    probabilities are closer than that.
    """

    def __init__(self) -> None:
        self.error = self.largest = 0.0  # of answers, and among scores
        self.smallest = np.inf
        self.num_rows = 0
        self.leads: list[Array] = []  # of the best over the second best probability, where labels differ

    def add(self, found: Mapping[str, Array], o: Array) -> None:
        """A piece's answers ``(n, …)`` beside its scores ``o`` ``(n, outputs)``."""
        if LABEL in found:
            powers = np.exp(o - o.max(axis=1, keepdims=True))
            expected, answer = powers / powers.sum(axis=1, keepdims=True), found[PROBABILITIES]
            second, best = np.partition(expected, -2, axis=1)[:, -2:].T
            self.leads.append((best - second)[found[LABEL] != expected.argmax(axis=1)])
        else:
            expected, answer = o.squeeze(1), found[PREDICTION]
        # Unlike max(), these keep NaN, which no gate passes.
        self.error = float(np.maximum(self.error, np.abs(answer - expected).max()))
        self.largest = float(np.maximum(self.largest, np.abs(o).max()))
        self.smallest = float(np.minimum(self.smallest, np.abs(o).min()))
        self.num_rows += len(o)

    def judge(self, name: str, max_error: float, deviation: float, detail: str = "") -> tuple[GateVerdict, ...]:
        """The gate ``name``, and of labels another; ``deviation`` is that of a number to be predicted."""
        rows = counted(self.num_rows, "row")
        if self.leads:
            tolerance = max_error + 0.1 * max_error * self.largest
            flipped = sum(int((leads > tolerance).sum()) for leads in self.leads)
            return (
                gates.judge(name, self.error, maximum=tolerance, detail=f"probabilities of {rows}{detail}"),
                gates.judge(f"{name}_labels", flipped, maximum=0, detail="labels that differ, near ties aside"),
            )
        finest, coarsest = (float(np.spacing(np.float32(each))) for each in (self.smallest, self.largest))
        most = MOST_COARSE * deviation if deviation > 1e-12 * self.largest else np.inf  # else it never changes
        tolerance = max_error * deviation + min(2 * coarsest, most)
        if self.error > tolerance and 2 * finest > most:
            spacing = readable(finest, 3)
            detail = f"; float32 tells predictions apart by {spacing} only: subtract an offset from the target"
        return (gates.judge(name, self.error, maximum=tolerance, detail=f"predictions of {rows}{detail}"),)


# The file asked for every row of the test split


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity pass no gate
def compare_with_torch(
    session: Any, weights: Weights, prepared: PreparedDataset, bounds: Gates
) -> tuple[tuple[GateVerdict, ...], dict[str, Histogram]]:
    """The gate ``parity``: torch on the same float32 rows; and the profile of the answers."""
    from tasks.fitting import served  # torch: whoever imports the rest needs none

    task, parity = TASKS[prepared.task], Parity()
    truth, watched, num_levels = [], [], {}
    size = min(BATCH_ROWS, SCORES // max(1, len(prepared.class_names)))
    for rows in read_batches(prepared.test, prepared, size):
        answers = runtime.run_model(session, rows.inputs)
        parity.add(answers, served.scores(weights, prepared.recipe, rows.inputs))
        outputs = {name: values.T for name, values in answers.items()}
        truth.append(rows.y_true)
        watched.append(task.observed(outputs))
        num_levels = task.num_levels(outputs)
    observed = {name: np.concatenate([each[name] for each in watched]) for name in watched[0]}
    target = prepared.recipe.target  # an own table's recipe knows its deviation
    deviation = target.scale if target else float(np.concatenate(truth).std(ddof=1, dtype=np.float64))
    return parity.judge("parity", bounds.max_parity_error, deviation), drift.make_profile(observed, num_levels)


@np.errstate(over="ignore", invalid="ignore")
def compare_in_float64(
    session: Any, weights: Weights, prepared: PreparedDataset, bounds: Gates
) -> tuple[GateVerdict, ...]:
    """The gate ``parity_float64`` of tables: their recipe and weights in float64 on the raw rows, before any rounding.

    Where it refuses, it names the column that loses most.
    """
    recipe = prepared.recipe
    if not isinstance(recipe, Columns) or recipe.target is None:
        return ()
    exact, parity = raw_units.fold_weights(weights, recipe, np.float64), Parity()
    for rows in read_batches(prepared.raw_test, prepared):
        found = runtime.run_model(session, recipe.encode(rows.inputs))
        parity.add(found, raw_units.score_rows(exact, recipe, rows.inputs.astype(np.float64, copy=False)))
    asked, detail = (IN_FLOAT64 * bounds.max_parity_error, recipe.target.scale), ", the recipe applied in float64"
    verdicts = parity.judge("parity_float64", *asked, detail)
    if all(verdict.passed for verdict in verdicts) or not recipe.numbers:
        return verdicts
    return parity.judge(
        "parity_float64", *asked, _advise(weights, recipe, _find_worst_column(weights, prepared, recipe))
    )


def _advise(weights: Weights, recipe: Columns, at: int) -> str:
    """What to do about the number ``at``: of a column without an offset, a large weight says that others cancel it."""
    column = recipe.columns[recipe.numbers[at]]
    name, found = column.name, f"; column {column.name!r} loses most in float32"
    if abs(column.mean or 0.0) < SMALL_OFFSET * column.scale and np.abs(weights["W"][at]).max() > LARGE_WEIGHT:
        return f"{found}, nearly determined by other columns: --ignore one of them, or --weight-decay"
    return f"{found}: subtract an offset, change its unit, or --ignore {name!r}"


def _find_worst_column(weights: Weights, prepared: PreparedDataset, recipe: Columns) -> int:
    """The number, by its place among them, whose term of the largest score float32 changes most."""
    folded = [raw_units.fold_weights(weights, recipe, dtype) for dtype in (np.float32, np.float64)]
    output = np.abs(folded[1].W).argmax(axis=1)
    lost = np.zeros(len(recipe.numbers))
    for rows in read_batches(prepared.raw_test, prepared):
        raw = rows.inputs[:, list(recipe.numbers)]
        rough, exact = (
            (raw.astype(each.mean.dtype) - each.mean) * each.W[np.arange(len(output)), output] for each in folded
        )
        lost = np.maximum(lost, np.nan_to_num(np.abs(rough - exact), nan=0.0).max(axis=0))
    return int(lost.argmax())


# A fresh process without anything of ours


@contextmanager
def start_fresh_process() -> Iterator["subprocess.Popen[str]"]:
    """What will serve the file: it imports onnxruntime beside the block, and has ended when the block has."""
    command = [sys.executable, "-I", "-c", PROBE]  # -I: neither this folder nor PYTHON* variables
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def judge_servability(
    model: FileRef,
    metadata: Path,
    sample: Path,
    bounds: Gates,
    tolerance: float = TOLERANCE,
    begun: "subprocess.Popen[str] | None" = None,
) -> tuple[GateVerdict, ...]:
    """Run the probe; any fault refuses, latency and memory only where a limit is set.

    ``tolerance`` is what answers may differ by from the sample's; ``begun`` is a fresh process of before.

    Raises:
        DataError: what the probe found in the file are not the bytes that were exported.
    """
    asked = json.dumps([str(model.path), model.sha256, str(metadata), str(sample), tolerance])
    with nullcontext(begun) if begun else start_fresh_process() as process:
        try:
            answer, said = process.communicate(asked, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return (_judge_faults([f"no answer within {TIMEOUT_SECONDS} s"]),)
    if process.returncode:
        last = said.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        return (_judge_faults(last),)
    found = json.loads(answer)
    if found["sha256"] != model.sha256:
        raise DataError(f"{model.path} has changed: {found['sha256']}", f"SHA-256 {model.sha256}", "gradmill retrain")
    return (
        _judge_faults(found["faults"]),
        gates.judge(
            "latency_ms", found["latency_ms"], maximum=bounds.max_latency_ms, detail="95th percentile, one row"
        ),
        gates.judge("memory_mb", found["peak_mb"], maximum=bounds.max_memory_mb, detail="peak of the serving process"),
    )


def _judge_faults(faults: list[str]) -> GateVerdict:
    checked = "signature, stored sample, batches of 1 and 1,000 in a fresh process"
    return gates.judge("servability", len(faults), maximum=0, detail="; ".join(faults) or checked)
