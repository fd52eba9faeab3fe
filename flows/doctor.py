"""``gradmill doctor``: what this machine offers, and what is wrong with it."""

import fcntl
import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from pydantic import ValidationError

from tasks.errors import DataError, DeviceMissing, EnvironmentProblem, GradmillError, without_credentials
from tasks.machine import devices, resources
from tasks.machine.words import pip_install
from tasks.parameters import FASHION_MNIST, Device
from tasks.serving.runtime import CPU, CUDA, find_fault, import_onnxruntime
from tasks.store import artifact_paths, atomic


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


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type; for a wrong setting the reason without the value."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return next(iter(str(error).splitlines()), type(error).__name__)


# Python and the libraries: installed as declared, and loadable

PACKAGE = "gradmill"
CUDA_TORCH = f"{pip_install('--force-reinstall', 'torch', 'torchvision')} (PyPI's builds for Linux are CUDA builds)"
GPU_BUILD = "onnxruntime-gpu"


def check_python(device: Device) -> Diagnosis:
    """The interpreter, Gradmill itself, and the packages that are always needed."""
    version = metadata.version(PACKAGE)
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {PACKAGE} {version}"
    facts: dict[str, Any] = {"version": platform.python_version(), "gradmill": version}
    if unmet := _find_unmet(""):
        return problem(f"{found}; requirements not met: {_format_unmet(unmet)}", pip_install(*unmet), **facts)
    return ok(found, **facts)


def training_installed() -> bool:
    """Whether the extra ``train`` is installed, so that this machine can do more than predict."""
    return importlib.util.find_spec("torch") is not None


def check_training(device: Device) -> Diagnosis:
    """Torch and the rest of the extra ``train``; torch must really compute, on the GPU if it may be used."""
    if not training_installed():
        return note("training is not installed here: this machine can predict", installed=False)
    if unmet := _find_unmet("train"):
        return problem(f"training lacks {_format_unmet(unmet)}", pip_install(*unmet), installed=True)
    try:
        import torch
    except Exception as error:  # a library that torch needs is missing or broken
        return problem(f"torch does not load: {first_line(error)}", "install torch again", installed=True)
    facts = {"installed": True, "torch": torch.__version__, "torch_cuda": torch.version.cuda}
    found = f"torch {torch.__version__}"
    if device is Device.CPU or devices.cuda_fault():
        return ok(f"{found}, on the CPU", **facts, cuda=False)
    if because := _torch_cuda_fault():
        return _without_cuda(device, f"{found} cannot use the GPU: {because}", CUDA_TORCH, **facts, cuda=False)
    return ok(f"{found}, on the GPU", **facts, cuda=True)


def _torch_cuda_fault() -> str | None:
    import torch

    try:
        torch.ones(1, device="cuda").add(1).item()
    except (RuntimeError, AssertionError) as error:  # raised by a build for the CPU
        return first_line(error)
    return None


def check_runtime(device: Device) -> Diagnosis:
    """Exactly one onnxruntime, and the providers that run a model."""
    owners = sorted(_list_runtimes())
    if len(owners) == 1:
        return _providers(device, owners[0], {"installed": owners, "version": metadata.version(owners[0])})
    found = f"{' and '.join(owners)} share one folder" if owners else "onnxruntime is not installed"
    action = f"pip uninstall {' '.join(owners)}; " if owners else ""
    return problem(found, f"{action}{pip_install('onnxruntime')} or, for a GPU, {GPU_BUILD} instead", installed=owners)


def _list_runtimes() -> set[str]:
    """The installed distributions whose records list files in the import folder of onnxruntime.

    ``packages_distributions`` is not used: from Python 3.12 on it omits a record whose files another package removed.
    """
    return {
        each.name
        for each in metadata.distributions()
        if any(line.startswith("onnxruntime/__init__.py,") for line in (each.read_text("RECORD") or "").splitlines())
    }


def _providers(device: Device, package: str, facts: dict[str, Any]) -> Diagnosis:
    """The providers that run a model, tried one by one; CUDA only if there is a GPU that may be used."""
    again = pip_install("--force-reinstall", package)
    found = f"{package} {facts['version']}"
    try:
        _ = import_onnxruntime().InferenceSession  # missing if two shared the folder and one was removed
    except Exception as error:
        return problem(f"{found} does not load: {first_line(error)}", again, **facts, providers=[])
    if because := find_fault(CPU):
        return problem(f"{found} runs no model: {because}", again, **facts, providers=[])
    if devices.cuda_fault() or device is Device.CPU:
        return ok(f"{found} runs {CPU}", **facts, providers=[CPU])
    if because := find_fault(CUDA):
        action = "" if package == GPU_BUILD else f"pip uninstall {package}; "
        action += pip_install(f"{GPU_BUILD}[cuda,cudnn]")
        return _without_cuda(device, f"{found} runs {CPU}, not {CUDA}: {because}", action, **facts, providers=[CPU])
    return ok(f"{found} runs {CUDA} and {CPU}", **facts, providers=[CUDA, CPU])


def check_gpu(device: Device) -> Diagnosis:
    """The GPUs, the driver, and the newest CUDA version that the driver supports."""
    try:
        driver = devices.query_driver()
    except DeviceMissing as error:
        if device is Device.CUDA:
            return problem(
                error.found, "see that nvidia-smi works here, or use --device auto", error.exit_code, gpus=[]
            )
        return note(f"{error.found}: runs use the CPU", gpus=[])
    gpus = [each._asdict() for each in driver.gpus]
    return ok(str(driver), gpus=gpus, driver=driver.version, cuda=driver.cuda)


def _without_cuda(device: Device, found: str, action: str, **facts: Any) -> Diagnosis:
    """A problem if CUDA was requested; otherwise a note that runs use the CPU."""
    if device is Device.CUDA:
        return problem(found, action, DeviceMissing.exit_code, **facts)
    return note(f"{found}; runs use the CPU", action, **facts)


def _format_unmet(unmet: dict[str, str | None]) -> str:
    return ", ".join(f"{requirement} ({found or 'missing'})" for requirement, found in unmet.items())


def _find_unmet(extra: str) -> dict[str, str | None]:
    """The requirements of ``extra`` (empty: the core) that are missing or have a wrong version, with that version."""
    required = [Requirement(text) for text in metadata.requires(PACKAGE) or []]
    return {
        f"{each.name}{each.specifier}": found
        for each in required
        if _applies(each, extra)
        and ((found := _version(each.name)) is None or not each.specifier.contains(found, prereleases=True))
    }


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    return requirement.marker.evaluate({"extra": extra}) and not (extra and requirement.marker.evaluate({"extra": ""}))


def _version(name: str) -> str | None:
    return next((each.version for each in metadata.distributions(name=name)), None)


# Cores and memory that this process may use, as opposed to the host's


def check_cpu(device: Device) -> Diagnosis:
    """The workers that Gradmill would start, the machine's cores, and the CPU affinity."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    used, machine = resources.count_cores(), os.cpu_count()
    found = f"{used} of {machine} cores used; affinity {affinity or 'none'}"
    return ok(found, used=used, machine=machine, affinity=affinity)


def check_memory(device: Device) -> Diagnosis:
    """The memory limit of this process, and the machine's memory."""
    machine, limit = resources.memory_size(), resources.memory_limit()
    if limit == machine:
        return ok(f"no limit but the machine's {machine / 2**30:.1f} GiB", limit=None, machine=machine)
    found = f"limit {limit / 2**30:.2f} GiB; the machine has {machine / 2**30:.1f} GiB"
    return ok(found, limit=limit, machine=machine)


# Folders that must be writable, with free space and reliable locks

LITTLE_SPACE = 200 * 2**20  # bytes: a first retrain used 125 MB at most and left 106 MB
# Locks on these may hold on one host only, or not at all ("nfs" is version 2 and 3; version 4 is "nfs4").
REMOTE = {"nfs", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.goofys"}
MOUNTS = Path("/proc/self/mounts")
LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def check_artifacts(device: Device) -> Diagnosis:
    """The artifacts folder."""
    return _folder(artifact_paths.root(), "choose another folder with --artifacts, or fix permissions")


def check_prefect_home(device: Device) -> Diagnosis:
    """Prefect's own folder, which has the database of temporary servers."""
    from prefect.settings import PREFECT_HOME

    return _folder(PREFECT_HOME.value(), "set PREFECT_HOME to a folder that can be written, or fix permissions")


def _folder(folder: Path, remedy: str) -> Diagnosis:
    """Write, sync, rename and lock a file in a folder, or in its parent if it does not exist yet."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryDirectory(dir=there, prefix=".doctor-") as scratch:
            file = Path(scratch) / "probe"
            file.write_bytes(b"\0" * 4096)
            atomic.sync(file)
            lock_fault = _lock_fault(file.rename(file.with_suffix(".renamed")))
        free, kind = shutil.disk_usage(there).free, _file_system(there)
    except OSError as error:
        return problem(f"{folder} cannot be written: {error.strerror or error}", remedy, path=str(folder))
    facts: dict[str, Any] = {"path": str(folder), "free": free, "file_system": kind, "locks": lock_fault is None}
    if lock_fault:
        return problem(f"{folder}: {lock_fault}", "use a local disk or NFSv4", **facts)
    found = (
        f"{folder}{'' if there == folder else ' (made when needed)'}: writable, locks work, {free / 2**30:.1f} GiB free"
    )
    if kind in REMOTE:
        return note(f"{found}, on {kind}: other hosts may not see its locks", "use a local disk or NFSv4", **facts)
    if free < LITTLE_SPACE:
        return note(found, "free some space: a first retrain needs 0.2 GB", **facts)
    return ok(found, **facts)


def _lock_fault(file: Path) -> str | None:
    """What is wrong with ``flock`` on ``file``, as another process sees it; None if nothing is."""
    with file.open("r+b") as held:  # NFS requires a file open for writing
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"cannot be locked ({error.strerror})"
        if _another_process_locks(file):
            return "a lock that one process holds can be taken by another"
    return None if _another_process_locks(file) else "a released lock cannot be taken by another process"


def _another_process_locks(file: Path) -> bool:
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LOCK, file], capture_output=True, check=False)
    return done.returncode == 0


def _file_system(folder: Path) -> str | None:
    """The type of the file system, such as ``ext4``; None if the kernel does not say."""
    folder = folder.resolve()
    mount = next(each for each in (folder, *folder.parents) if os.path.ismount(each))
    place = str(mount).replace(" ", "\\040")
    lines = MOUNTS.read_text().splitlines() if MOUNTS.exists() else []
    return next((line.split()[2] for line in reversed(lines) if line.split()[1] == place), None)


# Network services

TIMEOUT_SECONDS = 3.0


def check_prefect_api(device: Device) -> Diagnosis:
    """Whether the API for runs answers, accepts us and can read its database; its version and ours."""
    import prefect
    from packaging.version import Version
    from prefect import settings
    from prefect.client.base import ServerType

    from flows.server import api, connection

    with ExitStack() as entered:
        with suppress(GradmillError, OSError, ValueError):  # another finding reports a broken artifacts folder
            entered.enter_context(connection.use_service())
        ours, url = prefect.__version__, settings.PREFECT_API_URL.value()
        facts: dict[str, Any] = {"url": url and without_credentials(url), "client": ours, "server": None}
        if not url:
            return ok(
                f"none configured: every run starts a temporary server (Prefect {ours})", client=ours, server=None
            )
        entered.enter_context(settings.temporary_settings({settings.PREFECT_API_REQUEST_TIMEOUT: TIMEOUT_SECONDS}))
        try:
            with api.client() as client:
                client.read_work_pools(limit=1)  # requires credentials and the database, as a run does
                theirs = None if client.server_type == ServerType.CLOUD else client.api_version()
        except EnvironmentProblem as error:
            return problem(error.found, error.action, **facts)
    found, facts = f"{url} answers: Prefect {theirs or 'Cloud'}, ours is {ours}", facts | {"server": theirs}
    if theirs and Version(theirs) < Version(ours):
        return note(found, "a server should not be older than its clients: upgrade the server", **facts)
    return ok(found, **facts)


def check_data(device: Device) -> Diagnosis:
    """Where a retrain would get Fashion-MNIST: the user's folder, the cache, or the network."""
    if not training_installed():
        return ok("none needed to predict", source=None)
    from tasks.data.book_datasets import describe_source

    try:
        source = describe_source()
    except DataError as error:
        return problem(error.found, error.action, error.exit_code, source=None)
    return ok(f"{FASHION_MNIST}: {source}", source=source)


CHECKS: dict[str, Callable[[Device], Diagnosis]] = {
    "python": check_python,
    "training": check_training,
    "onnxruntime": check_runtime,
    "gpu": check_gpu,
    "cpu": check_cpu,
    "memory": check_memory,
    "artifacts": check_artifacts,
    "prefect_home": check_prefect_home,
    "prefect_api": check_prefect_api,
    "data": check_data,
}


def examine(device: Device, debug: bool) -> Iterator[Diagnosis]:
    """Yield every finding as soon as it is known; never raises."""
    for name, check in CHECKS.items():
        dropped = io.StringIO()  # output and warnings of libraries
        try:
            with redirect_stdout(dropped), redirect_stderr(dropped), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                finding = check(device)
        except Exception as error:
            if debug:
                print(without_credentials(traceback.format_exc()), file=sys.stderr)
            found = f"this check itself failed: {type(error).__name__}: {first_line(error)}"
            setting = isinstance(error, ValidationError)
            finding = problem(found, "correct this setting in the environment" if setting else "run again with --debug")
        found, action = without_credentials(finding.found), without_credentials(finding.action)
        yield replace(finding, name=name, found=found, action=action)
