"""``tuned.json`` in a model's folder: the settings that a search found, what they were chosen by, and from what."""

from typing import Any, Literal

from tasks.store import artifact_paths
from tasks.store.documents import Document

Setting = float | int | str


class Trial(Document):
    """One training of a search; its loss is None where it diverged."""

    number: int  # from 0
    settings: dict[str, Setting]  # fields of ``Training`` by name
    validation_loss: float | None
    losses: tuple[float, ...] = ()  # of the validation part, by epoch
    epochs: int
    seconds: float
    outcome: Literal["complete", "pruned", "diverged"]


class Tuned(Document):
    """The winner of a search, beside the settings that would have been used without one."""

    schema_version: Literal[1] = 1
    model: str
    dataset_digest: str  # SHA-256 (hex) of the data that were searched on
    settings: dict[str, Setting]  # fields of ``Training`` by name
    validation_losses: tuple[float, ...]  # of the winner, one a seed
    default_settings: dict[str, Setting]
    default_losses: tuple[float, ...]
    num_trials: int
    num_validation: int  # examples that it was chosen on
    seed: int
    run: str  # in whose folder every trial stands

    def training(self, given: dict[str, Any]) -> dict[str, Any]:
        """The ``training`` part of a retrain's document: what was found, but for what is given."""
        return self.settings | given


def read(name: str) -> Tuned:
    """What was found for a name.

    Raises:
        DataError: nothing was found yet, or the document is damaged.
    """
    return Tuned.read(artifact_paths.tuned(name), f"search first: gradmill tune {name}")
