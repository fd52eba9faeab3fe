"""Limits of control groups, read from trees laid out as the kernel lays them out."""

from pathlib import Path

import pytest

from flows.doctor import limits

GIB = 2**30
V1_NO_LIMIT = "9223372036854771712"


@pytest.mark.parametrize(
    ("membership", "files", "memory", "quota"),
    [
        ("0::/", {"memory.max": "max", "cpu.max": "max 100000"}, None, None),
        ("0::/", {"memory.max": f"{2 * GIB}", "cpu.max": "150000 100000"}, 2 * GIB, 1.5),
        (
            "0::/a.slice/b.scope",
            {
                "a.slice/memory.max": f"{GIB}", "a.slice/b.scope/memory.max": f"{3 * GIB}",
                "a.slice/cpu.max": "max 100000", "a.slice/b.scope/cpu.max": "50000 100000",
            },
            GIB, 0.5,
        ),
        ("0::/../../host/path", {"memory.max": f"{GIB}", "cpu.max": "200000 100000"}, GIB, 2),
        (
            "5:memory:/docker/c\n2:cpu,cpuacct:/docker/c\n1:name=systemd:/",
            {
                "memory/memory.limit_in_bytes": V1_NO_LIMIT, "memory/docker/c/memory.limit_in_bytes": f"{GIB}",
                "cpu,cpuacct/docker/c/cpu.cfs_quota_us": "-1", "cpu,cpuacct/docker/c/cpu.cfs_period_us": "100000",
            },
            GIB, None,
        ),
        (
            "5:memory:/docker/on-the-host\n2:cpu:/docker/on-the-host\n0::/",
            {
                "memory/memory.limit_in_bytes": f"{GIB}", "unified/cgroup.procs": "",
                "cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000",
            },
            GIB, 0.25,
        ),
    ],
    ids=["v2 unlimited", "v2 container", "v2 nested", "v2 outside", "v1 nested", "v1 container in a hybrid"],
)  # fmt: skip
def test_the_smallest_limit_of_all_groups_counts(
    membership: str, files: dict[str, str], memory: int | None, quota: float | None, tmp_path: Path
) -> None:
    (tmp_path / "self").write_text(f"{membership}\n")
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(f"{text}\n")
    assert limits.memory_limit(tmp_path / "cgroup", tmp_path / "self") == memory
    assert limits.cpu_quota(tmp_path / "cgroup", tmp_path / "self") == quota
