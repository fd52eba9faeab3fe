"""The version's ``index.html``: what its card says, with its pictures inside, as one file that asks nobody for more."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data.report import DataReport
from tasks.machine.words import printable, readable
from tasks.serving.contract import ModelMetadata
from tasks.serving.task import TASKS
from tasks.store import artifact_paths as files
from tasks.store.model_card import facts

MOST_CLASSES = 50  # that are told one by one
LARGEST = 256 * 1024  # bytes of a picture; one of more is made smaller
WIDEST = 1200  # pixels of it then
HALF = 800  # pixels across, above which letters are too small on half of a page
LONGEST = 200  # characters of a user's text
TEMPLATE, STYLE = (Path(__file__).with_name(f"model_page.{end}") for end in ("html.jinja", "css"))

# Titles of a version's pictures, in the order of the page, and how each is read.
PICTURES = {
    files.LEARNING_CURVE: ("Learning curve", "Loss, and accuracy where there is one, after each epoch."),
    files.CONFUSION_MATRIX: (
        "Confusion matrix",
        "Rows: the true classes of the test rows; columns: the model's answers.",
    ),
    files.RELIABILITY: (
        "Calibration",
        "How often the model is right (bars), by its confidence: on the dashed line the two agree.",
    ),
    files.THRESHOLDS: (
        "ROC and precision-recall",
        "What each threshold finds, and at the price of how many false alarms.",
    ),
    files.COEFFICIENTS: ("Coefficients", "The largest: what a standard deviation of the column, or a level, changes."),
    files.CLASS_WEIGHTS: (
        "Weights of each class",
        "What the model looks for: each pixel's weight, measured from the mean of all classes.",
    ),
    files.FIT: ("Fit", "Learned and true parameters, and the differences between target and prediction."),
    files.MISCLASSIFIED: (
        "Worst mistakes",
        "The most confident wrong answers: above each image its class, then the answer.",
    ),
    files.RESIDUALS: ("Residuals", "Target less prediction on the test rows: the farther from 0, the worse a mistake."),
    files.PREDICTED_AND_TRUE: ("Predicted against true", "Test rows; on the dashed line a prediction is the truth."),
    files.BY_PERIOD: ("By period", "The figures of the test rows of each period, the oldest first."),
    files.CONTACT_SHEET: ("The data", "Some images of each class."),
}
# Which mean something else where they are inverted.
PHOTOS = (files.CLASS_WEIGHTS, files.MISCLASSIFIED, files.CONTACT_SHEET)


class Picture(NamedTuple):
    """One picture as the template takes it."""

    title: str
    reading: str
    uri: str
    is_photo: bool
    is_wide: bool


class ClassRow(NamedTuple):
    """How well one class is told, and the one that it is taken for most often."""

    label: int
    name: str
    recall: float
    precision: float
    taken_for: str
    times: int


def model_page(
    manifest: dict[str, Any],
    metadata: ModelMetadata,
    contents: Mapping[str, bytes],
    report: DataReport | None = None,
    is_beside: bool = True,
) -> str:
    """The page's text; ``contents`` are pictures by file name, ``manifest`` and ``report`` as of the card.

    It links to the version's files where it ``is_beside`` them.
    """
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    environment.filters |= {"said": _said, "uri": _uri, "readable": readable}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text: str = template.render(
        facts(manifest, metadata, report),
        style=STYLE.read_text(encoding="utf-8"),
        summary=TASKS[manifest["dataset"]["task"]].summary(manifest["metrics"]),
        pictures=list(_pictures(contents)),
        class_rows=list(_class_rows(manifest)),
        is_beside=is_beside,
    )
    return text


def _said(text: object) -> str:
    """What users or their data say, in a line."""
    words = " ".join(printable(str(text)).split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _pictures(contents: Mapping[str, bytes]) -> Iterator[Picture]:
    for name, (title, reading) in PICTURES.items():
        if name in contents:
            png = contents[name]
            is_photo, width = name in PHOTOS, int.from_bytes(png[16:20], "big")  # where a PNG has it
            yield Picture(title, reading, _uri(_of_bearable_size(png)), is_photo, is_photo or width > HALF)


def _of_bearable_size(png: bytes) -> bytes:
    """A picture as it is or, so that a page of many classes can be mailed, with fewer pixels and colours."""
    if len(png) <= LARGEST:
        return png
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture, io.BytesIO() as stream:
        is_opaque = "A" not in picture.mode or picture.getchannel("A").getextrema() == (255, 255)
        smaller = picture.convert("RGB" if is_opaque else "RGBA")
        smaller.thumbnail((WIDEST, WIDEST))
        smaller.quantize(64).save(stream, "PNG", optimize=True)
        return stream.getvalue()


def _class_rows(manifest: Mapping[str, Any]) -> list[ClassRow]:
    """Every class in the order of the labels; of very many those of the smallest recall."""
    names, metrics = manifest["dataset"].get("class_names") or (), manifest["metrics"]
    if not {"confusion_matrix", "recall", "precision"} <= metrics.keys():
        return []
    rows = []
    for label, name in enumerate(names):
        counts = metrics["confusion_matrix"][label]
        times, other = max((count, -at) for at, count in enumerate(counts) if at != label)
        told = metrics["recall"][name], metrics["precision"][name]
        rows.append(ClassRow(label, name, *told, names[-other] if times else "", times))
    return sorted(rows, key=lambda row: row.recall)[:MOST_CLASSES] if len(rows) > MOST_CLASSES else rows
