"""Who changed what in a model's folder, when and why. It is noted before it is done; the caller holds the lock.

It is in ``history.jsonl``, and what an older version of Gradmill has noted since, in ``.history.json``. A change that a
kill has kept from being made is told as interrupted: the folder shows that it was not.
"""

import getpass
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, journal, reading
from tasks.store.changed import Change
from tasks.store.versions import ChampionPointer

What = Literal["published", "promoted", "rolled back", "frozen", "unfrozen", "pruned"]
INTERRUPTED = "interrupted"  # of a line that corrects the one before it
MOST = 1000  # changes that ``.history.json`` remembers, for older versions of Gradmill
MOST_CHARACTERS = 500  # of a reason


class Cause(NamedTuple):
    """What is done, by whom (user@host, or a run by its folder's name) and why."""

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
    return Cause(what, f"{user}@{socket.gethostname()}", os.fsencode(reason).decode(errors="replace"))


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
        before=_champion(name),
        champion=after.version if after else None,
        frozen=after is not None and after.frozen,
        by=cause.by,
        reason=cause.reason,
    )
    past, told, logged = reading.history(name), changes(name), _logged(name)
    corrected = logged and len(told) == len(logged) and told[-1] != logged[-1]
    was = {"what": INTERRUPTED, "champion": change.before, "reason": ""}
    correction = [change.model_copy(update=was | {"versions": told[-1].versions})] if corrected else []
    facts = {
        "journal": journal.append(name, [*told[len(logged) :], *correction, change]),
        "changes": (*told, change)[-MOST:],
        "demoted": past.demoted | ({demoted: now} if demoted else {}),
    }
    past.model_copy(update=facts).write(artifact_paths.history(name))


def changes(name: str) -> tuple[Change, ...]:
    """What was changed in a model's folder, the oldest first.

    Raises:
        DataError: the history is not as gradmill writes it.
    """
    logged = _logged(name)
    known = {_as_made(each) for each in logged}
    noted = (*logged, *(each for each in reading.history(name).changes if _as_made(each) not in known))
    if noted and _is_interrupted(name, noted[-1]):
        return (*noted[:-1], noted[-1].model_copy(update={"interrupted": True}))
    return noted


def _logged(name: str) -> list[Change]:
    """What the journal has; a line that says so makes the change before it an interrupted one."""
    found: list[Change] = []
    for line in journal.read(name):
        if line.what == INTERRUPTED:
            found[-1:] = [each.model_copy(update={"interrupted": True}) for each in found[-1:]]
        else:
            found.append(Change.model_validate(line.model_dump(exclude={"past"})))
    return found


def _as_made(change: Change) -> str:
    """By which a change is the same in the journal and beside it, where an older version of Gradmill notes it."""
    return change.model_dump_json(exclude={"interrupted"})


def _champion(name: str) -> int | None:
    with suppress(DataError):
        found = reading.pointer(name)
        return found.version if found else None
    return None


def _is_interrupted(name: str, last: Change) -> bool:
    """Whether the folder shows that the last change was not made; a damaged pointer shows nothing."""
    if last.what == "pruned" and {*last.versions} <= {*reading.versions(name)}:  # of one that was begun, some are gone
        return True
    with suppress(DataError):
        now = reading.pointer(name)
        return (last.champion, last.frozen) != ((now.version, now.frozen) if now else (None, False))
    return False
