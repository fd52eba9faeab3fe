"""The changes that docs/contributing.md shows: each is small, fits this code, and passes the test that it brings."""

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


def test_there_is_one_for_whatever_people_add() -> None:
    assert [*RECIPES] == ["A reader", "A network", "A gate", "A consumer"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_changes_fewer_than_thirty_lines_and_fits_the_code(recipe: str) -> None:
    changed = [line.split("\t")[:2] for line in apply(recipe, "--check", "--numstat").splitlines()]
    assert 0 < sum(int(added) + int(removed) for added, removed in changed) < 30


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_passes_the_test_that_it_brings(recipe: str, tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    for name in filter(None, listed.stdout.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    apply(recipe, folder=tmp_path)
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet"], check=True, cwd=tmp_path)
    tests = re.findall(r"(?m)^\+\+\+ b/(tests/\S+)$", RECIPES[recipe])
    brought = re.findall(r"(?m)^\+def (test_\w+)|^\+    \"([\w.]+)\": lambda", RECIPES[recipe])  # or a case of others
    assert tests
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-k", " or ".join(map("".join, brought))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
