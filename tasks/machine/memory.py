"""How much memory this process may take."""

import os
import resource
from pathlib import Path

CONTROL_GROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit() -> int:
    """Bytes of memory: the machine's, or fewer where ``ulimit -v`` or the container allows no more."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    texts = [file.read_text().strip() for file in CONTROL_GROUP if file.is_file()]
    limits = [*([allowed] if allowed != resource.RLIM_INFINITY else []), *map(int, filter(str.isdigit, texts))]
    return min([machine(), *limits])
