"""Training beside the book's own package, Lightning, scikit-learn, barest torch, and the limit of the arithmetic."""

from collections.abc import Callable

import torch

from flows.bench import growth, measure, peers, train_floor
from flows.bench.growth import CPU
from flows.bench.measure import Report, Side
from flows.bench.peers import BATCH_SIZE, LR, NUM_EPOCHS, Trained
from tasks.data.prepared_splits import ValidatedDataset
from tasks.download import download
from tasks.fitting.devices import one_thread
from tasks.fitting.learning import Parts, parts
from tasks.networks.examples import Split
from tasks.parameters import FASHION_MNIST, Data, Implementation, Schedule, SoftmaxTraining
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

PACKAGES = ("gradmill", "d2l", "lightning", "numpy", "scikit-learn", "torch", "torchvision")
SCRATCH, CONCISE, LIMIT = "ours, scratch", "ours, concise", "limit: two products, one gather"
TUNED = "ours, cosine schedule"
BAREST_SCRATCH, BAREST_CONCISE, KERNELS = (f"barest torch, {what}" for what in ("scratch", "concise", "no autograd"))
BAREST = {
    BAREST_SCRATCH: train_floor.by_hand,
    BAREST_CONCISE: train_floor.by_autograd,
    KERNELS: train_floor.by_kernels,
}
CANDIDATES = [
    SoftmaxTraining(implementation=Implementation.SCRATCH, lr=lr, num_epochs=num_epochs, schedule=Schedule.COSINE)
    for num_epochs in (12, 20)
    for lr in (0.5, 0.7)
]
REPEATS = 3  # of ours before and after each peer
GOOD_ENOUGH = 0.002  # a difference in accuracy that counts as none
UINT8_BYTES = 60_000 * 784


def bench(quick: bool) -> Report:
    """Measure everything; ``quick`` leaves out the slow peers.

    Raises:
        UsageError: a peer is not installed.
    """
    if not quick:
        peers.require_installed()
    run = RunFolder.open("bench-train", {})
    raw: RawDataset = download.__wrapped__(run, FASHION_MNIST, Data())  # type: ignore[attr-defined]  # the stage's plain function
    prepared: PreparedDataset = preprocess.__wrapped__(run, ValidatedDataset(raw=raw), Data(), 0)  # type: ignore[attr-defined]
    data = parts(prepared, 0, torch.Generator(), CPU)
    trainings = {f"ours, {each.value}": SoftmaxTraining(implementation=each) for each in Implementation}
    slow: dict[str, Callable[[], Trained]] = {}
    if not quick:
        trainings[TUNED] = _choose(prepared)
        slow = peers.peers(raw, data)
    ours = {name: _ours(prepared, data, training) for name, training in trainings.items()}
    sides = _sides(ours | {name: _barest(step, data) for name, step in BAREST.items()}, slow, data.train)
    memory = growth.peak_memory(prepared)
    grown = growth.growth(prepared, data)
    growth.draw(sides, grown, artifact_paths.root() / "bench-train.png")
    return Report(
        benchmark="train",
        conditions=measure.conditions(
            PACKAGES, threads=1, num_epochs=NUM_EPOCHS, batch_size=BATCH_SIZE, lr=LR, device="cpu", quick=quick
        ),
        sides=[*sides.values(), memory, *grown.values()],
        ratios=_ratios(sides, memory, grown) + _peer_ratios(sides, list(slow)),
    )


def _sides(
    fast: dict[str, Callable[[], Trained]], slow: dict[str, Callable[[], Trained]], split: Split
) -> dict[str, Side]:
    """Seconds of ours, of barest torch and of peers, with the accuracy that they came to, and of the limit."""
    accuracy: dict[str, float] = {}

    def noting(name: str, work: Callable[[], Trained]) -> Callable[[], float]:
        def seconds() -> float:
            elapsed, accuracy[name] = work()
            return elapsed

        return seconds

    in_turn = {name: noting(name, work) for name, work in fast.items()} | {LIMIT: lambda: _limit(split)}
    sides = measure.between(in_turn, {name: noting(name, work) for name, work in slow.items()}, "s", REPEATS)
    for name, value in accuracy.items():
        sides[name].note = f"test accuracy {value:.4f}"
    return sides


def _ratios(sides: dict[str, Side], memory: Side, grown: dict[str, Side]) -> list[measure.Ratio]:
    limit = sides[LIMIT].best
    return [
        measure.at_most("scratch over the limit", sides[SCRATCH].best / limit, 1.3),
        measure.at_most("concise over the limit", sides[CONCISE].best / limit, 2),
        measure.at_most("barest torch over the limit, scratch", sides[BAREST_SCRATCH].best / limit, 1.3),
        measure.at_most("barest torch over the limit, concise", sides[BAREST_CONCISE].best / limit, 2),
        measure.at_most("the same without autograd over the limit", sides[KERNELS].best / limit, 2),
        measure.at_most("scratch over barest torch", sides[SCRATCH].best / sides[BAREST_SCRATCH].best, 1.15),
        measure.at_most("concise over barest torch", sides[CONCISE].best / sides[BAREST_CONCISE].best, 1.25),
        measure.at_most("peak memory over uint8 split", memory.best * 2**20 / UINT8_BYTES, 6),
        measure.at_most("8 x the data over 8 x the time", grown["8 x data"].best / grown["1 x data"].best / 8, 1.25),
    ]


def _peer_ratios(sides: dict[str, Side], slow: list[str]) -> list[measure.Ratio]:
    """What each peer took over what ours, or barest torch, took around it."""
    wanted = {
        peers.BOOK_PLAIN: ((SCRATCH, 58), (CONCISE, 38), (BAREST_SCRATCH, 58), (BAREST_CONCISE, 38)),
        peers.BOOK: ((SCRATCH, 80), (CONCISE, 38)),
        peers.LIGHTNING: ((SCRATCH, 70), (CONCISE, 35)),
        peers.LIGHTNING_MEMORY: ((SCRATCH, 17), (CONCISE, 11), (BAREST_SCRATCH, 17), (BAREST_CONCISE, 11)),
        peers.SKLEARN: ((TUNED, 10),),
    }
    return [
        measure.at_least(
            f"{peer} over {fast}", sides[peer].best / measure.around(sides[fast], position, REPEATS), ratio
        )
        for position, peer in enumerate(slow)
        for fast, ratio in wanted.get(peer, ())
    ]


def _ours(prepared: PreparedDataset, data: Parts[Split], training: SoftmaxTraining) -> Callable[[], Trained]:
    """The loop of the stage ``train``, test split measured after every epoch as the book does."""

    def run() -> Trained:
        with one_thread():
            epochs = growth.trained(prepared, data, training)
            elapsed, (*_, last) = measure.timed(lambda: list(epochs))
        return elapsed, last.test.get("accuracy", 0.0)

    return run


def _barest(step: train_floor.Step, data: Parts[Split]) -> Callable[[], Trained]:
    """The same training by barest torch."""
    train, test = ((split.X.flatten(1), split.y) for split in (data.train, data.test))

    def run() -> Trained:
        with one_thread():
            elapsed, learned = measure.timed(lambda: train_floor.train(step, train, test, BATCH_SIZE, NUM_EPOCHS))
        return elapsed, learned.figures[-1]

    return run


def _choose(prepared: PreparedDataset) -> SoftmaxTraining:
    """The shortest of some cosine schedules that does as well as any on a tenth of the training split."""
    fitted, validation, _ = parts(prepared, 0.1, torch.Generator().manual_seed(0), CPU)
    assert validation is not None, "a tenth"  # noqa: S101  (narrows the type)
    held_out = Parts[Split](fitted, None, validation)
    accuracy = [_ours(prepared, held_out, training)()[1] for training in CANDIDATES]
    good = [found for found in zip(CANDIDATES, accuracy, strict=True) if found[1] >= max(accuracy) - GOOD_ENOUGH]
    return min(good, key=lambda found: (found[0].num_epochs, -found[1]))[0]


def _limit(split: Split) -> float:
    """What no step can do without: a gather, a conversion, both products in their best orientation."""
    W, g, order = torch.zeros(10, 784), torch.zeros(BATCH_SIZE, 10), torch.randperm(len(split))  # noqa: N806

    def steps() -> None:
        for index in order.split(BATCH_SIZE) * NUM_EPOCHS:
            X = split.X.index_select(0, index).to(torch.float32).flatten(1)  # noqa: N806
            W @ X.T
            g[: len(index)].T @ X

    with one_thread():
        return measure.seconds(steps)
