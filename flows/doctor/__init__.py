"""``gradmill doctor``: what this machine offers, and what is wrong with it."""

from collections.abc import Iterator

from flows.doctor import findings, limits, services, software, storage
from flows.doctor.findings import Check, Finding
from tasks.parameters import Device

CHECKS: dict[str, Check] = {
    "python": software.python,
    "training": software.training,
    "onnxruntime": software.runtime,
    "gpu": software.gpu,
    "cpu": limits.cpu,
    "memory": limits.memory,
    "artifacts": storage.artifacts,
    "prefect_home": storage.prefect_home,
    "prefect_api": services.prefect_api,
    "data": services.data,
}


def examine(device: Device, debug: bool = False) -> Iterator[Finding]:
    """Every finding as soon as it is known; never raises."""
    for name, check in CHECKS.items():
        yield findings.run(name, check, device, debug)
