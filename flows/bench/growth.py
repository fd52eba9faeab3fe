"""How training grows: seconds of an epoch against the size of the data and of a batch, and the memory it takes."""

import subprocess
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from flows.bench import measure
from flows.bench.measure import Side
from flows.bench.peers import BATCH_SIZE, LR, NUM_EPOCHS
from tasks.fitting.building import build
from tasks.fitting.devices import one_thread
from tasks.judging import figures
from tasks.networks.training import Split
from tasks.networks.training import train as train_epochs
from tasks.parameters import Implementation, Training
from tasks.records import PreparedDataset

CPU = torch.device("cpu")


def growth(prepared: PreparedDataset, train_split: Split, test_split: Split) -> dict[str, Side]:
    """Seconds of one epoch (best of three) against the size of the data, by repetition, and the batch size."""
    sides = {}
    for factor in (1, 2, 4, 8):
        larger = Split(train_split.X.repeat(factor, 1, 1), train_split.y.repeat(factor), train_split.scale)
        sides[f"{factor} x data"] = _epoch(f"{factor} x data", prepared, larger, test_split, BATCH_SIZE)
    for batch_size in (64, 256, 1024, 4096):
        name = f"batch size {batch_size}"
        sides[name] = _epoch(name, prepared, train_split, test_split, batch_size)
    return sides


def _epoch(name: str, prepared: PreparedDataset, split: Split, test_split: Split, batch_size: int) -> Side:
    training, generator = Training(implementation=Implementation.SCRATCH), torch.Generator().manual_seed(0)
    with one_thread():
        net, optimizer = build(training, prepared, generator, CPU)
        epochs = train_epochs(net, optimizer, split, test_split, [LR] * 3, batch_size, generator)
        figures_of = [measure.seconds(lambda: next(epochs)) for _ in range(3)]
    return Side(name=name, unit="s/epoch", figures=figures_of, best=min(figures_of))


MEMORY_PROBE = """
import re, sys
from pathlib import Path
import torch
import tasks.train
from tasks.fitting import building, devices
from tasks.fitting.splits import load_split
from tasks.networks import training
from tasks.parameters import Training
from tasks.records import PreparedDataset


def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])


before = peak()
prepared = PreparedDataset.model_validate_json(sys.argv[1])
generator = torch.Generator().manual_seed(0)
with devices.one_thread():
    net, optimizer = building.build(Training(implementation="scratch"), prepared, generator, torch.device("cpu"))
    splits = [load_split(prepared, name) for name in ("train", "test")]
    list(training.train(net, optimizer, *splits, [0.1] * 2, 256, generator))
print(peak() - before)
"""


def peak_memory(prepared: PreparedDataset) -> Side:
    """Peak memory of a process that trains, beyond what its imports took."""
    command = [sys.executable, "-c", MEMORY_PROBE, prepared.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    mebibytes = int(done.stdout) / 1024
    return Side(name="peak memory beyond imports", unit="MiB", figures=[mebibytes], best=mebibytes)


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
