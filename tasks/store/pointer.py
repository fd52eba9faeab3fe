"""The version that consumers should use: promotion, rollback, holds, freezing. Commands take the lock themselves.

The history is written before the pointer: after a kill between the two, the change is reported as interrupted.
"""

from contextlib import suppress

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, atomic, folders, history, model_folder, verification
from tasks.store.artifact_paths import MANIFEST, ONNX
from tasks.store.history import Cause
from tasks.store.model_folder import ChampionPointer


def point_to(name: str, number: int, cause: Cause, and_freeze: bool = False) -> None:
    """Replace ``champion.json``, then derive ``config.pbtxt`` from it; the caller holds the lock.

    The version is no longer held; a version that is rolled back from becomes held. ``previous`` is the latest replaced
    champion that is kept and not held. Without ``and_freeze`` the name stays as frozen as it was.
    """
    before, folder = model_folder.find_pointer(name), artifact_paths.version(name, number)
    left = [before.version] if before and before.version != number else []
    is_rollback = cause.what == "rolled back"
    held = {*(before.held if before else history.list_held_versions(name)), *(left if is_rollback else ())} - {number}
    others = {*model_folder.list_versions(name)} - {number, *held}
    replaced = [each for each in (*history.list_demotions(name), *left) if each in others]
    was_frozen = before.frozen if before else any(each.frozen for each in history.list_changes(name)[-1:])
    facts = {
        "version": number,
        "model_sha256": atomic.file_digest(folder / ONNX),
        "manifest_sha256": atomic.file_digest(folder / MANIFEST),
        "promoted_at": model_folder.format_now(),
        "previous": replaced[-1] if replaced else None,
        "held": tuple(sorted(held)),
        "frozen": and_freeze or was_frozen,
    }
    # Fields written by a newer version of Gradmill are preserved.
    after = before.model_copy(update=facts) if before else ChampionPointer.model_validate(facts)
    history.append_change(name, cause, left if is_rollback else [number], after)
    after.write(artifact_paths.champion(name))
    _write_config(name, number)


def _write_config(name: str, champion: int) -> None:
    """Write ``config.pbtxt`` unless it already fits the champion."""
    if not verification.holds_config(name, config := model_folder.find_manifest(name, champion).triton_config):
        atomic.write_bytes(artifact_paths.triton_config(name), config.encode())


def sweep(name: str) -> None:
    """Remove leftovers of killed publications and prunings, and repair ``config.pbtxt``; the caller holds the lock."""
    folders.sweep(artifact_paths.LEFTOVER, artifact_paths.model(name))
    for number in model_folder.list_versions(name):  # a kill between the rename and this step leaves it writable
        folders.make_read_only(artifact_paths.version(name, number))
    if current := model_folder.find_champion(name):
        _write_config(name, current.version)


def was_champion(name: str, number: int) -> bool:
    """Whether a version is or ever was the champion; the pointer alone shows it if the history is lost."""
    current = model_folder.find_champion(name)
    return number in (current.named_versions if current else ()) or number in history.list_demotions(name)


def promote(name: str, number: int, reason: str | None = None) -> bool:
    """Make a version the champion and end its hold; False if it was the champion already.

    In any case the pointer and ``config.pbtxt`` are valid afterwards. A frozen name stays frozen.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged.
    """
    with history.lock_to_change(name, "promoted", reason, number) as cause:
        verification.verify_version(name, model_folder.resolve_version(name, number))
        pointer = model_folder.find_pointer(name)  # promotion repairs a damaged pointer
        if pointer and pointer.version == number:
            with suppress(DataError):
                verification.verify_pointer(name, pointer)
                verification.verify_previous(name, pointer)
                _write_config(name, number)
                return False
        point_to(name, number, cause)
        return pointer is None or pointer.version != number


def rollback(name: str, reason: str | None = None, and_freeze: bool = True) -> tuple[int, int]:
    """Return to the previous champion, hold the version left, and freeze the name; return (left, champion).

    Without ``and_freeze`` the next retrain may publish the same fault again: once data grow, its bytes differ.

    Raises:
        UsageError: there is no such model, nothing to go back to, or another champion since this command began.
        DataError: the version to go back to is damaged.
    """
    meant = model_folder.resolve_version(name, None)
    with history.lock_to_change(name, "rolled back", reason) as cause:
        pointer = model_folder.find_champion(name)
        if pointer and pointer.version != meant:
            raise UsageError(
                f"the champion of {name} became version {pointer.version} while this command waited",
                f"version {meant}, the champion when it began",
                f"see gradmill models {name}; gradmill promote {name} VERSION accepts any version",
            )
        if pointer is None or pointer.previous not in model_folder.list_versions(name):
            raise UsageError(
                f"{name} has no version before its champion",
                "a champion that replaced another",
                f"see gradmill models {name}: gradmill promote accepts any version",
            )
        left, target = pointer.version, pointer.previous
        verification.verify_version(name, target)
        point_to(name, target, cause, and_freeze)
        return left, target


def freeze(name: str, reason: str | None = None, frozen: bool = True) -> tuple[int, bool]:
    """Freeze a name (or, if not ``frozen``, unfreeze it); return its champion and whether anything changed.

    No retrain changes the champion of a frozen name.

    Raises:
        UsageError: there is no such model, or it has no champion.
        DataError: its pointer is damaged.
    """
    with history.lock_to_change(name, "frozen" if frozen else "unfrozen", reason) as cause:
        number, before = model_folder.resolve_version(name, None), ChampionPointer.read(artifact_paths.champion(name))
        if before.frozen != frozen:
            after = before.model_copy(update={"frozen": frozen})
            history.append_change(name, cause, [number], after)
            after.write(artifact_paths.champion(name))
        return number, before.frozen != frozen


def is_frozen(name: str) -> bool:
    """Whether the name is frozen, so that no retrain may change its champion; a name without one is not."""
    pointer = model_folder.find_champion(name)
    return pointer is not None and pointer.frozen
