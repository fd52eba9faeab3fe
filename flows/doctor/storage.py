"""Folders that must be writable, with room and with locks that hold."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flows.doctor.findings import Finding, note, ok, problem
from tasks.parameters import Device
from tasks.store import artifact_paths, atomic

LITTLE_SPACE = 200 * 2**20  # bytes: a first retrain held 125 MB at most and left 106 MB
# Locks of these may hold on one host only, or not at all ("nfs" is version 2 and 3; version 4 is "nfs4").
REMOTE = {"nfs", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.goofys"}
MOUNTS = Path("/proc/self/mounts")
LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def artifacts(device: Device) -> Finding:
    """The artifacts folder."""
    return _folder(artifact_paths.root(), "choose another folder with --artifacts, or fix permissions")


def prefect_home(device: Device) -> Finding:
    """Prefect's own folder, with the database of temporary servers."""
    from prefect.settings import PREFECT_HOME

    return _folder(PREFECT_HOME.value(), "set PREFECT_HOME to a folder that can be written, or fix permissions")


def _folder(folder: Path, remedy: str) -> Finding:
    """Write, sync, rename and lock a file there; a folder that is not there yet is tried in the one above."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryDirectory(dir=there, prefix=".doctor-") as scratch:
            file = Path(scratch) / "probe"
            file.write_bytes(b"\0" * 4096)
            atomic.sync(file)
            lock_fault = _lock_fault(file.rename(file.with_suffix(".renamed")))
        free, kind = shutil.disk_usage(there).free, _file_system(there)
    except OSError as error:
        return problem(f"{folder} cannot be written: {error.strerror or error}", remedy, path=str(folder))
    facts: dict[str, Any] = {"path": str(folder), "free": free, "file_system": kind, "locks": lock_fault is None}
    if lock_fault:
        return problem(f"{folder}: {lock_fault}", "use a local disk or NFSv4", **facts)
    found = (
        f"{folder}{'' if there == folder else ' (made when needed)'}: writable, locks hold, {free / 2**30:.1f} GiB free"
    )
    if kind in REMOTE:
        return note(f"{found}, on {kind}: other hosts may not see its locks", "use a local disk or NFSv4", **facts)
    if free < LITTLE_SPACE:
        return note(found, "free some space: a first retrain needs 0.2 GB", **facts)
    return ok(found, **facts)


def _lock_fault(file: Path) -> str | None:
    """What is wrong with ``flock`` on ``file``, tried against another process."""
    with file.open("r+b") as held:  # NFS wants it open for writing
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"cannot be locked ({error.strerror})"
        if _another_process_locks(file):
            return "a lock that one process holds can be taken by another"
    return None if _another_process_locks(file) else "a lock that was let go cannot be taken by another process"


def _another_process_locks(file: Path) -> bool:
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LOCK, file], capture_output=True, check=False)
    return done.returncode == 0


def _file_system(folder: Path) -> str | None:
    """The type of the file system, as ``ext4``; None where the kernel does not tell."""
    folder = folder.resolve()
    mount = next(each for each in (folder, *folder.parents) if os.path.ismount(each))
    place = str(mount).replace(" ", "\\040")
    lines = MOUNTS.read_text().splitlines() if MOUNTS.exists() else []
    return next((line.split()[2] for line in reversed(lines) if line.split()[1] == place), None)
