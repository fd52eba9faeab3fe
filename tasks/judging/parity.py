"""Whether the exported file is right: it answers as the trained weights do, and a fresh process can serve it."""

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.prepared_splits import BATCH_ROWS, read_batches, read_split
from tasks.data.recipe import Recipe
from tasks.errors import DataError
from tasks.judging import gates
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize, quote_value
from tasks.parameters import Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import drift, raw_units, runtime
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES
from tasks.serving.drift import Histogram
from tasks.serving.task import TASKS
from tasks.store.record_base import FileRef

SCORES = 2**22  # of many classes, that are compared at a time: 16 MB
IN_FLOAT64 = 10  # times the error allowed in float32: float32 rounds raw rows before anything is computed from them
SMALL_OFFSET = 10  # deviations of a column: an offset that costs float32 one digit
LARGE_WEIGHT = 100  # of a standardised column: target deviations, or logits
# The probe's code as this process knows it: newer code, put there during a run, might wait for what is never sent.
PROBE = Path(__file__).with_name("probe.py").read_text()
TIMEOUT_SECONDS = 120
CHECKED = "signature, stored sample, batches of 1 and 1,000 in a fresh process"
LIMITED = {"latency_ms": "95th percentile, one row", "memory_mb": "peak of the serving process"}
MOST_COARSE = 1e-3  # deviations of a target, that rounding to float32 may take
ERROR_SHARE = 1e-3  # of the root mean squared error on the test split: nobody notices a difference of that size


def judge_parity(
    name: str,
    pieces: Iterable[tuple[Mapping[str, Array], Array, Array]],
    max_error: float,
    deviation: float,
    error_share: float = 0.0,
    detail: str = "",
    blame: str = "",
) -> tuple[GateVerdict, ...]:
    """The gate ``name``, for labels one more, on pieces of answers ``(n, …)``, scores ``(n, outputs)``, truth ``(n,)``.

    Predictions may differ by ``max_error`` times ``deviation``, the target's, plus two spacings of float32 at the
    largest prediction. The spacings leave room for a target that never changes. If the target does change, they may be
    no more than ``MOST_COARSE`` deviations: where float32 cannot distinguish its values better than that, the model is
    useless. If ``error_share`` of the model's own root mean squared error is more, predictions may differ by that.

    Probabilities may differ by ``max_error + 0.1·max_error·max|score|``, and labels must be equal unless the two best
    probabilities are closer than that. ``detail`` is printed if the gate passes, ``blame`` if it does not.
    """
    error, largest, smallest, num_rows, squares = 0.0, 0.0, math.inf, 0, 0.0
    leads = list[Array]()  # of the best over the second-best probability, where labels differ
    for found, o, y_true in pieces:
        if LABEL in found:
            powers = np.exp(o - o.max(axis=1, keepdims=True))
            expected, answer = powers / powers.sum(axis=1, keepdims=True), found[PROBABILITIES]
            second, best = np.partition(expected, -2, axis=1)[:, -2:].T
            leads.append((best - second)[found[LABEL] != expected.argmax(axis=1)])
        else:
            expected, answer = o.squeeze(1), found[PREDICTION]
            squares += float(np.square(expected - y_true, dtype=np.float64).sum())
        # Unlike max(), these keep NaN, which no gate passes.
        error = float(np.maximum(error, np.abs(answer - expected).max()))
        largest, smallest = float(np.maximum(largest, np.abs(o).max())), float(np.minimum(smallest, np.abs(o).min()))
        num_rows += len(o)
    what, tolerance, further = "probabilities", max_error + 0.1 * max_error * largest, list[GateVerdict]()
    if leads:
        flipped = sum(int((each > tolerance).sum()) for each in leads)
        said = "labels that differ, near ties aside"
        further = [gates.judge(f"{name}_labels", flipped, maximum=0, detail=said)]
    else:
        finest, coarsest = (float(np.spacing(np.float32(each))) for each in (smallest, largest))
        most = MOST_COARSE * deviation if deviation > 1e-12 * largest else math.inf  # otherwise it never changes
        of_rounding = max_error * deviation + min(2 * coarsest, most)
        what, tolerance = "predictions", max(of_rounding, error_share * math.sqrt(squares / num_rows))
        if 2 * finest > most:
            spacing = format_number(finest, 3)
            blame = f"; float32 can only distinguish predictions that are {spacing} apart: "
            blame += "subtract an offset from the target"
    said = detail if error <= tolerance or not blame else blame
    said = f"{what} of {pluralize(num_rows, 'row')}{said}"
    return (gates.judge(name, error, maximum=tolerance, detail=said), *further)


# The file's answers on every row of the test split


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity pass no gate
def compare_with_weights(
    session: Any, weights: raw_units.Weights, prepared: PreparedDataset, bounds: Gates
) -> tuple[tuple[GateVerdict, ...], dict[str, Histogram]]:
    """The gate ``parity``, by the trained weights in float32 on the same rows, and the profile of the answers."""
    task, recipe, observed = TASKS[prepared.task], prepared.recipe, list[dict[str, Array]]()

    def ask() -> Iterator[tuple[dict[str, Array], Array, Array]]:
        size = min(BATCH_ROWS, SCORES // max(1, len(prepared.class_names)))
        for rows in read_batches(prepared.test, prepared, size):
            answers = runtime.run_model(session, rows.inputs)
            observed.append(task.list_observed({name: values.T for name, values in answers.items()}))
            yield answers, raw_units.score_rows(weights, recipe, rows.inputs, np.float32), rows.y_true

    if recipe.target:
        deviation = recipe.target.scale
    else:
        deviation = float(read_split(prepared.test, prepared).y_true.std(ddof=1, dtype="float64"))
    verdicts = judge_parity("parity", ask(), bounds.max_parity_error, deviation, ERROR_SHARE)
    profile = {name: np.concatenate([each[name] for each in observed]) for name in observed[0]}
    return verdicts, drift.make_profile(profile, len(prepared.class_names))


@np.errstate(over="ignore", invalid="ignore")
def compare_in_float64(
    session: Any, weights: raw_units.Weights, prepared: PreparedDataset, bounds: Gates
) -> tuple[GateVerdict, ...]:
    """The gate ``parity_float64`` for tables: recipe and weights in float64 on the same rows, without any rounding.

    Where it refuses, it names the column that loses most.
    """
    recipe = prepared.recipe
    if recipe.is_plain:  # rows go into the model unchanged: nothing is rounded
        return ()
    exact = raw_units.fold_weights(weights, recipe, np.float64)
    pieces = (
        (
            runtime.run_model(session, recipe.encode(inputs)),
            raw_units.score_table(exact, recipe, inputs.astype(np.float64)),
            y_true,
        )
        for inputs, y_true, _ in read_batches(prepared.raw_test, prepared)
    )
    blame = _blame_column(weights, recipe, exact) if recipe.numbers else ""
    said, max_error = ", the recipe applied in float64", IN_FLOAT64 * bounds.max_parity_error
    deviation = recipe.target_scaling.scale
    return judge_parity("parity_float64", pieces, max_error, deviation, detail=said, blame=blame)


def _blame_column(weights: raw_units.Weights, recipe: Recipe, exact: raw_units.FoldedWeights) -> str:
    """The column that loses most in float32, by its largest values and its weight, and what to do about it.

    If the column has no offset, a large weight means that others cancel it.
    """
    numbers = [recipe.columns[at] for at in recipe.numbers]
    largest = np.array([abs(each.mean or 0.0) + SMALL_OFFSET * each.scale for each in numbers], np.float32)
    steepest = np.abs(exact.W).max(axis=1)
    np.maximum.at(steepest, exact.segment_numbers, np.abs(exact.slopes).max(axis=1, initial=0.0))
    at = int((np.spacing(largest) * steepest).argmax())
    column, found = numbers[at], f"; column {numbers[at].name!r} loses most in float32"
    has_offset = abs(column.mean or 0.0) >= SMALL_OFFSET * column.scale
    if not has_offset and np.abs(weights["W"][at]).max() > LARGE_WEIGHT:
        return (
            f"{found}, nearly determined by other columns: leave one of them out with --ignore, or use --weight-decay"
        )
    return f"{found}: subtract an offset, change its unit, or leave it out with --ignore {quote_value(column.name)}"


# A fresh process that uses none of our code


@contextmanager
def start_fresh_process() -> Iterator["subprocess.Popen[str]"]:
    """The process that will serve the file: it imports onnxruntime while the block runs, and ends with the block."""
    command = [sys.executable, "-I", "-c", PROBE]  # -I: neither this folder nor PYTHON* variables
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def judge_servability(
    process: "subprocess.Popen[str]", model: FileRef, metadata: Path, sample: Path, bounds: Gates, tolerance: float
) -> tuple[GateVerdict, ...]:
    """Run the probe in a fresh process; any fault refuses, but latency and memory only where a limit is set.

    ``tolerance`` is how far answers may differ from the sample's.

    Raises:
        DataError: the probe found other bytes in the file than those that were exported.
    """
    asked = json.dumps([str(model.path), model.sha256, str(metadata), str(sample), tolerance])
    found: dict[str, Any]
    try:
        answer, said = process.communicate(asked, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        found = {"faults": [f"no answer within {TIMEOUT_SECONDS} s"]}
    else:
        last = said.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        found = {"faults": last} if process.returncode else json.loads(answer)
    if (changed := found.get("sha256", model.sha256)) != model.sha256:
        raise DataError(f"{model.path} has changed: {changed}", f"SHA-256 {model.sha256}", "gradmill retrain")
    said = "; ".join(found["faults"]) or CHECKED
    verdicts = [gates.judge("servability", len(found["faults"]), maximum=0, detail=said)]
    for name, what in LIMITED.items() if "sha256" in found else ():
        verdicts.append(gates.judge(name, found[name], maximum=getattr(bounds, f"max_{name}"), detail=what))
    return tuple(verdicts)
