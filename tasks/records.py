"""The values that stages exchange: paths with digests and small records of numbers, never arrays."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from tasks.data.recipe import Recipe, Shape, SplitRule
from tasks.data.report import AcceptedFinding, ColumnProfile
from tasks.machine.words import format_number
from tasks.parameters import Hyperparameters, Use
from tasks.parameters.data import NO_WINDOW
from tasks.serving.contract import Signature
from tasks.serving.drift import Drift, Histogram
from tasks.serving.task import TASKS, TaskName
from tasks.store.record_base import ChosenPath, FileRef, PersistedRecord, Record, Sha256


class RawDataset(Record):
    """The result of ``download``; ``files`` is empty for generated data, and for own data, which stay in place."""

    name: str
    source: str
    files: dict[str, FileRef]
    paths: tuple[str, ...] = Field((), exclude=True)  # of own tables; may be thousands
    look: str = ""  # of own files: a digest of path, size, time and samples of each, constant while they are untouched
    is_always_read: bool = False  # nothing says whether they have changed, and ``look`` is never the same


class Splits(PersistedRecord):
    """The data that a model is trained and judged on: two splits in safetensors that can be memory-mapped."""

    name: str
    title: str = ""  # for display; empty in manifests older than this field
    identifier: str = ""  # on the Hugging Face Hub, or the name of the data if they are not there
    digest: Sha256
    train: FileRef
    test: FileRef
    num_train: int
    num_test: int
    task: TaskName
    class_names: tuple[str, ...] = ()
    true_parameters: tuple[float, ...] | None = None  # weights, then the bias: only for synthetic data
    split: SplitRule | None = None  # of own data
    has_dates: bool = False  # whether the column of a split by time holds dates or times, not numbers
    ignored: tuple[str, ...] = ()  # columns that the user excluded from the features
    left_out: tuple[str, ...] = ()  # columns that were excluded automatically: dates, ids
    class_counts: tuple[int, ...] = ()  # training rows of each class
    rows: FileRef | None = None  # of own data: the sorted digests of training rows and of other rows
    report: FileRef | None = None  # of own data: what validation found
    validation: FileRef | None = None  # own data's split for validation; without it a share of ``train`` may serve
    sheet: FileRef | None = None  # of own images: a picture with examples of each class
    profiles: tuple[ColumnProfile, ...] = ()  # of own tables: a profile of each column, the target last
    accepted: tuple[AcceptedFinding, ...] = ()  # findings of validation that the user accepted, also in earlier data

    @property
    def defaults(self) -> Literal["book", "data"]:
        """Which defaults apply to settings that are not given: the book's, or those for own data."""
        # The only place that tells own data from the book's in documents: only own data are split by a rule.
        return "data" if self.split else "book"

    def find_use(self, recipe: Recipe) -> Use:
        """The kind of data, by their recipe: the book's, own tables, or own images."""
        return recipe.use if self.split else Use.BOOK


class ChampionData(Record):
    """The champion's data: digests of its rows, profiles of its columns, accepted findings."""

    num_rows: int  # training and test
    rows: FileRef | None = None
    profiles: tuple[ColumnProfile, ...] = ()
    accepted: tuple[AcceptedFinding, ...] = ()
    split: SplitRule
    window: str = NO_WINDOW

    @classmethod
    def from_splits(cls, dataset: Splits, window: str) -> Self | None:
        """The data that the champion's manifest describes; None for the book's."""
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

    def merge_accepted(self, *more: AcceptedFinding) -> tuple[AcceptedFinding, ...]:
        """All accepted findings so far, each once."""
        return tuple(dict.fromkeys((*self.accepted, *more)))


class PreparedDataset(Splits):
    """The splits, and the recipe that turned raw rows into their inputs."""

    recipe: Recipe
    raw_test: FileRef  # the test rows before any recipe, for versions with another recipe

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of a model of these data."""
        return TASKS[self.task].signature(self.recipe, self.class_names)


class Epoch(Record):
    """One point of the learning curve. Losses are means over examples; accuracies are fractions."""

    epoch: int
    train_loss: float
    train_accuracy: float | None = None
    test_loss: float
    test_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None


class TableFit(PersistedRecord):
    """How a table's model was fitted. Losses are means over examples; accuracies are fractions."""

    shape: Shape
    shape_rows: int | None = None  # training rows that there were when cross-validation chose it; None: it was given
    penalties: dict[str, float]  # by group of weights, of the mean loss
    cv_losses: dict[str, float] = Field({})  # of each shape, on rows that fits had not seen; empty: it was given
    null_loss: float | None = None  # that of the best constant
    gradient: float  # the norm of the objective's gradient at the weights, as a share of that at zero weights
    train_loss: float
    train_accuracy: float | None = None

    def keep_shape(self, num_examples: int) -> Shape | None:
        """The shape, which later versions keep until there are twice as many training rows; else None."""
        return self.shape if self.shape_rows and num_examples < 2 * self.shape_rows else None

    @property
    def sentence(self) -> str:
        """The shape, its penalties, and the cross-validated losses, in words."""
        penalties = ", ".join(f"{name} {value:.2g}" for name, value in self.penalties.items())
        said = f"shape {self.shape}, penalties: {penalties or 'none'}"
        if not self.cv_losses or self.null_loss is None:
            return said
        losses = {**self.cv_losses, "constant": self.null_loss}
        named = [f"{name} {format_number(loss)}" for name, loss in losses.items()]
        return f"{said}; cross-validated loss: {', '.join(named)}"


class Refit(PersistedRecord):
    """How a table's published weights were fitted once more, to all rows, in the shape that was evaluated."""

    num_examples: int  # training, validation and test
    penalties: dict[str, float]  # by group of weights, of the mean loss
    gradient: float  # its norm, as in ``TableFit``


class TrainedModel(Record):
    """The weights, for tables as in ``tasks/serving/raw_units.py``, else ``W`` ``(inputs, outputs)`` and ``b``."""

    weights: FileRef
    refit_weights: FileRef | None = None  # those to publish, where ``weights`` are only evaluated
    refit: Refit | None = None
    device: str
    learning_curve: tuple[Epoch, ...] = ()  # of a network
    picture: FileRef | None = None
    kept_epoch: int = 0  # the epoch of these weights: the last, or with early stopping the best
    num_examples: int  # examples that the weights were fitted to: the training split without those held out
    num_validation: int = 0
    steps: Hyperparameters | None = None  # the values found for settings of own data
    fit: TableFit | None = None  # of a table
    recipe: Recipe | None = None  # of a table, with its knots and pairs; of images, if some were held out
    class_counts: tuple[int, ...] = ()

    def with_statistics(self, prepared: PreparedDataset) -> PreparedDataset:
        """The data with the statistics that belong to the weights."""
        if self.recipe is None:
            return prepared
        return prepared.model_copy(update={"recipe": self.recipe, "class_counts": self.class_counts})

    @property
    def kept_point(self) -> Epoch | TableFit:
        """The figures on the training rows: the point of the learning curve that the weights belong to, or the fit."""
        return self.fit or self.learning_curve[self.kept_epoch - 1]


# The question that each gate asks about a candidate, for first-time readers.
QUESTIONS = {
    "train_loss": "Has training brought the loss as far down as the book asserts?",
    "train_accuracy": "Does it label the training images as well as the book asserts?",
    "test_accuracy": "Does it label images that it was not trained on as well as the book asserts?",
    "test_loss": "Does it predict the test rows nearly as well as the best fit to the training rows does?",
    "parameter_error": "Are the learned parameters close to those that the synthetic data were made with?",
    "baseline": "Is it better than giving every row the same answer, by more than chance?",
    "converged": "Is the fit at the minimum of its objective, on all training rows?",
    "reference": "How does it compare with the same model fitted to some images?",
    "parity_float64": "Does it answer as the same computation in double precision does?",
    "parity": "Does the exported file give the numbers that the trained weights give?",
    "parity_labels": "Does the exported file give the labels that the trained weights give?",
    "servability": "Can a new process without torch load the file and get the right answers?",
    "latency_ms": "How long does one row take?",
    "memory_mb": "How much memory does a process that serves the file need?",
    "champion_signature": "Can services that use the champion use this one unchanged?",
    "champion_accuracy": "Is it as accurate as the champion and the best version, except by chance?",
    "champion_recall": "Does it recognise each class as often as the champion and the best version, except by chance?",
    "champion_loss": "Is its test loss about as small as those of the champion and the best version?",
    "champion_not_compared": "How many of the champion and the best version cannot be compared?",
}


class GateVerdict(PersistedRecord):
    """One gate: what was measured, which bounds it had to keep, and whether it did."""

    name: str
    value: Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # JSON has no NaN
    minimum: float | None = None
    maximum: float | None = None
    passed: bool
    detail: str

    @property
    def verdict(self) -> Literal["passed", "refused", "recorded"]:
        """``recorded`` means that there is no bound, so that nothing was passed."""
        if not self.passed:
            return "refused"
        return "recorded" if self.minimum is None and self.maximum is None else "passed"


class Evaluation(Record):
    """The metrics of a candidate and the verdict of every gate on them."""

    metrics: dict[str, Any]
    gates: tuple[GateVerdict, ...]
    pictures: tuple[FileRef, ...]


class ExportedModel(Record):
    """A self-contained ONNX file, its description, the verdicts on it, and its predictions on the test split."""

    onnx: FileRef
    evaluated_onnx: FileRef | None = None  # that of the weights before a refit
    metadata: FileRef
    sample: FileRef
    weights: FileRef | None = None  # of a tabular model, in raw units
    profile: dict[str, Histogram]
    gates: tuple[GateVerdict, ...]


class ChampionGates(Record):
    """The verdicts on a candidate that was refused because it is worse than what is published."""

    gates: tuple[GateVerdict, ...]


class PublishedModel(Record):
    """Where the model went; ``unchanged``: it, or its data, existed before; ``judged``: it was not to be published."""

    outcome: Literal["published", "unchanged", "judged"]
    name: str
    version: int | None  # None for a model that was only judged; it is at ``model`` nonetheless
    model: FileRef
    gates: tuple[GateVerdict, ...] = ()
    detail: str = ""  # how it is known that the model is unchanged, or must not be published


class MirroredModel(Record):
    """The version that consumers on other hosts now find at ``url``, and the files that were written for that."""

    outcome: Literal["copied", "repaired", "unchanged"]  # repaired: the pointer was right, but some file was not
    name: str
    version: int
    url: str
    written: tuple[str, ...]


class Prediction(Record):
    """One finished batch prediction: ``rows`` were predicted, ``rejects`` could not be.

    ``seconds`` is the time from the start of the first shard to the rename of the last part, in the call that finished
    it.
    """

    path: ChosenPath
    file: ChosenPath | None = None  # has all rows of the input, if one file was requested
    job: str
    rows: int
    rejects: int
    parts: int
    name: str
    version: int
    model_sha256: str
    provider: str
    accuracy: float | None = None
    metrics: dict[str, float] = Field({})  # if the input has the truth: accuracy, or rmse and r2
    unknown_class: int = 0  # rows whose true class is unknown to the model, counted as wrong
    averaged: int = 0  # rows with a level or a missing value that the model has not seen, which counts as the average
    drift: Drift
    seconds: float
