"""Own images beside Pillow alone and the book's data: reading and resizing, training, and the memory of both.

Run as ``python -m flows.bench.images FOLDER PICTURES`` it trains, and prints by how much its memory has grown.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flows.bench import measure
from flows.bench.measure import Report, Side
from tasks.data import image_dataset
from tasks.data.io import images
from tasks.data.io import pictures as decoding
from tasks.machine.processes import Process
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

NAME = "bench-images"
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
        try:
            trained = _training(pictures)
        finally:
            shutil.rmtree(artifact_paths.dataset(NAME), ignore_errors=True)
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
    source = image_dataset.find_images(str(pictures))
    paths = [source.place(number) for number in range(len(source.labels))]
    shares = [paths[at::PROCESSES] for at in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, get_context("forkserver")) as pool:
        list(pool.map(pillow, [share[:10] for share in shares]))  # starts them
        fast: dict[str, Callable[[], float]] = {
            OURS: lambda: measure.seconds(lambda: images.read_images(source, spool, side=SIDE)),
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
            started = time.thread_time()  # one thread computes: whatever else the machine does is left out
            list(begun.epochs)
        return (time.thread_time() - started) / begun.num_examples / NUM_EPOCHS * 1e6

    return run


def _asked(pictures: Path) -> RetrainParameters:
    document = {
        "name": NAME,
        "training": {"model": "softmax-regression", "device": "cpu", "num_epochs": NUM_EPOCHS},
        "data": {"source": str(pictures), "side": SIDE},
    }
    return RetrainParameters.model_validate(document)


def prepared(asked: RetrainParameters) -> PreparedDataset:
    """The stages before training, as plain functions."""
    from tasks import download, preprocess, validate

    run = RunFolder.open(f"{NAME}-{asked.dataset}", {})
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
    few = write(Path(artifacts) / "few", 200)
    _trained(_asked(few))
    imported = _of_worker(few, Path(artifacts) / "pixels")
    with measure.watched(
        lambda: measure.memory("VmRSS") + measure.memory_of_children("VmRSS", beyond=imported)
    ) as sampled:
        _trained(_asked(Path(pictures)))
    print(max(sampled) - sampled[0])


def _of_worker(pictures: Path, spool: Path) -> float:
    """MiB of a process that reads pictures, when it has read one and so imported everything."""
    spool.write_bytes(bytes(SIDE**2))
    path = str(next(pictures.rglob("*.png")))
    decode = partial(decoding.decode_job, shape=(SIDE, SIDE), looks_for_colour=True, spool=spool)
    with closing(Process(decode)) as worker:
        worker((0, [path]))
        return measure.memory_of_children("VmRSS", beyond=0)


def _trained(asked: RetrainParameters) -> Any:
    from tasks import train

    dataset = prepared(asked)
    run = RunFolder.open(f"{NAME}-{dataset.num_train}", {})
    return train.train.__wrapped__(run, dataset, asked.training)  # type: ignore[attr-defined]  # the plain function


if __name__ == "__main__":
    main(*sys.argv[1:])
