"""One GPU, one job: a stage that computes on the GPU waits until no other does."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from tasks.machine import devices
from tasks.machine.run_messages import print_message
from tasks.parameters import Device
from tasks.stage import live_progress
from tasks.store import locks

LIMIT = "gpu"  # the global concurrency limit that ``gradmill register`` makes
LEASE_SECONDS = 60.0  # how long a killed job keeps its place


@contextmanager
def hold(device: Device) -> Iterator[None]:
    """Hold the GPU while the block runs, if ``device`` and this machine mean that it computes there.

    It is held by Prefect's limit where the server has one, and by a lock file, which jobs of other servers see too.
    """
    with ExitStack() as holding:
        if device is not Device.CPU and devices.cuda_fault() is None:
            if live_progress.in_a_run() and _find_limit():
                # Losing the lease (a server away for minutes) is no reason to end a job that is nearly done.
                holding.enter_context(
                    concurrency(LIMIT, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False)
                )
            holding.enter_context(locks.hold_lock(lock_file(), "another job is on the GPU; waiting for it"))
        yield


def lock_file() -> Path:
    """One file for each user of this host, since Linux lets no user open another's in /tmp; it may stay, unlocked."""
    return Path(tempfile.gettempdir()) / f"gradmill-gpu-{os.getuid()}.lock"


def _find_limit() -> bool:
    """Whether the server has the limit; prints a message where all its slots are taken."""
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            return False
    if limit.active_slots >= limit.limit:
        here = f": {locks.read_holder(lock_file())}" if locks.is_held(lock_file()) else ""
        print_message(f"another job is using the GPU; waiting for it{here}")
    return True
