"""The picture of README's section on speed, from the documents of the benchmarks: ``docs/speed.png``."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

BENCHMARKS = Path(__file__).parent / "benchmarks"
PEERS = {  # a benchmark and its ratio, how many times as long the peer takes
    "train on images: the book's loop": ("train", "d2l without its plotting over ours, scratch"),
    "train on images: LogisticRegression": ("train", "scikit-learn, float64 over ours, cosine schedule"),
    "train on images: Lightning, in memory": ("train", "Lightning, in memory over ours, scratch"),
    "1 million rows: SGDClassifier": ("tables", "scikit-learn, SGDClassifier over ours, 1,000,000 rows"),
    "1 million rows: LogisticRegression": ("tables", "scikit-learn, LogisticRegression over ours, 1,000,000 rows"),
    "10 million rows: Vowpal Wabbit": ("tables", "Vowpal Wabbit, one pass over ours, 10,000,000 rows"),
    "predict images: bare onnxruntime, in memory": ("predict", "flow over bare"),
}
COMMANDS = ("retrain, forced", "retrain, unchanged", "predict, 10,000 rows")
STAGES = {"download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"}


def document(benchmark: str) -> dict[str, Any]:
    """What a benchmark wrote last."""
    found: dict[str, Any] = json.loads((BENCHMARKS / f"{benchmark}.json").read_text())
    return found


def ratios() -> dict[str, float]:
    """How many times as long each peer takes as ours, by what it does."""
    return {
        peer: next(each["value"] for each in document(benchmark)["ratios"] if each["name"] == name)
        for peer, (benchmark, name) in PEERS.items()
    }


def divide(parts: dict[str, float]) -> dict[str, float]:
    """The seconds of a command's stages together, and of all else: imports, server, Prefect's engine."""
    stages = sum(seconds for part, seconds in parts.items() if part in STAGES)
    return {"stages": stages, "all else": sum(parts.values()) - stages}


def seconds() -> dict[str, dict[str, float]]:
    """The seconds of each command's parts, by command and server."""
    parts = document("start")["parts"]
    cases = [(command, server) for server in ("alone", "up") for command in COMMANDS]
    return {
        f"{command}{', up' if server == 'up' else ''}": divide(parts[f"{command}, {server}"])
        for command, server in cases
    }


def draw() -> Figure:
    """Both, side by side."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    peers, commands = figure.subplots(1, 2)
    peers.set_title("others' time over ours", fontsize="medium")
    found = ratios()
    bars = peers.barh(list(found), [each - 1 for each in found.values()], left=1)
    peers.bar_label(bars, labels=[f"{each:.2g}" if each < 100 else f"{each:.0f}" for each in found.values()], padding=3)
    peers.set(xscale="log", xlim=(0.15, 1500))
    peers.xaxis.set_major_formatter("{x:g}")
    peers.axvline(1, color="black", linewidth=0.8)
    rows = seconds()
    left = [0.0] * len(rows)
    for part in ("all else", "stages"):
        widths = [of[part] for of in rows.values()]
        commands.barh(list(rows), widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    commands.set_title("seconds from Enter to the prompt", fontsize="medium")
    commands.legend(fontsize="small")
    for axes in (peers, commands):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    return figure
