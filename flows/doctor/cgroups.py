"""CPU quota and memory limit of this process's control groups: version 1, version 2, and both side by side."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
NO_LIMIT = 2**62  # version 1 writes the largest multiple of the page size


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
