"""``artifacts/models/``: versions that never change, and the champion pointer that says which one to use.

``reading`` needs no lock. Everything in ``publishing``, ``pointer`` and ``retention`` is done under ``lock(name)``.
"""

from contextlib import AbstractContextManager
from pathlib import Path

from tasks import artifact_paths, waiting
from tasks.errors import EnvironmentProblem


def lock(name: str) -> AbstractContextManager[None]:
    """Held over every change of a model's folder; whoever waits for it says for whom.

    Raises:
        EnvironmentProblem: the folder is a link, and what it leads to is not in the store.
    """
    return _locked(name, artifact_paths.model_lock(name), "changing")


def mirror_lock(name: str) -> AbstractContextManager[None]:
    """Held while the champion is copied elsewhere.

    Raises:
        EnvironmentProblem: as for ``lock``, since the lock file would lie behind the link.
    """
    return _locked(name, artifact_paths.mirror_lock(name), "mirroring")


def _locked(name: str, path: Path, doing: str) -> AbstractContextManager[None]:
    folder = artifact_paths.model(name)
    if folder.is_symlink():
        raise EnvironmentProblem(
            f"{folder} is a link",
            "a folder in the store: behind a link nothing is changed",
            f"move there what it leads to, or give all of {folder.parent} another place",
        )
    return waiting.locked(path, f"another process is {doing} {name}; waiting for it")
