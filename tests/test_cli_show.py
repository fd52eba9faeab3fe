"""The page of a version, opened where there is a desktop, and the learning curve at the terminal."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import flows.cli.app
from candidate import Candidate, seal
from command_line import GRADMILL, assert_clear, gradmill
from tasks.store import artifact_paths, reading
from terminals import Terminal


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


@pytest.mark.slow  # two retrains
@pytest.mark.usefixtures("on_server")
def test_compare_names_the_weights_that_moved_most_and_judges_on_rows_new_to_both(tmp_path: Path) -> None:
    rng, table = np.random.default_rng(0), tmp_path / "houses.csv"
    area, rooms = rng.uniform(40, 200, 3000), rng.integers(1, 6, 3000)

    def retrain(num_rows: int, slope: float, *options: str) -> None:
        price = np.where(np.arange(3000) < 1500, 3, slope) * area + 9 * rooms + noise
        rows = zip(area[:num_rows], rooms[:num_rows], price[:num_rows], strict=True)
        table.write_text("area,rooms,price\n" + "".join(f"{a},{r},{p}\n" for a, r, p in rows))
        done = gradmill("retrain", *options, "--no-predict", "--max-error-rise", "100", "--accept-data")
        assert done.returncode == 0, done.stderr

    noise = rng.normal(0, 5, 3000)
    retrain(1500, 3, "linear-regression", "--name", "houses", "--data", str(table), "--target", "price")
    retrain(3000, 3.5, "houses")
    done = gradmill("compare", "houses", "1", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    before, after = (reading.manifest("houses", number).metrics.model_dump()["weights"] for number in (1, 2))
    moved = {each["name"]: each["value"] for each in told["weights"]}
    assert moved == {name: pytest.approx(after[name] - before[name]) for name in ("area", "rooms")}
    assert told["weights"][0]["name"] == "area"
    (loss,) = [gate for gate in told["gates"] if gate["name"] == "champion_loss"]
    assert loss["value"] == pytest.approx(told["figures"]["test_loss"][1], rel=0.05)
    shown = gradmill("compare", "houses", "1", "2").stdout
    assert "weight that moved most" in shown
    assert "of version 1 on" in shown
