"""Where torch computes, on how many threads, and from which seed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tasks.machine import devices
from tasks.parameters import Device


def resolve(device: Device) -> torch.device:
    """The device to train on.

    Raises:
        DeviceMissing: CUDA was asked for and torch cannot use it.
    """
    available = device is not Device.CPU and torch.cuda.is_available()
    if device is Device.CUDA and not available:
        raise devices.missing_gpu(devices.cuda_fault() or f"torch {torch.__version__} cannot use the GPU")
    return torch.device("cuda" if available else "cpu")


def describe(device: torch.device) -> str:
    """``cpu``, or ``cuda`` with the card's name."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Train on one thread, which is fastest for networks of this size (docs/speed.md)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Give the same bytes in every run, if ``wanted``: otherwise a GPU sums values of one slot in arbitrary order.

    Where torch has no such algorithm it warns and goes on; cuBLAS has one only in a workspace of fixed size.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
