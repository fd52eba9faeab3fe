"""What is counted of predicted rows: chunk by chunk, then shard by shard, by one sum."""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.batch import columns
from tasks.batch.version import Version
from tasks.data.readers import Chunk
from tasks.data.readers.formats import Array
from tasks.serving import drift
from tasks.serving.profile import Histogram
from tasks.serving.task import Outputs, Task
from tasks.store.record import Record

UNKNOWN_CLASS = "of a class that the model does not know, counted as wrong"  # is said behind a number of rows


class Score(Record):
    """How answers compare with the truth, over ``rows`` that have one: classes are right or wrong, numbers off."""

    rows: int
    correct: int | None = None  # of classes
    squared: float = 0.0  # of numbers: the sum of squared errors
    mean: float = 0.0  # of the truth
    spread: float = 0.0  # the sum of squared deviations from it

    @classmethod
    def of(cls, task: Task, outputs: Outputs, truth: Array) -> Self:
        """Of one chunk; NaN in ``truth`` ``(n,)`` is none."""
        answer, known = outputs[task.answer], ~np.isnan(truth)
        if not known.all():
            answer, truth = answer[known], truth[known]
        correct = task.num_correct({task.answer: answer}, truth)
        if correct is not None or not len(truth):
            return cls(rows=len(truth), correct=correct)
        exact = truth.astype(np.float64)
        errors, mean = answer - exact, float(exact.mean())
        return cls(
            rows=len(exact), squared=float(errors @ errors), mean=mean, spread=float(((exact - mean) ** 2).sum())
        )

    def __add__(self, other: "Score") -> "Score":
        """Of both (Chan, Golub and LeVeque 1979)."""
        rows = self.rows + other.rows
        share, apart = other.rows / rows if rows else 0.0, other.mean - self.mean
        return Score(
            rows=rows,
            correct=None if self.correct is None or other.correct is None else self.correct + other.correct,
            squared=self.squared + other.squared,
            mean=self.mean + share * apart,
            spread=self.spread + other.spread + apart**2 * share * self.rows,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracy; or root mean squared error in raw units, and the share of variance that is explained."""
        if not self.rows:
            return {}
        if self.correct is not None:
            return {"accuracy": self.correct / self.rows}
        explained = {"r2": 1 - self.squared / self.spread} if self.spread else {}
        return {"rmse": (self.squared / self.rows) ** 0.5} | explained


class Counts(Record):
    """Rows that were written, rows that were not, what was watched of them, and how good they were if that is known."""

    rows: int
    rejects: int
    profile: dict[str, Histogram]
    score: Score | None  # None: some rows came without any truth
    notes: dict[str, int]
    columns: dict[str, tuple[int, ...]] = Field({})  # of own tables

    @model_validator(mode="before")
    @classmethod
    def _of_old_parts(cls, values: Any) -> Any:
        if isinstance(values, dict) and "correct" in values:
            correct = values["correct"]
            score = None if correct is None else {"rows": values.get("rows"), "correct": correct}
            return {name: each for name, each in values.items() if name != "correct"} | {"score": score}
        return values

    @classmethod
    def of(cls, chunk: Chunk, outputs: Outputs, version: Version, job_rows: int) -> "Counts":
        """Of one chunk of a job."""
        observed = version.task.observed(outputs)
        return Counts(
            rows=len(chunk.rows),
            rejects=len(chunk.rejects),
            profile={name: drift.of(observed[name], each) for name, each in version.reference.items()},
            score=None if chunk.truth is None else Score.of(version.task, outputs, chunk.truth),
            notes=Counter(chunk.notes) + _of_unknown_class(chunk, version),
            columns=columns.counted(chunk, version, job_rows),
        )

    def __add__(self, other: "Counts") -> "Counts":
        """Of both."""
        return Counts(
            rows=self.rows + other.rows,
            rejects=self.rejects + other.rejects,
            profile={name: each + other.profile[name] for name, each in self.profile.items()},
            score=self.score + other.score if self.score and other.score else None,
            notes=Counter(self.notes) + Counter(other.notes),
            columns=columns.together(self.columns, other.columns),
        )


def _of_unknown_class(chunk: Chunk, version: Version) -> Counter[str]:
    """How many rows have a true class that the model does not know: no answer is right for them."""
    if chunk.truth is None or not version.labels:
        return Counter()
    unknown = (chunk.truth < 0) | (chunk.truth >= len(version.labels))
    return Counter({UNKNOWN_CLASS: int(np.count_nonzero(unknown))})


def total(counts: Sequence[Counts]) -> Counts:
    """Of all."""
    return reduce(add, counts)
