"""Memory and imports: what threads share, what garbage collection looks at, what need not be waited for."""

import ctypes
import gc
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

ARENA_MAX = -8  # of glibc's malloc.h
beside: threading.Thread | None = None  # that imports


@contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage until ``keep_imports`` or the block's end: a twelfth of the imports' time went by in that."""
    share_arena()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@cache
def share_arena() -> None:
    """Let all threads that are yet to begin allocate from one arena: what one frees the next one has at hand.

    Else glibc gives each an arena of its own, of fresh pages, which a virtual machine is slow to clear. Elsewhere than
    on glibc nothing happens.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)


def keep_imports() -> None:
    """What imports made is here to stay, and a full collection takes 0.3 s to see that each time."""
    share_arena()
    if beside is None or not beside.is_alive():  # which else does so at its end
        _freeze()
        gc.enable()


def import_beside(*modules: str) -> None:
    """Import modules in a thread, while this one waits for others; who needs one of them waits for its end.

    No module of ours: two threads that import modules which import each other may see one that is not complete.
    """
    global beside
    beside = threading.Thread(target=_import, args=modules, daemon=True)
    beside.start()


def _import(*modules: str) -> None:
    with suppress(Exception):  # who needs it meets the same, and says so
        for module in modules:
            importlib.import_module(module)
    _freeze()
    gc.enable()


@cache
def _freeze() -> None:
    """Once a process."""
    if not gc.get_freeze_count():  # which counts them one by one
        gc.freeze()


class _NoPandas:
    """Finds none."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not looked for", name=fullname)


def spare_pandas() -> None:
    """Let pyarrow's first array, which imports pandas where it is installed, find none: 24 MiB and 0.3 s of every run.

    For commands of ours, which have no use for it. ``to_pandas`` would look again; arrays of a series would not.
    """
    import pyarrow as pa

    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)
        pa.array([])
        sys.meta_path.remove(_NoPandas)
