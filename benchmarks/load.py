"""``gradmill up`` under load: names whose data do not change, each retrained every minute."""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

GRADMILL = [sys.executable, "-m", "flows"]
PAGE = 200  # runs, the most that a server answers with at a time
ROWS = 300


def bench(minutes: float, num_names: int) -> None:
    """Print what became of the due runs, what they leave in the database, and how long questions take."""
    names = [f"table-{number}" for number in range(num_names)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"GRADMILL_ARTIFACTS": f"{folder}/artifacts", "PREFECT_HOME": f"{folder}/prefect"}
        os.environ.pop("PREFECT_API_URL", None)
        table = Path(folder, "table.csv")
        table.write_text(_write_rows())
        for name in names:
            ask(
                "retrain",
                "linear-regression",
                "--data",
                str(table),
                "--target",
                "price",
                "--name",
                name,
                "--no-predict",
            )
        with up(Path(folder)) as client:
            idle = measure_questions(names[0], 3)
            database = Path(folder, "artifacts", ".prefect", "prefect.db")
            before, begun = _size(database), datetime.now(UTC)
            ask("schedule", *names, "--cron", "* * * * *")
            busy: dict[str, list[float]] = {"status": [], "report": []}
            while (datetime.now(UTC) - begun).total_seconds() < 60 * minutes:
                for question, seconds in measure_questions(names[0], 1).items():
                    busy[question] += seconds
                time.sleep(15)
            due = list_due(client, begun, datetime.now(UTC))
            growth = _size(database) - before
    states = Counter(run["state_name"] for run in due)
    finished = states["Completed"]
    print(f"{num_names} names, every minute for {minutes:g} minutes, {os.cpu_count()} cores")
    started = sum(run["start_time"] is not None for run in due)
    print(f"due {len(due)}: started {started}, skipped {states['Skipped']}, crashed {states['Crashed']}")
    print("states at the end: " + ", ".join(f"{state} {number}" for state, number in states.most_common()))
    print(f"database {growth / 1024 / max(1, finished):.0f} KB more an unchanged run, of {finished}")
    for question in idle:
        under_load = f"{statistics.median(busy[question]):.1f} s under load (at most {max(busy[question]):.1f})"
        print(f"{question} {statistics.median(idle[question]):.1f} s idle, {under_load}")


def ask(*arguments: str) -> float:
    """The seconds that a command takes."""
    begun = time.monotonic()
    done = subprocess.run([*GRADMILL, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gradmill {' '.join(arguments)}: {done.stderr}")
    return time.monotonic() - begun


def measure_questions(name: str, rounds: int) -> dict[str, list[float]]:
    """The seconds of ``status`` and ``report``."""
    return {"status": [ask("status") for _ in range(rounds)], "report": [ask("report", name) for _ in range(rounds)]}


@contextmanager
def up(folder: Path) -> Iterator[httpx.Client]:
    """A running ``gradmill up``, and a client of its server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*GRADMILL, "up", "--port", str(port)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    if not any(line.startswith("Ctrl-C") for line in process.stdout or ()):
        raise SystemExit((folder / "up.log").read_text())
    user, _, password = (folder / "artifacts" / ".prefect" / "credential").read_text().strip().partition(":")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", auth=(user, password), timeout=60) as client:
        try:
            yield client
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def list_due(client: httpx.Client, after: datetime, before: datetime) -> list[dict[str, Any]]:
    """The runs that schedules had between two moments."""
    token = client.get("/csrf-token", params={"client": "load"}).raise_for_status().json()["token"]
    client.headers.update({"Prefect-Csrf-Client": "load", "Prefect-Csrf-Token": token})
    due = {"after_": after.isoformat(), "before_": before.isoformat()}
    found: list[dict[str, Any]] = []
    while True:
        body = {"flow_runs": {"expected_start_time": due}, "limit": PAGE, "offset": len(found)}
        page = client.post("/flow_runs/filter", json=body).raise_for_status().json()
        found += page
        if len(page) < PAGE:
            return [run for run in found if run["auto_scheduled"]]


def _write_rows() -> str:
    rng = np.random.default_rng(0)
    area, rooms = rng.uniform(20, 200, ROWS), rng.integers(1, 7, ROWS)
    price = 3 * area + 20 * rooms + rng.normal(0, 10, ROWS)
    lines = [f"{row[0]:.1f},{row[1]},{row[2]:.1f}" for row in zip(area, rooms, price, strict=True)]
    return "\n".join(["area,rooms,price", *lines, ""])


def _size(database: Path) -> int:
    """With what the write-ahead log has."""
    return sum(each.stat().st_size for each in database.parent.glob(f"{database.name}*"))
