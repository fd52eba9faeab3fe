"""``sample.npz``: a few real inputs of a model and the outputs that a consumer must get for them."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.recipe import Columns, Recipe
from tasks.serving import sessions

ROWS = 8
TOLERANCE = 2e-5  # what runtimes may differ by (docs/consumers.md, "Other runtimes")
DEVIATIONS = 10  # from the target's mean, within which predictions usually lie


def write(session: Any, recipe: Recipe, rows: NDArray[Any]) -> bytes:
    """A few of ``rows``, as ``recipe`` makes them, with what ``session`` answers, as an npz file."""
    (source,) = session.get_inputs()
    chosen = _telling(recipe, rows) if isinstance(recipe, Columns) else rows[:ROWS]
    arrays: dict[str, Any] = {source.name: chosen, **sessions.answers(session, chosen)}
    with io.BytesIO() as stream:
        np.savez(stream, **arrays)
        return stream.getvalue()


def _telling(recipe: Columns, rows: NDArray[Any]) -> NDArray[Any]:
    """One with a missing value, if there is one, then the first; the last of these with unknown codes."""
    missing = np.flatnonzero(np.isnan(rows).any(axis=1))[:1]
    first = np.setdiff1d(np.arange(min(ROWS, len(rows))), missing)[: ROWS - len(missing)]
    chosen: NDArray[Any] = rows[np.concatenate([missing, first])]
    for at in recipe.categories:
        chosen[-1, at] = len(recipe.columns[at].levels)
    return chosen


def tolerance(recipe: Recipe) -> float:
    """What an answer may differ by: of numbers to be predicted, in deviations and two spacings of float32."""
    target = recipe.target if isinstance(recipe, Columns) else None
    if target is None:
        return TOLERANCE
    usual = abs(target.mean) + DEVIATIONS * target.scale
    return TOLERANCE * target.scale + 2 * float(np.spacing(np.float32(usual)))


def contradicted(session: Any, recipe: Recipe, content: bytes) -> str | None:
    """The first output of which ``session`` does not give what the file says; None where it gives them all."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    (source,) = session.get_inputs()
    for name, found in sessions.answers(session, arrays[source.name]).items():
        if not np.allclose(found, arrays[name], rtol=0, atol=tolerance(recipe)):
            return name
    return None
