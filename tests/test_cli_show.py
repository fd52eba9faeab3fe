"""The page of a version, opened where there is a desktop, and the learning curve at the terminal."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest

import flows.cli.app
from candidate import Candidate, seal
from command_line import GRADMILL, assert_clear, gradmill
from flows.cli import pages
from tasks.store import artifact_paths
from terminals import Terminal


def test_bars_rise_and_fall_as_values_do_and_fit_a_line() -> None:
    assert pages.draw_bars([1.0, 2.0, 3.0]) == "▁▅█" or pages.draw_bars([1.0, 2.0, 3.0]) == "▁▄█"
    assert pages.draw_bars([5.0, 5.0]) == "▁▁"
    for values in ([math.exp(-step / 9) for step in range(1000)], [1 / (1 + step) for step in range(31)]):
        drawn = [pages.BLOCKS.index(letter) for letter in pages.draw_bars(values)]
        assert drawn == sorted(drawn, reverse=True)
        assert (drawn[0], drawn[-1], len(drawn) <= 31) == (7, 0, True)
    assert set(pages.draw_bars([1.0, 2.0], is_ascii=True)) <= set(pages.ASCII)


def test_powers_of_ten_are_steps_of_one_height() -> None:
    heights = [pages.BLOCKS.index(letter) for letter in pages.draw_bars([10.0**-power for power in range(8)])]
    assert heights == [7, 6, 5, 4, 3, 2, 1, 0]


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


def test_show_tells_which_epoch_left_the_weights(
    candidates: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[0].publish()
    folder = artifact_paths.version("linear-regression", 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    for kept, is_told in ((2, True), (4, False)):
        seal(folder, manifest | {"trained": manifest["trained"] | {"kept_epoch": kept, "num_epochs": 4}})
        assert flows.cli.app.run(["show", "linear-regression", "--no-browser"]) == 0
        assert ("the weights of epoch 2 of 4" in capsys.readouterr().out) == is_told


@pytest.mark.slow
def test_show_of_what_is_not_there_is_exit_2(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    assert_clear(gradmill("show", "linear-regression", "7"), 2)
    assert_clear(gradmill("show", "other"), 2)


def test_completion_knows_kept_names(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    assert artifact_paths.model("linear-regression").is_dir()
    asked = {"_GRADMILL_COMPLETE": "complete_bash", "COMP_WORDS": "gradmill show lin", "COMP_CWORD": "2"}
    done = subprocess.run([GRADMILL], env=os.environ | asked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["linear-regression"])
