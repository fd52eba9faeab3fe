"""Raw files from the first source that can be reached."""

from collections.abc import Sequence
from pathlib import Path

from tasks.data.sources import cache
from tasks.data.sources.places import Directory, RawFile, Source, SourceUnreachable
from tasks.parameters import FASHION_MNIST
from tasks.records import RawDataset


def fetch(files: Sequence[RawFile], sources: Sequence[Source]) -> RawDataset:
    """Fetch what is missing of ``files``; a filled cache touches no network.

    Raises:
        SourceUnreachable: no source answers.
        DataError: what a source has fails its checksum, or a user's folder lacks a file.
    """
    with cache.exclusive() as folder:
        missing = [file for file in files if not cache.is_whole(file)]
        if isinstance(sources[0], Directory):  # the user named it, so a fault in it must not hide behind the cache
            missing = list(files)
        source = _first_reachable(sources, missing, folder) if missing else "cache"
    references = {file.name: cache.reference(file) for file in files}
    print(f"{FASHION_MNIST} from {source}, {len(references)} files verified by SHA-256")
    return RawDataset(name=FASHION_MNIST, source=source, files=references)


def _first_reachable(sources: Sequence[Source], missing: Sequence[RawFile], folder: Path) -> str:
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
