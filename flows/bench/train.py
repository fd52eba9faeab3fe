"""Training beside the book's own package, PyTorch Lightning, scikit-learn, and the limit of the arithmetic."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

from flows.bench import measure
from flows.bench.measure import Report, Side
from flows.bench.peers import (
    BATCH_SIZE,
    BOOK,
    BOOK_PLAIN,
    LIGHTNING,
    LIGHTNING_MEMORY,
    LR,
    NUM_EPOCHS,
    SKLEARN,
    peers,
    require_installed,
)
from tasks.download import download
from tasks.fitting.building import build
from tasks.fitting.devices import one_thread
from tasks.fitting.splits import load_split
from tasks.judging import figures
from tasks.networks.schedules import learning_rates
from tasks.networks.training import Split
from tasks.networks.training import train as train_epochs
from tasks.parameters import FASHION_MNIST, Data, Implementation, Training
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

PACKAGES = ("gradmill", "d2l", "lightning", "numpy", "scikit-learn", "torch", "torchvision")
CPU = torch.device("cpu")
SCRATCH, CONCISE, LIMIT = "ours, scratch", "ours, concise", "limit: two products, one gather"
TUNED = "ours, cosine schedule"
CANDIDATES = [(lr, num_epochs) for num_epochs in (12, 20) for lr in (0.5, 0.7)]
REPEATS = 3  # of ours before and after each peer
GOOD_ENOUGH = 0.002  # a difference in accuracy that counts as none
UINT8_BYTES = 60_000 * 784


def bench(quick: bool) -> Report:
    """Measure everything; ``quick`` leaves out the slow peers.

    Raises:
        UsageError: a peer is not installed.
    """
    if not quick:
        require_installed()
    run = RunFolder.open("bench-train", {})
    raw: RawDataset = download.__wrapped__(run, FASHION_MNIST)  # type: ignore[attr-defined]  # the stage's plain function
    prepared: PreparedDataset = preprocess.__wrapped__(run, raw, Data(), 0)  # type: ignore[attr-defined]
    train_split, test_split = load_split(prepared, "train"), load_split(prepared, "test")
    accuracy: dict[str, float] = {}
    fast: dict[str, Callable[[], float]] = {
        SCRATCH: _ours(prepared, train_split, test_split, Implementation.SCRATCH, accuracy),
        CONCISE: _ours(prepared, train_split, test_split, Implementation.CONCISE, accuracy),
        LIMIT: lambda: _limit(train_split),
    }
    slow: dict[str, Callable[[], float]] = {}
    if not quick:
        tuned = _choose(prepared, train_split)
        fast[TUNED] = _ours(prepared, train_split, test_split, Implementation.SCRATCH, accuracy, TUNED, *tuned)
        slow = peers(raw, train_split, test_split, accuracy)
    sides = measure.between(fast, slow, "s", REPEATS)
    for name, value in accuracy.items():
        sides[name].note = f"test accuracy {value:.4f}"
    memory = _memory(prepared)
    growth = _growth(prepared, train_split, test_split)
    _draw(sides, growth, artifact_paths.root() / "bench-train.png")
    return Report(
        benchmark="train",
        conditions=measure.conditions(
            PACKAGES, threads=1, num_epochs=NUM_EPOCHS, batch_size=BATCH_SIZE, lr=LR, device="cpu", quick=quick
        ),
        sides=[*sides.values(), memory, *growth.values()],
        ratios=_ratios(sides, memory, growth) + _peer_ratios(sides, list(slow)),
    )


def _ratios(sides: dict[str, Side], memory: Side, growth: dict[str, Side]) -> list[measure.Ratio]:
    limit = sides[LIMIT].best
    return [
        measure.at_most("scratch over the limit", sides[SCRATCH].best / limit, 2.5),
        measure.at_most("concise over the limit", sides[CONCISE].best / limit, 6),
        measure.at_most("peak memory over uint8 split", memory.best * 2**20 / UINT8_BYTES, 6),
        measure.at_most("8 x the data over 8 x the time", growth["8 x data"].best / growth["1 x data"].best / 8, 1.25),
    ]


def _peer_ratios(sides: dict[str, Side], slow: list[str]) -> list[measure.Ratio]:
    """What each peer took over what ours took around it."""
    wanted = {
        BOOK_PLAIN: ((SCRATCH, 35), (CONCISE, 17)),
        BOOK: ((SCRATCH, 80), (CONCISE, 38)),
        LIGHTNING: ((SCRATCH, 70), (CONCISE, 35)),
        LIGHTNING_MEMORY: ((SCRATCH, 25), (CONCISE, 14)),
        SKLEARN: ((TUNED, 10),),
    }
    return [
        measure.at_least(
            f"{peer} over {ours}", sides[peer].best / measure.around(sides[ours], position, REPEATS), ratio
        )
        for position, peer in enumerate(slow)
        for ours, ratio in wanted.get(peer, ())
    ]


# Ours, and the limit


def _ours(
    prepared: PreparedDataset,
    train_split: Split,
    test_split: Split,
    implementation: Implementation,
    accuracy: dict[str, float],
    name: str = "",
    lr: float = LR,
    num_epochs: int = NUM_EPOCHS,
    schedule: str = "constant",
) -> Callable[[], float]:
    """The loop of the stage ``train``, test split measured after every epoch as the book does."""
    training = Training(implementation=implementation, num_epochs=num_epochs, lr=lr)

    def run() -> float:
        generator = torch.Generator().manual_seed(0)
        with one_thread():
            net, optimizer = build(training, prepared, generator, CPU)
            rates = learning_rates(schedule, lr, num_epochs)
            epochs = train_epochs(net, optimizer, train_split, test_split, rates, BATCH_SIZE, generator)
            started = time.perf_counter()
            *_, last = epochs
            elapsed = time.perf_counter() - started
        accuracy[name or f"ours, {implementation.value}"] = last.test.get("accuracy", 0.0)
        return elapsed

    return run


def _choose(prepared: PreparedDataset, train_split: Split) -> tuple[float, int, str]:
    """The shortest of some cosine schedules that does as well as any on a tenth of the training split."""
    accuracy: dict[str, float] = {}
    fitted, validation = train_split.without(0.1, torch.Generator().manual_seed(0))
    for lr, num_epochs in CANDIDATES:
        name = f"{lr}, {num_epochs}"
        _ours(prepared, fitted, validation, Implementation.SCRATCH, accuracy, name, lr, num_epochs, "cosine")()
    enough = max(accuracy.values()) - GOOD_ENOUGH
    good = [each for each in CANDIDATES if accuracy[f"{each[0]}, {each[1]}"] >= enough]
    return (*min(good, key=lambda each: (each[1], -accuracy[f"{each[0]}, {each[1]}"])), "cosine")


def _limit(split: Split) -> float:
    """What no step can do without: a gather, a conversion, both products in their best orientation."""
    W, g, order = torch.zeros(10, 784), torch.zeros(BATCH_SIZE, 10), torch.randperm(len(split))  # noqa: N806
    with one_thread():
        started = time.perf_counter()
        for _ in range(NUM_EPOCHS):
            for index in order.split(BATCH_SIZE):
                X = split.X.index_select(0, index).to(torch.float32).flatten(1)  # noqa: N806
                W @ X.T
                g[: len(index)].T @ X
        return time.perf_counter() - started


# Growth and memory


def _growth(prepared: PreparedDataset, train_split: Split, test_split: Split) -> dict[str, Side]:
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
from tasks.fitting import building, devices, splits
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
    both = [splits.load_split(prepared, name) for name in ("train", "test")]
    list(training.train(net, optimizer, *both, [0.1] * 2, 256, generator))
print(peak() - before)
"""


def _memory(prepared: PreparedDataset) -> Side:
    """Peak memory of a process that trains, beyond what its imports took."""
    command = [sys.executable, "-c", MEMORY_PROBE, prepared.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    mebibytes = int(done.stdout) / 1024
    return Side(name="peak memory beyond imports", unit="MiB", figures=[mebibytes], best=mebibytes)


def _draw(sides: dict[str, Side], growth: dict[str, Side], path: Path) -> None:
    """A bar for every side, and one epoch's time against data and batch size."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    bars, data, batches = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    ordered = sorted(sides.values(), key=lambda side: side.best)
    labels = bars.barh([side.name for side in ordered], [side.best for side in ordered])
    bars.bar_label(labels, fmt="%.2f", padding=2)
    bars.set(xscale="log", xlabel=f"seconds, {NUM_EPOCHS} epochs", title="Softmax regression, Fashion-MNIST")
    bars.margins(x=0.25)
    for axes, prefix, label in ((data, "x data", "times Fashion-MNIST"), (batches, "batch size", "batch size")):
        points = {name: side.best for name, side in growth.items() if prefix in name}
        x = [int(name.replace(prefix, "")) for name in points]
        axes.plot(x, list(points.values()), "o-")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds an epoch")
        axes.set_xticks(x, [str(each) for each in x])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:.2g}")
        axes.set_yticks(list(points.values())) if prefix == "x data" else axes.set_yscale("linear")
        axes.grid(alpha=0.3)
    figures.save(figure, path)
