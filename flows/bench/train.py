"""Training beside the book's own package, PyTorch Lightning, scikit-learn, and the limit of the arithmetic."""

import time
from collections.abc import Callable

import torch

from flows.bench import measure
from flows.bench.growth import CPU, draw, growth, peak_memory
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
from tasks.data.validated import ValidatedDataset
from tasks.download import download
from tasks.fitting.building import build
from tasks.fitting.devices import one_thread
from tasks.fitting.splits import load_split
from tasks.networks.schedules import learning_rates
from tasks.networks.training import Split
from tasks.networks.training import train as train_epochs
from tasks.parameters import FASHION_MNIST, Data, Implementation, SoftmaxTraining
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

PACKAGES = ("gradmill", "d2l", "lightning", "numpy", "scikit-learn", "torch", "torchvision")
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
    prepared: PreparedDataset = preprocess.__wrapped__(run, ValidatedDataset(raw=raw), Data(), 0)  # type: ignore[attr-defined]
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
    memory = peak_memory(prepared)
    grown = growth(prepared, train_split, test_split)
    draw(sides, grown, artifact_paths.root() / "bench-train.png")
    return Report(
        benchmark="train",
        conditions=measure.conditions(
            PACKAGES, threads=1, num_epochs=NUM_EPOCHS, batch_size=BATCH_SIZE, lr=LR, device="cpu", quick=quick
        ),
        sides=[*sides.values(), memory, *grown.values()],
        ratios=_ratios(sides, memory, grown) + _peer_ratios(sides, list(slow)),
    )


def _ratios(sides: dict[str, Side], memory: Side, grown: dict[str, Side]) -> list[measure.Ratio]:
    limit = sides[LIMIT].best
    return [
        measure.at_most("scratch over the limit", sides[SCRATCH].best / limit, 2.5),
        measure.at_most("concise over the limit", sides[CONCISE].best / limit, 6),
        measure.at_most("peak memory over uint8 split", memory.best * 2**20 / UINT8_BYTES, 6),
        measure.at_most("8 x the data over 8 x the time", grown["8 x data"].best / grown["1 x data"].best / 8, 1.25),
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
    training = SoftmaxTraining(implementation=implementation, num_epochs=num_epochs, lr=lr)

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
