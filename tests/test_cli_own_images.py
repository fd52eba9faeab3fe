"""Own images at the command line: what is said of good and bad ones before anything is trained."""

import json
import re
import shutil
from pathlib import Path

import pytest

import flows.cli.app
from image_folders import write

COUNTS = {"cat": 40, "dog [b]": 30, "owl": 20}


@pytest.fixture
def folder(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = flows.cli.app.run([*arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_inspect_says_what_images_are_like_and_how_to_train_on_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "pets", COUNTS, channels=3)
    code, out, _ = said(capsys, "inspect", "pets", "--side", "5", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["classes"] == {"cat": 40, "dog [b]": 30, "owl": 20}
    assert found["images"]["shape"] == [5, 5, 3]
    assert found["num_train"] + found["num_test"] == 90
    assert found["command"].endswith(f"retrain softmax-regression --name pets --data {folder}/pets --side 5")
    code, out, _ = said(capsys, "inspect", "pets")
    assert code == 0
    assert all(each in out for each in ("90 images of 3 classes, as 8 by 8 colour", "dog [b]", "--data"))
    assert re.search(r"validation loss \(.*\): 1\.\d+ by the best constant, 0\.\d+ by a fit$", out, re.MULTILINE)


def test_inspect_keeps_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "pets", COUNTS)
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert said(capsys, "inspect", "pets")[0] == 0
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_faults_are_shown_together_and_are_exit_code_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "pets", COUNTS | {"a\nb": 1})
    (folder / "pets" / "cat" / "0001.png").write_text("no picture")
    code, _, err = said(capsys, "inspect", "pets")
    assert code == 4
    assert all(each in err for each in ("cat/0001.png: none of PNG", "names of one line", "3 faults"))


RETRAIN = ("retrain", "softmax-regression", "--name", "pets", "--data")
MISUSED = {
    "a column of images": ([*RETRAIN, "pets", "--ignore", "x"], 2, "for tables"),
    "a column of images to inspect": (["inspect", "pets", "--split-by", "x"], 2, "--split-by and images"),
    "a side of a table": ([*RETRAIN, "houses.csv", "--target", "y", "--side", "8"], 2, "for images"),
    "a table to predict nothing of": ([*RETRAIN, "houses.csv"], 2, "name it with --target"),
    "a folder of tables": ([*RETRAIN, "tables"], 2, "name it with --target"),
    "a URL": ([*RETRAIN, "https://example.org/pets"], 2, "--target"),
    "nothing": ([*RETRAIN, "nowhere"], 4, "no folder"),
    "no name": ([*RETRAIN, ""], 2, "--data"),
    "a glob": ([*RETRAIN, "pets/*"], 4, "no glob"),
    "a glob to inspect": (["inspect", "p*s"], 4, "no glob"),
    "an empty folder to inspect": (["inspect", "empty"], 4, "no classes of images"),
    "a picture to inspect": (["inspect", "pets/cat/0000.png"], 4, "no classes of images"),
    "one folder too low": (["inspect", "pets/cat"], 4, "no classes of images"),
    "an empty folder": ([*RETRAIN, "empty"], 4, "no classes"),
    "numbers": (["retrain", "linear-regression", "--name", "pets", "--data", "pets"], 2, "softmax-regression learns"),
    "a side beyond all": ([*RETRAIN, "pets", "--side", "257"], 2, "256"),
    "odd channels": ([*RETRAIN, "pets", "--channels", "cmyk"], 2, "grey"),
}


@pytest.mark.parametrize("case", MISUSED)
def test_what_cannot_be_meant_is_said_before_a_server_starts(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "pets", {"cat": 2, "dog": 2})
    (folder / "houses.csv").write_text("x,y\n1,2\n")
    (folder / "tables").mkdir()
    shutil.copy(folder / "houses.csv", folder / "tables" / "a.csv")
    (folder / "empty").mkdir()
    arguments, expected, words = MISUSED[case]
    code, _, err = said(capsys, *arguments)
    assert (code, words in err) == (expected, True), err
