"""One GPU, one job: a stage that computes on the GPU waits until no other does."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import EnvironmentProblem
from tasks.machine import devices
from tasks.parameters import Device
from tasks.store import locks


@contextmanager
def hold(device: Device) -> Iterator[None]:
    """Hold the GPU while the block runs, if ``device`` and this machine mean that it computes there.

    Raises:
        EnvironmentProblem: another user has taken the place of the lock file.
    """
    if device is Device.CPU or devices.cuda_fault() is not None:
        yield
        return
    with locks.hold_lock(lock_file(), "another job is on the GPU; waiting for it"):
        yield


def lock_file() -> Path:
    """The lock file of this user on this host, in a folder that nobody else can enter.

    Raises:
        EnvironmentProblem: the folder is a link, or belongs to another user, who could hold the lock for ever.
    """
    folder = Path(tempfile.gettempdir()) / f"gradmill-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = os.lstat(folder)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise EnvironmentProblem(
            f"{folder}, the folder of the GPU's lock, is not only yours",
            "a folder that you own and nobody else can enter",
            "remove it; if it belongs to somebody else, ask them, or set TMPDIR for every job of yours",
        )
    return folder / "gpu.lock"
