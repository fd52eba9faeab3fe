"""What validation holds data against: those that the champion was made of."""

from typing import Self

from tasks.data.table.profile import AcceptedFinding, ColumnProfile
from tasks.data.table.split_rule import SplitRule
from tasks.parameters.own_data import NO_WINDOW
from tasks.records import Splits
from tasks.store.record import FileRef, Record


class ChampionData(Record):
    """The rows of a champion's own data by their digests, what its columns were like, and what was let through."""

    num_rows: int  # training and test
    rows: FileRef | None = None
    profiles: tuple[ColumnProfile, ...] = ()
    accepted: tuple[AcceptedFinding, ...] = ()
    split: SplitRule
    window: str = NO_WINDOW

    @classmethod
    def of(cls, dataset: Splits, window: str) -> Self | None:
        """What the champion's manifest says of its data; None of the book's."""
        if dataset.split is None:
            return None
        return cls(
            num_rows=dataset.num_train + dataset.num_test,
            rows=dataset.rows,
            profiles=dataset.profiles,
            accepted=dataset.accepted,
            split=dataset.split,
            window=window,
        )

    def accepting(self, *more: AcceptedFinding) -> tuple[AcceptedFinding, ...]:
        """All that was let through so far, each once."""
        return tuple(dict.fromkeys((*self.accepted, *more)))
