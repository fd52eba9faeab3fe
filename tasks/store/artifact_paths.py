"""The only file that knows the places in ``artifacts/``. In memory, on stdout and in events paths are absolute."""

from pathlib import Path

from tasks.machine.settings import Settings

DIGEST_CHARACTERS = 16  # 64 bits: enough to tell files apart by eye and by name; the whole digest is verified


def root() -> Path:
    """The artifacts folder of this process, absolute."""
    return Settings().artifacts.expanduser().absolute()


def make_root() -> Path:
    """The artifacts folder, made where it is missing."""
    root().mkdir(parents=True, exist_ok=True)
    return root()


def relative(path: Path) -> str:
    """A path as a document names it; one outside of the artifacts folder stays absolute."""
    return str(path.relative_to(root()) if path.is_relative_to(root()) else path)


FOLDERS = ("datasets", "runs", "models", "predictions")
HIDDEN = (".stages", ".locks", ".prefect")


def dataset(name: str) -> Path:
    """The folder of one dataset: raw files and prepared splits."""
    return root() / "datasets" / name


def dataset_lock(name: str) -> Path:
    """Held by whoever fills the folder of a dataset."""
    return dataset(name) / ".lock"


def raw_file(dataset_name: str, filename: str, sha256: str) -> Path:
    """A raw file as its source publishes it (decompressed)."""
    return dataset(dataset_name) / "raw" / f"{filename}.{sha256[:DIGEST_CHARACTERS]}"


def source(name: str) -> Path:
    """Where the own data of a model were read from."""
    return dataset(name) / "source.json"


def split_file(dataset_name: str, split: str, sha256: str) -> Path:
    """A prepared split."""
    return dataset(dataset_name) / f"{split}.{sha256[:DIGEST_CHARACTERS]}.safetensors"


def row_digests(dataset_name: str, sha256: str) -> Path:
    """The digests of an own table's rows."""
    return dataset(dataset_name) / f"{sha256[:DIGEST_CHARACTERS]}.rows"


def runs() -> Path:
    """Evidence of every run, published or refused."""
    return root() / "runs"


def run_lock(run_folder: Path) -> Path:
    """Held by a run over its folder, and by whoever removes it."""
    return run_folder / ".lock"


def stage_records() -> Path:
    """What reusable stages returned, each under the digest of everything that it depended on."""
    return root() / ".stages"


def stage_record(key: str) -> Path:
    """What one of them returned."""
    return stage_records() / f"{key}.json"


def models() -> Path:
    """The model store: a Triton model repository as it stands."""
    return root() / "models"


def model(name: str) -> Path:
    """All versions of one model, and its champion pointer."""
    return models() / name


def version(name: str, number: int) -> Path:
    """One published version, never changed after its rename."""
    return model(name) / str(number)


def champion(name: str) -> Path:
    """The pointer to the version that consumers should use."""
    return model(name) / "champion.json"


def model_lock(name: str) -> Path:
    """Held over every change of one model's folder."""
    return model(name) / ".lock"


def mirror_lock(name: str) -> Path:
    """Held while the champion is copied elsewhere."""
    return model(name) / ".mirror.lock"


def history(name: str) -> Path:
    """What the pointer cannot tell: when versions were demoted, and the highest number ever given."""
    return model(name) / ".history.json"


def triton_config(name: str) -> Path:
    """Triton's description of a model, derived from the pointer."""
    return model(name) / "config.pbtxt"


def all_predictions() -> Path:
    """The folder of all batch predictions."""
    return root() / "predictions"


def predictions(job: str) -> Path:
    """The output of one batch prediction."""
    return all_predictions() / job


def locks() -> Path:
    """The locks of what must not have a file of ours in it."""
    return root() / ".locks"


def jobs_elsewhere() -> Path:
    """A note for each unfinished batch prediction whose folder is not right below this one: where it is."""
    return all_predictions() / ".elsewhere"


def schedules() -> Path:
    """When own names are retrained."""
    return root() / "schedules"


def schedule(name: str) -> Path:
    """When one of them is."""
    return schedules() / f"{name}.json"


def prefect_home() -> Path:
    """The history of ``gradmill up``: Prefect's database and the logs of server and worker."""
    return root() / ".prefect"


def up_lock() -> Path:
    """Held by ``gradmill up`` as long as it lives."""
    return prefect_home() / "up.lock"


def service() -> Path:
    """Where ``gradmill up`` answers, for the commands beside it."""
    return prefect_home() / "service.json"


def credential() -> Path:
    """What ``gradmill up``'s server asks for; of mode 0600."""
    return prefect_home() / "credential"


ONNX = "model.onnx"
METADATA = "metadata.json"
SAMPLE = "sample.npz"
CARD = "README.md"
ATTESTATION = "model.sig"
MANIFEST = "manifest.json"
LABELS = "labels.txt"
CHECKSUMS = "SHA256SUMS"
JOB = "_job.json"  # this and the next two have names that readers of data sets skip
RUN = "run.json"
REJECTS = "_rejects.parquet"
PREDICTION_GRID = "_predictions.png"
LEARNING_CURVE = "learning-curve.png"  # this and the next are the pictures of a run, and of its version
DATA_REPORT = "data-report.json"  # what validation said of the data
DATA_PAGE = "data-report.md"  # the same, to be read
CONFUSION_MATRIX = "confusion-matrix.png"
RELIABILITY = "reliability.png"
MISCLASSIFIED = "misclassified.png"
FIT = "regression.png"
COEFFICIENTS = "coefficients.png"
RESIDUALS = "residuals.png"
PREDICTED_AND_TRUE = "predicted-and-true.png"
THRESHOLDS = "roc-and-precision-recall.png"
OLD_NAMES = {JOB: "job.json", REJECTS: "rejects.parquet", PREDICTION_GRID: "predictions.png"}


def job_documents(job_folder: Path) -> tuple[Path, Path]:
    """Where a job's document may lie: under the name of today, or of old."""
    return job_folder / JOB, job_folder / OLD_NAMES[JOB]


def part(job_folder: Path, index: int) -> Path:
    """One Parquet part of a job's output."""
    return job_folder / f"part-{index:05d}.parquet"


def scratch(job_folder: Path) -> Path:
    """All that is of use only while a job runs: the only folder of its output that is ever removed."""
    return job_folder / ".gradmill-scratch"


def shard_rejects(job_folder: Path) -> Path:
    """The rejected rows of each shard, until the job is done."""
    return scratch(job_folder) / "rejects"


def sources(job_folder: Path) -> Path:
    """The files of the input with their rows, until the job is done."""
    return scratch(job_folder) / "sources.parquet"


def spool(job_folder: Path) -> Path:
    """Where input that cannot be read from the middle is unpacked, until the job is done."""
    return scratch(job_folder) / "spool"
