"""What a benchmark reports is what it measured."""

import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import Pipeline
from flows.bench import measure, start, workplace
from flows.bench.measure import Report
from tasks.data import book_datasets


def test_rounds_take_turns_are_told_and_the_best_of_each_side_counts(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    values = {"a": iter([3.0, 1.0]), "b": iter([5.0, 6.0])}

    def side(name: str) -> float:
        order.append(name)
        return next(values[name])

    found = measure.between({"a": lambda: side("a"), "b": lambda: side("b")}, {}, "s", repeats=2)
    assert order == ["a", "b", "a", "b"]
    assert capsys.readouterr().err.splitlines() == [f"measuring {at} of 4: {name}" for at, name in enumerate(order, 1)]
    assert {name: (each.figures, each.best) for name, each in found.items()} == {
        "a": ([3.0, 1.0], 1.0),
        "b": ([5.0, 6.0], 5.0),
    }


def test_fast_sides_are_measured_around_every_slow_one() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = measure.between(
        {"fast": lambda: side("fast")}, {"x": lambda: side("x"), "y": lambda: side("y")}, "s", repeats=2
    )
    assert order == ["fast", "fast", "x", "fast", "fast", "y", "fast", "fast"]
    assert found["fast"].best == 1
    assert found["x"].figures == [3]
    assert found["fast"].figures == [1, 2, 4, 5, 7, 8]
    assert measure.around(found["fast"], 0, repeats=2) == 3, "x is third: 1, 2 before it and 4, 5 after it"
    assert measure.around(found["fast"], 1, repeats=2) == 6, "y is sixth"


def report_of(load: float, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], dict[str, Any]]:
    """Lines that are shown, and the document, of a benchmark on two cores that began at this load."""
    ratios = [measure.at_least("speed", 1.9, 2), measure.at_most("memory", 1.0, 1.1)]
    conditions = measure.conditions(("numpy",)) | {"cores": 2}
    report = Report(benchmark="x", conditions=conditions, sides=[], ratios=ratios)
    measure.write(report, path, load)
    measure.show(report, path)
    return capsys.readouterr().out.splitlines(), json.loads(path.read_text())


def test_a_report_says_plainly_what_was_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, document = report_of(0.5, tmp_path / "bench.json", capsys)
    (line,) = [line for line in lines if line.startswith("speed")]
    assert line.split() == ["speed", "1.9", "at", "least", "2", "missed"]
    assert [ratio["reached"] for ratio in document["ratios"]] == [False, True]
    assert document["conditions"]["packages"]["numpy"]
    assert document["conditions"]["load_before"] == 0.5


def test_a_report_of_a_busy_machine_says_so_and_shows_no_raw_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "load 6.3 on 2 cores before it began: these ratios say little"
    busy, _ = report_of(6.34, tmp_path / "bench.json", capsys)
    quiet, _ = report_of(2.2, tmp_path / "bench.json", capsys)  # what another benchmark leaves behind
    assert said in busy
    assert not [line for line in quiet if "before it began" in line]
    assert not [line for line in busy if "{" in line]
    assert f"written to {tmp_path}/bench.json, with all conditions" in busy


def test_a_notebook_cell_renders_every_picture_that_it_displays() -> None:
    """As the book's Animator does: a figure displayed, then cleared, then displayed anew; the cell's end shows it."""
    pytest.importorskip("IPython", reason="only the benchmark's peers need a notebook: make bench installs it")
    from flows.bench import notebook

    cell = """
from IPython import display
from matplotlib import pyplot
from matplotlib_inline import backend_inline
backend_inline.set_matplotlib_formats("svg")
figure, axes = pyplot.subplots()
for epoch in range(3):
    axes.set_title(f"{word} {epoch}")
    display.display(figure)
    display.clear_output(wait=True)
"""
    _, pictures = notebook.run_cell(cell, {"word": "epoch"})
    assert [re.findall(r"epoch \d", picture) for picture in pictures] == [
        ["epoch 0"],
        ["epoch 1"],
        ["epoch 2"],
        ["epoch 2"],
    ]
    assert all(picture.rstrip().endswith("</svg>") for picture in pictures)
    with pytest.raises(ZeroDivisionError):
        notebook.run_cell("1 / 0", {})


@pytest.mark.slow  # real runs, two of them of the command line
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the book's DataLoader does so
def test_bench_predict_measures_every_side_and_leaves_nothing_behind(
    pipeline: Pipeline, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.bench import predict

    published = pipeline.report("softmax-regression")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(pipeline.artifacts))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    before = {*pipeline.artifacts.iterdir(), *(pipeline.artifacts / "predictions").glob("*")}
    report = predict.measured(published.name, rows=400, num_rounds=1, quick=True)
    sides = {side.name: side for side in report.sides}
    flows = {"flow: file to Parquet", "flow: labels only", "flow: 1 worker", "flow: all else"}
    assert flows | {predict.FLOOR, predict.FLOOR_OF_LABELS, "the book's way", "bare, batch 512"} <= set(sides)
    assert {"peak RssAnon, 100 rows", "peak RssAnon, 800 rows"} <= set(sides)
    assert all(side.best > 0 and side.figures for side in report.sides)
    assert len(report.ratios) == 12
    assert report.conditions["rows"] == 400
    assert {*pipeline.artifacts.iterdir(), *(pipeline.artifacts / "predictions").glob("*")} == before


@pytest.mark.slow  # five seconds, most of them imports
def test_the_plain_work_of_a_retrain_learns_what_the_books_model_learns(
    fashion_mnist_files: Path, tmp_path: Path
) -> None:
    workplace.run([sys.executable, "-m", "flows.bench.plain", str(fashion_mnist_files), str(tmp_path)], tmp_path)
    assert float((tmp_path / "seconds").read_text()) > 0
    truth = np.frombuffer((fashion_mnist_files / book_datasets.FILES[3].name).read_bytes(), np.uint8, offset=8)
    found = pq.read_table(tmp_path / "part.parquet")["label"].to_numpy()
    assert 0.8 < (found == truth).mean() < 0.86


def test_the_parts_of_a_command_are_all_the_time_that_it_takes(artifacts: Path) -> None:
    artifacts.mkdir()
    took, parts = measure.timed(lambda: start.launch(artifacts, ["models"]))
    assert list(parts) == ["interpreter", "imports", "command"]
    assert min(parts.values()) >= 0
    assert took - 0.2 < sum(parts.values()) <= took


@pytest.mark.slow
def test_prefects_own_flow_and_the_plain_work_after_it_end_well_beside_up_and_have_nothing_of_ours(
    fashion_mnist_files: Path, artifacts: Path
) -> None:
    cache = (fashion_mnist_files / book_datasets.FILES[0].name).resolve().parent
    shutil.copytree(cache, artifacts / "datasets" / "fashion-mnist" / "raw")
    ours = '[each for each in sys.modules if each.partition(".")[0] in ("flows", "tasks")]'
    only_this = f'assert {ours} == ["flows", "flows.bench", "flows.bench.plain"]\n'
    with workplace.up(artifacts):
        start.without_us(artifacts, "-c", start.FLOW_CODE)
        start.without_us(artifacts, "-c", f"{start.WORK_CODE}{only_this}")
        with pytest.raises(RuntimeError, match="AssertionError"):
            start.without_us(artifacts, "-c", f"{start.FLOW_CODE}assert not 'told'\n")
    with sqlite3.connect(artifacts / ".prefect" / "prefect.db") as history:
        begun = history.execute("select state_type from flow_run where start_time is not null")
        assert [*begun] == [("COMPLETED",)] * 3


@pytest.mark.slow
def test_the_parts_of_a_retrain_are_its_start_its_stages_and_its_end(artifacts: Path) -> None:
    artifacts.mkdir()
    took, parts = measure.timed(lambda: start.launch(artifacts, ["retrain", "linear-regression", "--no-predict"]))
    (notes,) = artifacts.glob("runs/*/run.json")
    stages = json.loads(notes.read_text())["seconds"]
    assert list(parts) == [
        "interpreter", "imports", "checks", "server", "engine", *stages, "between stages", "end"
    ]  # fmt: skip
    assert min(parts.values()) >= 0
    assert took - 0.5 < sum(parts.values()) <= took
    with pytest.raises(RuntimeError, match="no model named nobody"):
        start.launch(artifacts, ["predict", "--name", "nobody"])
