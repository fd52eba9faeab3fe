"""What people see: a list of stages that fits the terminal, plain lines for everybody else."""

import io
import json
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from command_line import GRADMILL, answer, gradmill
from flows.cli.display import StageList
from tasks.judging.gates import format_value, judge
from tasks.machine import progress, run_messages
from tasks.machine.words import format_duration, format_number, tell_apart
from tasks.store import artifact_paths
from terminals import Terminal, shown_of


@run_messages.show_stage("evaluate")
def refused() -> None:
    run_messages.print_message("gate x refused: 1, at most 0 required", short="refused by x")
    raise ValueError("refused")


@pytest.mark.parametrize(
    ("width", "encoding", "marks"), [(40, "utf-8", "✓✗"), (120, "utf-8", "✓✗"), (80, "ascii", "+x")]
)
def test_stages_are_a_list_with_marks_one_figure_and_seconds_that_fits_the_terminal(
    width: int, encoding: str, marks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.TextIOWrapper(drawn := io.BytesIO(), encoding=encoding)
    console = Console(file=file, force_terminal=True, width=width, color_system=None, highlight=False)
    watcher = StageList(console, "starting")
    monkeypatch.setattr(run_messages, "watcher", watcher)
    with run_messages.show_stage("validate"):
        run_messages.print_message("2,000 rows; and more that is for the log", short="2,000 rows")
        run_messages.print_message(f"warning: {tmp_path}/t.csv: equal features have different targets [bold]")
        run_messages.print_message("not shown", short="")
    with pytest.raises(ValueError, match="refused"):
        refused()
    watcher.close()
    file.flush()
    first, *told, last = (line for line in shown_of(drawn.getvalue().decode(encoding)) if line)
    assert re.fullmatch(rf"{re.escape(marks[0])} validate   2,000 rows +(\d+|< 1) ms", first)
    assert re.fullmatch(rf"{re.escape(marks[1])} evaluate   refused by x +(\d+|< 1) ms", last)
    warning = "warning: t.csv: equal features have different targets [bold]"
    assert " ".join(" ".join(told).split()) == warning
    assert max(map(len, (first, *told, last))) <= width


def test_a_line_of_a_stage_stays_however_often_the_list_is_redrawn_while_a_bar_comes_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = type(progress.CONSOLE)(file=(drawn := io.StringIO()), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "CONSOLE", console)
    monkeypatch.setattr(progress, "is_watched", True)
    watcher, is_over = StageList(console, "starting"), threading.Event()

    def redraw() -> None:
        while not is_over.is_set():
            watcher._progress.refresh()

    monkeypatch.setattr(run_messages, "watcher", watcher)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=redraw)
    thread.start()
    stages = [f"stage{number}" for number in range(12)]
    try:
        for stage in stages:
            with run_messages.show_stage(stage), progress.make_bar() as bar:
                bar.advance(bar.add_task(stage, total=4), 4)
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(before)
    watcher.close()
    assert [line.split()[:2] for line in shown_of(drawn.getvalue()) if line] == [["✓", stage] for stage in stages]


@pytest.mark.parametrize(
    ("environment", "watched", "coloured"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"CI": "true"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_a_log_of_ci_and_a_terminal_without_a_cursor_get_lines_and_programs_whole_paths(
    environment: dict[str, str], watched: bool, coloured: bool
) -> None:
    code = "import pathlib; from flows.cli import display; display.wait('starting')\n"
    code += "if display.is_shown(): display._shown.end('train', True)\n"
    code += "display.end(); display.print_page(display.draw_facts([('kept', f'{pathlib.Path.cwd()}/x')]))"
    seen = Terminal(command := [sys.executable, "-c", code], environment=environment)
    assert ("\x1b" in seen.stream, "starting" in seen.stream) == (watched, watched)
    assert bool(re.search(r"\x1b\[3\dm", seen.stream)) == coloured
    if watched:
        assert "\x1b[1mkept        \x1b[0mx" in seen.stream, "only its label is bold"
    whole = f"kept        {Path.cwd()}/x"
    assert seen.lines[-2] == (whole if "CI" in environment else "kept        x"), "below the current folder"
    assert subprocess.check_output(command, text=True) == f"{whole}\n"


def test_the_document_of_an_error_is_in_its_file_though_a_person_watches_the_progress(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    command = f"{GRADMILL} inspect {tmp_path}/t.csv --target price --json > {tmp_path}/answer.json"
    assert Terminal(["sh", "-c", command]).returncode == 4
    assert "price" in json.loads((tmp_path / "answer.json").read_text())["error"]["found"]


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
def test_what_is_odd_is_said_once_below_its_stage_and_a_question_is_legible(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{('Köln', 'Bonn')[at % 2]},{at % 7},{at % 7 + at % 2}\n" for at in range(300))
    Path("t.csv").write_bytes(f"city,rooms,price\n{rows}".encode("cp1252"))
    environment = {"GRADMILL_ARTIFACTS": str(artifacts)}
    for command in ("retrain linear-regression --name t --data t.csv --target price", "predict t.csv --name t"):
        seen = Terminal([GRADMILL, *command.split()], environment)
        odd = [at for at, line in enumerate(seen.lines) if "Windows-1252" in line]
        assert [seen.lines[at] for at in odd] == ["t.csv is not UTF-8 and is read as Windows-1252"], seen.lines
        assert seen.lines[odd[0] - 1].split()[:2] == ["✓", "validate" if "retrain" in command else "predict"]
        assert not [line for line in seen.lines if line.endswith("0:00:00")], seen.lines
    refused = Terminal([GRADMILL, "remove", "t"], environment, typed="n\n")
    question = "Delete t: history, data, runs and 1 version? [y/N]: "
    # The answer stands above, where it was typed before the question.
    assert (refused.returncode, refused.lines) == (0, ["n", f"{question}nothing was deleted", ""])


DURATIONS = {0: "< 1 ms", 0.0004: "< 1 ms", 0.004: "4 ms", 0.04: "40 ms", 0.4: "0.40 s", 4: "4.0 s", 400: "400 s"}
FIGURES = {
    0: "0", 0.83219: "0.8322", 2024.0: "2024", 9999.6: "10,000", 14823.6: "14,820", -6571910000.0: "-6,572,000,000",
    1e15: "1e+15", 0.000012: "1.2e-05", math.inf: "inf",
}  # fmt: skip


TOLD_APART = {
    (109_943_210.0, 115_370_000.0): "109,900,000",
    (0.500001, 0.5): "0.500001",
    (0.5, 0.500001): "0.5",
    (0.5, 0.5): "0.5",
}


def test_figures_have_more_digits_only_where_these_tell_one_from_its_bound_and_no_duration_is_nothing() -> None:
    assert {each: format_duration(each) for each in DURATIONS} == DURATIONS
    assert {each: format_number(each) for each in FIGURES} == FIGURES
    assert {each: tell_apart(*each) for each in TOLD_APART} == TOLD_APART
    verdict = judge("reference", 1.000004, maximum=1.0)
    assert (format_value(verdict), verdict.detail) == ("1.000004", "at most 1 required")
    assert judge("reference", 109_943_210.0, maximum=115_372_345.0).detail == "at most 115,400,000 required"


@pytest.mark.slow
def test_a_person_at_a_terminal_sees_at_once_what_is_waited_for_then_stages_and_the_summary_or_asks_for_quiet(
    on_server: None, two_versions: None
) -> None:
    command = ("predict", "--name", "linear-regression")
    seen = Terminal([GRADMILL, *command])
    assert seen.returncode == 0
    assert "starting" in seen.stream.splitlines()[0], "before anything else"
    assert seen.stream.index("waiting for Prefect") < seen.stream.index("✓")
    first, *lines, last = (line for line in seen.lines if line)
    assert re.fullmatch(r"✓ predict    1,000 rows predicted, 0 rejected +[\d.]+ m?s", first)
    told = next(line for line in lines if line.startswith("predicted "))  # a disk that is nearly full is told before
    assert told.startswith("predicted   1,000 rows by linear-regression version 2")
    assert last.startswith("try next ")
    done = gradmill(*command, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    [
        "ret -> retrain",
        "retrain --implementation s -> scratch",
        "predict --name h -> houses",
        "show h -> houses",
    ],
)
def test_completion_of_a_shell_knows_commands_models_and_kept_names(typed: str, artifacts: Path) -> None:
    artifact_paths.model("houses").mkdir(parents=True)
    words, offered = typed.split(" -> ")
    asked = {"_GRADMILL_COMPLETE": "complete_bash", "COMP_WORDS": f"gradmill {words}"}
    asked["COMP_CWORD"] = str(len(words.split()))
    done = subprocess.run([GRADMILL], env=os.environ | asked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [offered], "")


@pytest.mark.slow
def test_show_opens_the_page_on_a_desktop_and_tells_its_path_elsewhere(two_versions: None, tmp_path: Path) -> None:
    document = answer("show linear-regression")
    page, opened, browser = Path(document["path"]), tmp_path / "opened", tmp_path / "browser"
    assert (document["version"], document["opened"], page.name) == (2, False, "index.html")
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    command = [GRADMILL, "show", "linear-regression"]
    seen = Terminal([*command, "2"], environment={"BROWSER": f"{browser} %s"})
    assert opened.read_text().strip() == page.as_uri()
    assert seen.lines[0].startswith("model       linear-regression version 2, the champion: test loss ")
    opened.unlink()
    seen = Terminal(command, environment=dict.fromkeys(("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"), ""))
    assert str(page) in "".join(map(str.strip, seen.lines))
    assert not opened.exists()
