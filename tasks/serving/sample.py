"""``sample.npz``: a few real inputs of a model and the outputs that a consumer must get for them."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.serving import sessions

ROWS = 8
TOLERANCE = 2e-5  # what runtimes may differ by (README, "Other runtimes")


def write(session: Any, rows: NDArray[Any]) -> bytes:
    """The first ``ROWS`` of ``rows`` with what ``session`` answers, as an npz file."""
    (source,) = session.get_inputs()
    arrays: dict[str, Any] = {source.name: rows[:ROWS], **sessions.answers(session, rows[:ROWS])}
    with io.BytesIO() as stream:
        np.savez(stream, **arrays)
        return stream.getvalue()


def contradicted(session: Any, content: bytes) -> str | None:
    """The first output of which ``session`` does not give what the file says; None where it gives them all."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    (source,) = session.get_inputs()
    for name, found in sessions.answers(session, arrays[source.name]).items():
        if not np.allclose(found, arrays[name], rtol=0, atol=TOLERANCE):
            return name
    return None
