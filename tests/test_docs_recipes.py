"""The changes that docs/contributing.md shows: each is small, fits this code, and passes the test that it brings."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/contributing.md").read_text()
RECIPES = dict(re.findall(r"(?ms)^### ([^\n]*)\n(?:(?!^#).)*?^```diff\n(.*?)^```$", PAGE))


def apply(recipe: str, *options: str, folder: Path = REPOSITORY) -> str:
    command = ["git", "apply", *options, "-"]
    done = subprocess.run(command, input=RECIPES[recipe], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


MOST_FILES = {"A reader": 4, "A network": 4, "A gate": 3, "A penalty": 6, "A kind of column": 8, "A consumer": 1}


def test_there_is_one_for_whatever_people_add() -> None:
    assert [*RECIPES] == [*MOST_FILES]


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_changes_few_lines_of_few_files_and_fits_the_code(recipe: str) -> None:
    changed = [line.split("\t")[:2] for line in apply(recipe, "--check", "--numstat").splitlines()]
    assert 0 < sum(int(added) + int(removed) for added, removed in changed) < 30
    assert len(changed) <= MOST_FILES[recipe]


@pytest.mark.slow
def test_all_together_pass_the_tests_that_they_bring_and_those_of_parameters(tmp_path: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # with files not yet added
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    for name in filter(None, listed.stdout.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    for recipe in RECIPES:
        apply(recipe, folder=tmp_path)
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet"], check=True, cwd=tmp_path)
    files = [set(re.findall(r"(?m)^\+\+\+ b/(tests/\S+)$", diff)) for diff in RECIPES.values()]
    brought = [name for diff in RECIPES.values() for name in re.findall(r"(?m)^\+def (test_\w+)", diff)]
    assert all(files)
    assert len(brought) >= len(RECIPES)
    tests = [*sorted(set.union(*files)), "tests/test_cli_parameters.py"]
    options = ["-v", "-n0", "-p", "no:cacheprovider", "-k", " or ".join([*brought, "test_cli_parameters"])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in brought:
        assert re.search(rf"::{name}(\[.*\])? PASSED", done.stdout), done.stdout


WATCHED = """
import json, sys, threading

root, called = sys.argv[1], set()
ours = tuple(f"{root}/{folder}/" for folder in ("flows", "tasks", "gradmill"))

def note(frame, event, _):
    code = frame.f_code  # with flag 1: of a function, and not of a class or module
    if event == "call" and code.co_filename.startswith(ours) and code.co_flags & 1 and code.co_name[0] != "<":
        called.add((code.co_filename[len(root) + 1:], code.co_qualname))

threading.setprofile(note)
sys.setprofile(note)
from flows.cli import app
code = app.run(sys.argv[2:])
sys.setprofile(None)
print(json.dumps([code, sorted(called)]))
"""


@pytest.mark.slow
def test_a_row_goes_from_a_csv_to_the_weights_through_the_files_of_the_walk(tmp_path: Path) -> None:
    """And the whole command stays as small as it is."""
    names = ("--name", "houses", "--target", "price", "--no-predict", "--artifacts", str(tmp_path / "artifacts"))
    rows = [f"{area},{area % 7},{'ab'[area % 2]},{3 * area - area % 7}" for area in range(800)]
    (tmp_path / "houses.csv").write_text("\n".join(["area,age,city,price", *rows]))
    command = [sys.executable, "-c", WATCHED, str(REPOSITORY), "retrain", "linear-regression", "--data"]
    done = subprocess.run(
        [*command, str(tmp_path / "houses.csv"), *names], capture_output=True, text=True, cwd=REPOSITORY
    )
    code, called = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    files = {file for file, _ in called}
    path, beside = PAGE.partition("## The path of a row\n")[2].partition("\n## ")[0].split("\nBesides these files")
    through, others = (set(re.findall(r"`(tasks/\S+\.py)`", text)) for text in (path, beside))
    folders = r"tasks/(data|networks|fitting)/|tasks/(download|validate|preprocess|train)\.py"
    assert {file for file in files if re.match(folders, file)} == through | others
    assert len(through) <= 30
    assert len(files) <= 115
    assert len(called) <= 800
