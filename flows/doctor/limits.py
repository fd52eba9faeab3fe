"""Cores and memory that this process may use, whatever the host has."""

import math
import os

from flows.doctor import cgroups
from flows.doctor.findings import Finding, note, ok
from tasks.machine import cores
from tasks.parameters import Device


def cpu(device: Device) -> Finding:
    """The workers that Gradmill would start, beside what affinity and the control groups allow."""
    quota = cgroups.cpu_quota()
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    used = cores.available()
    facts = {"used": used, "machine": os.cpu_count(), "affinity": affinity, "quota": quota}
    quota_text = "none" if quota is None else f"{quota:g}"
    found = f"{used} of {facts['machine']} cores used; affinity {affinity or 'none'}, quota {quota_text}"
    if quota is not None and used > math.ceil(quota):
        return note(found, f"set LOKY_MAX_CPU_COUNT={math.ceil(quota)}: loky does not see this quota", **facts)
    return ok(found, **facts)


def memory(device: Device) -> Finding:
    """The limit of the control groups, beside what the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroups.memory_limit()
    found = f"no limit but the machine's {machine / 2**30:.1f} GiB"
    if limit is not None and limit < machine:
        found = f"limit {limit / 2**30:.2f} GiB; the machine has {machine / 2**30:.1f} GiB"
    return ok(found, limit=limit, machine=machine)
