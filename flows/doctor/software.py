"""Python and the libraries: installed as declared, and really loading."""

import importlib.util
import platform
import warnings
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from flows.doctor.findings import Finding, first_line, note, ok, problem
from tasks.errors import DeviceMissing
from tasks.machine import devices
from tasks.machine.installing import pip_install
from tasks.parameters import Device
from tasks.serving.runtime import CPU, CUDA, find_fault, import_onnxruntime

PACKAGE = "gradmill"
CUDA_TORCH = f"{pip_install('--force-reinstall', 'torch', 'torchvision')} (PyPI's builds for Linux are CUDA builds)"
GPU_BUILD = "onnxruntime-gpu"


def python(device: Device) -> Finding:
    """The interpreter, Gradmill itself, and whether what it always needs is installed."""
    version = metadata.version(PACKAGE)
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {PACKAGE} {version}"
    facts: dict[str, Any] = {"version": platform.python_version(), "gradmill": version}
    if unmet := _unmet(""):
        return problem(f"{found}; not as required: {_shown(unmet)}", pip_install(*unmet), **facts)
    return ok(found, **facts)


def training_installed() -> bool:
    """Whether this is more than an installation for prediction."""
    return importlib.util.find_spec("torch") is not None


def training(device: Device) -> Finding:
    """Torch and what else the extra ``train`` brings; torch really computes, on the GPU where one may be used."""
    if not training_installed():
        return note("training is not installed here: this machine can predict", installed=False)
    if unmet := _unmet("train"):
        return problem(f"training lacks {_shown(unmet)}", pip_install(*unmet), installed=True)
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

    if torch.version.cuda is None:
        return "it is a build for the CPU"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if not torch.cuda.is_available():
            return next(
                (first_line(each.message) for each in told if isinstance(each.message, Warning)), "it sees none"
            )
    try:
        torch.ones(1, device="cuda").add(1).item()
    except RuntimeError as error:
        return first_line(error)
    return None


def runtime(device: Device) -> Finding:
    """Exactly one onnxruntime, and the providers that run a model."""
    owners = sorted(_owners("onnxruntime"))
    if len(owners) == 1:
        return _providers(device, owners[0], {"installed": owners, "version": metadata.version(owners[0])})
    found = f"{' and '.join(owners)} share one folder" if owners else "onnxruntime is not installed"
    action = f"pip uninstall {' '.join(owners)}; " if owners else ""
    return problem(found, f"{action}{pip_install('onnxruntime')} or, for a GPU, {GPU_BUILD} instead", installed=owners)


def _owners(folder: str) -> set[str]:
    """The installed distributions that put files into an import folder, by their own records.

    Not ``packages_distributions``: from Python 3.12 on it leaves out a record whose files another package took along.
    """
    first = f"{folder}/__init__.py,"
    return {
        each.name
        for each in metadata.distributions()
        if any(line.startswith(first) for line in (each.read_text("RECORD") or "").splitlines())
    }


def _providers(device: Device, package: str, facts: dict[str, Any]) -> Finding:
    """Which providers run a model, tried one by one; CUDA only where there is a GPU and it may be used."""
    again = pip_install("--force-reinstall", package)
    found = f"{package} {facts['version']}"
    try:
        _ = import_onnxruntime().InferenceSession  # gone where two shared the folder and one was removed
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


def gpu(device: Device) -> Finding:
    """The GPUs, the driver, and the newest CUDA that the driver runs."""
    try:
        driver = devices.driver()
    except DeviceMissing as error:
        if device is Device.CUDA:
            return problem(
                error.found, "see that nvidia-smi works here, or use --device auto", error.exit_code, gpus=[]
            )
        return note(f"{error.found}: runs use the CPU", gpus=[])
    gpus = [each._asdict() for each in driver.gpus]
    return ok(str(driver), gpus=gpus, driver=driver.version, cuda=driver.cuda)


def _without_cuda(device: Device, found: str, action: str, **facts: Any) -> Finding:
    """A problem where CUDA is asked for; else runs take the CPU."""
    if device is Device.CUDA:
        return problem(found, action, DeviceMissing.exit_code, **facts)
    return note(f"{found}; runs use the CPU", action, **facts)


def _shown(unmet: dict[str, str | None]) -> str:
    return ", ".join(f"{requirement} ({found or 'missing'})" for requirement, found in unmet.items())


def _unmet(extra: str) -> dict[str, str | None]:
    """What ``extra`` (empty: always) requires and is not installed, or in another version: the version that is."""
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
