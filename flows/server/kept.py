"""What somebody has set of a deployment, kept in artifacts/: it outlives the server and every checkout."""

import os
from typing import Any, Literal, Self

from pydantic import Field

from flows.server.declared import Items
from flows.server.registered import digest
from tasks.store import artifact_paths
from tasks.store.documents import Document


class Kept(Document):
    """What is not as declared: by item, None where it was taken away; ``added`` are schedules that nobody declares.

    ``before`` are digests of all that was ever kept here, by item: where a server still has it, it is ours to change.
    """

    schema_version: Literal[1] = 1
    items: Items = Field(default_factory=dict)
    added: list[dict[str, Any]] = Field(default_factory=list)
    before: dict[str, list[str]] = Field(default_factory=dict)

    @classmethod
    def of(cls, deployment: str) -> Self:
        """That of a deployment.

        Raises:
            DataError: it is damaged.
        """
        path = artifact_paths.deployment_settings(deployment)
        return cls.read(path) if os.path.lexists(path) else cls()

    @classmethod
    def unlike(cls, declared: Items, items: Items, added: list[dict[str, Any]]) -> Self:
        """What there is to keep of a deployment that has ``items``."""
        names = declared.keys() | items.keys()
        changed = {name: items.get(name) for name in sorted(names) if items.get(name) != declared.get(name)}
        return cls(items=changed, added=added)

    def over(self, declared: Items) -> Items:
        """The deployment's items, as they are to be."""
        return {name: value for name, value in (declared | self.items).items() if value is not None}

    def without(self, item: str) -> Self:
        """The same, one item as declared."""
        return self.model_copy(update={"items": {name: self.items[name] for name in self.items if name != item}})

    def ever(self) -> dict[str, list[str]]:
        """``before``, with what is kept now."""
        now = {name: sorted({*self.before.get(name, ()), digest(value)}) for name, value in self.items.items()}
        return self.before | now

    def keep(self, deployment: str) -> None:
        """Write it where it is not so yet, and no file of nothing."""
        path = artifact_paths.deployment_settings(deployment)
        known = Kept.of(deployment)
        wanted = self.model_copy(update={"before": self.model_copy(update={"before": known.ever()}).ever()})
        if wanted == Kept():
            path.unlink(missing_ok=True)
        elif wanted != known:
            path.parent.mkdir(parents=True, exist_ok=True)
            wanted.write(path)
