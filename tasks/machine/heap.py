"""What garbage collection looks at."""

import gc
from functools import cache


@cache
def keep_imports() -> None:
    """Once a process: what imports made is here to stay, and a full collection takes 0.3 s to see that each time."""
    if not gc.get_freeze_count():  # which counts them one by one
        gc.freeze()
