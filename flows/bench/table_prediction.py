"""Batch prediction of a table from Parquet beside a bare onnxruntime loop over an array in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import safetensors.numpy

from flows.bench import flights, measure
from flows.bench.measure import Side
from flows.bench.predict_peers import bare
from tasks.machine import cores
from tasks.parameters import Device
from tasks.serving import sessions
from tasks.serving.contract import FEATURES

NAME = "bench-tables"
BATCHES = (512, 1024, 2048)
FLOW = "flow: Parquet to Parquet"


def speeds(folder: Path, csv: Path, num_rounds: int) -> dict[str, Side]:
    """Rows a second of a model of ``csv``, trained in a store of its own in ``folder``."""
    store = folder / "store"
    data = ("--data", str(csv), "--target", flights.TARGET, "--split-column", flights.SPLIT)
    _gradmill(store, "retrain", "softmax-regression", "--name", NAME, *data, "--no-predict")
    parquet = csv.with_suffix(".parquet")
    pq.write_table(pyarrow.csv.read_csv(csv).drop_columns([flights.TARGET, flights.SPLIT]), parquet)
    model = (store / "models" / NAME / "1" / "model.onnx").read_bytes()
    (train,) = (store / "datasets" / NAME).glob("train.*.safetensors")
    rows = safetensors.numpy.load_file(train)[FEATURES]
    own = [sessions.open_session(model, Device.CPU) for _ in range(cores.available())]

    def flow() -> float:
        done = _gradmill(store, "predict", str(parquet), "--name", NAME, "--restart")
        return float(done["rows"] / done["seconds"])

    sides = {f"bare onnxruntime, batch {batch}": bare(own, rows, batch, FEATURES) for batch in BATCHES}
    return measure.between({**sides, FLOW: flow}, {}, "rows/s", num_rounds, max)


def ratio(sides: dict[str, Side]) -> measure.Ratio:
    """The flow over the best of the others."""
    best = max(side.best for name, side in sides.items() if name != FLOW)
    return measure.at_least("prediction from Parquet over bare onnxruntime in memory", sides[FLOW].best / best, 0.5)


def _gradmill(store: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints."""
    command = [sys.executable, "-m", "flows", *arguments, "--device", "cpu", "--json"]
    environment = {**os.environ, "GRADMILL_ARTIFACTS": str(store)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"gradmill {' '.join(arguments)} ended with {done.returncode}: {done.stdout[-1000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document
