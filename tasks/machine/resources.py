"""What this process may use of the machine (cores and memory), and which objects garbage collection examines."""

import ctypes
import gc
import os
import resource
from contextlib import suppress
from pathlib import Path

ARENA_MAX = -8  # M_ARENA_MAX, from glibc's malloc.h
CONTROL_GROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def count_cores() -> int:
    """The number of workers worth starting, at least 1.

    CPU affinity and the container's CPU quota count; the number of cores of the host does not.
    """
    import loky

    return int(loky.cpu_count())


def memory_size() -> int:
    """The size of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit() -> int:
    """Available memory in bytes: the machine's, or less where ``ulimit -v`` or the container sets a lower limit."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    texts = [file.read_text().strip() for file in CONTROL_GROUP if file.is_file()]
    limits = [memory_size(), *map(int, filter(str.isdigit, texts))]
    return min(limits if allowed == resource.RLIM_INFINITY else [allowed, *limits])


def keep_imports() -> None:
    """Settle a process after its imports: otherwise a full garbage collection takes 0.3 s to find that imports stay.

    All threads started from now on allocate from one arena, so that memory freed by one is at hand for the next.
    Otherwise glibc gives each thread an arena of its own, made of fresh pages, which a virtual machine is slow to
    clear. Without glibc, nothing happens.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
    gc.freeze()
