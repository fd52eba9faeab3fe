"""Own images beside Pillow alone and the book's data: reading and resizing, and training."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import Checkout, Report, Sample, Setup, at_most, compare, timed

PILLOW, OWN, BOOK = "Pillow alone, two processes", "own pictures", "Fashion-MNIST"
DRAWN, SIDE, CLASSES = 32, 28, 10  # sides of the files' pictures and of the inputs
PROCESSES, FEW, ROUNDS = 2, 200, 5
COMMON = ["--device", "cpu", "--force", "--no-publish"]


def bench(setup: Setup) -> Report:
    """Read 50,000 pictures, and train on them; a tenth if it is to be quick."""
    count = 5_000 if setup.quick else 50_000
    few, pictures = write_pictures(setup.folder / "few", FEW), write_pictures(setup.folder / "pictures", count)
    shares = [[*map(str, sorted(pictures.rglob("*.png")))][at::PROCESSES] for at in range(PROCESSES)]
    commands = [_retrain("few", few), _retrain("pictures", pictures)]
    with ProcessPoolExecutor(PROCESSES, get_context("forkserver")) as pool:
        list(pool.map(read_with_pillow, [share[:10] for share in shares]))  # starts them
        reading = {f"{each.name}, reading": partial(read_ours, each, commands) for each in setup.checkouts}
        peer = {PILLOW: lambda: Sample(timed(lambda: list(pool.map(read_with_pillow, shares)))[0])}
        sides = setup.measure(reading | peer, "s", ROUNDS)
    book = [commands[0], ["retrain", "softmax-regression", *COMMON]]
    training = {
        f"{each.name}, training on {what}": partial(train_ours, each, those)
        for each in setup.checkouts
        for what, those in {OWN: commands, BOOK: book}.items()
    }
    sides |= setup.measure(training, "µs/picture", ROUNDS)
    own, book_side = (sides[f"ours, training on {what}"].best for what in (OWN, BOOK))
    ratios = [
        *compare(sides, PILLOW, "ours, reading", 0.8, "reading, ours over Pillow alone"),
        at_most("training a picture, own over Fashion-MNIST", own / book_side, 1.1),
    ]
    return setup.report("images", sides, ratios, pictures=count)


def _retrain(name: str, pictures: Path) -> list[str]:
    return ["retrain", "softmax-regression", "--name", name, "--data", str(pictures), "--side", str(SIDE), *COMMON]


def write_pictures(folder: Path, count: int) -> Path:
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


def read_with_pillow(paths: list[str]) -> None:
    """Decode and resize pictures, and keep nothing."""
    for path in paths:
        with Image.open(path) as picture:
            np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def read_ours(checkout: Checkout, commands: list[list[str]]) -> Sample:
    """From the folder to the two splits, validation included, where few pictures have brought the imports."""
    return Sample(checkout.gradmill(*commands)[-1].seconds_of("download", "validate", "preprocess"))


def train_ours(checkout: Checkout, commands: list[list[str]]) -> Sample:
    """The stage ``train``, for each picture of the training split in each epoch."""
    run = checkout.gradmill(*commands)[-1]
    record = run.stages["train"]
    return Sample(run.seconds_of("train") / record["num_examples"] / len(record["learning_curve"]) * 1e6)
