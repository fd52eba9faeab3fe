"""``gradmill doctor`` against what the system's own tools say, on real environments that lack or break something."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.version import Version

from command_line import GRADMILL, in_own_mounts
from conftest import REPOSITORY
from flows import doctor as checks
from tasks.data.book_datasets import FILES
from tasks.machine import devices
from tasks.parameters import FASHION_MNIST, Device
from tasks.store import artifact_paths

HAS_GPU = devices.cuda_fault() is None
COMPILER = shutil.which("cc")

DRIVER = """
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Pretend GPU", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { strncpy(version, "580.65.06", size); return 0; }
"""


class Doctor:
    """One run of ``gradmill doctor --json``."""

    def __init__(self, *arguments: str, command: Sequence[str] = (GRADMILL,), **environment: str) -> None:
        self.done = subprocess.run(
            [*command, "doctor", "--json", *arguments],
            capture_output=True, text=True, timeout=600, env=os.environ | environment,
        )  # fmt: skip
        assert "Traceback" not in self.done.stderr
        self.document: dict[str, Any] = json.loads(self.done.stdout)
        assert self.document["exit_code"] == self.done.returncode
        self.checks = {each["name"]: each for each in self.document["checks"]}

    @property
    def problems(self) -> dict[str, int]:
        return {name: each["exit_code"] for name, each in self.checks.items() if each["status"] == "problem"}


def told(*command: str) -> str:
    return subprocess.check_output(command, text=True).strip()


TRAINING = ("torch", "onnx-", "matplotlib")


def environment_without(folder: Path, *packages: str) -> list[str]:
    """The command for Gradmill in a real environment in ``folder``: all that is installed here but ``packages``."""
    folder.mkdir()
    for path in Path(np.__file__).parents[1].iterdir():
        if not path.name.startswith(packages):
            (folder / path.name).symlink_to(path)
    python = str(getattr(sys, "_base_executable", sys.executable))
    return ["env", f"PYTHONPATH={folder}:{REPOSITORY}", python, "-S", "-m", "flows"]


@pytest.fixture(scope="module")
def prediction(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Gradmill as in the image ``predict``: the core and onnxruntime."""
    folder = tmp_path_factory.mktemp("environments") / "predict"
    command = environment_without(folder, *TRAINING)
    (folder / "onnx").unlink()
    return command


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a driver that counts one GPU, on which nothing runs."""
    folder = tmp_path_factory.mktemp("driver")
    compiler = [str(COMPILER), "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(compiler, input=DRIVER, text=True, check=True)
    (folder / "libnvidia-ml.so.1").symlink_to("libcuda.so.1")
    return str(folder)


@pytest.mark.slow
def test_a_whole_machine_is_ready_and_its_figures_are_what_the_system_tells(
    server: str, fashion_mnist: Path, artifacts: Path
) -> None:
    one_core = ["taskset", "-c", str(min(os.sched_getaffinity(0))), GRADMILL]
    doctor = Doctor(command=one_core, PREFECT_API_URL=server)
    facts = {name: each["facts"] for name, each in doctor.checks.items()}
    assert (doctor.done.returncode, doctor.problems) == (0, {})
    assert facts["python"]["version"] == told(sys.executable, "--version").removeprefix("Python ")
    # Builds for CUDA name it, as 2.15.0+cu132, in the module or in the wheel or in both.
    assert Version(facts["torch"]["torch"]).public == Version(metadata.version("torch")).public
    assert facts["onnxruntime"]["providers"][-1] == "CPUExecutionProvider"
    memory = int(told("awk", "/^MemTotal/ {print $2}", "/proc/meminfo")) * 1024
    assert facts["memory"] == facts["memory"] | {
        "cores": 1,
        "machine_cores": int(told("nproc", "--all")),
        "machine": memory,
    }
    free = int(told("df", "--output=avail", "-B1", str(artifacts.parent)).splitlines()[1])
    assert facts["folders"]["free"][str(artifacts)] == pytest.approx(free, abs=2**30)
    assert os.environ["PREFECT_HOME"] in facts["folders"]["free"]
    assert facts["server"]["server"] == metadata.version("prefect")
    assert str(fashion_mnist) in facts["data"]["source"]
    assert not artifacts.exists(), "it leaves nothing"


def test_an_installation_for_prediction_is_ready_and_says_that_training_is_not_installed(
    prediction: list[str], artifacts: Path
) -> None:
    done = subprocess.run([*prediction, "doctor"], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "torch       note: training is not installed here: this machine can predict" in lines
    assert any(line.startswith(f"folders     ok: {artifacts} has ") for line in lines), "whole, in a pipe"
    assert lines[-1] == "ready"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("installed", "folder"),
    [([], False), (["onnxruntime"], False), (["onnxruntime", "onnxruntime-gpu"], True)],
    ids=["none", "one of two was removed, and the folder with it", "two"],
)
def test_anything_but_exactly_one_whole_onnxruntime_is_a_problem(
    installed: list[str], folder: bool, tmp_path: Path
) -> None:
    """Each leaves a record of the one folder behind; here the records are written without a download."""
    hidden = ("onnxruntime_gpu", "onnxruntime-") if folder else ("onnxruntime",)
    command = environment_without(tmp_path / "environment", *TRAINING, *hidden)
    for name in installed:
        record = tmp_path / "environment" / f"{name.replace('-', '_')}-1.30.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
        (record / "RECORD").write_text("onnxruntime/__init__.py,,\n")
    doctor = Doctor(command=command)
    assert doctor.problems == {"onnxruntime": 1}
    assert doctor.checks["onnxruntime"]["facts"]["installed"] == installed


@pytest.mark.slow
def test_a_package_that_gradmill_requires_and_lacks_is_a_problem_and_one_that_others_lack_a_note(
    tmp_path: Path,
) -> None:
    for name, lacking, status in (("ours", "prometheus_client-", "problem"), ("theirs", "coolname-", "note")):
        check = Doctor(command=environment_without(tmp_path / name, *TRAINING, lacking)).checks["packages"]
        words = f"requires {lacking.rstrip('-').replace('_', '-')}, which is not installed"
        assert (check["status"], words in check["found"]) == (status, True)


@pytest.mark.slow
@pytest.mark.skipif(HAS_GPU or COMPILER is None, reason="a GPU is here, or no C compiler to stand in for the driver")
def test_a_gpu_that_nothing_runs_on_is_named_and_is_a_problem_only_where_cuda_is_asked_for(
    prediction: list[str], driver: str
) -> None:
    """Even so onnxruntime lists its CUDA provider."""
    asked = Doctor("--device", "cuda", command=prediction, LD_LIBRARY_PATH=driver)
    assert asked.checks["gpu"]["found"] == "Pretend GPU (80.0 GiB), driver 580.65.06, CUDA 13.1"
    assert asked.problems == {"onnxruntime": 5}
    assert "CUDAExecutionProvider: " in asked.checks["onnxruntime"]["found"]
    auto = Doctor(command=prediction, LD_LIBRARY_PATH=driver)
    assert (auto.problems, auto.checks["onnxruntime"]["status"]) == ({}, "note")
    assert auto.checks["onnxruntime"]["facts"]["providers"] == ["CPUExecutionProvider"]


def test_a_small_disk_is_noted(prediction: list[str], artifacts: Path) -> None:
    artifacts.mkdir()
    mounted = in_own_mounts(f'mount -t tmpfs -o size=90m tmpfs "{artifacts}"')
    check = Doctor(command=[*mounted, *prediction]).checks["folders"]
    assert (check["status"], check["exit_code"]) == ("note", 0)
    assert check["facts"]["free"][str(artifacts)] == 90 * 2**20


def test_data_that_no_source_has_is_exit_4_and_a_whole_cache_needs_none(
    fashion_mnist_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in FILES:
        cached = artifact_paths.raw_file(FASHION_MNIST, file.name, file.sha256)
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.symlink_to((fashion_mnist_files / file.name).resolve())
    assert "in artifacts/ already" in checks.check_data(Device.AUTO).found
    monkeypatch.setenv("GRADMILL_FASHION_MNIST_DIR", str(tmp_path))
    finding = {each.name: each for each in checks.examine(Device.AUTO, debug=False)}["data"]
    assert (finding.exit_code, str(tmp_path) in finding.found) == (4, True)


# Arguments, environment, and of each check that has a problem its exit code and words.
PROBLEMS: dict[str, tuple[str, dict[str, str], dict[str, tuple[int, str]]]] = {
    "a folder that cannot be, no API and no GPU": (
        "--debug --artifacts /proc/x --device cuda", {"PREFECT_API_URL": "http://me:s3c@ret@127.0.0.1:1/api"},
        {
            "folders": (1, "/proc/x"), "server": (1, "no Prefect server answers at http://127.0.0.1:1/api"),
            "gpu": (5, "NVIDIA driver"),
        },
    ),
    "a setting that cannot be": (
        "", {"GRADMILL_TIME_LIMIT": "perhaps"}, {"folders": (1, "GRADMILL_TIME_LIMIT=perhaps"), "server": (1, "")},
    ),
    "a folder below a file": ("", {"PREFECT_HOME": "/etc/passwd/x"}, {"folders": (1, "/etc/passwd/x")}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_has_its_exit_code_and_reason_stops_no_other_check_and_no_password_is_told(
    kind: str, prediction: list[str]
) -> None:
    arguments, environment, problems = PROBLEMS[kind]
    if "cuda" in arguments and HAS_GPU:
        pytest.skip("this machine has a GPU")
    doctor = Doctor(*arguments.split(), command=prediction, **environment)
    assert doctor.problems == {name: code for name, (code, _) in problems.items()}
    assert doctor.done.returncode == max(doctor.problems.values())
    assert all(words in doctor.checks[name]["found"] for name, (_, words) in problems.items())
    assert not any(secret in doctor.done.stdout + doctor.done.stderr for secret in ("s3c", "ret@", "me:"))


def test_a_limit_of_memory_is_reported(prediction: list[str]) -> None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2048  # half of the memory, in KiB
    doctor = Doctor(command=["sh", "-c", f'ulimit -v {pages} && exec "$@"', "sh", *prediction])
    assert doctor.checks["memory"]["facts"]["limit"] == pages * 1024
