"""How all benchmarks measure: several rounds over all sides, the best of each, and the conditions they ran under."""

import os
import platform
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from tasks.machine import cores, progress
from tasks.machine.words import counted
from tasks.store import atomic

T = TypeVar("T")

BUSY = 1.25  # load a core, above which others are in the way; of a benchmark that has just ended less is left


class Side(BaseModel):
    """One thing that was measured: the figure of every round, of which ``best`` counts."""

    name: str
    unit: str
    figures: list[float]
    best: float
    note: str = ""


class Ratio(BaseModel):
    """Two sides compared; ``wanted`` is what the design asks for, as text, and ``reached`` whether it is so."""

    name: str
    value: float
    wanted: str
    reached: bool


class Report(BaseModel):
    """The document that a benchmark writes."""

    schema_version: int = 1
    benchmark: str
    conditions: dict[str, Any]
    sides: list[Side]
    ratios: list[Ratio]

    def table(self) -> Table:
        """The sides, a row each."""
        found = Table("measured", "best", "unit", "rounds", "", box=None, pad_edge=False)
        for side in self.sides:
            found.add_row(side.name, f"{side.best:,.4g}", side.unit, str(len(side.figures)), side.note)
        return found


def sides(
    figures: dict[str, list[float]], unit: str, best: Callable[..., float] = min, note: str = ""
) -> dict[str, Side]:
    """A side for each list of figures, by name."""
    return {
        name: Side(name=name, unit=unit, figures=each, best=best(each), note=note) for name, each in figures.items()
    }


def between(
    fast: Mapping[str, Callable[[], float]],
    slow: Mapping[str, Callable[[], float]],
    unit: str,
    repeats: int,
    best: Callable[..., float] = min,
) -> dict[str, Side]:
    """Measure each slow side once, and all the fast ones ``repeats`` times before each of them and at the end.

    In turn, so that whatever else the machine does falls on all of them.
    """
    figures: dict[str, list[float]] = {name: [] for name in (*fast, *slow)}
    turns = [turn for peer in (*slow, None) for turn in (*[fast] * repeats, {peer: slow[peer]} if peer else {})]
    tasks = [task for turn in turns for task in turn.items()]
    for at, (name, measure) in enumerate(tasks, 1):
        progress.CONSOLE.print(f"measuring {at} of {len(tasks)}: {name}", soft_wrap=True, markup=False)
        figures[name].append(measure())
    return sides(figures, unit, best)


def around(fast: Side, position: int, repeats: int) -> float:
    """What a fast side of ``between`` took just before and just after the slow side at ``position``, the median.

    A slow side runs once, through whatever else the machine does; the best of many rounds elsewhere would flatter.
    """
    return statistics.median(fast.figures[position * repeats : (position + 2) * repeats])


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    return timed(work)[0]


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How long ``work`` takes, and what it returns."""
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def memory(figure: str, process: int | str = "self") -> float:
    """A figure of the kernel's on the memory of a process, in MiB; 0 where it is at its end."""
    found = re.search(rf"{figure}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def memory_of_children(figure: str, beyond: float) -> float:
    """The same of all processes that this one started, of each what it holds ``beyond`` so much."""
    total = 0.0
    for found in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if f"\nPPid:\t{os.getpid()}\n" in found.read_text():
                total += max(0.0, memory(figure, found.parent.name) - beyond)
    return total


@contextmanager
def watched(look: Callable[[], float]) -> Iterator[list[float]]:
    """What ``look`` finds, such as the memory of this process, sampled in the block."""
    sampled, over = [look()], threading.Event()

    def sample() -> None:
        while not over.wait(0.02):
            sampled.append(look())

    (thread := threading.Thread(target=sample)).start()
    try:
        yield sampled
    finally:
        over.set()
        thread.join()


def at_least(name: str, value: float, wanted: float) -> Ratio:
    """A ratio that should not be smaller."""
    return Ratio(name=name, value=value, wanted=f"at least {wanted:g}", reached=value >= wanted)


def at_most(name: str, value: float, wanted: float) -> Ratio:
    """A ratio that should not be larger."""
    return Ratio(name=name, value=value, wanted=f"at most {wanted:g}", reached=value <= wanted)


def conditions(packages: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """The machine, the cores that this process may use, and the versions of what was measured."""
    versions = {package: each.version for package in packages for each in metadata.distributions(name=package)}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": cores.available(),
        "load": round(os.getloadavg()[0], 1),  # of the last minute: well above 1, others were at work too
        "python": platform.python_version(),
        "packages": versions,
        **more,
    }


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(report: Report, path: Path, load: float) -> None:
    """Write the document, with the load of the minute before the benchmark began."""
    report.conditions["load_before"] = round(load, 1)
    atomic.write_json(path, report.model_dump())


def warning(load: float, available: int) -> str:
    """A line that says that others are at work, or nothing."""
    said = f"load {load} on {counted(available, 'core')} before it began: these ratios say little\n"
    return said if load > BUSY * available else ""


def show(report: Report, path: Path) -> None:
    """Print it as tables; what else it says is in the document, at ``path``."""
    console, found = Console(soft_wrap=True, highlight=False), report.conditions
    ratios = Table("ratio", "value", "wanted", "", box=None, pad_edge=False)
    for ratio in report.ratios:
        ratios.add_row(ratio.name, f"{ratio.value:.3g}", ratio.wanted, "" if ratio.reached else "missed")
    console.print(report.table(), "", ratios, sep="\n")
    others = warning(found["load_before"], found["cores"])
    console.print(f"\n{others}on {counted(found['cores'], 'core')} of {found['cpu']}, load {found['load']}")
    console.print(f"written to {path}, with all conditions")
