"""The markdown pages of a run: verdict, pictures, model card, prediction. Plain functions of what was recorded."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows.story import periods
from flows.story.report import RetrainReport
from tasks.batch.version import read_version
from tasks.judging.judged import Period
from tasks.machine.words import counted
from tasks.records import Prediction
from tasks.stage.live import picture
from tasks.store import artifact_paths, predictions
from tasks.store.record import FileRef

TITLES = {
    artifact_paths.LEARNING_CURVE: "Learning curve",
    artifact_paths.CONFUSION_MATRIX: "Confusion matrix",
    artifact_paths.RELIABILITY: "Reliability",
    artifact_paths.MISCLASSIFIED: "Most confident mistakes",
    artifact_paths.CLASS_WEIGHTS: "Weights of each class",
    artifact_paths.FIT: "Fit",
    artifact_paths.COEFFICIENTS: "Coefficients",
    artifact_paths.BY_PERIOD: "By period",
    artifact_paths.RESIDUALS: "Residuals",
    artifact_paths.PREDICTED_AND_TRUE: "Predicted against true",
    artifact_paths.THRESHOLDS: "ROC and precision-recall",
}


def verdict(result: RetrainReport) -> str:
    """What became of a candidate, and why."""
    headline = {
        "published": f"published version {result.version}",
        "unchanged": f"unchanged: version {result.version}, {result.detail}",
        "refused": "refused by " + ", ".join(gate.name for gate in result.gates if not gate.passed),
        "judged": "judged: every gate was passed, and nothing is published",
    }[result.outcome]
    figures = [
        (name.replace("_", " "), f"{value:.4g}") for name, value in result.metrics.items() if isinstance(value, float)
    ]
    gates = [
        (gate.name, gate.verdict if gate.passed else f"**{gate.verdict}**", f"{gate.value:.6g}", gate.detail)
        for gate in result.gates
    ]
    seconds = [(stage, f"{seconds:.2f}") for stage, seconds in result.seconds.items()]
    lines = [
        f"# {result.name}: {headline}",
        f"{result.model}, {result.implementation}, on {result.device}. Evidence: `{result.run}`",
        *(
            [f"Frozen: version {result.champion} stays until `gradmill unfreeze {result.name}`"]
            if result.frozen
            else []
        ),
        *([f"Model: `{result.model_path}`, SHA-256 `{result.model_sha256}`"] if result.model_path else []),
        *([] if result.was_trained else ["Nothing was trained: gates and figures are those of the version's own run."]),
        *(
            ["## Data\n\n" + "\n".join(f"- {each.sentence}" for each in result.data_changes)]
            if result.data_changes
            else []
        ),
        "## Gates\n\n" + table(("gate", "verdict", "found", "required"), gates),
        "## Figures\n\n" + table(("figure", "value"), figures),
        *([_by_period(result.metrics["periods"])] if result.metrics.get("periods") else []),
        "## Seconds\n\n" + table(("stage", "seconds"), seconds),
    ]
    return "\n\n".join(lines)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_period(documents: list[dict[str, Any]]) -> str:
    found = [Period.model_validate(each) for each in documents]
    return "## By period\n\n" + table(periods.head(found[0]), periods.rows(found))


def pictures(files: Iterable[FileRef]) -> str:
    """Those of these pictures that are still there, under their titles."""
    paths = {file.path.name: file.path for file in files}
    drawn = {title: paths[name] for name, title in TITLES.items() if name in paths and paths[name].is_file()}
    return "\n\n".join(f"### {title}\n\n{picture(path)}" for title, path in drawn.items())


def card(path: Path) -> str:
    """The model card without its front matter, its pictures inside."""
    text = re.split(r"^---$", path.read_text(), maxsplit=2, flags=re.MULTILINE)[-1]
    for image in path.parent.glob("*.png"):
        text = re.sub(rf"!\[[^]]*\]\({re.escape(image.name)}\)", picture(image), text)
    return text


def prediction(result: Prediction) -> str:
    """What a batch prediction came to, and how its labels compare with those of the test split."""
    index = ", ".join(f"{name} {value:.3f}" for name, value in result.drift.index.items())
    facts = [
        ("rows", f"{result.rows:,}"),
        ("rejected rows", f"{result.rejects:,}"),
        ("rows a second", f"{result.rows / result.seconds:,.0f}" if result.seconds else ""),
        ("provider", result.provider),
        ("model", f"{result.name} version {result.version}, SHA-256 `{result.model_sha256}`"),
        ("against the truth", against_truth(result) or "unknown: it is not in the input"),
        ("drift", f"{result.drift.verdict}{f' (population stability index {index})' if index else ''}"),
        ("output", f"`{result.path}`, {counted(result.parts, 'part')}"),
    ]
    sections = [f"# {counted(result.rows, 'row')} predicted", table(("", ""), facts), _labels(result)]
    if result.picture:
        sections.append(picture(result.picture))
    return "\n\n".join(section for section in sections if section)


def against_truth(result: Prediction) -> str:
    """How good the predictions are where the input has the truth, in a few words; else nothing."""
    measured = result.metrics or ({} if result.accuracy is None else {"accuracy": result.accuracy})
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def _labels(result: Prediction) -> str:
    """The share of each label among the rows and in the model's answers on the test split; empty for regression."""
    job = predictions.find(result.path)
    version = read_version(job.model.path.parent) if job else None
    if job is None or version is None or not job.profile or "label" not in version.reference:
        return ""
    found, expected = job.profile["label"].counts, version.reference["label"].counts
    rows = [
        (label, f"{here / max(1, sum(found)):.1%}", f"{there / max(1, sum(expected)):.1%}")
        for label, here, there in zip(version.labels, found, expected, strict=True)
    ]
    return "## Labels\n\n" + table(("label", "these rows", "test split"), rows)
