"""What a person waits for: whole commands from Enter to the prompt, and the seconds of their stages."""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measure import Checkout, Report, Sample, Setup, Side, at_most, timed

ALONE, UP = "alone", "up"  # with a temporary server, and on that of gradmill up
CASES = {  # in this order: each finds what those before it have left
    "--help": ["--help"],
    "models": ["models"],
    "retrain, first": ["retrain"],
    "retrain, unchanged": ["retrain"],
    "retrain, forced": ["retrain", "--force"],
    "retrain linear-regression": ["retrain", "linear-regression"],
    "predict, 10,000 rows": ["predict", "--restart"],
}
FORCED = f"retrain, forced, {ALONE}"
PREFECT = "Prefect alone: import, server"
PREFECT_CODE = """
import os, socket, subprocess, sys, time
import httpx
from prefect import flow
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--port", str(port)]
itself = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
server = subprocess.Popen(command, env=os.environ | itself)
while True:
    try:
        httpx.get(f"http://127.0.0.1:{port}/api/health").raise_for_status()
        break
    except httpx.TransportError:
        time.sleep(0.1)
server.kill()
server.wait()
"""  # as Prefect starts a temporary server of its own
ROUNDS = 5
UP_SECONDS = 120.0

Stages = dict[str, list[dict[str, float]]]


def bench(setup: Setup) -> Report:
    """Run every command in turns, with a temporary server each and then beside ``gradmill up``."""
    ours = setup.checkouts[0]
    stages: Stages = defaultdict(list)
    ours.gradmill(["retrain", "linear-regression"])  # once for nothing: files are in memory from then on
    alone = {PREFECT: lambda: Sample(ours.python("-c", PREFECT_CODE))}
    sides = setup.measure(alone | _commands(setup, ALONE, stages), "s", ROUNDS)
    with ExitStack() as entered:
        for checkout in setup.checkouts:
            entered.enter_context(serve(checkout))
        sides |= setup.measure(_commands(setup, UP, stages), "s", ROUNDS)
    parts = {name.removeprefix("ours, "): _divide(sides[name], each) for name, each in stages.items()}
    predicting = sides[f"ours, predict, 10,000 rows, {ALONE}"].median / sides[PREFECT].median
    in_stages = sum(parts[FORCED].values()) - parts[FORCED]["outside"]
    ratios = [
        at_most(f"predict, {ALONE}, over {PREFECT}", predicting, 1.05),
        at_most(f"stages of {FORCED}, seconds", in_stages, 2.5),
    ]
    return setup.report("start", sides, ratios).model_copy(update={"parts": parts})


def _commands(setup: Setup, server: str, stages: Stages) -> dict[str, partial[Sample]]:
    return {
        name: partial(launch, checkout, case, stages[name])
        for checkout in setup.checkouts
        for case in CASES
        for name in [f"{checkout.name}, {case}, {server}"]
    }


def launch(checkout: Checkout, case: str, stages: list[dict[str, float]]) -> Sample:
    """The seconds of a command; those of its stages are added to ``stages``, if it has any."""
    if case == "retrain, first":
        _empty(checkout.store)
    seconds, runs = timed(lambda: checkout.gradmill(CASES[case]))
    stages += [run.seconds for run in runs]
    return Sample(seconds)


def _divide(command: Side, rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median seconds of each stage, and of all that is outside of them."""
    if not rounds:
        return {"outside": command.median}
    stages = {stage: statistics.median(each[stage] for each in rounds) for stage in rounds[0]}
    return stages | {"outside": command.median - sum(stages.values())}


def _empty(store: Path) -> None:
    """Leave as little as a first run finds: the server's history."""
    for name in ("models", "runs", "predictions", "datasets"):
        for folder in (store / name).glob("**/"):
            folder.chmod(0o755)  # versions are read-only
        shutil.rmtree(store / name, ignore_errors=True)


@contextmanager
def serve(checkout: Checkout) -> Iterator[None]:
    """``gradmill up`` at work, its server at a port of its own.

    Raises:
        RuntimeError: it ends, or is not up in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flows", "up", "--port", str(port)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=checkout.environment, cwd=checkout.store, stdout=log, stderr=log) as process,
    ):
        try:
            until = time.monotonic() + UP_SECONDS
            while not (checkout.store / ".prefect" / "service.json").exists():
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise RuntimeError(f"gradmill up: {log.read().decode(errors='replace')}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
