"""Which version consumers should use: promotion, rollback and holds. The caller holds the lock, or calls the commands.

``.history.json`` is written before the pointer: after a kill between the two, a champion that is also noted as demoted
is still the champion.
"""

from datetime import UTC, datetime

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, atomic, locks, reading, triton, verification
from tasks.store.artifact_paths import MANIFEST, ONNX
from tasks.store.versions import ChampionPointer


def point_to(name: str, number: int, **changes: tuple[int, ...] | int | None) -> None:
    """Replace ``champion.json``, then derive ``config.pbtxt`` from it; the caller holds the lock.

    Unless ``changes`` say otherwise, ``previous`` is the champion before, and ``held`` stays as it was.
    """
    before = _readable(name)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if before and before.version != number:
        past = reading.history(name)
        demoted = past.demoted | {before.version: now}
        past.model_copy(update={"demoted": demoted}).write(artifact_paths.history(name))
    folder = artifact_paths.version(name, number)
    kept = dict(before) if before else {"held": ()}  # with what a newer version of Gradmill has noted there
    facts = {
        "version": number,
        "model_sha256": atomic.file_digest(folder / ONNX),
        "manifest_sha256": atomic.file_digest(folder / MANIFEST),
        "promoted_at": now,
        "previous": before.version if before else None,
    }
    ChampionPointer.model_validate(kept | facts | changes).write(artifact_paths.champion(name))
    triton.write_config(name, number)


def _readable(name: str) -> ChampionPointer | None:
    """The pointer; None where there is none or what is there cannot be read: promotion then writes another."""
    try:
        return reading.pointer(name)
    except DataError:
        return None


def promote(name: str, number: int) -> bool:
    """Make a version the champion and lift its hold; False when it was the champion already.

    In any case pointer and ``config.pbtxt`` are sound afterwards.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged.
    """
    reading.resolve(name, number)
    with locks.model(name):
        verification.verify_version(name, reading.resolve(name, number))
        pointer = _readable(name)
        held = tuple(each for each in pointer.held if each != number) if pointer else ()
        if pointer is None or pointer.version != number:
            point_to(name, number, held=held, previous=_another(name, number, pointer.version if pointer else None))
            return True
        try:
            verification.verify_pointer(name, pointer)
            verification.verify_previous(name, pointer)
            triton.write_config(name, number)
        except DataError:
            point_to(name, number, held=held, previous=_another(name, number, pointer.previous))
        return False


def _another(name: str, champion: int, previous: int | None) -> int | None:
    """``previous``, if a rollback from the champion can go there: somebody may have deleted its folder."""
    return previous if previous != champion and previous in reading.versions(name) else None


def rollback(name: str) -> tuple[int, int]:
    """Go back to the champion before, and hold the version left; return (left, champion).

    Raises:
        UsageError: there is no such model, or nothing to go back to.
        DataError: the version to go back to is damaged.
    """
    reading.resolve(name, None)
    with locks.model(name):
        pointer = reading.champion(name)
        if pointer is None or pointer.previous not in reading.versions(name):
            raise UsageError(
                f"{name} has no version before its champion",
                "a champion that replaced another",
                f"choose one with gradmill promote; see gradmill models {name}",
            )
        left, target = pointer.version, pointer.previous
        verification.verify_version(name, target)
        held = tuple(sorted({*pointer.held, left} - {target}))
        point_to(name, target, held=held, previous=_before(name, target, held))
        return left, target


def _before(name: str, champion: int, held: tuple[int, ...]) -> int | None:
    """The version that was demoted last among those that a second rollback may go to."""
    demoted = reading.history(name).demoted
    kept = [number for number in reading.versions(name) if number in demoted and number not in (champion, *held)]
    return max(kept, key=lambda number: (demoted[number], number), default=None)
