"""What people see: a list of stages that fits the terminal, plain lines for everybody else."""

import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from candidate import Candidate
from command_line import GRADMILL, gradmill
from flows.cli.display import StageList
from tasks.judging.gates import format_value, judge
from tasks.machine import telling
from tasks.machine.words import duration, readable, tell_apart
from tasks.store import artifact_paths
from terminals import Terminal, shown_of

MOVES_OR_COLOURS = "\x1b"


def drawn(width: int, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, force_terminal=True, width=width, color_system=None, highlight=False)


def kept(console: Console) -> list[str]:
    """The lines that stay when what goes on has been taken away."""
    assert isinstance(console.file, io.TextIOWrapper)
    console.file.flush()
    written = console.file.buffer.getvalue().decode(console.file.encoding)
    return [line for line in shown_of(written) if line]


@telling.show_stage("evaluate")
def refused() -> None:
    telling.tell("gate x refused: 1, at most 0 required", short="refused by x")
    raise ValueError("refused")


@pytest.mark.parametrize(
    ("width", "encoding", "marks"), [(40, "utf-8", "✓✗"), (120, "utf-8", "✓✗"), (80, "ascii", "+x")]
)
def test_stages_are_a_list_with_marks_one_figure_and_seconds_that_fits_the_terminal(
    width: int, encoding: str, marks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    console = drawn(width, encoding)
    watcher = StageList(console, "starting")
    telling.watchers.append(watcher)
    try:
        with telling.show_stage("validate"):
            telling.tell("2,000 rows; and more that is for the log", short="2,000 rows")
            telling.tell(f"warning: {tmp_path}/t.csv: equal features have different targets [bold]")
            telling.tell("not shown", short="")
        with pytest.raises(ValueError, match="refused"):
            refused()
    finally:
        telling.watchers.remove(watcher)
        watcher.close()
    lines = kept(console)
    assert re.fullmatch(rf"{re.escape(marks[0])} validate   2,000 rows +(\d+|< 1) ms", lines[0])
    assert re.fullmatch(rf"{re.escape(marks[1])} evaluate   refused by x +(\d+|< 1) ms", lines[-1])
    assert " ".join(lines[1:-1]).split() == [
        "warning:",
        "t.csv:",
        "equal",
        "features",
        "have",
        "different",
        "targets",
        "[bold]",
    ]
    assert max(map(len, lines)) <= width


def test_words_stay_whole_at_a_terminal_and_lines_in_a_pipe() -> None:
    words = [f"{'w' * (1 + number * 7 % 19)}{number}" for number in range(60)]
    code = f"from flows.cli.display import print_fact; print_fact('label', ' '.join({words!r}))"
    at_terminal = Terminal([sys.executable, "-c", code])
    assert " ".join(at_terminal.lines).split() == ["label", *words]
    assert max(map(len, at_terminal.lines)) <= 80
    assert all(line.startswith(" " * 12) for line in at_terminal.lines[1:] if line), "below the first"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert piped.stdout == f"label       {' '.join(words)}\n"


@pytest.mark.parametrize(("columns", "shown"), [(106, "abcdef"), (105, "abcdf"), (80, "acdf")])
def test_a_narrow_terminal_leaves_out_the_columns_that_are_wanted_least(columns: int, shown: str) -> None:
    code = "from flows.cli.display import print_table; names = 'abcdef'\n"
    code += "print_table(names, [[f'{name * 9} {name * 3} {name * 2}' for name in names]], least_wanted=('e', 'b'))"
    lines = Terminal([sys.executable, "-c", code], columns=columns).lines
    assert lines[0].split() == list(shown)
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("environment", "watched", "coloured"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"CI": "true"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_a_log_of_ci_and_a_terminal_without_a_cursor_get_lines(
    environment: dict[str, str], watched: bool, coloured: bool
) -> None:
    code = "from flows.cli import display; display.wait('starting')\n"
    code += "if display.is_shown(): display._shown.end('train', True)\ndisplay.end(); display.print_fact('kept', 'x')"
    seen = Terminal([sys.executable, "-c", code], environment=environment)
    assert (MOVES_OR_COLOURS in seen.stream, "starting" in seen.stream) == (watched, watched)
    assert bool(re.search(r"\x1b\[3\dm", seen.stream)) == coloured
    assert seen.lines[-2] == "kept        x"


def test_no_duration_is_nothing() -> None:
    seconds = [0, 0.0004, 0.004, 0.04, 0.4, 4, 40, 400]
    said = ["< 1 ms", "< 1 ms", "4 ms", "40 ms", "0.40 s", "4.0 s", "40 s", "400 s"]
    assert [duration(each) for each in seconds] == said


def test_figures_are_written_as_people_write_them_until_they_are_far_too_large_or_too_small() -> None:
    figures = [0, 0.83219, 2024.0, 9999.6, 14823.6, -6571910000.0, 1e15, 0.000012, math.inf]
    said = ["0", "0.8322", "2024", "10,000", "14,820", "-6,572,000,000", "1e+15", "1.2e-05", "inf"]
    assert [readable(each) for each in figures] == said


def test_a_figure_has_more_digits_only_where_these_tell_it_from_its_bound() -> None:
    assert tell_apart(109_943_210.0, 115_370_000.0, None) == "109,900,000"
    assert (tell_apart(0.500001, 0.5), tell_apart(0.5, 0.500001)) == ("0.500001", "0.5")
    assert tell_apart(0.5, 0.5) == "0.5", "as large as its bound"
    verdict = judge("reference", 1.000004, maximum=1.0)
    assert (format_value(verdict), verdict.detail) == ("1.000004", "at most 1 required")
    assert judge("reference", 109_943_210.0, maximum=115_372_345.0).detail == "at most 115,400,000 required"


def test_a_path_below_the_current_folder_is_told_from_there_to_a_person_and_whole_to_a_program() -> None:
    code = "from pathlib import Path; from flows.cli.display import print_fact"
    code += "; print_fact('model', f'{Path.cwd()}/artifacts/x.onnx')"
    assert Terminal([sys.executable, "-c", code]).lines[0] == "model       artifacts/x.onnx"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert piped.stdout == f"model       {Path.cwd()}/artifacts/x.onnx\n"


@pytest.mark.slow
def test_a_person_at_a_terminal_sees_at_once_what_is_waited_for_then_stages_and_the_summary(
    on_server: None, candidates: list[Candidate]
) -> None:
    candidates[0].publish()
    seen = Terminal([GRADMILL, "predict", "--name", "linear-regression"])
    assert seen.returncode == 0
    assert "starting" in seen.stream.splitlines()[0], "before anything else"
    assert seen.stream.index("waiting for Prefect") < seen.stream.index("✓")
    lines = [line for line in seen.lines if line]
    assert re.fullmatch(r"✓ predict    1,000 rows predicted, 0 rejected +[\d.]+ m?s", lines[0])
    told = next(line for line in lines if line.startswith("predicted "))  # a disk that is nearly full is told before
    assert told.startswith("predicted   1,000 rows by linear-regression version 1")
    assert lines[-1].startswith("try next ")
    assert max(map(len, lines)) <= 80 or any(os.sep in line for line in lines if len(line) > 80)


@pytest.mark.slow
def test_quiet_says_nothing(on_server: None, candidates: list[Candidate]) -> None:
    candidates[0].publish()
    done = gradmill("predict", "--name", "linear-regression", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow  # a whole retrain
def test_a_refusal_shows_the_gates_and_says_first_by_which(on_server: None) -> None:
    seen = Terminal([GRADMILL, "retrain", "linear-regression", "--epochs", "1", "--lr", "0.001"])
    lines = [line for line in seen.lines if line]
    assert seen.returncode == 3
    assert any(re.match(r"✗ evaluate   refused by test_loss, parameter_error", line) for line in lines)
    assert any(re.match(r"✗  test_loss +[\d.]+  at most [\d.e-]+$", line) for line in lines)
    assert any(line.startswith("gradmill: refused by test_loss ") for line in lines)
    assert not [line for line in lines if len(line) > 80 and os.sep not in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ret", ["retrain"]),
        ("retrain l", ["linear-regression"]),
        ("retrain --implementation s", ["scratch"]),
        ("predict --name h", ["houses"]),
        ("show h", ["houses"]),
        ("models h", ["houses"]),
    ],
)
def test_completion_of_a_shell_knows_commands_models_and_kept_names(
    typed: str, offered: list[str], artifacts: Path
) -> None:
    artifact_paths.model("houses").mkdir(parents=True)
    number = str(len(typed.split()))
    asked = {"_GRADMILL_COMPLETE": "complete_bash", "COMP_WORDS": f"gradmill {typed}", "COMP_CWORD": number}
    done = subprocess.run([GRADMILL], env=os.environ | asked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered, "")


@pytest.mark.slow
def test_show_opens_the_page_on_a_desktop_and_tells_its_path_elsewhere(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    candidates[0].publish()
    document = json.loads(gradmill("show", "linear-regression", "--json").stdout)
    assert (document["name"], document["version"], document["opened"]) == ("linear-regression", 1, False)
    page = Path(document["path"])
    assert "linear-regression" in page.read_text()

    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    seen = Terminal([GRADMILL, "show", "linear-regression", "1"], environment={"BROWSER": f"{browser} %s"})
    assert seen.returncode == 0
    assert (tmp_path / "opened").read_text().strip() == page.as_uri()
    assert seen.lines[0].startswith("model       linear-regression version 1, the champion: test loss ")

    (tmp_path / "opened").unlink()
    no_desktop = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    seen = Terminal([GRADMILL, "show", "linear-regression"], environment=no_desktop)
    assert str(page) in "".join(map(str.strip, seen.lines))
    assert not (tmp_path / "opened").exists()
