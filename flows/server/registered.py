"""What we registered last of a deployment or an automation: digests in a Prefect variable, by item."""

import hashlib
import json
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate


def writable(
    wanted: dict[str, Any], there: dict[str, Any], registered: dict[str, str] | None
) -> tuple[dict[str, Any], list[str]]:
    """Of the items ``wanted`` those to write, and the names of those that somebody has set and that stay so.

    ``registered`` are the digests of what we wrote last, None where that is unknown.
    """
    differing = {name: value for name, value in wanted.items() if name not in there or there[name] != value}
    if registered is None:
        return {}, list(differing)
    known = {name: digest(value) for name, value in there.items()}
    ours = {name: value for name, value in differing.items() if known.get(name) == registered.get(name)}
    return ours, [name for name in differing if name not in ours]


def digest(value: Any) -> str:
    """Of an item's value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Registered:
    """The digests of what we registered last under an id of the server's."""

    def __init__(self, client: SyncPrefectClient, of: UUID) -> None:
        self._client, self._name = client, f"gradmill_registered_{of}"
        variable = client.read_variable_by_name(self._name)
        self._there = variable is not None
        self.digests = variable.value if variable and isinstance(variable.value, dict) else None

    def note(self, wanted: dict[str, Any]) -> None:
        """Keep those of what is registered by now."""
        digests = {name: digest(value) for name, value in wanted.items()}
        if not self._there:
            self._client.create_variable(VariableCreate(name=self._name, value=digests))
        elif digests != self.digests:
            self._client.update_variable(VariableUpdate(name=self._name, value=digests))

    def forget(self) -> None:
        """Leave nothing of what is no more."""
        if self._there:
            self._client.delete_variable_by_name(self._name)
