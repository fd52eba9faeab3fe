"""Batch prediction of images beside bare onnxruntime in memory."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.measure import CORES, Checkout, Report, Sample, Setup, at_least, timed
from benchmarks.train import read_splits

NAME = "softmax-regression"
BATCHES = (512, 1024, 2048)
OPTIONS = {"file to Parquet": [], "labels only": ["--write", "label"], "1 worker": ["--workers", "1"]}
ROUNDS = 5


def bench(setup: Setup) -> Report:
    """Predict 4 million images; a tenth of them if it is to be quick."""
    rows = 400_000 if setup.quick else 4_000_000
    images = read_splits(setup.checkouts[0].store)[1][0].numpy()
    file = _write_rows(setup.folder / "rows.npy", images, rows)
    for checkout in setup.checkouts:
        checkout.gradmill(["retrain", NAME, "--device", "cpu", "--no-predict"])
    model = setup.checkouts[0].store / "models" / NAME / "1" / "model.onnx"
    some = np.load(file)[: rows // 4]  # in memory, and far larger than any cache
    works = {f"bare, batch {batch}": partial(run_bare, model, some, batch) for batch in BATCHES}
    for checkout in setup.checkouts:
        for name, options in OPTIONS.items():
            works[f"{checkout.name}, {name}"] = partial(predict_ours, checkout, [str(file), "--name", NAME, *options])
    sides = setup.measure(works, "images/s", ROUNDS)
    bare = max(sides[f"bare, batch {batch}"].best for batch in BATCHES)
    flow, of_labels, of_one = (sides[f"ours, {name}"].best for name in OPTIONS)
    ratios = [
        at_least("flow over bare", flow / bare, 0.85),
        at_least("flow over bare, labels only", of_labels / bare, 0.92),
        at_least("all workers over 1", flow / of_one, 0.85 * CORES),
    ]
    return setup.report("predict", sides, ratios, rows=rows, workers=CORES)


def _write_rows(path: Path, images: NDArray[np.uint8], rows: int) -> Path:
    """``rows`` real images, shuffled anew each time they run out."""
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(str(path), "w+", np.uint8, (rows, *images.shape[1:]))
    for start in range(0, rows, len(images)):
        part = file[start : start + len(images)]
        part[:] = images[rng.permutation(len(images))[: len(part)]]
    file.flush()
    return path


def predict_ours(checkout: Checkout, arguments: list[str]) -> Sample:
    """Rows a second of the command, from the file on disk to its parts on disk, without its start."""
    (run,) = checkout.gradmill(["predict", *arguments, "--device", "cpu", "--restart"])
    done = run.stages["predict"]
    return Sample(done["rows"] / done["seconds"])


def run_bare(model: Path, rows: NDArray[Any], batch: int) -> Sample:
    """Rows a second of a loop with nothing but ``session.run`` on rows in memory, a session of one thread a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"]) for _ in range(CORES)]

    def run(session: Any, share: NDArray[Any]) -> None:
        for start in range(0, len(share), batch):
            session.run(None, {session.get_inputs()[0].name: share[start : start + batch]})

    with ThreadPoolExecutor(CORES) as pool:
        seconds, _ = timed(lambda: list(pool.map(run, sessions, np.array_split(rows, CORES))))
    return Sample(len(rows) / seconds)
