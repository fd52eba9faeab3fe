"""After publication, if ``GRADMILL_MIRROR`` is set: copy the champion to where consumers on other hosts read it."""

from tasks.machine.run_messages import print_message
from tasks.records import MirroredModel
from tasks.stage import stage
from tasks.store import mirror_sync
from tasks.store.run_folder import RunFolder


@stage()
def mirror(run: RunFolder, name: str, url: str) -> MirroredModel:
    """Copy the champion to ``url``, even if this run published nothing, so that a failed copy is made up for.

    Raises:
        DataError: the champion is damaged here, or another version has its number there.
        EnvironmentProblem: the remote store does not answer, or refuses (after its own library's retries).
    """
    mirrored = mirror_sync.copy_champion(name, url)
    short = f"{name} version {mirrored.version}: {mirrored.outcome}"
    print_message(f"{short}; files written to {url}: {len(mirrored.written)}", short=short)
    return mirrored
