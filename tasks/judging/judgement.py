"""A kept version on labelled rows: what it says of them, how good that is, and how good it was."""

from pathlib import Path

import numpy as np

from tasks.errors import DataError
from tasks.judging import labelled, measures
from tasks.judging.judged import Judged
from tasks.judging.labelled import Labelled
from tasks.judging.measures import Answers
from tasks.machine.arrays import Array
from tasks.parameters import Device, EvaluateParameters
from tasks.serving import sessions
from tasks.store.artifact_paths import ONNX
from tasks.store.versions import Manifest

PUBLISHED = {"accuracy": "test_accuracy", "loss": "test_loss", "rmse": "rmse", "r2": "r2"}  # in a manifest


def judge(manifest: Manifest, model: bytes, asked: EvaluateParameters, scratch: Path) -> Judged:
    """Judge a version, of which these are manifest and ONNX file; what is read lies in the folder ``scratch``.

    Raises:
        UsageError: rows of another kind than the version takes.
        DataError: they cannot be read, are not fit, or there is none to judge by.
    """
    read = labelled.read(manifest, asked, scratch)
    answers, known = _answers(model, read, manifest.dataset.class_names), manifest.metrics.model_dump()
    rows = _unseen(read) if asked.unseen else slice(None)
    answers, clusters, moments = answers.of_rows(rows), read.clusters, read.moments
    clusters = None if clusters is None else clusters[rows]
    now = measures.measure(answers, clusters)
    moments = moments and moments._replace(values=moments.values[rows])
    return Judged(
        name=manifest.name,
        version=manifest.version,
        model_sha256=manifest.files[ONNX],
        **dict(now),
        published={name: known[kept] for name, kept in PUBLISHED.items() if kept in known and name in now.metrics},
        published_rows=manifest.dataset.num_test,
        published_recall=known.get("recall") or {},
        unlabelled=read.unlabelled,
        broken=read.broken,
        groups=None if clusters is None else len(np.unique(clusters)),
        trained_on=None if read.was_trained is None else int(np.count_nonzero(read.was_trained)),
        unseen=asked.unseen,
        changes=read.changes,
        periods=tuple(measures.by_period(answers, moments, clusters)) if moments else (),
    )


def _answers(model: bytes, read: Labelled, class_names: tuple[str, ...]) -> Answers:
    """What the model says of all rows; of its outputs only what is judged stays in memory."""
    session, parts, start = sessions.open_session(model, Device.CPU), list[Answers](), 0
    for piece in read.pieces:
        truth = read.truth[start : start + len(piece)]
        parts.append(Answers.of(sessions.answers(session, np.ascontiguousarray(piece)), truth, class_names))
        start += len(piece)
    return Answers.together(parts)


def _unseen(read: Labelled) -> Array:
    """The rows that the version was not trained on."""
    if read.was_trained is None:
        expected = "rows that tell, with the columns of the version's split"
        raise DataError(
            "it is not known which of these rows the version was trained on", expected, "leave --unseen out"
        )
    rows = np.flatnonzero(~read.was_trained)
    if not len(rows):
        raise DataError("the version was trained on every row", "rows that it has not seen", "leave --unseen out")
    return rows
