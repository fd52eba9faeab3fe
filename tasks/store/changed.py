"""What was changed in a model's folder, typed: the lines of its history, and what its pointer cannot tell."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from tasks.store.documents import Document


def _with_a_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Number = Annotated[int, Field(ge=1)]
Moment = Annotated[str, AfterValidator(_with_a_zone)]


class Extensible(Document):
    """A document that keeps what is not declared here: other kinds of model, and newer versions, note more."""

    model_config = ConfigDict(extra="allow")


class Change(Extensible):
    """What somebody, a user or a run, has changed in a model's folder; ``champion`` and ``frozen`` are as of then.

    ``before`` was the champion until then; it was not noted at first.
    """

    at: Moment
    what: str  # of which a newer version may know more
    versions: tuple[int, ...]
    before: Number | None = None
    champion: Number | None
    frozen: bool
    by: str
    reason: str = ""
    interrupted: bool = False  # a kill kept it from being made

    @property
    def step(self) -> str:
        """The champion, from what to what: ``6 → 5``, or just ``6`` where it stayed."""
        moved = self.before is not None and self.before != self.champion
        return f"{self.before} → {self.champion or 'none'}" if moved else f"{self.champion or ''}"


class History(Extensible):
    """``.history.json``: the highest number ever given, when each version was last demoted, and what was changed.

    Of the changes it has the last 1000, for versions of Gradmill from before there was ``history.jsonl``.
    """

    highest: int = Field(ge=0)
    demoted: dict[int, Moment]
    changes: tuple[Change, ...] = ()
    journal: str = ""  # SHA-256 (hex) of the last line there
