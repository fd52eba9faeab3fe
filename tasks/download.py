"""Stage 1: get the raw files, from wherever they can be had, and verify them by SHA-256 of their content."""

from pathlib import Path
from typing import Any

from tasks.data import fashion_mnist
from tasks.data.sources import cache
from tasks.data.sources.places import Debian, Directory, Mirrors, Source, SourceUnreachable
from tasks.machine.settings import Settings
from tasks.machine.telling import tell
from tasks.parameters import FASHION_MNIST, SYNTHETIC_LINEAR
from tasks.records import RawDataset
from tasks.stage import stage
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder


def _nothing_answered(task: Any, task_run: Any, state: Any) -> bool:
    """Retry what may pass; a wrong digest stays wrong."""
    return isinstance(state.result(raise_on_failure=False), SourceUnreachable)


@stage(retries=2, retry_delay_seconds=[2, 8], retry_condition_fn=_nothing_answered)
def download(run: RunFolder, dataset: str) -> RawDataset:
    """Bring the raw files of ``dataset`` into ``artifacts/datasets/``; a filled cache touches no network.

    Raises:
        DataError: no source has the files (after two more tries), or what they have fails its checksum.
    """
    if dataset == SYNTHETIC_LINEAR:
        return RawDataset(name=dataset, source="generated", files={})
    user_dir = Settings().fashion_mnist_dir
    if user_dir is not None:
        return fetch([Directory(user_dir)])
    return fetch([Mirrors(), Debian()])


def fetch(sources: list[Source]) -> RawDataset:
    """Fetch what is missing of Fashion-MNIST from the first source that can be reached."""
    folder = artifact_paths.dataset(FASHION_MNIST)
    with cache.exclusive(folder):
        missing = [file for file in fashion_mnist.FILES if not cache.is_whole(file)]
        if isinstance(sources[0], Directory):  # the user named it, so a fault in it must not hide behind the cache
            missing = list(fashion_mnist.FILES)
        source = _first_reachable(sources, missing, folder) if missing else "cache"
    files = {file.name: cache.reference(file) for file in fashion_mnist.FILES}
    tell(f"{FASHION_MNIST} from {source}, {len(files)} files verified by SHA-256")
    return RawDataset(name=FASHION_MNIST, source=source, files=files)


def _first_reachable(sources: list[Source], missing: list[fashion_mnist.IdxFile], folder: Path) -> str:
    reasons = []
    for source in sources:
        try:
            cache.fill(source, missing, folder)
        except SourceUnreachable as unreachable:
            reasons.append(f"{source}: {unreachable.found}")
        else:
            return str(source)
    raise SourceUnreachable(
        "Fashion-MNIST is not in the cache and no source could be reached: " + "; ".join(reasons),
        "a network, or a folder with the four IDX files",
        "set GRADMILL_FASHION_MNIST_DIR to such a folder, or try again with a network",
    )
