"""Lock files, into which the holder writes its name for those who wait. The kernel releases a dead process's lock."""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import EnvironmentProblem, without_credentials
from tasks.machine.run_messages import print_message
from tasks.store import artifact_paths

POLL_SECONDS = 0.1
NOTE_BYTES = 300


@contextmanager
def hold_lock(path: Path, wait_message: str, message_after: float = 0, timeout: float = math.inf) -> Iterator[None]:
    """Hold the lock file ``path``; while another process has it, print ``wait_message`` and the holder, and wait.

    The message is printed after ``message_after`` seconds; the wait lasts at most ``timeout`` seconds.

    Raises:
        TimeoutError: another process still has it.
        OSError: the file cannot be created, or the file system has no locks.
    """
    reported, begun = None, time.monotonic()
    descriptor = _taken_in(path)
    while descriptor is None:
        if (waited := time.monotonic() - begun) > timeout:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", str(path))
        time.sleep(POLL_SECONDS)  # by then a new holder has replaced the name of a dead one
        descriptor = _taken_in(path)
        by = read_holder(path)
        if descriptor is None and waited >= message_after and by != reported and (by or reported is None):
            reported = by
            print_message(f"{wait_message}: {by}" if by else wait_message, file=sys.stderr)
    with _note_holder(descriptor):
        yield


@contextmanager
def locked_if_free(path: Path, flags: int = os.O_CREAT) -> Iterator[bool]:
    """Hold the lock file ``path`` and yield True; yield False where another process has it.

    Raises:
        OSError: as for ``take``.
    """
    descriptor = take(path, flags)
    if descriptor is None:
        yield False
        return
    with _note_holder(descriptor):
        yield True


def is_held(path: Path) -> bool:
    """Whether another process holds the lock file ``path``."""
    try:
        # Shared, since an exclusive lock would need write access, which a container that shows pages does not have.
        with _open_lock(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def take(path: Path, flags: int = os.O_CREAT) -> int | None:
    """Open and lock a regular file; None if another process holds it, or it was removed or replaced meanwhile.

    The descriptor holds the lock until it is closed. The lock is on exactly the file that is at ``path`` now, so a
    process that takes a file before removing it can never remove this one. The file is opened for writing, as NFS
    requires, without following a link or waiting for the other end of a FIFO.

    Raises:
        OSError: the file is missing, cannot be opened or is not regular, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Opening it again makes an NFS client ask its server; ``stat`` may be answered from its cache.
            with contextlib.suppress(OSError), _open_lock(path) as there:
                if os.path.sameopenfile(descriptor, there):
                    closing.pop_all()
                    return descriptor
    return None


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    """A descriptor for inspection, opened without following a link or waiting for the other end of a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken_in(path: Path) -> int | None:
    """``take`` in a folder that is created if missing: housekeeping may have removed it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # pathlib checks again whether it is a folder, which may have been removed by then
            if not stat.S_ISDIR(os.lstat(path.parent).st_mode):
                raise
        return take(path)
    return None


@contextmanager
def _note_holder(descriptor: int) -> Iterator[None]:
    """Write the holder into the lock file while the lock is held; a full disk stops no work."""
    command = without_credentials(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))[: NOTE_BYTES // 3]
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    note = f"process {os.getpid()} on {socket.gethostname()} since {since}, {command}"
    try:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(errors="replace")[:NOTE_BYTES], 0)
            os.close(os.dup(descriptor))  # flushes it to other clients of an NFS server without waiting for a disk
        yield
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def read_holder(path: Path) -> str:
    """The holder's note in a lock file, as printable text; empty if unknown."""
    with contextlib.suppress(OSError), _open_lock(path) as descriptor:
        text = os.read(descriptor, NOTE_BYTES).decode(errors="replace")
        return "".join(character for character in text if character.isprintable())
    return ""


def hold_model(name: str, mirroring: bool = False) -> AbstractContextManager[None]:
    """The lock for every change of a model's folder, or another one for copying its champion elsewhere.

    Raises:
        EnvironmentProblem: the folder is a link, so that neither lock file nor content would be in the store.
    """
    folder = artifact_paths.model(name)
    if folder.is_symlink():
        raise EnvironmentProblem(
            f"{folder} is a link",
            "a folder in the store: behind a link nothing is changed",
            f"replace it by what it points to, or move all of {folder.parent} elsewhere",
        )
    path = artifact_paths.mirror_lock(name) if mirroring else artifact_paths.lock(folder)
    doing = "mirroring" if mirroring else "changing"
    return hold_lock(path, f"another process is {doing} {name}; waiting for it")


def of_job(folder: Path) -> Path:
    """The lock for work in the folder of a batch prediction, or its removal; not in there, as that may be refused.

    For a folder in artifacts/ its name does not depend on where artifacts/ is mounted.
    """
    real, base = folder.resolve(), artifact_paths.root().resolve()
    named = real.relative_to(base) if real.is_relative_to(base) else real
    digest = hashlib.sha256(os.fsencode(named)).hexdigest()
    return artifact_paths.locks() / digest[: artifact_paths.DIGEST_CHARACTERS]
