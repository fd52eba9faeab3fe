"""What garbage collection looks at."""

import gc


def keep_imports() -> None:
    """Once a process: what imports made is here to stay, and a full collection takes 0.3 s to see that each time."""
    if not gc.get_freeze_count():
        gc.freeze()
