"""Batch prediction of a table from Parquet beside a bare onnxruntime loop over an array in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
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
BATCHES = (1024, 4096, 8192, 16384)
REPEATED = 4
ROW_GROUP_BYTES = 2**24
FLOW = "flow: Parquet to Parquet"


def speeds(folder: Path, csv: Path, large: Path, num_rounds: int) -> dict[str, Side]:
    """Rows a second of a model that is trained on ``csv``, in a store of its own in ``folder``, and predicts ``large``.

    The bare loop has the training rows, again and again, so that they are far more than any cache holds.
    """
    store = folder / "store"
    data = ("--data", str(csv), "--target", flights.TARGET, "--split-column", flights.SPLIT)
    _gradmill(store, "retrain", "softmax-regression", "--name", NAME, *data, "--no-predict")
    parquet = _as_parquet(large)
    model = (store / "models" / NAME / "1" / "model.onnx").read_bytes()
    (train,) = (store / "datasets" / NAME).glob("train.*.safetensors")
    rows = np.tile(safetensors.numpy.load_file(train)[FEATURES], (REPEATED, 1))
    own = [sessions.open_session(model, Device.CPU) for _ in range(cores.available())]

    def flow() -> float:
        done = _gradmill(store, "predict", str(parquet), "--name", NAME, "--restart")
        return float(done["rows"] / done["seconds"])

    sides = {f"bare onnxruntime, batch {batch}": bare(own, rows, batch, FEATURES) for batch in BATCHES}
    return measure.between({**sides, FLOW: flow}, {}, "rows/s", num_rounds, max)


def _as_parquet(csv: Path) -> Path:
    """The features of ``csv``."""
    parquet = csv.with_suffix(".parquet")
    features = pyarrow.csv.ConvertOptions(include_columns=[*flights.CATEGORIES, *flights.NUMBERS])
    blocks = pyarrow.csv.ReadOptions(block_size=ROW_GROUP_BYTES)
    with (
        pyarrow.csv.open_csv(csv, blocks, convert_options=features) as reader,
        pq.ParquetWriter(parquet, reader.schema) as file,
    ):
        for batch in reader:
            file.write_batch(batch)
    return parquet


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
