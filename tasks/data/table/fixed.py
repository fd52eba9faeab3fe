"""What version 1 of a name fixes of its table, and every later one keeps (design 4.5)."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field

from tasks.data.recipe import Column, Columns, SplitRule
from tasks.records import Splits
from tasks.serving.task import TaskName
from tasks.store.record import Lasting


class FixedRecipe(Lasting):
    """Names, kinds and order of columns, levels and classes with their codes, the split; nothing that is fitted."""

    task: TaskName
    target: str = Field(min_length=1)
    columns: tuple[Column, ...]  # name, kind and levels
    class_names: tuple[str, ...] = ()
    split: SplitRule
    ignored: tuple[str, ...] = ()  # by the user's word, sorted
    left_out: tuple[str, ...] = ()  # by themselves: dates and ids, sorted

    @classmethod
    def of(cls, dataset: Splits, recipe: object) -> Self | None:
        """What a kept version's manifest fixed (``dataset`` and ``recipe`` of it); None of the book's data."""
        if dataset.split is None or not isinstance(recipe, Columns) or recipe.target is None:
            return None
        return cls(**dict(dataset), target=recipe.target.name, columns=tuple(map(bare, recipe.columns)))

    def digest(self, parts: Sequence[Any]) -> str:
        """SHA-256 (hex) of data with this recipe: of the recipe, columns by name, and of each part's bytes."""
        facts = self.model_dump(mode="json") | {
            "columns": [bare(each).model_dump(mode="json") for each in sorted(self.columns, key=lambda each: each.name)]
        }
        of_parts = [hashlib.sha256(part).hexdigest() for part in parts]
        return hashlib.sha256(json.dumps([facts, of_parts], sort_keys=True).encode()).hexdigest()


def bare(column: Column) -> Column:
    """A column without what is fitted anew at every retrain."""
    return Column(name=column.name, kind=column.kind, levels=column.levels)
