"""Which rows of own data are the test split."""

from typing import Literal

from pydantic import Field

from tasks.store.record import Lasting


class SplitRule(Lasting):
    """Which rows of own data are the test split; fixed by version 1 of a name (design: hash, group, time, column)."""

    rule: Literal["rows", "copies", "group", "time", "column", "folders"]
    # copies: of equal rows, where few are distinct; folders: train/ and test/ of images
    column: str | None = None
    test: float = Field(gt=0, lt=1)  # share
    features: tuple[str, ...] = ()  # whose values are hashed, sorted by name
