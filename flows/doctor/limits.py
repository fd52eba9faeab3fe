"""Cores and memory that this process may use, whatever the host has, and as its control groups limit it."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from flows.doctor.findings import Finding, note, ok
from tasks.machine import cores
from tasks.parameters import Device

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
NO_LIMIT = 2**62  # version 1 writes the largest multiple of the page size


def cpu(device: Device) -> Finding:
    """The workers that Gradmill would start, beside what affinity and the control groups allow."""
    quota = cpu_quota()
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
    limit = memory_limit()
    found = f"no limit but the machine's {machine / 2**30:.1f} GiB"
    if limit is not None and limit < machine:
        found = f"limit {limit / 2**30:.2f} GiB; the machine has {machine / 2**30:.1f} GiB"
    return ok(found, limit=limit, machine=machine)


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """In bytes, the smallest of the process's own group and all above it; None where no group has one."""
    limits = [
        int(text)
        for group in _groups("memory", root, membership)
        for file in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(group / file)) not in ("", "max")
    ]
    return min((limit for limit in limits if limit < NO_LIMIT), default=None)


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """In cores' worth of time, the smallest of the process's own group and all above it; None where none has one."""
    quotas = []
    for group in _groups("cpu", root, membership):
        text = _read(group / "cpu.max") or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        quota, _, period = text.partition(" ")
        if quota not in ("", "max", "-1"):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Where files of ``controller`` may be: the process's own group and every one above it.

    In a container the path may be the host's: then only the last folder, the root, is there, and it is the container's.
    """
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = {root, root / "unified"}
        elif controller in controllers.split(","):
            mounts = {root / controller, root / controllers}
        else:
            continue
        for mount in mounts:
            group = mount / path.lstrip("/")
            yield group
            yield from (above for above in group.parents if above.is_relative_to(mount))


def _read(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""
