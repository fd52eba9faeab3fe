"""The features of a table column by column: a category's as codes of the smallest type, others as float32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tasks.data.prepared_splits import create_arrays
from tasks.data.recipe import Column
from tasks.machine.arrays import Array

SCRATCH = "encoded.safetensors"


class Encoded(NamedTuple):
    """``n`` rows; a missing value is NaN, and of a category the code after that of its last level."""

    values: tuple[Array, ...]  # (n,) of each column
    missing: tuple[int | None, ...]  # that code; None of a number

    @classmethod
    def create(cls, columns: Sequence[Column], num_rows: int, folder: Path) -> Self:
        """Rows to be written; many lie in a file in ``folder``, mapped, and are gone with it."""
        missing = tuple(len(column.levels) if column.kind == "category" else None for column in columns)
        dtypes = [np.dtype(np.float32) if code is None else np.min_scalar_type(code) for code in missing]
        arrays = create_arrays(folder / SCRATCH, {str(at): (each, (num_rows,)) for at, each in enumerate(dtypes)})
        return cls(tuple(arrays[str(at)] for at in range(len(columns))), missing)

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.values[0])

    def floats(self, at: int, rows: Any = slice(None)) -> NDArray[np.float32]:
        """Some rows ``(m,)`` of a column, as a model takes them: NaN is missing."""
        values, code = self.values[at][rows], self.missing[at]
        found: NDArray[np.float32] = values.astype(np.float32, copy=False)
        if code is not None and (is_missing := values == code).any():
            found[is_missing] = np.nan
        return found

    def matrix(self, rows: Any) -> NDArray[np.float32]:
        """The same of all columns ``(m, columns)``."""
        first = self.floats(0, rows)
        made = np.empty((len(first), len(self.values)), np.float32)
        made[:, 0] = first
        for at in range(1, len(self.values)):
            made[:, at] = self.floats(at, rows)
        return made
