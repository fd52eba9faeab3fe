"""The page of a batch prediction: what it came to, what has moved since training, what was rejected, and the trend."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.story import drifted
from flows.story import overview_tables as tables
from flows.story import overview_words as words
from flows.story.blocks import escaped, said, table
from tasks.batch.plan import Version, read_version
from tasks.batch.results import ID
from tasks.data.recipe import Columns
from tasks.errors import GradmillError
from tasks.machine.words import counted
from tasks.records import Prediction
from tasks.stage.live import embed_picture
from tasks.store import artifact_paths, predictions
from tasks.store.predictions import Job

REJECTS = 10  # that are told


def page(result: Prediction) -> str:
    """The Markdown page of a job that is done."""
    job, version = predictions.find(result.path), read_version(artifact_paths.version(result.name, result.version))
    blocks = [f"# {escaped(headline(result))}", table(("", ""), _facts(result, job))]
    if job:
        blocks += [drifted.labels(job, version), drifted.columns(job, version)]
    blocks += [_rejects(result, version), _jobs(result.name)]
    blocks += [embed_picture(result.picture)] if result.picture else []
    return "\n\n".join(filter(None, blocks))


def failed(name: str, error: Exception, given: str | None) -> str:
    """The Markdown page of a prediction that has come to nothing: what was found, and what to do."""
    known = error if isinstance(error, GradmillError) else None
    told = {
        "Found": known.found if known else f"{type(error).__name__}: {error}",
        "Expected": known.expected if known else "no such error",
        "To do": known.action if known else "see the log of the run",
    }
    blocks = [
        f"# {name}: nothing was predicted",
        *(f"**{word}**: {escaped(said(text))}" for word, text in told.items()),
        f"**Input**: `{said(given)}`" if given else "",
        _jobs(name),
    ]
    return "\n\n".join(filter(None, blocks))


def headline(result: Prediction) -> str:
    """What came out, in a line; of drift that and where."""
    job = predictions.find(result.path)
    if job and result.drift.verdict == "drift":
        version = read_version(artifact_paths.version(result.name, result.version))
        return f"DRIFT: {drifted.most(job, version)}"
    moved = drifted.names(job) if job else []
    also = f"; drifted: {said(', '.join(moved))}" if moved else ""
    return f"{counted(result.rows, 'row')} predicted{f', {result.rejects:,} rejected' if result.rejects else ''}{also}"


def in_words(result: Prediction) -> tuple[str, str]:
    """For the run's name, and for its first tag: what came out."""
    index = max(result.drift.index.values(), default=0)
    parts = [f"DRIFT {index:.2f}" if result.drift.verdict == "drift" else counted(result.rows, "row")]
    parts += [f"{result.rejects:,} rejected"] if result.rejects else []
    return ", ".join([*parts, *filter(None, [words.truth(result)])]), f"{index:.2f} {result.drift.verdict}"


def _facts(result: Prediction, job: Job | None) -> Iterator[tuple[str, str]]:
    index = ", ".join(f"{name} {value:.3f}" for name, value in result.drift.index.items())
    if job:
        yield "input", _input(job)
    yield "rows", f"{result.rows:,}"
    yield "rejected rows", f"{result.rejects:,}"
    yield "rows a second", f"{result.rows / result.seconds:,.0f}" if result.seconds else ""
    yield "provider", result.provider
    yield "model", f"{result.name} version {result.version}, SHA-256 `{result.model_sha256}`"
    yield "against the truth", words.truth(result) or "unknown: it is not in the input"
    if job and job.notes:
        yield "noted", escaped("; ".join(job.noted))
    limit = f" (population stability index {index}; limit {result.drift.maximum:g})" if index else ""
    yield "drift", f"{result.drift.verdict}{limit}"
    if result.file:
        yield "file", f"`{said(str(result.file))}`"
    yield "output", f"`{said(str(result.path))}`, {counted(result.parts, 'part')}"


def _input(job: Job) -> str:
    """Name and place of what was predicted."""
    path = Path(job.input.path)
    place = f"`{said(str(path if path.is_absolute() else artifact_paths.root() / path))}`"
    return f"{said(path.name)}, {place}{f', {job.input.files:,} files' if job.input.files > 1 else ''}"


def _rejects(result: Prediction, version: Version) -> str:
    """The first rejected rows: in which file, which row, which column, and why; empty where there are none."""
    if not result.rejects:
        return ""
    names = [each.name for each in version.recipe.columns] if isinstance(version.recipe, Columns) else []
    path = result.path / artifact_paths.REJECTS
    with pq.ParquetFile(path) as file:
        batches = (batch.to_pylist() for batch in file.iter_batches(REJECTS))
        first = list(itertools.islice(itertools.chain.from_iterable(batches), REJECTS))
    ids = [name for name in first[0] if name.startswith(ID)]
    rows = [
        (
            said(Path(row["source"]).name),
            f"{row['source_row']:,}",
            *(said(str(row[each] or "")) for each in ids),
            *map(said, _why(row, names)),
        )
        for row in first
    ]
    head = ("file", "row, from 0", *(said(each.removeprefix(ID)) for each in ids), "column", "why")
    more = f"\n\nAll {result.rejects:,} are in `{said(str(path))}`." if result.rejects > REJECTS else ""
    return "## Rejected rows\n\n" + table(head, rows) + more


def _why(row: dict[str, Any], names: list[str]) -> tuple[str, str]:
    """The column that a reason begins with, if it does, and the rest."""
    reason = str(row["reason"])
    column = max((name for name in names if reason.startswith(f"{name} is ")), key=len, default="")
    return column, reason[len(column) :].lstrip()


def _jobs(name: str) -> str:
    """The last jobs of a name that are done and lie in artifacts/, the newest first."""
    jobs = (job for _, job in predictions.list_jobs() if job and job.model.name == name)
    rows = [tables.job(job) for job in predictions.list_newest(jobs)]
    return "## The last jobs\n\n" + table(tables.JOBS, rows) if rows else ""
