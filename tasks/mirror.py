"""After publication, where ``GRADMILL_MIRROR`` is set: the champion goes to where consumers on other hosts read it."""

from tasks.machine.run_messages import tell
from tasks.records import MirroredModel
from tasks.stage import stage
from tasks.store import mirror_sync
from tasks.store.run_folder import RunFolder


@stage()
def mirror(run: RunFolder, name: str, url: str) -> MirroredModel:
    """Copy the champion to ``url``, whether this run published it or not: so a copy that failed is caught up.

    Raises:
        DataError: the champion is damaged here, or another version has its number there.
        EnvironmentProblem: the remote store does not answer, or refuses (after the tries of its own library).
    """
    mirrored = mirror_sync.copy_champion(name, url)
    short = f"{name} version {mirrored.version}: {mirrored.outcome}"
    tell(f"{short}; files written to {url}: {len(mirrored.written)}", short=short)
    return mirrored
