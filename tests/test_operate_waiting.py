"""What commands make a person wait for is counted, not timed: requests, what waits for the disk, imports, settings."""

import gc
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect import Flow

from command_line import gradmill
from conftest import REPOSITORY
from flows.server import connection
from prefect_api import post
from tasks.machine import heap
from tasks.parameters import RetrainParameters

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
    assert not {"torch", "onnx", "scipy.stats", "pandas", "fastapi"} & modules


def learn(parameters: RetrainParameters) -> None:
    """A flow's function that does nothing."""


@pytest.mark.parametrize("given", [{}, {"data": {"source": "/a.csv", "target": "b", "test": 0.25}, "name": "c"}])
def test_parameters_are_told_to_the_api_as_prefect_tells_them(given: dict[str, Any]) -> None:
    parameters: dict[str, Any] = {"parameters": RetrainParameters.model_validate(given)}
    plain = Flow(learn, name="plain")
    expected = plain.serialize_parameters(parameters)
    assert connection.encoding(plain).serialize_parameters(parameters) == expected
    assert expected["parameters"]["name"] == given.get("name", "softmax-regression")


@pytest.mark.slow
def test_the_version_of_a_server_of_ours_is_asked_for_once(duty: "Duty", tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in duty.environment.items():
            patch.setenv(name, value)
        patch.delenv("PREFECT_API_URL", raising=False)
        asked, _ = counted(tmp_path, "retrain", "linear-regression")
    assert asked["GET admin"] == 1 + 3, "the version, and three times where results are kept"


AHEAD = """
import os, sys
import psutil
from flows.server import connection
with connection.ahead():
    print(len(psutil.Process().children()), "prefect" in sys.modules, "httpx" in sys.modules)
psutil.wait_procs(psutil.Process().children(), 60)
print(len(psutil.Process().children()))
"""


def ahead(home: Path, **settings: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = kept | {"PREFECT_HOME": str(home)} | settings
    done = subprocess.run(
        [sys.executable, "-c", AHEAD], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_a_temporary_server_starts_before_prefect_is_imported_and_ends_unasked(artifacts: Path, tmp_path: Path) -> None:
    assert ahead(tmp_path) == ["1 False False", "0"]


@pytest.mark.parametrize("named", ["variable", "profile", "up"])
def test_none_starts_ahead_where_another_server_is_named(named: str, artifacts: Path, tmp_path: Path) -> None:
    settings = {"PREFECT_API_URL": "http://127.0.0.1:1/api"} if named == "variable" else {}
    if named == "profile":
        (tmp_path / "profiles.toml").write_text('[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n')
    if named == "up":
        (artifacts / ".prefect").mkdir(parents=True)
        (artifacts / ".prefect" / "service.json").touch()
    assert ahead(tmp_path, **settings) == ["0 False False", "0"]


def test_a_temporary_server_looks_for_no_blocks(server: str) -> None:
    there = {each["slug"] for each in post(server, "block_types/filter", {})}  # some that tests have made
    assert not {"local-file-system", "json", "date-time", "webhook"} & there


def test_garbage_is_looked_for_again_when_a_run_begins_and_when_none_does() -> None:
    with heap.importing():
        assert not gc.isenabled()
        heap.keep_imports()
        assert gc.isenabled()
    with heap.importing():
        pass
    assert gc.isenabled()


def test_threads_of_a_run_share_the_memory_that_they_allocate_from(tmp_path: Path) -> None:
    arenas = {name: _arenas(tmp_path / name, begins) for name, begins in (("others", ""), ("runs", SHARED))}
    if arenas["others"] == 1:
        pytest.skip("this libc gives threads no arenas of their own")
    assert arenas["runs"] == 1


SHARED = "from tasks.machine import heap\nwith heap.importing(): pass"
ALLOCATING = """
import ctypes, sys, threading, numpy as np
barrier = threading.Barrier(4)
def allocate():
    kept = np.ones(1000)
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def _arenas(path: Path, begins: str) -> int:
    """How many arenas glibc has after four threads allocated at once, by its own account."""
    subprocess.run([sys.executable, "-c", f"{begins}\n{ALLOCATING}", str(path)], cwd=REPOSITORY, check=True)
    return path.read_text().count("<heap nr=")


def test_while_a_thread_imports_no_garbage_is_looked_for_and_who_needs_the_module_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "takes_long.py").write_text("import threading\nthreading.go_on.wait(30)\ndone = True")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(threading, "go_on", go_on := threading.Event(), raising=False)
    with heap.importing():
        heap.import_beside("takes_long", "is_nowhere")
        heap.keep_imports()
        assert not gc.isenabled()
        threading.Timer(0.1, go_on.set).start()
        assert importlib.import_module("takes_long").done
        assert heap.beside is not None
        heap.beside.join()
        assert gc.isenabled()
