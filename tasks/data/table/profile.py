"""What a version keeps of its data, so that later ones can be held against them (design 4.5)."""

from tasks.store.record import Lasting


class ColumnProfile(Lasting):
    """What a column was like in all rows that have a target, training and test; counts and medians are of a sample."""

    name: str
    missing: int = 0  # rows
    is_constant: bool = False
    magnitude: float | None = None  # the median of a number's magnitudes that are not 0; None where hardly any is
    levels: tuple[int, ...] = ()  # the codes of a category's commonest levels, each a bin
    edges: tuple[float, ...] = ()  # between a number's bins; a value on an edge belongs to the bin below it
    counts: tuple[int, ...] = ()  # sampled rows in each bin, then those of all other levels, last missing ones


class AcceptedFinding(Lasting):
    """What validation found and the user let through: in the same column it stops no later night."""

    rule: str
    column: str | None = None
