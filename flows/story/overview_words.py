"""How an overview says outcomes, figures, times and sizes."""

from datetime import datetime
from typing import Any

from tasks.machine.words import counted, readable
from tasks.records import Prediction
from tasks.store import artifact_paths
from tasks.store.predictions import Job
from tasks.store.versions import Manifest


def figure(manifest: Manifest) -> str:
    """The one figure that a headline has room for."""
    return figures(manifest).partition(", ")[0]


def figures(manifest: Manifest) -> str:
    """How good a version was on its test split."""
    found: dict[str, Any] = manifest.metrics.model_dump()
    told = []
    if found.get("test_accuracy") is not None:
        told.append(f"accuracy {found['test_accuracy']:.3f}")
    told += [f"{word} {readable(found[key])}" for key, word in {"rmse": "RMSE", "r2": "R²"}.items() if key in found]
    return ", ".join([*told, f"loss {readable(found['test_loss'])}"])


def rows(manifest: Manifest) -> str:
    """How many rows it was trained and judged on."""
    dataset = manifest.dataset
    return f"{counted(dataset.num_train, 'training row')} and {counted(dataset.num_test, 'test row')}"


def truth(of: Job | Prediction) -> str:
    """How good predictions are where their input has the truth; else nothing. Older jobs have no ``metrics``."""
    measured = of.metrics or ({} if of.accuracy is None else {"accuracy": of.accuracy})
    return ", ".join(f"{name} {readable(value)}" for name, value in measured.items())


def is_own_test_split(of: Job) -> bool:
    """Whether a job predicted what the version was tested on, as each retrain does, and nobody's input."""
    return artifact_paths.datasets() in (artifact_paths.root() / of.input.path).parents


def day(moment: str) -> str:
    """A day, with its year where it is not this one."""
    when = datetime.fromisoformat(moment)
    return f"{when:%-d %b}" if when.year == datetime.now(when.tzinfo).year else f"{when:%-d %b %Y}"


def moment(text: str) -> str:
    """A time of a document to the minute; nothing stays nothing."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}" if text else ""


def size(number: float) -> str:
    """A number of bytes."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
