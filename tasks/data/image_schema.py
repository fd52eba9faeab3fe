"""What version 1 of a name fixes of its images, and every later one keeps (design 4.5)."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from tasks.data.recipe import Pixels, SplitRule
from tasks.errors import UsageError
from tasks.parameters.own_data import OwnData
from tasks.records import Splits
from tasks.serving.task import TaskName
from tasks.store.record import Lasting

OTHER_NAME = "leave the option out, or keep the new images under another --name"


class ImageSchema(Lasting):
    """Classes in order, size and channels, and the split."""

    class_names: tuple[str, ...]
    recipe: Pixels
    split: SplitRule

    task: ClassVar[TaskName] = "classification"
    target: ClassVar[None] = None

    @classmethod
    def of(cls, dataset: Splits, recipe: object) -> Self | None:
        """What a kept version's manifest fixed (``dataset`` and ``recipe`` of it); None of all but own images."""
        if dataset.split is None or not isinstance(recipe, Pixels):
            return None
        return cls(class_names=dataset.class_names, recipe=recipe, split=dataset.split)

    def digest(self, parts: Sequence[Any]) -> str:
        """SHA-256 (hex) of data with this recipe: of what is fixed, and of each part's row digests."""
        of_parts = [hashlib.sha256(part).hexdigest() for part in parts]
        return hashlib.sha256(json.dumps([self.model_dump(mode="json"), of_parts], sort_keys=True).encode()).hexdigest()

    def require(self, data: OwnData) -> None:
        """Let options pass that mean what is fixed.

        Raises:
            UsageError: one means something else.
        """
        fixed = {"side": self.recipe.shape[0], "channels": "rgb" if len(self.recipe.shape) == 3 else "grey"}
        for name, value in fixed.items():
            if (given := getattr(data, name)) not in (None, value):
                raise UsageError(f"--{name} {given}", f"{value}, as version 1 fixed it", OTHER_NAME)
