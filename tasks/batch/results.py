"""The outcome of a job: rows, rejects and answers counted, drift judged, _job.json written last."""

import contextlib
import functools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from tasks.batch import output_dir
from tasks.batch.output_dir import REJECTED, PartFooter, Reject
from tasks.batch.plan import Version, read_version
from tasks.data.io.batches import Batch, locate_row
from tasks.data.io.discovery import DataFile, is_picture
from tasks.data.io.inputs import AVERAGED, select_columns
from tasks.data.io.tabular import Selection
from tasks.data.recipe import Target
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize
from tasks.parameters import PredictParameters
from tasks.parameters.addresses import split_source
from tasks.records import Prediction
from tasks.serving import drift
from tasks.serving.drift import Histogram
from tasks.serving.task import Outputs, Task
from tasks.store import artifact_paths, model_folder, predictions
from tasks.store.predictions import Job, Shard
from tasks.store.record_base import PersistedRecord
from tasks.store.verified_files import Fingerprint

T = TypeVar("T")
UNKNOWN_CLASS = "of a class that the model does not know, counted as wrong"  # is said behind a number of rows
FITTED_ROWS = "that the weights were fitted to: their figures say nothing about new rows"
TARGET_TOO_LARGE = "with a target beyond float32, left out of the figures"
LARGEST = np.finfo(np.float32).max
UNSEEN = (" is missing", ", a level that the model has not seen")  # ends of reasons that ``--unknown`` decides on
FIRST_REJECTS = 10  # whose reasons a part's footer repeats
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
    """Rows predicted, rows rejected, what was watched in the answers, and how good these were if that is known."""

    rows: int
    rejects: int
    first_rejects: tuple[Reject, ...]
    profile: dict[str, Histogram]
    score: Score | None  # None: some rows came without a truth
    notes: dict[str, int]

    @classmethod
    def count(cls, batch: Batch, outputs: Outputs, version: Version) -> "Counts":
        """The counts of one batch of a job."""
        notes, y = Counter(batch.notes), batch.y_true
        if batch.reasons:
            is_accepted = batch.is_accepted
            outputs = {name: values[..., is_accepted] for name, values in outputs.items()}
            y = None if y is None else y[is_accepted]
        observed = version.task.list_observed(outputs)
        if y is not None and version.labels:
            is_unknown = (y < 0) | (y >= len(version.labels))
            notes[UNKNOWN_CLASS] += int(np.count_nonzero(is_unknown))
        elif y is not None:
            notes[TARGET_TOO_LARGE] += int(np.count_nonzero(np.abs(y) > LARGEST))
        return Counts(
            rows=batch.num_rows - len(batch.reasons),
            rejects=len(batch.reasons),
            first_rejects=tuple(_list_rejects(batch)),
            profile={name: drift.count_in_bins(observed[name], each.edges) for name, each in version.reference.items()},
            score=None if y is None else score_answers(version.task, outputs, y, version.recipe.target),
            notes=+notes,
        )

    def __add__(self, other: "Counts") -> "Counts":
        """The sum of both counts."""
        return Counts(
            rows=self.rows + other.rows,
            rejects=self.rejects + other.rejects,
            first_rejects=(self.first_rejects + other.first_rejects)[:FIRST_REJECTS],
            profile=_merge(self.profile, other.profile),
            score=_merge(self.score, other.score) if self.score and other.score else None,
            notes=_merge(self.notes, other.notes),
        )


def _list_rejects(batch: Batch) -> Iterator[Reject]:
    files = [*batch.sources.items()]
    for at in sorted(batch.reasons)[:FIRST_REJECTS]:
        row, (path, first) = batch.first_row + at, files[batch.source_index[at]]
        ids = {} if batch.passthrough is None else batch.passthrough.slice(at, 1).to_pylist()[0]
        yield Reject(row, path, row - first, ids, batch.reasons[at])


def _merge(one: dict[str, T], other: dict[str, T]) -> dict[str, T]:
    """The values of both, added where both have the name."""
    return one | other | {name: operator.add(one[name], other[name]) for name in one.keys() & other.keys()}


class Footer(PartFooter, Counts):
    """What a part says about itself, and what was counted in its rows."""


def read_footers(folder: Path, job: Job) -> dict[Shard, Footer]:
    """The footers of the parts that are complete, in order."""
    footers = {shard: Footer.read(folder, job, shard) for shard in job.shards}
    return {shard: footer for shard, footer in footers.items() if footer}


def finish(folder: Path, job: Job, parameters: PredictParameters, seconds: float) -> Job:
    """Check that every row is in a part, and write the job's result.

    Raises:
        DataError: a part is missing or does not hold what it should; or too many rows were rejected.
    """
    footers = read_footers(folder, job)
    for shard in job.shards:
        if shard not in footers:
            part = artifact_paths.part(folder, shard.number)
            found = f"{part} does not hold rows {shard.start} to {shard.stop} of job {job.job}"
            raise DataError(found, "the part as it was written", "run the command again: it writes it again")
    check_rejects(folder, job, footers.values())
    counts: Counts = functools.reduce(operator.add, footers.values())
    version, metrics = read_version(job.model.path.parent), measure_score(counts.score or {})
    has_fitted_rows = parameters.input is None and bool(model_folder.read_manifest(job.model.path.parent).trained.refit)
    done = job.model_copy(
        update={
            "status": "done",
            "rejects": counts.rejects,
            "accuracy": metrics.get("accuracy"),
            "metrics": metrics,
            "worse": _describe_worse(job, metrics, int((counts.score or {}).get("rows", 0))),
            "profile": counts.profile,
            "drift": drift.judge_drift(version.reference, counts.profile, parameters.max_drift),
            "notes": counts.notes | ({FITTED_ROWS: job.rows} if has_fitted_rows else {}),
            "seconds": round(seconds, 3),
            "finished_at": model_folder.format_now("milliseconds"),
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
        averaged=(job.notes or {}).get(AVERAGED, 0),
        seconds=job.seconds or 0,
        **{name: getattr(job, name) for name in same},
    )


def locate_reject(reject: Reject, job: Job) -> str:
    """Where in its file a rejected row is: its line or number, from 1; empty if the file is a picture."""
    if is_picture(Path(reject.source)):
        return ""
    spec = read_version(job.model.path.parent).read_spec(job)
    selection = select_columns(spec) if spec.recipe.columns else Selection()
    _, selected = split_source(job.input.path)
    return locate_row(DataFile(Fingerprint(reject.source, 0, 0, ""), {}, selected), reject.source_row, selection)


def describe_reject(reject: Reject, job: Job) -> str:
    """Where a rejected row is, its ids and the reason."""
    place, ids = locate_reject(reject, job), ", ".join(f"{name} {value}" for name, value in reject.ids.items())
    at = f"{place}{f' ({ids})' if ids else ''} of " if place else ""
    return f"{at}{reject.source}: {reject.reason}"


def check_rejects(folder: Path, job: Job, parts: Iterable[Counts]) -> None:
    """Stop the job when more rows were rejected than tolerated.

    Raises:
        DataError: too many rows were rejected.
    """
    parts = [*parts]
    count = sum(part.rejects for part in parts)
    if count <= job.max_rejects:
        return
    first = min(reject for part in parts for reject in part.first_rejects)
    can_average = job.unknown == "reject" and read_version(job.model.path.parent).recipe.is_by_name
    average = " use --unknown average for values that the model has not seen,"
    average *= can_average and first.reason.endswith(UNSEEN)
    raise DataError(
        f"at least {count:,} of {pluralize(job.rows, 'row')} cannot be predicted, the first is "
        f"{describe_reject(first, job)}",
        f"at most {pluralize(job.max_rejects, 'rejected row')}",
        f"repair them,{average} or raise --max-rejects (finished parts are kept): the column {REJECTED} of "
        f"{folder}/part-*.parquet then says of each why",
    )
