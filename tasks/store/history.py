"""``history.jsonl``: who changed what in a model's folder, when and why, one change per line.

A line is synced before the change is made, and is never edited; the caller holds the lock. A change that a kill
prevented is reported as interrupted: the folder shows that it was not made. An incomplete last line was never
acknowledged: it is not read, and the next line replaces it.
"""

import getpass
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple

from pydantic import Field

from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.store import artifact_paths, atomic, locks, model_folder, verified_files
from tasks.store.documents import Document
from tasks.store.model_folder import ChampionPointer, Moment, Number
from tasks.store.record_base import Sha256

What = Literal["published", "promoted", "rolled back", "frozen", "unfrozen", "pruned", "forgot accepted"]
INTERRUPTED = "interrupted"  # marks a line that corrects the one before it
MOST_CHARACTERS = 500  # of a reason
ACTION = "restore it from a backup or a mirror, or move it away: then another is begun"


class Cause(NamedTuple):
    """What is done, by whom (user@host, or the name of a run's folder) and why."""

    what: What
    by: str
    reason: str = ""


class Change(Document):
    """A change that a user or a run made in a model's folder.

    ``before`` was the champion until then; ``champion`` and ``frozen`` describe the state after it.
    """

    at: Moment
    what: str  # no Literal, since a newer version may know more kinds
    versions: tuple[Number, ...]
    before: Number | None = None
    champion: Number | None
    frozen: bool
    by: str
    reason: str = ""
    interrupted: bool = False  # a kill prevented the change
    held_sha256: Sha256 | None = Field(None, exclude_if=lambda value: value is None)  # the model rolled back from

    @property
    def step(self) -> str:
        """The change of champion: ``6 → 5``, or just ``6`` where it stayed."""
        moved = self.before is not None and self.before != self.champion
        return f"{self.before} → {self.champion or 'none'}" if moved else f"{self.champion or ''}"


@contextmanager
def lock_to_change(name: str, what: What, reason: str | None, number: int | None = None) -> Iterator[Cause]:
    """Hold the lock of a model while the user of this process changes it.

    Raises:
        UsageError: there is no such model, version or champion, or the reason is too long.
    """
    reason = reason or ""
    if len(reason) > MOST_CHARACTERS:
        raise UsageError(f"a reason of {len(reason)} characters", f"at most {MOST_CHARACTERS}", "shorten --reason")
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # such as in a container that has no name for its user
        user = f"user {os.getuid()}"
    model_folder.resolve_version(name, number)
    with locks.hold_model(name):
        yield Cause(what, f"{user}@{socket.gethostname()}", os.fsencode(reason).decode(errors="replace"))


def append_change(name: str, cause: Cause, versions: Iterable[int], after: ChampionPointer | None) -> None:
    """Append a change of ``versions`` that is about to be made.

    ``after`` is the pointer as it will be, or None for a name without one.

    Raises:
        DataError: the history is not as gradmill writes it.
        OSError: it cannot be written; it is then unchanged.
    """
    pointer = model_folder.find_pointer(name)
    before = pointer.version if pointer else None
    change = Change(
        at=model_folder.format_now(),
        what=cause.what,
        versions=tuple(versions),
        before=before,
        champion=after.version if after else None,
        frozen=after is not None and after.frozen,
        by=cause.by,
        reason=cause.reason,
        held_sha256=pointer.model_sha256 if pointer and cause.what == "rolled back" else None,
    )
    added = [change]
    for last in list_changes(name)[-1:]:
        if last.interrupted:
            correction = {"what": INTERRUPTED, "versions": last.versions, "champion": before, "reason": ""}
            added.insert(0, change.model_copy(update=correction | {"held_sha256": None}))
    lines = b"".join(each.model_dump_json().encode() + b"\n" for each in added)
    path, end = artifact_paths.history(name), len(_read(name)[0])  # the new lines overwrite an incomplete last one
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    try:
        os.ftruncate(descriptor, end)
        while lines:  # a nearly full disk takes a part, and the next call says why
            lines = lines[os.write(descriptor, lines) :]
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, end)
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
    atomic.sync(path.parent)


def list_changes(name: str) -> tuple[Change, ...]:
    """The changes made in a model's folder, the oldest first.

    Raises:
        DataError: the history is not as gradmill writes it.
    """
    found: list[Change] = []
    path = artifact_paths.history(name)
    for number, line in enumerate(_read(name)[0].split(b"\n")[:-1], 1):
        change = Change.parse(line, f"{path}, line {number}", ACTION)
        if change.what == INTERRUPTED:
            found[-1:] = [each.model_copy(update={"interrupted": True}) for each in found[-1:]]
        else:
            found.append(change)
    if found and _is_interrupted(name, found[-1]):
        found[-1] = found[-1].model_copy(update={"interrupted": True})
    return tuple(found)


def list_demotions(name: str) -> dict[int, str]:
    """When each version was replaced as the champion, the latest last; it raises as ``list_changes`` does."""
    found: dict[int, str] = {}
    for change in list_changes(name):
        if change.before and change.before != change.champion and not change.interrupted:
            found.pop(change.before, None)
            found[change.before] = change.at
    return found


def list_held_versions(name: str) -> dict[int, Sha256 | None]:
    """The versions that were rolled back from and not promoted since, each with the digest of its model, if known.

    It raises as ``list_changes`` does.
    """
    held = dict[int, Sha256 | None]()
    for change in list_changes(name):
        if not change.interrupted:
            held |= dict.fromkeys(change.versions, change.held_sha256) if change.what == "rolled back" else {}
            held.pop(change.champion or 0, None)
    return held


def is_forgotten(changes: Iterable[Change], number: int) -> bool:
    """Whether what was accepted in the data of version ``number`` has been forgotten since."""
    return any(change.what == "forgot accepted" and max(change.versions) >= number for change in changes)


def highest_number(name: str, noted: Iterable[Change]) -> int:
    """The highest version number ever given, according to the folders, the pointer and the changes in ``noted``.

    Each of these knows of deleted versions, so no number is reused even if one of them is lost.
    """
    numbers = {0, *model_folder.list_versions(name)}
    for change in noted:
        numbers |= {*change.versions, change.before or 0, change.champion or 0}
    if pointer := model_folder.find_pointer(name):  # nothing is published while the pointer is damaged
        numbers |= pointer.named_versions
    return max(numbers)


def verify(name: str) -> bytes:
    """Check every line and return all but an incomplete last one, which is reported.

    Raises:
        DataError: a line is not as gradmill wrote it.
    """
    list_changes(name)
    lines, torn = _read(name)
    if torn:
        path = artifact_paths.history(name)
        print_message(
            f"ignored: the last line of {path} was never finished; the next change replaces it", file=sys.stderr
        )
    return lines


def _read(name: str) -> tuple[bytes, bytes]:
    """The complete lines, and the incomplete rest after them."""
    path = artifact_paths.history(name)
    if path.is_symlink():  # no line is ever written through a link
        raise DataError(f"{path} is a link", "a file of the store itself", ACTION)
    content = verified_files.read_content(path, ACTION) if os.path.lexists(path) else b""
    lines, end, torn = content.rpartition(b"\n")
    return lines + end, torn


def _is_interrupted(name: str, last: Change) -> bool:
    """Whether the folder shows that the last change was not made; a damaged pointer shows nothing."""
    if last.what == "pruned":  # once pruning has begun, some are gone
        return {*last.versions} <= {*model_folder.list_versions(name)}
    with suppress(DataError):
        now = model_folder.read_pointer(name)
        champion, frozen = (now.version, now.frozen) if now else (None, False)
        if last.before == last.champion:
            return champion == last.champion and frozen != last.frozen
        return champion == last.before  # else this change was made, and later lines are lost, as in an older copy
    return False
