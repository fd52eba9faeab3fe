"""What garbage collection looks at."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage until ``keep_imports`` or the block's end: a twelfth of the imports' time went by in that."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_imports() -> None:
    """What imports made is here to stay, and a full collection takes 0.3 s to see that each time."""
    _freeze()
    gc.enable()


@cache
def _freeze() -> None:
    """Once a process."""
    if not gc.get_freeze_count():  # which counts them one by one
        gc.freeze()
