"""What a person waits for: whole commands from Enter to the prompt, and where the time goes."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from flows.bench import measure, workplace
from flows.bench.measure import Report
from tasks.download import download
from tasks.judging import figures
from tasks.machine import progress
from tasks.parameters import FASHION_MNIST, Data
from tasks.store import artifact_paths
from tasks.store.artifact_paths import RUN
from tasks.store.run_folder import RunFolder, RunNotes

PACKAGES = ("gradmill", "prefect", "torch", "onnxruntime", "onnxruntime-gpu")
ALONE, JOINED = "alone", "up"  # with a temporary server, and on that of gradmill up
CASES = {  # in this order: each finds what those before it have left
    "--help": ["--help"],
    "models": ["models"],
    "retrain, first": ["retrain"],
    "retrain, unchanged": ["retrain"],
    "retrain, forced": ["retrain", "--force"],
    "retrain linear-regression": ["retrain", "linear-regression"],
    "predict, 10,000 rows": ["predict", "--restart"],
}
ASKED = {  # seconds
    f"retrain, unchanged, {ALONE}": 6, f"retrain, unchanged, {JOINED}": 2.5, f"retrain, forced, {ALONE}": 8.5,
    f"retrain, forced, {JOINED}": 5, f"predict, 10,000 rows, {JOINED}": 2.5,
}  # fmt: skip
BARE = "Prefect alone: import, server"
BARE_CODE = """
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
FLOW = f"Prefect alone: a flow of 8 empty tasks, {JOINED}"
FLOW_CODE = """
import atexit, gc, json, os, pathlib, sys
gc.disable()
atexit.register(lambda: hasattr(sys, "last_type") or os._exit(0))  # last: nothing is taken apart, but faults are told
from prefect import flow, settings, task
known = pathlib.Path(os.environ["GRADMILL_ARTIFACTS"], ".prefect")
api_url = json.loads((known / "service.json").read_text())["api_url"]
beside_up = {
    settings.PREFECT_API_URL: api_url,
    settings.PREFECT_API_AUTH_STRING: (known / "credential").read_text().strip(),
    settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # whose thread is waited for
}
@task
def empty(): pass
@flow
def tasks():
    for _ in range(8): empty()
with settings.temporary_settings(beside_up): tasks()
"""  # as many as a retrain has stages
WORK = f"the same, then the plain work of a retrain's stages, imports included, {JOINED}"
WORK_CODE = f"{FLOW_CODE}from flows.bench import plain; plain.main(*map(pathlib.Path, sys.argv[1:]))\n"
PLAIN = "plain torch, ONNX and pyarrow: the work of a retrain's stages"
GROUPS = {  # what the table tells of the parts; stages are all others
    "imports": ("interpreter", "imports", "checks"), "server": ("server",), "engine": ("engine", "between stages"),
    "end": ("command", "end"),
}  # fmt: skip


class StartReport(Report):
    """Of sides the median counts; ``parts`` are the median seconds of each command's parts, in their order."""

    parts: dict[str, dict[str, float]]

    def table(self) -> Table:
        """A row for each command, with the seconds of its parts."""
        found = Table("seconds", "median", *GROUPS, "stages", box=None, pad_edge=False)
        for side in self.sides:
            parts = self.parts.get(side.name, {})
            sums = [sum(parts.get(part, 0.0) for part in group) for group in GROUPS.values()]
            cells = [*sums, _stages(parts)] if parts else []
            found.add_row(side.name, f"{side.best:.2f}", *(f"{each:.2f}" for each in cells))
        return found


def bench(rounds: int) -> StartReport:
    """Every command on an artifacts folder of its own, with a temporary server each and with ``gradmill up``."""
    run = RunFolder.open("bench-start", {})
    download.__wrapped__(run, FASHION_MNIST, Data())  # type: ignore[attr-defined]  # the stage's plain function
    found: dict[str, list[dict[str, float]]] = {}
    plain: dict[str, list[float]] = {side: [] for side in (BARE, PLAIN, FLOW, WORK)}
    with progress.bar() as bar, workplace.made() as folder:
        launch(folder, ["retrain", "linear-regression"])  # once for nothing: files are in memory from then on
        for _ in bar.track(range(rounds), description=ALONE):
            plain[BARE].append(without_us(folder, "-c", BARE_CODE))
            plain[PLAIN].append(without_us(folder, "-m", "flows.bench.plain"))
            _round(folder, ALONE, found)
        with workplace.up(folder):
            for _ in bar.track(range(rounds), description=JOINED):
                plain[FLOW].append(without_us(folder, "-c", FLOW_CODE))
                plain[WORK].append(without_us(folder, "-c", WORK_CODE))
                _round(folder, JOINED, found)
    seconds = plain | {name: [sum(each.values()) for each in parts] for name, parts in found.items()}
    sides = measure.sides(seconds, "s", statistics.median)
    medians = {name: _medians(parts) for name, parts in found.items()}
    draw(medians, artifact_paths.root() / "bench-start.png")
    forced = f"retrain, forced, {ALONE}"
    predict = sides[f"predict, 10,000 rows, {ALONE}"].best / sides[BARE].best
    return StartReport(
        benchmark="start",
        conditions=measure.conditions(PACKAGES, rounds=rounds),
        sides=list(sides.values()),
        ratios=[measure.at_most(f"predict, {ALONE}, over {BARE}", predict, 1.05)]
        + [measure.at_most(f"{name}, seconds", sides[name].best, most) for name, most in ASKED.items()]
        + [measure.at_most(f"stages of {forced}, seconds", _stages(medians[forced]), 2.5)],
        parts=medians,
    )


def without_us(folder: Path, *arguments: str) -> float:
    """The seconds of Python, which is told where raw files are and where to write; or the seconds that it wrote."""
    raw = folder / "datasets" / FASHION_MNIST / "raw"
    with tempfile.TemporaryDirectory(dir=folder) as made:
        took = measure.seconds(lambda: workplace.run([sys.executable, *arguments, str(raw), made], folder))
        own = Path(made, "seconds")
        return float(own.read_text()) if own.exists() else took


def _stages(parts: dict[str, float]) -> float:
    others = {part for group in GROUPS.values() for part in group}
    return sum(seconds for part, seconds in parts.items() if part not in others)


def _round(folder: Path, server: str, found: dict[str, list[dict[str, float]]]) -> None:
    workplace.empty(folder)
    for name, arguments in CASES.items():
        found.setdefault(f"{name}, {server}", []).append(launch(folder, arguments))


def launch(folder: Path, arguments: list[str]) -> dict[str, float]:
    """The seconds of each part of a command, which together are those from Enter to the prompt."""
    points, before = folder / "points", {*folder.glob(f"runs/*/{RUN}")}
    points.unlink(missing_ok=True)
    entered = time.time()
    workplace.run([sys.executable, "-m", "flows.bench.launched", str(points), *arguments], folder)
    ended, passed = time.time(), [line.split() for line in points.read_text().splitlines()]
    parts, last = {}, entered
    for point, moment in passed:
        parts[point], last = float(moment) - last, float(moment)
    parts["end" if "run" in parts else "command"] = ended - last
    for notes in {*folder.glob(f"runs/*/{RUN}")} - before:
        stages, run, end = RunNotes.read(notes).seconds, parts.pop("run"), parts.pop("end")
        parts |= stages | {"between stages": run - sum(stages.values()), "end": end}
    return parts


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {part: round(statistics.median(each.get(part, 0.0) for each in rounds), 3) for part in rounds[0]}


def draw(parts: dict[str, dict[str, float]], path: Path) -> None:
    """A bar for each command, its parts side by side."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    longest_first = sorted(parts.values(), key=len, reverse=True)  # with all stages in their order
    names, known = list(parts)[::-1], list(dict.fromkeys(part for each in longest_first for part in each))
    known.sort(key=("between stages", "command", "end").__contains__)
    left = [0.0] * len(names)
    for number, part in enumerate(known):
        widths = [parts[name].get(part, 0.0) for name in names]
        axes.barh(names, widths, left=left, label=part, color=f"C{number % 10}", alpha=1 if number < 10 else 0.5)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="seconds from Enter to the prompt, medians")
    figure.legend(loc="outside right center", fontsize="small")
    figures.save(figure, path)
