"""Memory: what threads share, and what garbage collection looks at."""

import ctypes
import gc
from contextlib import suppress

ARENA_MAX = -8  # of glibc's malloc.h


def keep_imports() -> None:
    """Settle a process that has imported what it needs: a full collection takes 0.3 s to see that imports stay.

    All threads that are yet to begin allocate from one arena: what one frees the next one has at hand. Else glibc gives
    each an arena of its own, of fresh pages, which a virtual machine is slow to clear. Elsewhere than on glibc nothing
    happens.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
    gc.freeze()
