"""The outcome of a job: rows and answers counted, rejects gathered, drift judged, _job.json written last."""

import contextlib
import functools
import json
import operator
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch import output_dir
from tasks.batch.output_dir import PartFooter
from tasks.batch.plan import Version, read_version
from tasks.data.io.batches import Batch
from tasks.data.io.discovery import is_picture
from tasks.data.recipe import Target
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize
from tasks.parameters import PredictParameters
from tasks.records import Prediction
from tasks.serving import drift
from tasks.serving.drift import Histogram
from tasks.serving.task import Outputs, Task
from tasks.store import artifact_paths, model_folder, predictions
from tasks.store.artifact_paths import REJECTS
from tasks.store.predictions import Job
from tasks.store.record_base import PersistedRecord

T = TypeVar("T")
UNKNOWN_CLASS = "of a class that the model does not know, counted as wrong"  # is said behind a number of rows
TARGET_TOO_LARGE = "with a target beyond float32, left out of the figures"
LARGEST = np.finfo(np.float32).max
ID = "id_"  # before the name of a column that goes along
AVERAGED = (" is missing", ", a level that the model has not seen")  # ends of reasons that ``--unknown`` decides on
FLAT = 1e-12  # of squares: what rounding leaves where all values are equal


Score = dict[str, float]  # sums over the rows whose truth is known


def score_answers(task: Task, outputs: Outputs, y_true: Array, target: Target | None) -> Score:
    """How answers compare with the truth ``(n,)``, NaN where unknown: classes are right or wrong, numbers are off.

    Squares of a number are taken around the mean that the ``target`` had at training, so that a large one costs no
    digits.
    """
    is_known = np.abs(y_true) <= LARGEST  # no prediction is larger, and squares stay finite
    answer, y_true = outputs[task.answer][is_known], y_true[is_known].astype(np.float64)
    if task.is_counted:
        return {"rows": len(y_true), "correct": int(np.count_nonzero(answer == y_true))}
    errors, away = answer - y_true, y_true - (target.mean if target else 0.0)
    return {"rows": len(y_true), "squared": errors @ errors, "away": away.sum(), "spread": away @ away}


def measure_score(score: Score) -> dict[str, float]:
    """Accuracy; or root mean squared error in raw units, and the share of variance explained."""
    if not (rows := score.get("rows")):
        return {}
    if "correct" in score:
        return {"accuracy": score["correct"] / rows}
    spread = score["spread"] - score["away"] ** 2 / rows
    explained = {"r2": 1 - score["squared"] / spread} if spread > FLAT * score["spread"] else {}
    return {"rmse": (score["squared"] / rows) ** 0.5} | explained


class Counts(PersistedRecord):
    """Rows written, rows rejected, what was watched in them, and how good the answers were if that is known."""

    rows: int
    rejects: int
    profile: dict[str, Histogram]
    score: Score | None  # None: some rows came without a truth
    notes: dict[str, int]

    @classmethod
    def count(cls, batch: Batch, outputs: Outputs, version: Version) -> "Counts":
        """The counts of one batch of a job."""
        observed, notes, y = version.task.list_observed(outputs), Counter(batch.notes), batch.y_true
        if y is not None and version.labels:
            is_unknown = (y < 0) | (y >= len(version.labels))
            notes[UNKNOWN_CLASS] += int(np.count_nonzero(is_unknown))
        elif y is not None:
            notes[TARGET_TOO_LARGE] += int(np.count_nonzero(np.abs(y) > LARGEST))
        return Counts(
            rows=len(batch.row_ids),
            rejects=len(batch.rejects),
            profile={name: drift.count_in_bins(observed[name], each.edges) for name, each in version.reference.items()},
            score=None if y is None else score_answers(version.task, outputs, y, version.recipe.target),
            notes=+notes,
        )

    def __add__(self, other: "Counts") -> "Counts":
        """The sum of both counts."""
        return Counts(
            rows=self.rows + other.rows,
            rejects=self.rejects + other.rejects,
            profile=_merge(self.profile, other.profile),
            score=_merge(self.score, other.score) if self.score and other.score else None,
            notes=_merge(self.notes, other.notes),
        )


def _merge(one: dict[str, T], other: dict[str, T], add: Callable[[T, T], Any] = operator.add) -> dict[str, T]:
    """The values of both, added where both have the name: a batch without a good row has no counts of columns."""
    return one | other | {name: add(one[name], other[name]) for name in one.keys() & other.keys()}


class Footer(PartFooter, Counts):
    """What a part says about itself, and what was counted in its rows."""


def finish(folder: Path, job: Job, parameters: PredictParameters, seconds: float) -> Job:
    """Check that every row is in a part or rejected, and write the job's result.

    Raises:
        DataError: a part is missing or does not hold what it should; or too many rows were rejected.
    """
    footers = [Footer.read(folder, job, shard) for shard in job.shards]
    if None in footers:
        shard = job.shards[footers.index(None)]
        part = artifact_paths.part(folder, shard.number)
        found, action = (
            f"{part} does not hold rows {shard.start} to {shard.stop}",
            "run the command again: it writes it again",
        )
        raise DataError(f"{found} of job {job.job}", "the part as it was written", action)
    counts = functools.reduce(operator.add, cast("list[Footer]", footers))
    check_rejects(folder, job, counts.rejects)
    rejected = merge_rejects(folder, job)
    if counts.rows + rejected != job.rows:
        raise DataError(
            f"{counts.rows} rows written and {rejected} rejected of {job.rows}",
            "every row",
            "run the job again with --restart",
        )
    version, metrics = read_version(job.model.path.parent), measure_score(counts.score or {})
    done = job.model_copy(
        update={
            "status": "done",
            "rejects": counts.rejects,
            "accuracy": metrics.get("accuracy"),
            "metrics": metrics,
            "worse": _describe_worse(job, metrics, int((counts.score or {}).get("rows", 0))),
            "profile": counts.profile,
            "drift": drift.judge_drift(version.reference, counts.profile, parameters.max_drift),
            "notes": counts.notes,
            "seconds": round(seconds, 3),
            "finished_at": predictions.format_now(),
        }
    )
    predictions.write(folder, done)
    output_dir.clean_up(folder)
    return done


def _describe_worse(job: Job, metrics: dict[str, float], rows: int) -> str | None:
    """The accuracy of the rows whose truth is known, if it is lower than on the version's test rows, beyond chance."""
    manifest = model_folder.read_manifest(job.model.path.parent)
    published, split = manifest.metrics.test_accuracy, manifest.dataset.split
    if published is None or "accuracy" not in metrics or (split and split.rule in ("group", "time")):
        return None
    accuracy = metrics["accuracy"]
    if not drift.is_less_accurate(accuracy, rows, published, manifest.dataset.num_test):
        return None
    now, before = format_number(accuracy), format_number(published)
    return f"accuracy {now} on {pluralize(rows, 'row')}, {before} on the test rows of version {job.model.version}"


def judge_again(folder: Path, job: Job, max_drift: float) -> Job:
    """A finished job with its drift judged by the bound given now; its document is updated where that is possible."""
    if job.drift is None or job.drift.maximum == max_drift:
        return job
    judged = job.model_copy(update={"drift": job.drift.judge_by(max_drift)})
    with contextlib.suppress(OSError):
        output_dir.write_document(folder, judged)
    return judged


def to_prediction(folder: Path, job: Job, file: Path | None) -> Prediction:
    """The record of a finished job, and of the single output file that was written, if any."""
    same = {"job", "rejects", "provider", "accuracy", "drift"}
    return Prediction(
        path=folder,
        file=file,
        rows=job.rows - (job.rejects or 0),
        parts=len(job.shards),
        name=job.model.name,
        version=job.model.version,
        model_sha256=job.model.sha256,
        metrics=job.metrics or {},
        unknown_class=(job.notes or {}).get(UNKNOWN_CLASS, 0),
        seconds=job.seconds or 0,
        **{name: getattr(job, name) for name in same},
    )


# Rejected rows, which are never all in memory: one file for each shard that has any, gathered in _rejects.parquet.


def rejects_schema(job: Job) -> pa.Schema:
    """The columns of a job's rejects, with its ids named as in its parts."""
    texts, numbers = pa.string(), pa.int64()
    ids = ((f"{ID}{name}", texts) for name in job.id_columns)
    return pa.schema([("row", numbers), ("source", texts), ("source_row", numbers), ("reason", texts), *ids])


def merge_rejects(folder: Path, job: Job) -> int:
    """Gather the rejects of all shards in ``_rejects.parquet``, in order, and return how many there are.

    Raises:
        DataError: those of a shard are damaged.
    """
    total, schema = 0, rejects_schema(job)
    with predictions.place_file(folder, REJECTS) as temporary, pq.ParquetWriter(temporary, schema) as merged:
        for path in filter(Path.is_file, (output_dir.rejects_path(folder, shard) for shard in job.shards)):
            with output_dir.explain_job_file_errors(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    merged.write_batch(batch)
                    total += batch.num_rows
        model = job.model.model_dump(mode="json")
        footer = json.dumps({"job": job.job, "model": model, "rejects": total})
        merged.add_key_value_metadata({output_dir.FOOTER: footer})
    return total


def check_rejects(folder: Path, job: Job, count: int) -> None:
    """Stop the job when more rows were rejected than tolerated; _rejects.parquet then says which and why.

    Raises:
        DataError: too many rows were rejected.
    """
    if count <= job.max_rejects:
        return
    if job.status == "running":
        merge_rejects(folder, job)
    first = describe_first_reject(folder)
    averages = (
        read_version(job.model.path.parent).recipe.is_by_name and job.unknown == "reject" and first.endswith(AVERAGED)
    )
    average = " use --unknown average for values that the model has not seen," if averages else ""
    raise DataError(
        f"at least {count:,} of {pluralize(job.rows, 'row')} cannot be predicted, the first is {first}",
        f"at most {pluralize(job.max_rejects, 'rejected row')}",
        f"repair them,{average} or raise --max-rejects (finished parts are kept); all are in {folder / REJECTS}",
    )


def describe_first_reject(folder: Path) -> str:
    """The first rejected row of a job with the reason."""
    with pq.ParquetFile(folder / REJECTS) as file:
        row: dict[str, Any] = next(file.iter_batches(1)).to_pylist()[0]
    ids = ", ".join(f"{name.removeprefix(ID)} {value}" for name, value in row.items() if name.startswith(ID))
    at = "" if is_picture(Path(row["source"])) else f"row {row['source_row']}{f' ({ids})' if ids else ''} of "
    return f"{at}{row['source']}: {row['reason']}"
