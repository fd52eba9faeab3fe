"""What we registered last of a deployment or an automation: digests in a Prefect variable, by item."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectNotFound

KEPT = "kept "  # and the name of an item that somebody has set: what was registered is not what is declared
ADDED = "added"
MOST_ADDED = 40  # a variable has at most 5000 characters


def digest(value: Any) -> str:
    """Of an item's value; that of None is nothing's."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def writable(
    wanted: dict[str, Any], there: dict[str, Any], registered: dict[str, str] | None
) -> tuple[dict[str, Any], list[str]]:
    """Of the items ``wanted`` those to write, and the names of those that somebody has set and that stay so.

    ``registered`` are the digests of what we wrote last, None where that is unknown.
    """
    differing = {name: value for name, value in wanted.items() if name not in there or there[name] != value}
    if registered is None:
        return {}, list(differing)
    last = {name: registered.get(KEPT + name, registered.get(name, digest(None))) for name in differing}
    ours = {name: value for name, value in differing.items() if digest(there.get(name)) == last[name]}
    return ours, [name for name in differing if name not in ours]


class Registered:
    """The digests of what we registered last under an id of the server's."""

    def __init__(self, client: SyncPrefectClient, of: UUID) -> None:
        self._client, self._name = client, f"gradmill_registered_{of}"
        variable = client.read_variable_by_name(self._name)
        self._there = variable is not None
        self._value = variable.value if variable and isinstance(variable.value, dict) else None
        noted = self._value or {}
        self.added: list[str] = noted.get(ADDED, [])
        self.digests = None if self._value is None else {name: noted[name] for name in noted if name != ADDED}

    @property
    def kept(self) -> dict[str, str]:
        """Those of what somebody has set, by item."""
        return {name.removeprefix(KEPT): each for name, each in (self.digests or {}).items() if name.startswith(KEPT)}

    def note(self, declared: dict[str, Any], kept: Mapping[str, str] | None = None, added: Sequence[str] = ()) -> None:
        """Keep those of what is declared, of what is set instead, and of schedules that nobody declares."""
        value: dict[str, Any] = {name: digest(each) for name, each in declared.items()}
        value |= {KEPT + name: each for name, each in (kept or {}).items()}
        if ever := list(dict.fromkeys([*self.added, *added])):  # also of those that are gone: deleted, not missing
            value[ADDED] = ever[-MOST_ADDED:]
        if not self._there:
            self._client.create_variable(VariableCreate(name=self._name, value=value))
        elif value != self._value:
            self._client.update_variable(VariableUpdate(name=self._name, value=value))

    def forget(self) -> None:
        """Remove them from the server."""
        if self._there:
            with suppress(ObjectNotFound):
                self._client.delete_variable_by_name(self._name)
