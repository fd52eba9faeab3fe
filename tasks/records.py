"""The values that stages exchange: paths with digests and small records of numbers, never arrays."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tasks.data.recipe import Recipe, SplitRule
from tasks.data.report import AcceptedFinding, ColumnProfile
from tasks.parameters import Hyperparameters, Use
from tasks.parameters.data import NO_WINDOW
from tasks.serving.contract import Signature
from tasks.serving.drift import Drift, Histogram
from tasks.serving.task import TASKS, TaskName
from tasks.store.record_base import NOT_IN_KEY, ChosenPath, FileRef, Lasting, Record, Sha256


class RawDataset(Record):
    """What ``download`` fetched; ``files`` is empty for generated data, and for own data, which stay in place."""

    name: str
    source: Annotated[str, NOT_IN_KEY]
    files: dict[str, FileRef]
    paths: Annotated[tuple[str, ...], NOT_IN_KEY] = Field((), exclude=True)  # of own tables, which may be thousands
    look: str = ""  # of own files: a digest of path, size, time and samples of each, the same while they are untouched


class Splits(Lasting):
    """What a model is trained and judged on: two splits in safetensors, ready to be read by memory map."""

    name: str
    title: str = ""  # how people call the data; empty in manifests from before there were titles
    identifier: str = ""  # on the Hugging Face Hub; of data that are not there, their name
    digest: Sha256
    train: FileRef
    test: FileRef
    num_train: int
    num_test: int
    task: TaskName
    class_names: tuple[str, ...] = ()
    true_parameters: tuple[float, ...] | None = None  # weights, then the bias: only synthetic data has them
    split: SplitRule | None = None  # of own data
    has_dates: bool = False  # of a split by time: its column holds dates or times, and no numbers
    ignored: tuple[str, ...] = ()  # columns that are no features, by the user's word
    left_out: tuple[str, ...] = ()  # columns that are no features by themselves: dates, ids
    class_counts: tuple[int, ...] = ()  # training rows of each class
    rows: FileRef | None = None  # of own data: the digests of training and of other rows, sorted
    report: FileRef | None = None  # of own data: what validation found
    validation: FileRef | None = None  # rows to watch, of own data that name them; else a share of ``train`` may be
    sheet: FileRef | None = None  # of own images: a picture of some of each class
    brightness: float | None = None  # of own images: the mean of all pixels, 0 to 255
    profiles: tuple[ColumnProfile, ...] = ()  # of own tables: what each column is like, last the target
    accepted: tuple[AcceptedFinding, ...] = ()  # what validation found and the user let through, in earlier data too

    @property
    def defaults(self) -> Literal["book", "data"]:
        """What gives the settings that are not named: the book, or a user's own data."""
        # The one place that tells kept data of the book from own ones: only these are split by a rule.
        return "data" if self.split else "book"

    def find_use(self, recipe: Recipe) -> Use:
        """Which data these are, by the recipe of their rows: the book's, own tables, or own images."""
        return recipe.use if self.split else Use.BOOK


class ChampionData(Record):
    """What the champion was made of: digests of its rows, what its columns were like, findings that were accepted."""

    num_rows: int  # training and test
    rows: FileRef | None = None
    profiles: tuple[ColumnProfile, ...] = ()
    accepted: tuple[AcceptedFinding, ...] = ()
    split: SplitRule
    window: str = NO_WINDOW

    @classmethod
    def from_splits(cls, dataset: Splits, window: str) -> Self | None:
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


class PreparedDataset(Splits):
    """The splits, and the recipe that made their inputs of raw rows."""

    recipe: Recipe
    raw_test: FileRef  # the test rows before any recipe, for versions that have another one

    @property
    def signature(self) -> Signature:
        """What a model of these data takes and gives."""
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


class TrainedModel(Record):
    """The weights, of tables as ``tasks/serving/raw_units.py`` has them, else ``W`` ``(inputs, outputs)`` and ``b``."""

    weights: FileRef
    device: str
    learning_curve: tuple[Epoch, ...]
    picture: FileRef
    kept_epoch: int  # whose weights these are: the last one's, but with early stopping the best one's
    num_examples: int  # that the weights were fitted to: of the training split, without those held out to watch
    num_validation: int
    steps: Hyperparameters | None = None  # what became of settings that own data decide
    collinear: tuple[str, ...] = ()  # columns that other columns determine: their weights are those of minimum norm
    recipe: Recipe | None = None  # where own examples were held out: its statistics, and these, are of the others alone
    class_counts: tuple[int, ...] = ()

    def with_statistics(self, prepared: PreparedDataset) -> PreparedDataset:
        """The data with the statistics that the weights go with."""
        if self.recipe is None:
            return prepared
        return prepared.model_copy(update={"recipe": self.recipe, "class_counts": self.class_counts})

    @property
    def kept_point(self) -> Epoch:
        """The point of the learning curve that the weights belong to."""
        return self.learning_curve[self.kept_epoch - 1]


# What each gate asks of a candidate, for people who meet its name for the first time.
QUESTIONS = {
    "train_loss": "Has training brought the loss as far down as the book asserts?",
    "train_accuracy": "Does it label the training images as well as the book asserts?",
    "test_accuracy": "Does it label images that it was not trained on as well as the book asserts?",
    "test_loss": "Does it predict the test rows nearly as well as the best fit to the training rows does?",
    "parameter_error": "Are the learned parameters close to those that the synthetic data were made with?",
    "baseline": "Is it better than giving every row the same answer, by more than chance?",
    "reference": "Is it nearly as good as the same model fitted until it has converged?",
    "parity_float64": "Does it answer as the same computation in double precision does?",
    "parity": "Does the exported file give the numbers that torch gives?",
    "parity_labels": "Does the exported file give the labels that torch gives?",
    "servability": "Can a new process without torch load the file and get the right answers?",
    "latency_ms": "How long does one row take?",
    "memory_mb": "How much memory does a process that serves the file need?",
    "champion_signature": "Can services that use the champion use this one unchanged?",
    "champion_accuracy": "Is it as accurate as every kept version, except by chance?",
    "champion_recall": "Does it recognise each class as often as every kept version, except by chance?",
    "champion_loss": "Is its test loss about as small as that of the kept versions?",
    "champion_not_compared": "How many kept versions cannot read the test rows, and so could not be compared?",
}


class GateVerdict(Lasting):
    """One gate: what was measured, which bounds it had to keep, and whether it did."""

    name: str
    value: float
    minimum: float | None = None
    maximum: float | None = None
    passed: bool
    detail: str

    @property
    def verdict(self) -> Literal["passed", "refused", "recorded"]:
        """``recorded``: there is no bound to keep, so that nothing was passed."""
        if not self.passed:
            return "refused"
        return "recorded" if self.minimum is None and self.maximum is None else "passed"

    @property
    def lets_pass(self) -> bool:
        """Whether the candidate goes on, by its value too; one on a bound does, for which were strict is not kept."""
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return self.passed and math.isfinite(self.value) and low <= self.value <= high


class Evaluation(Record):
    """The metrics of a candidate and the verdict of every gate on them."""

    metrics: dict[str, Any]
    gates: tuple[GateVerdict, ...]
    pictures: tuple[FileRef, ...]

    @model_validator(mode="after")
    def _figures_are_those_that_were_judged(self) -> Self:
        for gate in self.gates:
            if gate.name in self.metrics and self.metrics[gate.name] != gate.value:
                raise ValueError(f"{gate.name} is {self.metrics[gate.name]}, and its gate judged {gate.value}")
        return self


class ExportedModel(Record):
    """A self-contained ONNX file, what describes it, the verdicts on it, and its answers on the test split."""

    onnx: FileRef
    metadata: FileRef
    sample: FileRef
    weights: FileRef | None = None  # of a table's model, in raw units
    profile: dict[str, Histogram]
    gates: tuple[GateVerdict, ...]


class ChampionGates(Record):
    """The verdicts on a candidate that was refused for being worse than what is published."""

    gates: tuple[GateVerdict, ...]


class PublishedModel(Record):
    """Where the model went; ``unchanged``: it was there before, or its data were; ``judged``: nothing was to go."""

    outcome: Literal["published", "unchanged", "judged"]
    name: str
    version: int | None  # none of a model that was judged only, which lies at ``model`` all the same
    model: FileRef
    gates: tuple[GateVerdict, ...] = ()
    detail: str = ""  # of a version that is unchanged: how that is known


class MirroredModel(Record):
    """Which version consumers on other hosts now find at ``url``, and which files had to be written for that."""

    outcome: Literal["copied", "repaired", "unchanged"]  # repaired: the pointer was right, but some file was not
    name: str
    version: int
    url: str
    written: tuple[str, ...]


class Prediction(Record):
    """One finished batch prediction: ``rows`` were written, ``rejects`` could not be read.

    ``seconds`` lie between the start of the first shard and the rename of the last part, in the call that finished it.
    """

    path: ChosenPath
    file: ChosenPath | None = None  # that has all rows of the input, where one was asked for
    job: str
    rows: int
    rejects: int
    parts: int
    name: str
    version: int
    model_sha256: str
    provider: str
    accuracy: float | None = None
    metrics: dict[str, float] = Field({})  # where the truth is in the input: accuracy, or rmse and r2
    unknown_class: int = 0  # rows whose true class the model does not know, counted as wrong
    drift: Drift
    seconds: float
    picture: ChosenPath | None = None
