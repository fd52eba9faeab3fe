"""``--json``: standard output is one document, whatever lies beside the data and in the store."""

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import image_folders
from command_line import gradmill, plant_strangers
from flows.cli.app import PANELS

COMMANDS = [
    "retrain houses --data odd",
    "retrain linear-regression --name other --data strange --target price",
    "retrain --name digits --data pictures",
    "inspect odd --target price",
    "inspect strange --target price",
    "inspect pictures",
    "tune houses --data odd --trials 1 --epochs 2",
    "predict odd --name houses",
    "predict strange --name houses",
    "evaluate houses odd",
    "evaluate houses strange",
    "models",
    "show houses",
    "verify houses",
    "compare houses 1 1",
    "history",
    "report houses --output report.html",
    "promote houses 1",
    "rollback houses",
    "freeze houses",
    "unfreeze houses",
    "prune houses --keep 1",
    "schedule houses --cron '0 3 * * *'",
    "unschedule houses",
    "status",
    "trigger no-such-deployment",
    "skip no-such-deployment",
    "pause no-such-deployment",
    "resume no-such-deployment",
    "notify",
    "metrics",
    "register",
    "doctor",
    "maintain",
    "mirror houses odd/README",
    "backup copy",
    "restore odd",
    "remove houses --yes",
    "demo no-such-model",
    "up --port 0",
]
DATA = ("odd", "strange", "pictures")
WITH_A_RUN = ("retrain", "tune", "predict", "evaluate")


@pytest.fixture(scope="module")
def whole(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version, and folders of a table, of pictures and of nothing."""
    folder = tmp_path_factory.mktemp("json")
    rng = np.random.default_rng(0)
    rows = [f"{area:.1f},{3 * area + rng.normal():.2f}\n" for area in rng.uniform(40, 200, 300)]
    for name in DATA:
        (folder / name).mkdir()
    (folder / "odd" / "t.csv").write_text("area,price\n" + "".join(rows))
    image_folders.write(folder / "pictures", {"dark": 30, "light": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        patch.setenv("PREFECT_API_URL", server)
        words = "linear-regression --name houses --data odd --target price --no-predict"
        made = gradmill("retrain", *words.split())
        assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with what is neither data nor a version in all of them."""
    folder = tmp_path / "all"
    shutil.copytree(whole, folder)
    for name in DATA:
        (folder / name / "README").write_text("what this is")
        (folder / name / "again").symlink_to(folder / name)
        (folder / name / "nowhere").symlink_to("no-such-file")
        os.mkfifo(folder / name / "later.csv")
    for name in ("models", "models/houses", "models/a name", "predictions"):
        plant_strangers(folder / "artifacts" / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_standard_output_is_one_document(command: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith(WITH_A_RUN):
        monkeypatch.setenv("PREFECT_API_URL", server)
    done = gradmill(*shlex.split(command), "--json")
    assert isinstance(json.loads(done.stdout), dict), done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("folder")
def test_what_is_left_out_is_told_on_standard_error() -> None:
    done = gradmill("inspect", "odd", "--target", "price", "--json")
    assert json.loads(done.stdout)["rows"] == 300
    assert "ignored" in done.stderr


def test_every_command_is_tried() -> None:
    every = {command.__name__ for commands in PANELS.values() for command in commands}
    assert every == {command.split()[0] for command in COMMANDS}
