"""Cores and memory that this process may use, whatever the host has."""

import os

from flows.doctor.findings import Finding, ok
from tasks.machine import cores
from tasks.machine import memory as process_memory
from tasks.parameters import Device


def cpu(device: Device) -> Finding:
    """The workers that Gradmill would start, beside the machine's cores and what affinity allows."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    used, machine = cores.available(), os.cpu_count()
    found = f"{used} of {machine} cores used; affinity {affinity or 'none'}"
    return ok(found, used=used, machine=machine, affinity=affinity)


def memory(device: Device) -> Finding:
    """What this process may take, beside what the machine has."""
    machine, limit = process_memory.machine(), process_memory.limit()
    if limit == machine:
        return ok(f"no limit but the machine's {machine / 2**30:.1f} GiB", limit=None, machine=machine)
    found = f"limit {limit / 2**30:.2f} GiB; the machine has {machine / 2**30:.1f} GiB"
    return ok(found, limit=limit, machine=machine)
