"""Own images beside Pillow alone and the book's data: reading and resizing, training, and the memory of both.

Run as ``python -m flows.bench.images FOLDER PICTURES`` it trains, and prints by how much its memory has grown.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flows.bench import measure
from flows.bench.measure import Report, Side
from tasks.data.images import finding, reading
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

PACKAGES = ("gradmill", "numpy", "pillow", "torch")
OURS, PILLOW = "ours", "Pillow alone, two processes"
OWN, BOOK = "own pictures", "Fashion-MNIST"
MEMORY = "peak memory beyond imports"
DRAWN, SIDE, CLASSES = 32, 28, 10  # sides of the files' pictures and of the inputs
PROCESSES = 2
ROUNDS = 5
NUM_EPOCHS = 3


def bench(quick: bool) -> Report:
    """Measure everything; ``quick`` takes a tenth of the pictures."""
    count = 5_000 if quick else 50_000
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=artifact_paths.root()) as made:
        pictures = write(Path(made) / "pictures", count)
        read = _reading(pictures, Path(made) / "pixels")
        trained = _training(pictures)
        memory = _memory(Path(made) / "artifacts", pictures)
    pixels = count * SIDE**2
    return Report(
        benchmark="images",
        conditions=measure.conditions(PACKAGES, pictures=count, device="cpu", quick=quick),
        sides=[*read.values(), *trained.values(), memory],
        ratios=[
            measure.at_least("reading, ours over Pillow alone", read[PILLOW].best / read[OURS].best, 0.8),
            measure.at_most("training a picture, own over Fashion-MNIST", trained[OWN].best / trained[BOOK].best, 1.1),
            measure.at_most("peak memory over uint8 pixels", memory.best * 2**20 / pixels, 1.3),
        ],
    )


def write(folder: Path, count: int) -> Path:
    """Grey pictures in noise, a bright bar at a place for each class; a seventh are tests, as of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    for number in range(count):
        label, part = number % CLASSES, "test" if number % 7 == 0 else "train"
        pixels = rng.integers(0, 60, (DRAWN, DRAWN), np.uint8)
        pixels[:, 3 * label] += 180
        place = folder / part / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:06d}.png", compress_level=1)
    return folder


def _reading(pictures: Path, spool: Path) -> dict[str, Side]:
    """Seconds from a folder to pixels of one size."""
    content = finding.find(str(pictures)).content
    paths = [content.place(number) for number in range(len(content))]
    shares = [paths[at::PROCESSES] for at in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, get_context("forkserver")) as pool:
        list(pool.map(pillow, [share[:10] for share in shares]))  # starts them
        fast: dict[str, Callable[[], float]] = {
            OURS: lambda: measure.seconds(lambda: reading.read(content, reading.Asked(side=SIDE), spool)),
            PILLOW: lambda: measure.seconds(lambda: list(pool.map(pillow, shares))),
        }
        return measure.between(fast, {}, "s", ROUNDS)


def pillow(paths: list[str]) -> None:
    """Decode and resize pictures, and keep nothing."""
    for path in paths:
        with Image.open(path) as picture:
            np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _training(pictures: Path) -> dict[str, Side]:
    """Microseconds a training picture and epoch, each measured on the test pictures as the book does."""
    own, book = _asked(pictures), RetrainParameters.model_validate({"training": {"num_epochs": NUM_EPOCHS}})
    return measure.between({OWN: _epochs(own), BOOK: _epochs(book)}, {}, "µs/picture", ROUNDS)


def _epochs(asked: RetrainParameters) -> Callable[[], float]:
    import torch

    from tasks.fitting import beginning, devices

    dataset = prepared(asked)

    def run() -> float:
        with devices.one_thread():
            begun = beginning.begin(asked.training, dataset, torch.Generator().manual_seed(0), torch.device("cpu"))
            taken = measure.seconds(lambda: list(begun.epochs))
        return taken / begun.num_examples / NUM_EPOCHS * 1e6

    return run


def _asked(pictures: Path) -> RetrainParameters:
    document = {
        "name": "bench-images",
        "training": {"model": "softmax-regression", "device": "cpu", "num_epochs": NUM_EPOCHS},
        "data": {"source": str(pictures), "side": SIDE},
    }
    return RetrainParameters.model_validate(document)


def prepared(asked: RetrainParameters) -> PreparedDataset:
    """The stages before training, as plain functions."""
    from tasks import download, preprocess, validate

    run = RunFolder.open(f"bench-images-{asked.dataset}", {})
    raw = download.download.__wrapped__(run, asked.dataset, asked.data)  # type: ignore[attr-defined]  # the plain function
    validated = validate.validate.__wrapped__(run, raw, asked.data, "classification")  # type: ignore[attr-defined]
    made: PreparedDataset = preprocess.preprocess.__wrapped__(run, validated, asked.data, 0)  # type: ignore[attr-defined]
    return made


def _memory(artifacts: Path, pictures: Path) -> Side:
    """MiB by which a new process grows from the folder to the weights."""
    command = [sys.executable, "-m", "flows.bench.images", str(artifacts), str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return measure.sides({MEMORY: [float(done.stdout.splitlines()[-1])]}, "MiB")[MEMORY]


def main(artifacts: str, pictures: str) -> None:
    """Train once to have everything imported, on few pictures, then on those that count."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    artifact_paths.make_root()
    _trained(_asked(write(Path(artifacts) / "few", 200)))
    with measure.watched("VmRSS") as sampled:
        _trained(_asked(Path(pictures)))
    print(max(sampled) - sampled[0])


def _trained(asked: RetrainParameters) -> Any:
    from tasks import train

    dataset = prepared(asked)
    run = RunFolder.open(f"bench-images-{dataset.num_train}", {})
    return train.train.__wrapped__(run, dataset, asked.training)  # type: ignore[attr-defined]  # the plain function


if __name__ == "__main__":
    main(*sys.argv[1:])
