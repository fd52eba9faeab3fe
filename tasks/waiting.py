"""A lock file that several processes want: whoever comes second says so and waits. The kernel frees a dead one's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, otherwise: str) -> Iterator[None]:
    """Hold the lock file ``path``; print ``otherwise`` where another process has it, and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(otherwise)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
