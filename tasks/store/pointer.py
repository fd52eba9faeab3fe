"""Which version consumers should use: promotion, rollback, holds, freezing. Commands take the lock themselves.

``.history.json`` is written before the pointer: after a kill between the two, a champion that is also noted as demoted
is still the champion.
"""

from datetime import UTC, datetime

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, atomic, history, locks, reading, triton, verification
from tasks.store.artifact_paths import MANIFEST, ONNX
from tasks.store.history import Cause
from tasks.store.versions import ChampionPointer


def point_to(name: str, number: int, cause: Cause, **changes: tuple[int, ...] | int | None) -> None:
    """Replace ``champion.json``, then derive ``config.pbtxt`` from it; the caller holds the lock.

    Unless ``changes`` say otherwise, ``previous`` is the champion before, and ``held`` and ``frozen`` stay the same.
    """
    before = _readable(name)
    folder = artifact_paths.version(name, number)
    lost = {"held": (), "frozen": any(each.frozen for each in history.changes(name)[-1:])}
    kept = dict(before) if before else lost  # with what a newer version of Gradmill has noted there
    facts = {
        "version": number,
        "model_sha256": atomic.file_digest(folder / ONNX),
        "manifest_sha256": atomic.file_digest(folder / MANIFEST),
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": before.version if before else None,
    }
    after = ChampionPointer.model_validate(kept | facts | changes)
    left = before.version if before and before.version != number else None
    history.note(name, cause, [left] if left and cause.what == "rolled back" else [number], after, demoted=left)
    after.write(artifact_paths.champion(name))
    triton.write_config(name, number)


def _readable(name: str) -> ChampionPointer | None:
    """The pointer; None where there is none or what is there cannot be read: promotion then writes another."""
    try:
        return reading.pointer(name)
    except DataError:
        return None


def promote(name: str, number: int, reason: str | None = None) -> bool:
    """Make a version the champion and lift its hold; False when it was the champion already.

    In any case pointer and ``config.pbtxt`` are sound afterwards. A frozen name stays frozen.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged.
    """
    cause = history.of_user("promoted", reason)
    reading.resolve(name, number)
    with locks.model(name):
        verification.verify_version(name, reading.resolve(name, number))
        pointer = _readable(name)
        held = tuple(each for each in pointer.held if each != number) if pointer else ()
        if pointer is None or pointer.version != number:
            point_to(
                name, number, cause, held=held, previous=_another(name, number, pointer.version if pointer else None)
            )
            return True
        try:
            verification.verify_pointer(name, pointer)
            verification.verify_previous(name, pointer)
            triton.write_config(name, number)
        except DataError:
            point_to(name, number, cause, held=held, previous=_another(name, number, pointer.previous))
        return False


def _another(name: str, champion: int, previous: int | None) -> int | None:
    """``previous``, if a rollback from the champion can go there: somebody may have deleted its folder."""
    return previous if previous != champion and previous in reading.versions(name) else None


def rollback(name: str, reason: str | None = None, freeze: bool = True) -> tuple[int, int]:
    """Go back to the champion before, hold the version left, and freeze the name; return (left, champion).

    Without ``freeze`` tonight's retrain, whose model differs in bytes when data grow, may publish the same fault again.

    Raises:
        UsageError: there is no such model, or nothing to go back to.
        DataError: the version to go back to is damaged.
    """
    cause = history.of_user("rolled back", reason)
    reading.resolve(name, None)
    with locks.model(name):
        pointer = reading.champion(name)
        if pointer is None or pointer.previous not in reading.versions(name):
            raise UsageError(
                f"{name} has no version before its champion",
                "a champion that replaced another",
                f"see gradmill models {name}: gradmill promote takes any",
            )
        left, target = pointer.version, pointer.previous
        verification.verify_version(name, target)
        held = tuple(sorted({*pointer.held, left} - {target}))
        frozen = pointer.frozen or freeze
        point_to(name, target, cause, held=held, previous=_before(name, target, held), frozen=frozen)
        return left, target


def freeze(name: str, reason: str | None = None, frozen: bool = True) -> tuple[int, bool]:
    """Let no retrain change the champion, or, by ``frozen`` false, let it again; return it and whether that is new.

    Raises:
        UsageError: there is no such model, or it has no champion.
        DataError: its pointer is damaged.
    """
    cause = history.of_user("frozen" if frozen else "unfrozen", reason)
    reading.resolve(name, None)
    with locks.model(name):
        number, before = reading.resolve(name, None), reading.champion(name)
        assert before is not None, "resolve has found it"  # noqa: S101  (narrows the type)
        if before.frozen != frozen:
            after = before.model_copy(update={"frozen": frozen})
            history.note(name, cause, [number], after)
            after.write(artifact_paths.champion(name))
        return number, before.frozen != frozen


def is_frozen(name: str) -> bool:
    """Whether no retrain may change the champion; a name without one is not frozen."""
    pointer = reading.champion(name)
    return pointer is not None and pointer.frozen


def _before(name: str, champion: int, held: tuple[int, ...]) -> int | None:
    """The version that was demoted last among those that a second rollback may go to."""
    demoted = reading.history(name).demoted
    kept = [number for number in reading.versions(name) if number in demoted and number not in (champion, *held)]
    return max(kept, key=lambda number: (demoted[number], number), default=None)
