"""Who changed what in a model's folder, when and why. It is noted before it is done; the caller holds the lock.

A change that a kill has kept from being made is told as interrupted: the folder shows that it was not.
"""

import getpass
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, reading
from tasks.store.versions import ChampionPointer, Change

What = Literal["published", "promoted", "rolled back", "frozen", "unfrozen", "pruned"]
MOST = 1000  # changes that are remembered
MOST_CHARACTERS = 500  # of a reason


class Cause(NamedTuple):
    """What is done, by whom (a user, or a run by its folder's name) and why."""

    what: What
    by: str
    reason: str = ""


def of_user(what: What, reason: str | None = None) -> Cause:
    """What the user of this process does.

    Raises:
        UsageError: the reason is too long.
    """
    reason = reason or ""
    if len(reason) > MOST_CHARACTERS:
        raise UsageError(f"a reason of {len(reason)} characters", f"at most {MOST_CHARACTERS}", "shorten --reason")
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # as in a container that has no name for its user
        user = f"user {os.getuid()}"
    return Cause(what, user, os.fsencode(reason).decode(errors="replace"))


def note(
    name: str, cause: Cause, versions: Iterable[int], after: ChampionPointer | None, demoted: int | None = None
) -> None:
    """Note a change of ``versions`` that is about to be made, and the champion that it demotes.

    ``after`` is the pointer as it will be, None of a name without one.

    Raises:
        DataError: the history is not as gradmill writes it.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    change = Change(
        at=now,
        what=cause.what,
        versions=tuple(versions),
        champion=after.version if after else None,
        frozen=after is not None and after.frozen,
        by=cause.by,
        reason=cause.reason,
    )
    past = reading.history(name)
    facts = {
        "changes": (*changes(name), change)[-MOST:],
        "demoted": past.demoted | ({demoted: now} if demoted else {}),
    }
    past.model_copy(update=facts).write(artifact_paths.history(name))


def changes(name: str) -> tuple[Change, ...]:
    """What was changed in a model's folder, the oldest first.

    Raises:
        DataError: the history is not as gradmill writes it.
    """
    noted = reading.history(name).changes
    if noted and _is_interrupted(name, noted[-1]):
        return (*noted[:-1], noted[-1].model_copy(update={"interrupted": True}))
    return noted


def _is_interrupted(name: str, last: Change) -> bool:
    """Whether the folder shows that the last change was not made; a damaged pointer shows nothing."""
    if last.what == "pruned" and not {*last.versions}.isdisjoint(reading.versions(name)):
        return True
    with suppress(DataError):
        now = reading.pointer(name)
        return (last.champion, last.frozen) != ((now.version, now.frozen) if now else (None, False))
    return False
