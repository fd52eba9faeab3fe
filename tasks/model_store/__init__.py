"""``artifacts/models/``: versions that never change, and the champion pointer that says which one to use.

``reading`` needs no lock. Everything in ``publishing``, ``pointer`` and ``retention`` is done under ``lock(name)``.
"""

from filelock import FileLock

from tasks import artifact_paths


def lock(name: str) -> FileLock:
    """Held over every change of a model's folder; the kernel frees it when its holder dies."""
    path = artifact_paths.model_lock(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
