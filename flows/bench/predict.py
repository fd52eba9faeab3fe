"""Batch prediction beside a bare onnxruntime loop, bare calls that do the whole job, and the book's way."""

import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors.numpy

from flows.bench import measure, predict_floor
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
FLOOR, FLOOR_OF_LABELS = "floor: file to Parquet", "floor: labels only"
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
    manifest = reading.manifest(name, number)
    pool = safetensors.numpy.load(verified.read(manifest.dataset.test))["images"]
    artifact_paths.all_predictions().mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=artifact_paths.root()) as folder,
        tempfile.TemporaryDirectory(prefix="bench-", dir=artifact_paths.all_predictions()) as output,
    ):
        job = PredictParameters(
            input=str(Path(folder) / "rows.npy"), name=name, output=output, restart=True, device=Device.CPU
        )
        _write_rows(job, pool, rows)
        images = np.load(str(job.input))[: rows // 4]  # in memory, and far larger than any cache
        sides = _speeds(num_rounds, model, images, pool, job, list(manifest.dataset.class_names))
        memory = _memory(job, pool, rows)
    return Report(
        benchmark="predict",
        conditions=measure.conditions(PACKAGES, rows=rows, workers=cores.available(), device="cpu", **conditions),
        sides=[*sides.values(), *memory],
        ratios=_ratios(sides, memory, rows),
    )


def _ratios(sides: dict[str, Side], memory: list[Side], rows: int) -> list[measure.Ratio]:
    alone = _best(sides, "bare, ")
    flow, of_labels = (sides[f"flow: {what}"].best for what in ("file to Parquet", "labels only"))
    floor, floor_of_labels = sides[FLOOR].best, sides[FLOOR_OF_LABELS].best
    return [
        measure.at_least("flow over bare", flow / alone, 0.85),
        measure.at_least("flow over bare, labels only", of_labels / alone, 0.92),
        measure.at_least("floor over bare", floor / alone, 0.85),
        measure.at_least("floor over bare, labels only", floor_of_labels / alone, 0.92),
        measure.at_least("flow over floor", flow / floor, 0.8),
        measure.at_least("flow over floor, labels only", of_labels / floor_of_labels, 0.8),
        measure.at_most("all else in the flow, seconds", sides["flow: all else"].best, 2),
        measure.at_least("bare over default session options", alone / _best(sides, "default options, "), 1.3),
        measure.at_least("flow over the book's way", flow / sides["the book's way"].best, 50),
        measure.at_most(f"RssAnon of {2 * rows:,} rows over {rows // 4:,}", memory[1].best / memory[0].best, 1.05),
        measure.at_most(f"RssAnon of {2 * rows:,} rows, MiB", memory[1].best, 180),
        measure.at_least("all workers over 1", flow / sides["flow: 1 worker"].best, 0.85 * cores.available()),
    ]


def _best(sides: dict[str, Side], prefix: str) -> float:
    return max(side.best for name, side in sides.items() if name.startswith(prefix))


def _write_rows(job: PredictParameters, pool: Images, rows: int) -> None:
    """``rows`` real images, shuffled anew each time the pool runs out, into the job's input."""
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(str(job.input), "w+", np.uint8, (rows, *pool.shape[1:]))
    for start in range(0, rows, len(pool)):
        chosen = rng.permutation(len(pool))[: rows - start]
        file[start : start + len(chosen)] = pool[chosen]
    file.flush()


def _speeds(
    num_rounds: int, model: bytes, images: Images, pool: Images, job: PredictParameters, class_names: list[str]
) -> dict[str, Side]:
    """Images a second of every side; and the flow's seconds outside its shards."""
    rest: list[float] = []

    def flow(**others: int | str) -> float:
        elapsed, done = measure.timed(lambda: predict(job.model_copy(update=others)))
        if not others:
            rest.append(elapsed - done.seconds)
        return done.rows / done.seconds

    own = [sessions.open_session(model, Device.CPU) for _ in range(cores.available())]
    floor = functools.partial(predict_floor.rate, own, Path(str(job.input)), class_names)
    default = [onnxruntime.InferenceSession(model, providers=[sessions.CPU])]
    measured = measure.between(
        {f"bare, batch {batch}": bare(own, images, batch) for batch in OWN_BATCHES}
        | {f"default options, batch {batch}": bare(default, images, batch) for batch in DEFAULT_BATCHES}
        | {FLOOR: lambda: floor("all"), FLOOR_OF_LABELS: lambda: floor("label")}
        | {"flow: file to Parquet": flow, "flow: 1 worker": lambda: flow(workers=1)}
        | {"flow: labels only": lambda: flow(write="label")}
        | {"the book's way": book(model, pool)},
        {},
        "images/s",
        num_rounds,
        max,
    )
    return measured | measure.sides({"flow: all else": rest}, "s", note="start, plan, check")


def _memory(job: PredictParameters, pool: Images, rows: int) -> list[Side]:
    """Peak anonymous memory of a process that predicts a few rows and one that predicts eight times as many."""
    places = (str(job.input), "--output", str(job.output))
    command = ["predict", *places, "--restart", "--device", "cpu", "--name", job.name]
    peaks = {}
    for size in (rows // 4, 2 * rows):
        _write_rows(job, pool, size)
        peaks[f"peak RssAnon, {size:,} rows"] = [_peak_anonymous(command)]
    return list(measure.sides(peaks, "MiB").values())


def _peak_anonymous(arguments: list[str]) -> float:
    """The largest RssAnon seen of a ``gradmill`` process, in MiB, looked at every 5 ms."""
    peak = 0.0
    command, pipe = [sys.executable, "-m", "flows", *arguments], subprocess.PIPE  # what it shows is not ours to show
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe, text=True) as process:
        while process.poll() is None:
            peak = max(peak, measure.memory("RssAnon", process.pid))
            time.sleep(0.005)
        said = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise RuntimeError(f"gradmill {' '.join(arguments)} ended with {process.returncode}: {said}")
    return peak
