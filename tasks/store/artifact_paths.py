"""The only file that knows the places in ``artifacts/``. In memory, on stdout and in events paths are absolute."""

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
    """The artifacts folder, made where it is missing."""
    root().mkdir(parents=True, exist_ok=True)
    return root()


def relative(path: Path) -> str:
    """A path as a document names it; one outside of the artifacts folder stays absolute."""
    return str(path.relative_to(root()) if path.is_relative_to(root()) else path)


FOLDERS = ("datasets", "runs", "models", "predictions")
HIDDEN = (".stages", ".locks", ".prefect")


def _child(place: Callable[P, Path], *names: str) -> Callable[P, Path]:
    """What is named so in another place, and found by the same."""
    return lambda *args, **kwargs: place(*args, **kwargs).joinpath(*names)


def _each_in(place: Callable[[], Path], suffix: str = "") -> Callable[[str], Path]:
    """What is in there of each name."""
    return lambda name: place() / f"{name}{suffix}"


def lock(folder: Path) -> Path:
    """Held by whoever fills, changes or removes a folder of a dataset, a run or a model."""
    return folder / ".lock"


datasets = _child(root, "datasets")
dataset = _each_in(datasets)  # the folder of one: raw files and prepared splits
dataset_lock = _child(dataset, ".lock")  # held by whoever fills the folder of a dataset
source = _child(dataset, "source.json")  # where the own data of a model were read from
look = _child(dataset, "look.json")  # how their files looked then


def raw_file(dataset_name: str, filename: str, sha256: str) -> Path:
    """A raw file as its source publishes it (decompressed)."""
    return dataset(dataset_name) / "raw" / f"{filename}.{sha256[:DIGEST_CHARACTERS]}"


def split_file(dataset_name: str, split: str, sha256: str) -> Path:
    """A prepared split."""
    return dataset(dataset_name) / f"{split}.{sha256[:DIGEST_CHARACTERS]}.safetensors"


def row_digests(dataset_name: str, sha256: str) -> Path:
    """The digests of an own table's rows."""
    return dataset(dataset_name) / f"{sha256[:DIGEST_CHARACTERS]}.rows"


def trained_files(dataset_name: str, digest: str) -> Path:
    """Which files own data of a digest were read from."""
    return dataset(dataset_name) / f"{digest[:DIGEST_CHARACTERS]}.sources.json"


def study(dataset_name: str, key: str) -> Path:
    """What a search has learned so far."""
    return dataset(dataset_name) / f"study-{key}.journal"


def lock_of_study(path: Path) -> Path:
    """Who holds it searches there."""
    return locks() / path.stem


runs = _child(root, "runs")  # evidence of every run, published or refused
stage_records = _child(
    root, ".stages"
)  # what reusable stages returned, each under the digest of all that it depended on
stage_record = _each_in(stage_records, ".json")

models = _child(root, "models")  # the model store: a Triton model repository as it stands
model = _each_in(models)  # all versions of one, and its champion pointer


def version(name: str, number: int) -> Path:
    """One published version, never changed after its rename."""
    return model(name) / str(number)


champion = _child(model, "champion.json")  # the pointer to the version that consumers should use
history = _child(model, "history.jsonl")  # who changed what, when and why
triton_config = _child(model, "config.pbtxt")  # Triton's description of a model, derived from the pointer
mirror_lock = _child(model, ".mirror.lock")  # held while the champion is copied elsewhere

all_predictions = _child(root, "predictions")
predictions = _each_in(all_predictions)  # the output of one batch prediction
# A note for each unfinished batch prediction whose folder is not right below that one: where it is.
jobs_elsewhere = _child(all_predictions, ".elsewhere")
answers = _child(all_predictions, ".answers")  # of queries, each until the next answer of it
done_elsewhere = _child(all_predictions, ".done-elsewhere")  # the last finished one of each name and kind of input


locks = _child(root, ".locks")  # of what must not have a file of ours in it
backup_lock = _child(locks, "backup")  # held by whoever makes a backup, or restores one
restoring = _child(root, ".restoring")  # which backup is being restored
claim = _child(root, ".store")  # by which a store is told from its copies; in no backup
schedules = _child(
    root, "schedules", "_schedules.json"
)  # when own names are retrained, and settings are searched for them
mirror = _child(root, "mirror.json")  # where champions are copied to; in no backup
all_tuned = _child(root, "tuned")  # beside models/: Triton does not start on a model's folder without a version
tuned = _each_in(all_tuned, ".json")  # the settings that a search found for a name, which may have no version yet
prefect_home = _child(root, ".prefect")  # the history of ``gradmill up``: Prefect's database, logs of server and worker
up_lock = _child(prefect_home, "up.lock")  # held by ``gradmill up`` as long as it lives
database = _child(prefect_home, "prefect.db")  # of ``gradmill up``'s server, unless a PostgreSQL was named
pages_asked = _child(prefect_home, "pages")  # a file for each name whose overview ``gradmill up`` is to write anew
service = _child(prefect_home, "service.json")  # where it answers, for the commands beside it
credential = _child(prefect_home, "credential")  # what its server asks for; of mode 0600
tickets = _child(prefect_home, "tickets")  # an empty file for each unused link to its page, named by its digest

ONNX = "model.onnx"
METADATA = "metadata.json"
SAMPLE = "sample.npz"
WEIGHTS = "weights.npz"  # of a table's model, in raw units
CARD = "README.md"
PAGE = "index.html"  # the same with pictures, for a browser
ATTESTATION = "model.sig"
MANIFEST = "manifest.json"
LABELS = "labels.txt"
CHECKSUMS = "SHA256SUMS"
JOB = "_job.json"  # names that begin with _ are skipped by readers of data sets
RUN = "run.json"
REJECTS = "_rejects.parquet"
PREDICTION_GRID = "_predictions.png"
LEARNING_CURVE = "learning-curve.png"  # this and the next are the pictures of a run, and of its version
DATA_REPORT = "data-report.json"  # what validation said of the data
DATA_PAGE = "data-report.md"  # the same, to be read
CONTACT_SHEET = "contact-sheet.png"  # some images of each class
CONFUSION_MATRIX = "confusion-matrix.png"
RELIABILITY = "reliability.png"
MISCLASSIFIED = "misclassified.png"
CLASS_WEIGHTS = "class-weights.png"
FIT = "regression.png"
COEFFICIENTS = "coefficients.png"
BY_PERIOD = "by-period.png"
RESIDUALS = "residuals.png"
PREDICTED_AND_TRUE = "predicted-and-true.png"
THRESHOLDS = "roc-and-precision-recall.png"
TUNING_PAGE = "tuning.md"  # this and the next are of a search
TUNING_HISTORY = "tuning-history.png"
TUNING_SLICES = "tuning-slices.png"
TUNING_PARALLEL = "tuning-parallel.png"
TUNING_IMPORTANCES = "tuning-importances.png"
TUNING_WINNER = "tuning-winner.png"


def part(job_folder: Path, index: int) -> Path:
    """One Parquet part of a job's output."""
    return job_folder / f"part-{index:05d}.parquet"


def scratch(job_folder: Path) -> Path:
    """All that is of use only while a job runs: the only folder of its output that is ever removed."""
    return job_folder / ".gradmill-scratch"


shard_rejects = _child(scratch, "rejects")  # the rejected rows of each shard
sources = _child(scratch, "sources.parquet")  # the files of the input with their rows
spool = _child(scratch, "spool")  # where input that cannot be read from the middle is unpacked


# Names that gradmill alone gives; what is named otherwise is somebody else's


RUN_NAME = re.compile(r"\d{8}T\d{6}-.+-[0-9a-f]{8}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
TEMPORARY = re.compile(r"\.gradmill-[0-9a-f]{16}\.partial")
BACKUP_CONTENT = re.compile(r"[0-9a-f]{64}")  # of a backup, by its SHA-256
STAGE_RECORD = re.compile(r"[0-9a-f]{64}\.json")
PREPARED = r"(?:train|test|validation)\.[0-9a-f]{16}\.safetensors|[0-9a-f]{16}\.(?:rows|sources\.json)"
CONDEMNED = re.compile(r"\.pruned-.+-[0-9a-f]{8}")
LEFTOVER = re.compile(r"\.staging-[0-9a-f]{16}|\.pruned-[1-9][0-9]{0,8}-[0-9a-f]{8}")  # in a model's folder
DOWNLOAD_PREFIX = ".scratch-"  # of a folder in that of a dataset, to download into
DOWNLOAD = re.compile(r"\.scratch-[a-z0-9_]{8}")  # as ``tempfile`` completes it


def temporary_path(folder: Path) -> Path:
    """Where a file is written before it takes its place in a folder."""
    return folder / f".gradmill-{secrets.token_hex(8)}.partial"


def staging(model: Path) -> Path:
    """Where a version is put together, before it gets its number."""
    return model / f".staging-{secrets.token_hex(8)}"


def condemned_path(folder: Path) -> Path:
    """Where a folder goes before it is deleted, so that nobody sees half of it."""
    return folder.with_name(f".pruned-{folder.name}-{secrets.token_hex(4)}")
