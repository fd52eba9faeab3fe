"""The page of a version: ``README.md``, a model card with Hugging Face front matter, and ``index.html``.

Front matter: huggingface.co/docs/hub/model-cards.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradmill.rows import explain_rows, find_columns, name_terms
from tasks.data.report import DataReport
from tasks.machine.words import format_names, format_number, tell_apart
from tasks.parameters import Use
from tasks.records import QUESTIONS, GateVerdict, Splits, TableFit
from tasks.serving.contract import FEATURES
from tasks.serving.raw_units import PAIR, SHOWN, list_coefficients, list_pairs
from tasks.serving.task import TASKS
from tasks.store import artifact_paths as files
from tasks.store import model_folder
from tasks.store.model_folder import Manifest
from tasks.store.page_rendering import (
    Code,
    Page,
    PagePicture,
    PageTable,
    Program,
    Section,
    Strong,
    Text,
    render_markdown,
)

KINDS = {"pixels": "image", "columns": "tabular"}  # Hugging Face's word for what a recipe reads
BOOK = {"linear-regression": "3.1 to 3.3", "softmax-regression": "3.4 to 3.7"}  # sections of the book
MOST_CLASSES = 50
MOST_NAMES = 20
SPLITS = {
    "rows": "a hash of their features",
    "copies": "a hash of their features, target and number among equal rows",
    "group": "a hash of the value of ",
    "time": "time: the latest of ",
    "column": "the value of ",
    "folders": "their folders",
}
FIGURES = {"accuracy": "accuracy", "loss": "loss", "rmse": "RMSE", "r2": "R²"}
SETTINGS = {
    "batch_size": "batch size",
    "lr": "lr",
    "weight_decay": "weight decay (section 4.5)",
    "class_weight": "class weight",
    "seed": "seed",
}
PHOTOS = (files.CLASS_WEIGHTS, files.MISCLASSIFIED, files.CONTACT_SHEET)  # inverted colours would change their meaning
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
    files.EFFECTS: (
        "Effects",
        "What each column adds to the prediction, from its average, the largest effects first: ± is the standard "
        "deviation over test rows. Grey: how their values are spread. In brackets: training rows of a level.",
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
PHOTOGRAPH = """\
import numpy
from PIL import Image, ImageOps

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")
images = numpy.asarray(photo.resize(({width}, {height}), Image.Resampling.BILINEAR))[None]"""
USE = """\
import numpy, onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
sample = numpy.load("sample.npz")
outputs = session.run(None, {{{name!r}: sample[{name!r}]}})"""
ROW = (
    " A row has one entry for each column, in the order of ",
    Code("columns"),
    " in the file's metadata_props and in metadata.json: a number as it is, a boolean as 0 or 1, a category as the "
    "position of its level in levels, NaN where the value is missing.",
)
CHAMPION = (
    "The champion, which ",
    Code("champion.json"),
    " in the folder above names, is the newest version that passed every gate, until somebody promotes another or "
    "rolls back: not necessarily the best one. A gate that is only recorded has no bound to keep.",
)
LIMITS = (
    "A linear model, for teaching and as a baseline: it has learned nothing but what its dataset holds, and says "
    "nothing useful about other inputs."
)
Blocks = Iterator[Text | PageTable]  # the content of a section
Facts = Iterator[tuple[Text, ...]]  # rows of a table: a label and its value


def describe_version(
    manifest: Manifest, contents: Mapping[str, bytes], report: DataReport | None = None, is_beside: bool = True
) -> Page:
    """The page of a version; ``contents`` are its pictures, sample and weights by file name, ``report`` is on own data.

    It links to the version's files if it ``is_beside`` them. ``manifest`` need not list all of them yet.
    """
    dataset, training = manifest.dataset, manifest.parameters.training
    metrics = manifest.metrics.model_dump(mode="json")
    made = f"{training.model} ({manifest.kind}) of Dive into Deep Learning (sections "
    made += f"{BOOK.get(training.model, '?')} in the edition of d2l 0.17), trained by Gradmill on "
    of_data = f"{dataset.title or dataset.name} (digest ", Code(dataset.digest[:16]), ")."
    is_images = dataset.find_use(manifest.recipe) is Use.IMAGES
    sections = (
        Section("", ((made, *of_data),)),
        Section("Data", tuple(_describe_data(manifest, report, is_images))),
        Section("Your own photographs", tuple(_describe_photograph(manifest)) if is_images else ()),
        Section("Training", (PageTable(tuple(_list_training_facts(manifest, metrics))),)),
        Section("Baseline and reference", tuple(_describe_standards(metrics, is_images))),
        Section("Figures by period", (tabulate_periods(metrics.get("periods", ())),)),
        Section("Pictures", find_pictures(contents)),
        Section("Classes", tuple(_describe_classes(dataset, metrics))),
        Section("Coefficients", tuple(_describe_coefficients(manifest, metrics))),
        Section("An example", tuple(_describe_example(manifest, contents))),
        Section("Gates", (tabulate_gates(manifest.gates), CHAMPION)),
        Section("Lineage", (PageTable(tuple(_list_lineage(manifest))),)),
        Section("Use", tuple(_describe_use(manifest, bool(report) and not is_images))),
        Section("Limits", (LIMITS,)),
    )
    beside_it = (files.ONNX, files.CARD, files.MANIFEST, files.CHECKSUMS) if is_beside else ()
    links = tuple((name, name) for name in beside_it)
    return Page(f"{manifest.name}, version {manifest.version}", TASKS[dataset.task].summary(metrics), sections, links)


def read_version(name: str, version: int) -> Page:
    """The page of a version in the store, from its verified files.

    Raises:
        DataError: the version is damaged.
    """
    folder, manifest = files.version(name, version), model_folder.find_manifest(name, version)
    wanted = {files.DATA_REPORT, files.SAMPLE, files.WEIGHTS, *PICTURES} & manifest.files.keys()
    contents = {filename: model_folder.read_file(folder, filename) for filename in wanted}
    report = contents.get(files.DATA_REPORT)
    parsed = DataReport.parse(report, folder / files.DATA_REPORT) if report else None
    return describe_version(manifest, contents, parsed, is_beside=False)


def find_html(name: str, version: int) -> Path:
    """A version's ``index.html``.

    Raises:
        DataError: the version is damaged.
    """
    folder = files.version(name, version)
    model_folder.read_file(folder, files.PAGE)
    return folder / files.PAGE


def render_card(page: Page, manifest: Manifest) -> str:
    """The version's ``README.md``: front matter, then the page with links to the pictures beside it."""
    import yaml  # part of the extra ``train``

    dataset = manifest.dataset
    metric, times, ours = TASKS[dataset.task].hub_metric
    pipeline = f"{KINDS[manifest.recipe.kind]}-{dataset.task}"
    result = {
        "task": {"type": pipeline},
        "dataset": {"name": dataset.title, "type": dataset.identifier, "split": "test"},
        "metrics": [{"type": metric, "value": times * getattr(manifest.metrics, ours)}],
    }
    document = {
        "license": "mit",
        "library_name": "onnx",
        "pipeline_tag": pipeline,
        "tags": ["onnx", "gradmill", manifest.parameters.training.model],
        "datasets": [dataset.identifier],
        "metrics": [metric],
        "model-index": [{"name": f"{manifest.name} version {manifest.version}", "results": [result]}],
    }
    return f"---\n{yaml.safe_dump(document, sort_keys=False)}---\n\n{render_markdown(page, embed=False)}"


def find_pictures(contents: Mapping[str, bytes]) -> list[PagePicture]:
    """The pictures among the files, in page order."""
    return [
        PagePicture(title, contents[name], name, caption, name in PHOTOS)
        for name, (title, caption) in PICTURES.items()
        if name in contents
    ]


def tabulate_periods(periods: Sequence[Mapping[str, Any]]) -> PageTable:
    """A table of figures by period; ``periods`` are ``PeriodMetrics`` as plain values."""
    if not periods:
        return PageTable(())
    main, other = ("accuracy", "loss") if "accuracy" in periods[0]["metrics"] else ("rmse", "r2")
    rows = [
        (
            each["period"],
            f"{each['rows']:,}",
            format_number(each["metrics"][main]),
            describe_interval(each["intervals"][main]),
            format_number(each["metrics"][other]),
        )
        for each in periods
    ]
    return PageTable(rows, ("period", "rows", FIGURES[main], "95 % interval", FIGURES[other]))


def describe_interval(interval: Sequence[float]) -> str:
    """An interval in words."""
    return " to ".join(map(format_number, interval))


def _describe_data(manifest: Manifest, report: DataReport | None, is_images: bool) -> Blocks:
    """Own data: their contents, their split, and the findings of validation."""
    facts: list[tuple[Text, ...]] = [*(_list_image_facts(manifest) if is_images else ())]
    if report and not is_images:
        facts += _list_table_facts(manifest.dataset, report)
    findings = report.findings if report else ()
    yield PageTable([*facts, *((Strong(each.severity), each.sentence) for each in findings)])
    if report and (is_images or report.target):
        yield "All of it: ", Code(files.DATA_PAGE)


def _list_table_facts(dataset: Splits, report: DataReport) -> Facts:
    if report.target is None or dataset.split is None:
        return
    yield "target", report.target
    for kind, words in {"number": "numbers", "boolean": "booleans", "category": "categories", "date": "dates"}.items():
        if named := [each.name for each in report.columns if each.role == "feature" and each.kind == kind]:
            yield f"{words} ({len(named)})", format_names(named, MOST_NAMES)
    for words, names in {"ignored": dataset.ignored, "left out: dates, ids and the like": dataset.left_out}.items():
        if names:
            yield words, format_names(names, MOST_NAMES)
    without = f", of which {report.unlabelled:,} without a target were left out" if report.unlabelled else ""
    yield "rows", f"{report.rows:,}{without}"
    watched = f"{report.num_validation:,} to watch, " if report.num_validation else ""
    parts = f"{report.num_train:,} for training, {watched}{report.num_test:,} for the test"
    yield "split", f"{parts}, by {SPLITS[dataset.split.rule]}{dataset.split.column or ''}"


def _list_image_facts(manifest: Manifest) -> Facts:
    dataset, (height, width, *channels) = manifest.dataset, manifest.recipe.input.shape
    yield "size", f"{height} by {width} pixels, height by width"
    yield "channels", "RGB" if channels else "grey: 0.299 red + 0.587 green + 0.114 blue"
    yield "pixels", f"uint8: 0 is black, 255 {'the full colour' if channels else 'is white'}"
    if dataset.split:
        rule = "a hash of their pixels" if dataset.split.rule == "rows" else SPLITS[dataset.split.rule]
        yield "split", f"{dataset.num_train:,} for training, {dataset.num_test:,} for the test, by {rule}"


def _describe_photograph(manifest: Manifest) -> Iterator[Text]:
    height, width, *channels = manifest.recipe.input.shape
    yield (
        "A linear model compares pixel by pixel: the object must be in the same place as in the training images, "
        "equally large and bright, and on an equally dark or light background. So crop the photograph to the object; "
        "this does the rest:"
    )
    yield Program(PHOTOGRAPH.format(mode="RGB" if channels else "L", width=width, height=height))
    yield Code("gradmill predict photo.jpg"), " does the same; it does not crop either."


def _list_training_facts(manifest: Manifest, metrics: Mapping[str, Any]) -> Facts:
    trained, dataset = manifest.trained, manifest.dataset
    settings = manifest.parameters.training.model_dump(mode="json")
    if trained.steps:  # the values found for own data
        settings |= trained.steps.model_dump(mode="json")
    watched = f", and {trained.num_validation} held out to watch" if trained.num_validation else ""
    yield "training examples", f"{trained.num_examples}{watched}"
    if trained.refit:
        yield "published weights", trained.refit_sentence
    yield "test examples", str(dataset.num_test)
    patience = settings.get("patience")
    early = f" of at most {settings.get('num_epochs')}, with patience {patience}" if patience else ""
    if trained.fit:
        yield from _list_fit_facts(trained.fit, TASKS[dataset.task].loss_unit)
    else:
        yield "epochs", f"{trained.num_epochs}{early}"
    if patience:
        yield "weights", f"of epoch {trained.kept_epoch}, whose validation loss was the smallest"
    if "validation_loss" in metrics:
        yield "validation loss", format_number(metrics["validation_loss"])
    losses = f"{format_number(metrics['train_loss'])}, {format_number(metrics['test_loss'])}"
    yield "train loss, test loss", f"{losses} ({TASKS[dataset.task].loss_unit})"
    if "train_accuracy" in metrics:
        yield "train accuracy, test accuracy", f"{metrics['train_accuracy']:.4f}, {metrics['test_accuracy']:.4f}"
    for name in ("r2", "rmse"):
        if name in metrics:
            interval = metrics.get(f"{name}_interval")
            told = f" (95 % interval {describe_interval(interval)})" if interval else ""
            yield FIGURES[name], f"{format_number(metrics[name])}{told}"
    for key, words in SETTINGS.items():
        if (value := settings.get(key)) not in (None, 0, "none") or key == "seed":
            schedule = f", {settings['schedule']}" if key == "lr" and "schedule" in settings else ""
            yield words, f"{value:g}{schedule}" if isinstance(value, float) else f"{value}{schedule}"
    yield "device", manifest.device


def _list_fit_facts(fit: TableFit, unit: str) -> Facts:
    yield "shape", fit.shape + (f", chosen by {fit.shape_rows:,} training rows" if fit.shape_rows else "")
    if fit.cv_losses and fit.null_loss is not None:
        losses = [f"{shape} {format_number(loss)}" for shape, loss in fit.cv_losses.items()]
        yield f"cross-validated loss ({unit})", f"{', '.join(losses)}; constant {format_number(fit.null_loss)}"
    yield "penalties", ", ".join(f"{group} {value:.3g}" for group, value in fit.penalties.items()) or "none"


def _describe_standards(metrics: Mapping[str, Any], is_images: bool) -> Blocks:
    named = {"this model": "objective_loss", "reference": "reference_loss", "baseline": "baseline_loss"}
    rows = [(words, format_number(metrics[name], 5)) for words, name in named.items() if name in metrics]
    yield PageTable(rows, ("model", "test loss, as training counts it"))
    if rows:
        said = "Baseline is the best constant (the training rows' mean, middle or frequencies)"
        if is_images:
            said += (
                "; reference is the same objective, minimised over 10,000 training images at most by 100 iterations of "
                "L-BFGS at most, and only recorded"
            )
        yield f"{said}."


def _describe_classes(dataset: Splits, metrics: Mapping[str, Any]) -> Blocks:
    """Every class in the order of the labels, or, of very many, those with the smallest recall."""
    if not {"recall", "precision"} <= metrics.keys():
        return
    names, counts, confusion = dataset.class_names, dataset.class_counts, metrics.get("confusion_matrix")
    order = sorted(range(len(names)), key=lambda label: metrics["recall"][names[label]])[:MOST_CLASSES]
    if len(order) < len(names):
        yield f"The {len(order)} of {len(names)} classes with the smallest recall; ", Code(files.LABELS), " has all."
    else:
        order.sort()
        yield "In the order of their labels, as in ", Code(files.LABELS), "."
    rows = []
    for label in order:
        others = [(count, -at) for at, count in enumerate(confusion[label]) if at != label] if confusion else []
        times, other = max(others, default=(0, 0))
        rows.append(
            (
                str(label),
                names[label],
                f"{counts[label]:,}" if counts else "",
                f"{metrics['precision'][names[label]]:.3f}",
                f"{metrics['recall'][names[label]]:.3f}",
                f"{names[-other]} ({times:,})" if times else "",
            )
        )
    yield PageTable(rows, ("label", "class", "training rows", "precision", "recall", "most often taken for"))


def _describe_coefficients(manifest: Manifest, metrics: Mapping[str, Any]) -> Blocks:
    if not isinstance(metrics.get("weights"), dict):
        return
    found = list_coefficients(metrics, manifest.recipe, manifest.dataset.class_names)
    is_number = isinstance(metrics["bias"], float | int)
    changed = "the prediction" if is_number else "a class's score (of two classes: the log odds of the second)"
    yield (
        f"The {len(found)} largest. For a number: how much {changed} changes with one more unit of it, and with one "
        "more standard deviation. For a level, and for a number with a curve where its curve is farthest from 0: the "
        "difference from the average row. For a pair of columns: what they add together, per unit of each number."
    )
    rows = [(each.name, format_number(each.value, 5), format_number(each.size, 5)) for each in found]
    yield PageTable(rows, ("column", "a unit, or the level", "a deviation, or the level"))


def _describe_example(manifest: Manifest, contents: Mapping[str, bytes]) -> Blocks:
    """What each column, and each pair of columns, of the first sample row adds to its prediction, largest first."""
    if not {files.SAMPLE, files.WEIGHTS} <= contents.keys():
        return
    names, target = manifest.dataset.class_names, manifest.recipe.target
    to = target.name if target else "the prediction"
    columns = [*find_columns(manifest.recipe.model_dump(mode="json")).values()]
    with np.load(io.BytesIO(contents[files.SAMPLE])) as sample:
        row = sample[FEATURES][:1]
    with np.load(io.BytesIO(contents[files.WEIGHTS])) as weights:
        added = explain_rows(row, columns, dict(weights))[0]
    if len(names) == 2:
        to = f"the log odds of {names[1]}"
    elif names:
        best = int(added.sum(axis=1).argmax())
        added, to = added[best], f"the score of {names[best]}, from the mean of all classes"
    yield f"What each column of the first row of {files.SAMPLE} adds to {to}, from the means of the training rows:"
    order = np.argsort(-np.abs(added[:-1]), kind="stable")[:SHOWN].tolist()
    values = [column.describe(value) for column, value in zip(columns, row[0], strict=True)]
    values += [PAIR.join(values[at] for at in pair) for pair in list_pairs(manifest.recipe)]
    terms = name_terms(manifest.recipe.names, manifest.recipe.model_dump(mode="json"))
    rows = [(terms[at], values[at], f"{added[at]:+.5g}") for at in order]
    if left := len(terms) - len(order):
        rows.append((f"{left} more", "", f"{added[:-1].sum() - added[order].sum():+.5g}"))
    rows += [("the means of the training rows", "", f"{added[-1]:+.5g}"), ("together", "", f"{added.sum():.6g}")]
    yield PageTable(rows, ("column", "value", "adds"))


def tabulate_gates(gates: Iterable[GateVerdict]) -> PageTable:
    """Every gate: its verdict, what was found, what was required, and its question."""
    rows = [
        (
            gate.name,
            gate.verdict if gate.passed else Strong(gate.verdict),
            tell_apart(gate.value, gate.minimum, gate.maximum),
            gate.detail.replace(" required", "", 1),
            QUESTIONS.get(gate.name, ""),
        )
        for gate in gates
    ]
    return PageTable(rows, ("gate", "verdict", "found", "required", "what it asks"))


def _list_lineage(manifest: Manifest) -> Facts:
    yield "created", f"{manifest.created_at[:16].replace('T', ' ')} UTC"
    yield "data's digest", manifest.dataset.digest
    yield "model's SHA-256", manifest.files[files.ONNX]
    yield "run", manifest.run
    yield "code's digest", manifest.code
    yield "packages", ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    yield "platform", manifest.platform


def _describe_use(manifest: Manifest, is_table: bool) -> Blocks:
    metadata = manifest.metadata
    yield "In a browser: ", Code(f"gradmill demo {manifest.name} {manifest.version}"), "; in Python:"
    yield Program(USE.format(name=metadata.inputs[0].name))
    rows = [
        (side, Code(each.name), each.datatype, " by ".join(map(str, each.shape)).replace("-1", "rows"))
        for side, tensors in (("input", metadata.inputs), ("output", metadata.outputs))
        for each in tensors
    ]
    yield PageTable(rows, ("side", "name", "type", "shape"))
    yield "Inputs are raw; scaling is inside the file.", *(ROW if is_table else ())
    yield Code(files.SAMPLE), " holds real inputs and the outputs that you must get."
