"""How much memory this process may take."""

import os
import resource
from pathlib import Path

CONTROL_GROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def limit() -> int:
    """Bytes of memory: the machine's, or fewer where ``ulimit -v`` or the container allows no more."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    texts = [file.read_text().strip() for file in CONTROL_GROUP if file.is_file()]
    limits = [machine, *([allowed] if allowed != resource.RLIM_INFINITY else []), *map(int, filter(str.isdigit, texts))]
    return min(limits)
