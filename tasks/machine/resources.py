"""What this process may use of the machine (cores and memory), and which objects garbage collection examines."""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

ARENA_MAX = -8  # M_ARENA_MAX, from glibc's malloc.h
CONTROL_GROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def count_cores() -> int:
    """The number of workers worth starting, at least 1.

    CPU affinity and the container's CPU quota count; the number of cores of the host does not.
    """
    import loky

    return max(1, int(loky.cpu_count()))


def memory_size() -> int:
    """The size of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit() -> int:
    """Available memory in bytes: the machine's, or less where ``ulimit -v`` or the container sets a lower limit."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    texts = [file.read_text().strip() for file in CONTROL_GROUP if file.is_file()]
    limits = [*([allowed] if allowed != resource.RLIM_INFINITY else []), *map(int, filter(str.isdigit, texts))]
    return min([memory_size(), *limits])


def keep_imports() -> None:
    """Settle a process after its imports: otherwise a full garbage collection takes 0.3 s to find that imports stay.

    All threads started from now on allocate from one arena, so that memory freed by one is at hand for the next.
    Otherwise glibc gives each thread an arena of its own, made of fresh pages, which a virtual machine is slow to
    clear. Without glibc, nothing happens.

    pyarrow's first array imports pandas where that is installed: 0.3 s and 24 MiB for something that no command uses.
    Here pyarrow finds no pandas; ``to_pandas`` would look again, arrays made from a series would not.
    """
    import pyarrow as pa

    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas())
        pa.array([])
        del sys.meta_path[0]
    gc.freeze()


class _NoPandas(MetaPathFinder):
    """An import finder that reports pandas as not installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not looked for", name=fullname)
