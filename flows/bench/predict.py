"""Batch prediction beside a bare onnxruntime loop, default session options, and the book's way."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors.numpy

from flows.bench import measure
from flows.bench.measure import Report, Side
from flows.bench.predict_peers import Images, bare, book
from flows.predict import predict
from tasks.machine import cores
from tasks.parameters import Device, ModelName, PredictParameters
from tasks.serving import sessions
from tasks.store import artifact_paths, reading, verified

NAME = ModelName.SOFTMAX_REGRESSION.value
PACKAGES = ("gradmill", "numpy", "onnxruntime", "onnxruntime-gpu", "prefect", "pyarrow", "torch", "torchvision")
OWN_BATCHES = (512, 1024, 2048)
DEFAULT_BATCHES = (256, 1024, 4096, 16384)


def bench(quick: bool) -> Report:
    """Measure everything; ``quick`` takes a tenth of the rows and fewer rounds.

    Raises:
        UsageError: there is no softmax regression to predict with.
    """
    return measured(NAME, *((400_000, 2) if quick else (4_000_000, 5)), quick=quick)


def measured(name: str, rows: int, num_rounds: int, **conditions: bool) -> Report:
    """Measure with the champion of softmax regression that is kept under ``name``.

    Raises:
        UsageError: there is none.
    """
    number, model = reading.load(name, None)
    pool = safetensors.numpy.load(verified.read(reading.manifest(name, number).dataset.test))["images"]
    artifact_paths.all_predictions().mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=artifact_paths.root()) as folder,
        tempfile.TemporaryDirectory(prefix="bench-", dir=artifact_paths.all_predictions()) as predictions,
    ):
        file, output = Path(folder) / "rows.npy", Path(predictions)
        _write_rows(file, pool, rows)
        images = np.load(file)[: rows // 4]  # in memory, and far larger than any cache
        sides = _speeds(num_rounds, model, images, pool, _Flow(name, file, output))
        memory = _memory(name, file, pool, output, rows)
    return Report(
        benchmark="predict",
        conditions=measure.conditions(PACKAGES, rows=rows, workers=cores.available(), device="cpu", **conditions),
        sides=[*sides.values(), *memory],
        ratios=_ratios(sides, memory, rows),
    )


def _ratios(sides: dict[str, Side], memory: list[Side], rows: int) -> list[measure.Ratio]:
    alone = _best(sides, "bare, ")
    flow = sides["flow: file to Parquet"].best
    return [
        measure.at_least("flow over bare", flow / alone, 0.6),
        measure.at_most("all else in the flow, seconds", sides["flow: all else"].best, 2),
        measure.at_least("bare over default session options", alone / _best(sides, "default options, "), 1.3),
        measure.at_least("flow over the book's way", flow / sides["the book's way"].best, 50),
        measure.at_most(f"RssAnon of {2 * rows:,} rows over {rows // 4:,}", memory[1].best / memory[0].best, 1.1),
        measure.at_least("all workers over 1", flow / sides["flow: 1 worker"].best, 0.85 * cores.available()),
    ]


def _best(sides: dict[str, Side], prefix: str) -> float:
    return max(side.best for name, side in sides.items() if name.startswith(prefix))


def _write_rows(path: Path, pool: Images, rows: int) -> None:
    """``rows`` real images, shuffled anew each time the pool runs out."""
    rng = np.random.default_rng(0)
    target = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, *pool.shape[1:]))
    for start in range(0, rows, len(pool)):
        chosen = rng.permutation(len(pool))[: rows - start]
        target[start : start + len(chosen)] = pool[chosen]
    target.flush()


def _speeds(num_rounds: int, model: bytes, images: Images, pool: Images, flow: "_Flow") -> dict[str, Side]:
    """Images a second of every side; and the flow's seconds outside its shards."""
    sides: dict[str, Callable[[], float]] = {}
    opened = [sessions.open_session(model, Device.CPU) for _ in range(cores.available())]
    for batch in OWN_BATCHES:
        sides[f"bare, batch {batch}"] = bare(opened, images, batch)
    default = [onnxruntime.InferenceSession(model, providers=[sessions.CPU])]
    for batch in DEFAULT_BATCHES:
        sides[f"default options, batch {batch}"] = bare(default, images, batch)
    sides["flow: file to Parquet"] = lambda: flow.rate(None)
    sides["flow: 1 worker"] = lambda: flow.rate(1)
    sides["the book's way"] = book(model, pool)
    measured = measure.rounds(num_rounds, sides, "images/s", max)
    rest = Side(name="flow: all else", unit="s", figures=flow.rest, best=min(flow.rest), note="start, plan, check")
    return measured | {rest.name: rest}


class _Flow:
    """The real flow on a Prefect API, from a file on disk to Parquet on disk."""

    def __init__(self, name: str, file: Path, output: Path) -> None:
        self._name, self._file, self._output = name, file, output
        self.rest: list[float] = []

    def rate(self, workers: int | None) -> float:
        parameters = PredictParameters(
            input=str(self._file),
            name=self._name,
            output=str(self._output),
            restart=True,
            device=Device.CPU,
            workers=workers,
        )
        started = time.perf_counter()
        done = predict(parameters)
        if workers is None:
            self.rest.append(time.perf_counter() - started - done.seconds)
        return done.rows / done.seconds


def _memory(name: str, file: Path, pool: Images, output: Path, rows: int) -> list[Side]:
    """Peak anonymous memory of a process that predicts a few rows and one that predicts eight times as many."""
    sides = []
    for size in (rows // 4, 2 * rows):
        _write_rows(file, pool, size)
        peak = _peak_anonymous(
            ["predict", str(file), "--output", str(output), "--restart", "--device", "cpu", "--name", name]
        )
        sides.append(Side(name=f"peak RssAnon, {size:,} rows", unit="MiB", figures=[peak], best=peak))
    return sides


def _peak_anonymous(arguments: list[str]) -> float:
    """The largest RssAnon seen of a ``gradmill`` process, in MiB, looked at every 5 ms."""
    peak = 0
    with subprocess.Popen([sys.executable, "-m", "flows", *arguments], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]))
            time.sleep(0.005)
    if process.returncode:
        raise RuntimeError(f"gradmill {' '.join(arguments)} ended with {process.returncode}")
    return peak / 1024
