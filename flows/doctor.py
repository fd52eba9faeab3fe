"""``gradmill doctor``: what this machine offers and what is wrong with it, one line for each part."""

import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import metadata
from typing import Any

from tasks.errors import DataError, DeviceMissing, EnvironmentProblem, GradmillError, without_credentials
from tasks.machine import devices, resources
from tasks.machine.words import pip_install
from tasks.parameters import FASHION_MNIST, Device
from tasks.serving.runtime import CPU, CUDA, find_fault
from tasks.store import artifact_paths

PACKAGE = "gradmill"
CUDA_TORCH = f"{pip_install('--force-reinstall', 'torch', 'torchvision')} (PyPI's builds for Linux are CUDA builds)"
GPU_BUILD = "onnxruntime-gpu"
SHOWN = 3  # lines of ``pip check``
LITTLE_SPACE = 200 * 2**20  # bytes: a first retrain used 125 MB at most and left 106 MB
SPACE = "free some space: a first retrain needs 0.2 GB"
TIMEOUT_SECONDS = 3.0


class Level(StrEnum):
    """``note``: works, but somebody may want to know. ``problem``: something required does not work."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Diagnosis:
    """One line of the page. Only a problem has an ``exit_code`` other than 0; ``facts`` are the same as numbers."""

    status: Level
    found: str
    action: str = ""
    exit_code: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def ok(found: str, **facts: Any) -> Diagnosis:
    """A requirement is met."""
    return Diagnosis(Level.OK, found, facts=facts)


def note(found: str, action: str = "", **facts: Any) -> Diagnosis:
    """Nothing required is missing."""
    return Diagnosis(Level.NOTE, found, action, facts=facts)


def problem(found: str, action: str, exit_code: int = EnvironmentProblem.exit_code, **facts: Any) -> Diagnosis:
    """Something required does not work; ``exit_code`` is the one with which a run would end."""
    return Diagnosis(Level.PROBLEM, found, action, exit_code, facts)


def check_python(device: Device) -> Diagnosis:
    """The interpreter and Gradmill itself."""
    python, version = platform.python_version(), metadata.version(PACKAGE)
    found = f"Python {python} on {platform.system()} {platform.machine()}, {PACKAGE} {version}"
    return ok(found, version=python, gradmill=version)


def check_packages(device: Device) -> Diagnosis:
    """What ``pip check`` says; only requirements of Gradmill itself are a problem."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if not done.returncode:
        return ok("pip check finds no broken requirements")
    if not done.stdout:
        return note("pip is not installed here: requirements are not checked")
    lines = done.stdout.splitlines()
    ours = [line for line in lines if line.startswith(f"{PACKAGE} ")]
    found = f"pip check: {'; '.join((ours or lines)[:SHOWN])}"
    action = "install the packages that it names"
    return problem(found, action) if ours else note(found, action)


def check_torch(device: Device) -> Diagnosis:
    """Torch, which must really compute: on the GPU, if that may be used."""
    if not _is_training_installed():
        return note("training is not installed here: this machine can predict")
    import torch

    found, facts = f"torch {torch.__version__}", {"torch": torch.__version__}
    if device is Device.CPU or devices.cuda_fault():
        return ok(f"{found}, on the CPU", **facts, cuda=False)
    try:
        torch.ones(1, device="cuda").add(1).item()
    except (RuntimeError, AssertionError) as error:  # raised by a build for the CPU
        return _without_cuda(device, f"{found} cannot use the GPU: {_first_line(error)}", CUDA_TORCH, **facts)
    return ok(f"{found}, on the GPU", **facts, cuda=True)


def _is_training_installed() -> bool:
    """Whether the extra ``train`` is installed, so that this machine can do more than predict."""
    return importlib.util.find_spec("torch") is not None


def check_onnxruntime(device: Device) -> Diagnosis:
    """Exactly one onnxruntime, and the providers that run a model; CUDA only if there is a GPU that may be used."""
    owners = _list_runtimes()
    if len(owners) != 1:
        found = f"{' and '.join(owners)} share one folder" if owners else "onnxruntime is not installed"
        action = f"pip uninstall {' '.join(owners)}; " if owners else ""
        return problem(
            found, f"{action}{pip_install('onnxruntime')} or, for a GPU, {GPU_BUILD} instead", installed=owners
        )
    (package,) = owners
    found = f"{package} {metadata.version(package)}"
    facts: dict[str, Any] = {"installed": owners}
    try:
        fault = find_fault(CPU)
    except Exception as error:  # a folder that two distributions shared, and one of them has removed
        fault = _first_line(error)
    if fault:
        return problem(f"{found} runs no model: {fault}", pip_install("--force-reinstall", package), **facts)
    if device is Device.CPU or devices.cuda_fault():
        return ok(f"{found} runs {CPU}", **facts, providers=[CPU])
    if fault := find_fault(CUDA):
        action = "" if package == GPU_BUILD else f"pip uninstall {package}; "
        action += pip_install(f"{GPU_BUILD}[cuda,cudnn]")
        return _without_cuda(device, f"{found} runs {CPU}, not {CUDA}: {fault}", action, **facts, providers=[CPU])
    return ok(f"{found} runs {CUDA} and {CPU}", **facts, providers=[CUDA, CPU])


def _list_runtimes() -> list[str]:
    """The installed distributions whose records list files in the import folder of onnxruntime.

    ``packages_distributions`` is not used: from Python 3.12 on it omits a record whose files another package removed.
    """
    distributions = metadata.distributions()
    return sorted(
        {each.name for each in distributions if "onnxruntime/__init__.py," in (each.read_text("RECORD") or "")}
    )


def check_gpu(device: Device) -> Diagnosis:
    """The GPUs, the driver, and the newest CUDA version that the driver supports."""
    try:
        driver = devices.query_driver()
    except DeviceMissing as error:
        if device is Device.CUDA:
            return problem(error.found, "see that nvidia-smi works here, or use --device auto", error.exit_code)
        return note(f"{error.found}: runs use the CPU", gpus=[])
    return ok(str(driver), gpus=[gpu._asdict() for gpu in driver.gpus], driver=driver.version, cuda=driver.cuda)


def _without_cuda(device: Device, found: str, action: str, **facts: Any) -> Diagnosis:
    """A problem if CUDA was requested; otherwise a note that runs use the CPU."""
    if device is Device.CUDA:
        return problem(found, action, DeviceMissing.exit_code, **facts)
    return note(f"{found}; runs use the CPU", action, **facts)


def check_memory(device: Device) -> Diagnosis:
    """The memory and cores that this process may use, and those of the machine."""
    machine, limit = resources.memory_size(), resources.memory_limit()
    cores, machine_cores = resources.count_cores(), os.cpu_count()
    found = f"{limit / 2**30:.2f} of {machine / 2**30:.2f} GiB may be used, and {cores} of {machine_cores} cores"
    return ok(found, limit=limit, machine=machine, cores=cores, machine_cores=machine_cores)


def check_folders(device: Device) -> Diagnosis:
    """The artifacts folder and Prefect's own: whether they, or the parents that exist, can be written."""
    from flows.server import environment

    environment.require()
    from prefect.settings import PREFECT_HOME

    free = dict[str, int]()
    for folder, setting in ((artifact_paths.root(), "--artifacts"), (PREFECT_HOME.value(), "PREFECT_HOME")):
        try:
            there = next(place for place in (folder, *folder.parents) if place.exists())
            with tempfile.TemporaryFile(dir=there):
                free[str(folder)] = shutil.disk_usage(there).free
        except OSError as error:
            found = f"{folder} cannot be written: {error.strerror or error}"
            return problem(found, f"fix its permissions, or choose another with {setting}")
    found = "; ".join(f"{path} has {free_bytes / 2**30:.1f} GiB free" for path, free_bytes in free.items())
    return note(found, SPACE, free=free) if min(free.values()) < LITTLE_SPACE else ok(found, free=free)


def check_server(device: Device) -> Diagnosis:
    """Whether the Prefect API for runs answers, accepts us and can read its database."""
    import prefect
    from prefect.client.base import ServerType
    from prefect.settings import PREFECT_API_URL

    from flows.server import api, connection

    with connection.connect():
        ours, url = prefect.__version__, PREFECT_API_URL.value()
        if not url:
            return ok(f"none configured: every run starts a temporary one (Prefect {ours})", client=ours, server=None)
        with api.client(TIMEOUT_SECONDS) as client:
            client.read_work_pools(limit=1)  # requires credentials and the database, as a run does
            theirs = "Cloud" if client.server_type == ServerType.CLOUD else client.api_version()
    return ok(f"{url} answers: Prefect {theirs}, ours is {ours}", client=ours, server=theirs)


def check_data(device: Device) -> Diagnosis:
    """Where a retrain would get Fashion-MNIST: the user's folder, the cache, or the network."""
    if not _is_training_installed():
        return ok("none needed to predict", source=None)
    from tasks.data.book_datasets import describe_source

    source = describe_source()
    return ok(f"{FASHION_MNIST}: {source}", source=source)


CHECKS: dict[str, Callable[[Device], Diagnosis]] = {
    "python": check_python,
    "packages": check_packages,
    "torch": check_torch,
    "onnxruntime": check_onnxruntime,
    "gpu": check_gpu,
    "memory": check_memory,
    "folders": check_folders,
    "server": check_server,
    "data": check_data,
}


def examine(device: Device, debug: bool) -> Iterator[Diagnosis]:
    """Yield every finding as soon as it is known; never raises."""
    for name, check in CHECKS.items():
        dropped = io.StringIO()  # output and warnings of libraries
        try:
            with redirect_stdout(dropped), redirect_stderr(dropped):
                finding = check(device)
        except Exception as error:
            if debug and not isinstance(error, GradmillError):
                print(without_credentials(traceback.format_exc()), file=sys.stderr)
            finding = _explain(error)
        found, action = without_credentials(finding.found), without_credentials(finding.action)
        yield replace(finding, name=name, found=found, action=action)


def _explain(error: Exception) -> Diagnosis:
    if isinstance(error, DataError):
        return problem(error.found, error.action, error.exit_code)
    if isinstance(error, GradmillError):
        return problem(error.found, error.action)
    return problem(f"{type(error).__name__}: {_first_line(error)}", "run again with --debug")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
