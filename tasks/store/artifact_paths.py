"""The only module that knows the layout of ``artifacts/``. Paths in memory, on stdout and in events are absolute."""

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from tasks.machine import settings

P = ParamSpec("P")
DIGEST_CHARACTERS = 16  # 64 bits: enough to tell files apart by eye and by name; the whole digest is verified


def root() -> Path:
    """The artifacts folder of this process, absolute."""
    return settings.read_settings().artifacts.expanduser().absolute()


def make_root() -> Path:
    """The artifacts folder, created if missing."""
    root().mkdir(parents=True, exist_ok=True)
    return root()


def relative(path: Path) -> str:
    """A path as documents name it: relative to the artifacts folder, or absolute outside of it."""
    return str(path.relative_to(root()) if path.is_relative_to(root()) else path)


FOLDERS = ("datasets", "runs", "models", "predictions")
LEFTOVERS = (  # of older versions; nothing reads them
    ".schedules-taken-over",
    ".prefect/pages",
    ".stages",
    ".restoring",
    ".locks/backup",
)
HIDDEN = (".locks", ".prefect")


def _child(parent: Callable[P, Path], *names: str) -> Callable[P, Path]:
    """A function that returns the path ``names`` below ``parent`` and takes the same arguments."""
    return lambda *args, **kwargs: parent(*args, **kwargs).joinpath(*names)


def _each_in(folder: Callable[[], Path], suffix: str = "") -> Callable[[str], Path]:
    """A function that returns the path of a name in ``folder``, with ``suffix`` appended."""
    return lambda name: folder() / f"{name}{suffix}"


def lock(folder: Path) -> Path:
    """The lock file of a dataset, run or model folder, held while the folder is filled, changed or removed."""
    return folder / ".lock"


datasets = _child(root, "datasets")
dataset = _each_in(datasets)  # the folder of one dataset: raw files and prepared splits
dataset_lock = _child(dataset, ".lock")  # held while the folder of a dataset is filled
source = _child(dataset, "source.json")  # the source of a model's own data
look = _child(dataset, "look.json")  # the state of the source files when they were last read


def raw_file(dataset_name: str, filename: str, sha256: str) -> Path:
    """A raw file as its source publishes it, decompressed."""
    return dataset(dataset_name) / "raw" / f"{filename}.{sha256[:DIGEST_CHARACTERS]}"


def split_file(dataset_name: str, split: str, sha256: str) -> Path:
    """A prepared split."""
    return dataset(dataset_name) / f"{split}.{sha256[:DIGEST_CHARACTERS]}.safetensors"


def row_digests(dataset_name: str, sha256: str) -> Path:
    """The row digests of an own table."""
    return dataset(dataset_name) / f"{sha256[:DIGEST_CHARACTERS]}.rows"


def trained_files(dataset_name: str, digest: str) -> Path:
    """The list of files that own data with this digest were read from."""
    return dataset(dataset_name) / f"{digest[:DIGEST_CHARACTERS]}.sources.json"


def study(dataset_name: str, key: str) -> Path:
    """The journal of a hyperparameter search."""
    return dataset(dataset_name) / f"study-{key}.journal"


def lock_of_study(path: Path) -> Path:
    """The lock file of a study, held while a search works on it."""
    return locks() / path.stem


runs = _child(root, "runs")  # evidence of every run, published or refused

models = _child(root, "models")  # the model store: a Triton model repository as it stands
model = _each_in(models)  # one model: all its versions and its champion pointer


def version(name: str, number: int) -> Path:
    """A published version, which never changes after the rename that creates it."""
    return model(name) / str(number)


champion = _child(model, "champion.json")  # the pointer to the version that consumers should use
history = _child(model, "history.jsonl")  # who changed what, when and why
triton_config = _child(model, "config.pbtxt")  # Triton's description of a model, derived from the pointer
retention = _child(model, "retention.json")  # how many versions maintenance keeps; not part of a mirror
mirror_lock = _child(model, ".mirror.lock")  # held while the champion is copied elsewhere

all_predictions = _child(root, "predictions")
predictions = _each_in(all_predictions)  # the output of one batch prediction
# A note with the path of each unfinished batch prediction whose folder is not directly in ``predictions/``.
jobs_elsewhere = _child(all_predictions, ".elsewhere")
answers = _child(all_predictions, ".answers")  # results of queries, each kept until the query's next one
done_elsewhere = _child(all_predictions, ".done-elsewhere")  # the last finished one for each name and kind of input


locks = _child(root, ".locks")  # locks of folders in which gradmill must not leave a file
claim = _child(root, ".store")  # tells a store from its copies
identity = _child(root, "store.json")  # the id of the store
schedules_of_before = _child(root, "schedules")  # schedules as 82fab8f3 and older versions kept them
mirror = _child(root, "mirror.json")  # where champions are copied to
all_tuned = _child(root, "tuned")  # beside models/: Triton does not start when a model's folder has no version
tuned = _each_in(all_tuned, ".json")  # the settings that a search found for a name, which may not have a version yet
reports = _child(root, "reports")  # of ``gradmill up`` beside a server that is not its own
report = _each_in(reports, ".html")
prefect_home = _child(root, ".prefect")  # the history of ``gradmill up``: Prefect's database, logs of server and worker
up_lock = _child(prefect_home, "up.lock")  # held by ``gradmill up`` while it runs
database = _child(prefect_home, "prefect.db")  # the database of ``gradmill up``'s server, unless it uses PostgreSQL
service = _child(prefect_home, "service.json")  # the address of ``gradmill up``'s server, read by other commands
credential = _child(prefect_home, "credential")  # the credential that its server requires; mode 0600
tickets = _child(prefect_home, "tickets")  # one empty file, named by a digest, for each unused link to the landing page

ONNX = "model.onnx"
EVALUATED_ONNX = "evaluated.onnx"  # of a refit version: the model of the training part, which was evaluated
METADATA = "metadata.json"
SAMPLE = "sample.npz"
WEIGHTS = "weights.npz"  # the weights of a tabular model, in raw units
CARD = "README.md"
PAGE = "index.html"  # the model card with pictures, for a browser
ATTESTATION = "model.sig"  # in versions that 82fab8f3 signed; nothing lists or reads it
MANIFEST = "manifest.json"
LABELS = "labels.txt"
CHECKSUMS = "SHA256SUMS"
JOB = "_job.json"  # readers of datasets skip names that begin with _
RUN = "run.json"
PREDICTION_GRID = "_predictions.png"
LEARNING_CURVE = "learning-curve.png"  # this and the PNG files up to tuning.md are pictures of a run and its version
DATA_REPORT = "data-report.json"  # what validation found in the data
DATA_PAGE = "data-report.md"  # the same report as text
CONTACT_SHEET = "contact-sheet.png"  # some images of each class
CONFUSION_MATRIX = "confusion-matrix.png"
RELIABILITY = "reliability.png"
MISCLASSIFIED = "misclassified.png"
CLASS_WEIGHTS = "class-weights.png"
FIT = "regression.png"
EFFECTS = "effects.png"
COEFFICIENTS = "coefficients.png"  # of versions that bf5a03c4 and older published, in place of effects
BY_PERIOD = "by-period.png"
RESIDUALS = "residuals.png"
PREDICTED_AND_TRUE = "predicted-and-true.png"
THRESHOLDS = "roc-and-precision-recall.png"
TUNING_PAGE = "tuning.md"  # this file and the following ones belong to a search
TUNING_HISTORY = "tuning-history.png"
TUNING_SLICES = "tuning-slices.png"
TUNING_PARALLEL = "tuning-parallel.png"
TUNING_IMPORTANCES = "tuning-importances.png"


def part(job_folder: Path, index: int) -> Path:
    """One Parquet part of a job's output."""
    return job_folder / f"part-{index:05d}.parquet"


def scratch(job_folder: Path) -> Path:
    """The folder of files that only a running job needs: the only folder of a job's output that is ever removed."""
    return job_folder / ".gradmill-scratch"


sources = _child(scratch, "sources.parquet")  # the input files and their row counts
spool = _child(scratch, "spool")  # where input that allows no random access is unpacked


# Names that only gradmill gives; files with any other name belong to somebody else


RUN_NAME = re.compile(r"\d{8}T\d{6}-[a-z0-9-]+-[0-9a-f]{8}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
TEMPORARY = re.compile(r"\.gradmill-[0-9a-f]{16}\.partial")
PREPARED = r"(?:train|test|validation)\.[0-9a-f]{16}\.safetensors|[0-9a-f]{16}\.(?:rows|sources\.json)"
CONDEMNED = re.compile(r"\.pruned-.+-[0-9a-f]{8}")
LEFTOVER = re.compile(r"\.staging-[0-9a-f]{16}|\.pruned-[1-9][0-9]{0,8}-[0-9a-f]{8}")  # in a model's folder
DOWNLOAD_PREFIX = ".scratch-"  # of a download folder within a dataset's folder
DOWNLOAD = re.compile(r"\.scratch-[a-z0-9_]{8}")  # as ``tempfile`` completes it


def temporary_path(folder: Path) -> Path:
    """The temporary path at which a file is written before it is renamed into place."""
    return folder / f".gradmill-{secrets.token_hex(8)}.partial"


def staging(model: Path) -> Path:
    """The folder in which a version is assembled before it gets its number."""
    return model / f".staging-{secrets.token_hex(8)}"


def condemned_path(folder: Path) -> Path:
    """The path to which a folder is renamed before it is deleted, so that nobody sees half of it."""
    return folder.with_name(f".pruned-{folder.name}-{secrets.token_hex(4)}")
