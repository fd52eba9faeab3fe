"""What this process may use of the machine: cores and memory; and what garbage collection looks at."""

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

ARENA_MAX = -8  # of glibc's malloc.h
CONTROL_GROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def count_cores() -> int:
    """The number of workers worth starting, at least 1.

    Affinity and the container's CPU quota count; the host's cores do not.
    """
    import loky

    return max(1, int(loky.cpu_count()))


def memory_size() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit() -> int:
    """Bytes of memory: the machine's, or fewer where ``ulimit -v`` or the container allows no more."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    texts = [file.read_text().strip() for file in CONTROL_GROUP if file.is_file()]
    limits = [*([allowed] if allowed != resource.RLIM_INFINITY else []), *map(int, filter(str.isdigit, texts))]
    return min([memory_size(), *limits])


def keep_imports() -> None:
    """Settle a process that has imported what it needs: a full collection takes 0.3 s to see that imports stay.

    All threads that are yet to begin allocate from one arena: what one frees the next one has at hand. Else glibc gives
    each an arena of its own, of fresh pages, which a virtual machine is slow to clear. Elsewhere than on glibc nothing
    happens.

    pyarrow's first array imports pandas where that is installed: 0.3 s and 24 MiB for what no command uses. It finds
    none here; ``to_pandas`` would look again, arrays of a series would not.
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
    """Finds none."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not looked for", name=fullname)
