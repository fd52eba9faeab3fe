"""``gradmill up`` under load: names whose data do not change, each retrained every minute."""

import json
import statistics
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.measure import CORES, HERE, Checkout
from benchmarks.start import serve

PAGE = 200  # runs, the most that a server answers with at a time
ROWS = 300


def bench(minutes: float, num_names: int) -> None:
    """Print what became of the due runs, what they leave in the database, and how long questions take."""
    names = [f"table-{number}" for number in range(num_names)]
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout("ours", HERE, Path(folder))
        table = checkout.store / "table.csv"
        table.write_text(_write_rows())
        retrain = ["retrain", "linear-regression", "--data", str(table), "--target", "price", "--no-predict"]
        checkout.gradmill(*([*retrain, "--name", name] for name in names))
        with serve(checkout), connect(checkout.store / ".prefect") as client:
            idle = measure_questions(checkout, names[0], 3)
            database = checkout.store / ".prefect" / "prefect.db"
            before, begun = _size(database), datetime.now(UTC)
            checkout.gradmill(["schedule", *names, "--cron", "* * * * *"])
            busy: dict[str, list[float]] = {"status": [], "report": []}
            while (datetime.now(UTC) - begun).total_seconds() < 60 * minutes:
                for question, seconds in measure_questions(checkout, names[0], 1).items():
                    busy[question] += seconds
                time.sleep(15)
            due = list_due(client, begun, datetime.now(UTC))
            growth = _size(database) - before
    states = Counter(run["state_name"] for run in due)
    finished = states["Completed"]
    print(f"{num_names} names, every minute for {minutes:g} minutes, {CORES} cores")
    started = sum(run["start_time"] is not None for run in due)
    print(f"due {len(due)}: started {started}, skipped {states['Skipped']}, crashed {states['Crashed']}")
    print("states at the end: " + ", ".join(f"{state} {number}" for state, number in states.most_common()))
    print(f"database {growth / 1024 / max(1, finished):.0f} KB more an unchanged run, of {finished}")
    for question in idle:
        under_load = f"{statistics.median(busy[question]):.1f} s under load (at most {max(busy[question]):.1f})"
        print(f"{question} {statistics.median(idle[question]):.1f} s idle, {under_load}")


def measure_questions(checkout: Checkout, name: str, rounds: int) -> dict[str, list[float]]:
    """The seconds of ``status`` and ``report``."""
    questions = {"status": ["status"], "report": ["report", name]}
    return {
        question: [checkout.python("-m", "flows", *command) for _ in range(rounds)]
        for question, command in questions.items()
    }


def connect(home: Path) -> httpx.Client:
    """A client of the server that keeps its address and its credential in ``home``."""
    user, _, password = (home / "credential").read_text().strip().partition(":")
    address = json.loads((home / "service.json").read_text())["api_url"]
    return httpx.Client(base_url=address, auth=(user, password), timeout=60)


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
