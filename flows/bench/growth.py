"""How training grows: seconds of an epoch against the size of the data and of a batch, and the memory it takes.

Run as ``python -m flows.bench.growth DATASET`` it trains, and prints its peak memory beyond what the imports took.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure

from flows.bench import measure
from flows.bench.measure import Side
from flows.bench.peers import NUM_EPOCHS
from tasks.fitting.building import build
from tasks.fitting.devices import one_thread
from tasks.fitting.learning import Parts, epochs, parts
from tasks.judging import figures
from tasks.networks.examples import Split
from tasks.networks.training import Measured
from tasks.parameters import Implementation, SoftmaxTraining
from tasks.records import PreparedDataset

CPU = torch.device("cpu")


def trained(prepared: PreparedDataset, data: Parts[Split], training: SoftmaxTraining) -> Iterator[Measured]:
    """Train on the CPU, an epoch for every item taken."""
    generator = torch.Generator().manual_seed(0)
    return epochs(*build(training, prepared, generator, CPU), data, training, generator)


def growth(prepared: PreparedDataset, data: Parts[Split]) -> dict[str, Side]:
    """Seconds of one epoch (best of three) against the size of the data, by repetition, and the batch size."""
    split, taken = data.train, {}
    for factor in (1, 2, 4, 8):
        larger = Split(split.X.repeat(factor, 1, 1), split.y.repeat(factor), split.scale)
        taken[f"{factor} x data"] = _seconds_of_epochs(prepared, data._replace(train=larger))
    for batch_size in (64, 256, 1024, 4096):
        taken[f"batch size {batch_size}"] = _seconds_of_epochs(prepared, data, batch_size=batch_size)
    return measure.sides(taken, "s/epoch")


def _seconds_of_epochs(
    prepared: PreparedDataset, data: Parts[Split], num_epochs: int = 3, **training: int
) -> list[float]:
    scratch = SoftmaxTraining(implementation=Implementation.SCRATCH, num_epochs=num_epochs, **training)
    with one_thread():
        each = trained(prepared, data, scratch)
        return [measure.seconds(lambda: next(each)) for _ in range(num_epochs)]


def peak_memory(prepared: PreparedDataset) -> Side:
    """Peak memory of a process that trains, beyond what its imports took."""
    command = [sys.executable, "-m", "flows.bench.growth", prepared.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    name = "peak memory beyond imports"
    return measure.sides({name: [float(done.stdout)]}, "MiB")[name]


def main(document: str) -> None:
    """Print the peak memory of two epochs in MiB."""
    before = measure.memory("VmHWM")
    prepared = PreparedDataset.model_validate_json(document)
    _seconds_of_epochs(prepared, parts(prepared, 0, torch.Generator(), CPU), num_epochs=2)
    print(measure.memory("VmHWM") - before)


def draw(sides: dict[str, Side], grown: dict[str, Side], path: Path) -> None:
    """A bar for every side, and one epoch's time against data and batch size."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    bars, data, batches = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    ordered = sorted(sides.values(), key=lambda side: side.best)
    labels = bars.barh([side.name for side in ordered], [side.best for side in ordered])
    bars.bar_label(labels, fmt="%.2f", padding=2)
    bars.set(xscale="log", xlabel=f"seconds, {NUM_EPOCHS} epochs", title="Softmax regression, Fashion-MNIST")
    bars.margins(x=0.25)
    for axes, prefix, label in ((data, "x data", "times Fashion-MNIST"), (batches, "batch size", "batch size")):
        points = {name: side.best for name, side in grown.items() if prefix in name}
        x = [int(name.replace(prefix, "")) for name in points]
        axes.plot(x, list(points.values()), "o-")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds an epoch")
        axes.set_xticks(x, [str(each) for each in x])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:.2g}")
        axes.set_yticks(list(points.values())) if prefix == "x data" else axes.set_yscale("linear")
        axes.grid(alpha=0.3)
    figures.save(figure, path)


if __name__ == "__main__":
    main(sys.argv[1])
