"""What commands make a person wait for is counted, not timed: requests, what waits for the disk, imports, settings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command_line import gradmill
from conftest import REPOSITORY
from prefect_api import post

if TYPE_CHECKING:
    from duty import Duty

COUNTED = """
import atexit, json, os, sys
from collections import Counter
import httpx
from prefect.settings import Settings
from flows.cli import app

asked = Counter()
def counted(client):
    send = client.send
    def counting(self, request, **options):
        asked[f"{request.method} {request.url.path.split('/')[2]}"] += 1
        return send(self, request, **options)
    client.send = counting
for client in (httpx.Client, httpx.AsyncClient):
    counted(client)
copy = Settings.copy_with_update
def copying(self, *arguments, **options):
    asked["settings"] += 1
    return copy(self, *arguments, **options)
Settings.copy_with_update = copying
fsync = os.fsync
def forcing(descriptor):
    asked["disk"] += 1
    fsync(descriptor)
os.fsync = forcing
code = app.run(sys.argv[2:])
found = {"code": code, "asked": asked, "modules": [*sys.modules]}
open(sys.argv[1], "w").write(json.dumps(found))
"""


def counted(tmp_path: Path, *arguments: str) -> tuple[dict[str, int], set[str]]:
    file = tmp_path / "counted.json"
    subprocess.run([sys.executable, "-c", COUNTED, file, *arguments], check=True, cwd=REPOSITORY, capture_output=True)
    found = json.loads(file.read_text())
    assert found["code"] == 0
    return found["asked"], set(found["modules"])


def test_a_retrain_that_changes_nothing_asks_little_and_imports_nothing_that_trains(
    on_server: None, artifacts: Path, tmp_path: Path
) -> None:
    assert gradmill("retrain", "linear-regression").returncode == 0
    asked, modules = counted(tmp_path, "retrain", "linear-regression")
    assert not asked.pop("settings", 0), "to make them anew takes a tenth of a second"
    assert asked.pop("disk") <= 18, "file and folder, for the run's first note and for one of each of eight stages"
    assert sum(asked.values()) <= 32, asked
    assert asked["POST artifacts"] <= 8, asked
    assert not {"torch", "onnx", "scipy.stats"} & modules


@pytest.mark.slow
def test_the_version_of_a_server_of_ours_is_asked_for_once(duty: "Duty", tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in duty.environment.items():
            patch.setenv(name, value)
        patch.delenv("PREFECT_API_URL", raising=False)
        asked, _ = counted(tmp_path, "retrain", "linear-regression")
    assert asked["GET admin"] == 1 + 3, "the version, and three times where results are kept"


def test_a_temporary_server_looks_for_no_blocks(server: str) -> None:
    there = {each["slug"] for each in post(server, "block_types/filter", {})}  # some that tests have made
    assert not {"local-file-system", "json", "date-time", "webhook"} & there
