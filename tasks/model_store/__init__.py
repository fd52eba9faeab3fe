"""``artifacts/models/``: versions that never change, and the champion pointer that says which one to use.

``reading`` needs no lock. Everything in ``publishing``, ``pointer`` and ``retention`` is done under ``lock(name)``.
"""

from contextlib import AbstractContextManager

from tasks import artifact_paths, waiting


def lock(name: str) -> AbstractContextManager[None]:
    """Held over every change of a model's folder; whoever waits for it says for whom."""
    return waiting.locked(artifact_paths.model_lock(name), f"another process is changing {name}; waiting for it")
