"""What a run tells in the Prefect UI: a verdict with every gate, pictures, the model card; tags and events."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.report import RetrainReport, report
from tasks import artifact_paths
from tasks.artifact_paths import CARD
from tasks.errors import GateFailed
from tasks.records import GateVerdict, Prediction
from tasks.run_folder import RunFolder

PICTURES = {
    "learning-curve.png": "Learning curve",
    "confusion-matrix.png": "Confusion matrix",
    "reliability.png": "Reliability",
    "misclassified.png": "Most confident mistakes",
    "regression.png": "Fit",
}


@contextmanager
def told(run: RunFolder) -> Iterator[None]:
    """Tell the story of a retrain when it ends, be it published, unchanged or refused; other failures have none."""
    refused = False
    try:
        yield
    except GateFailed:
        refused = True
        raise
    finally:
        if refused or "version" in run.read()["stages"].get("publish", {}):
            with _never_in_the_way():
                _tell(report(run), run)


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    """What cannot be told must not turn a published model into a failed run, nor hide why a run has failed."""
    try:
        yield
    except Exception as error:
        print(f"the run's story could not be told to Prefect: {type(error).__name__}: {error}")


def _tell(result: RetrainReport, run: RunFolder) -> None:
    _artifact(f"{result.name}-verdict", verdict(result), "published, unchanged or refused, and every gate")
    pictures = [
        f"### {title}\n\n{picture(run.file(name))}" for name, title in PICTURES.items() if run.file(name).is_file()
    ]
    _artifact(f"{result.name}-pictures", "\n\n".join(pictures), "learning curve and test split")
    if result.version is not None:
        folder = artifact_paths.version(result.name, result.version)
        card = (folder / CARD).read_text().split("---", 2)[-1]  # without the front matter
        _artifact(f"{result.name}-card", _with_pictures(card, folder), f"model card of version {result.version}")
    _tag(f"model:{result.name}", f"verdict:{result.outcome}")
    if result.outcome != "unchanged":
        payload = {
            "name": result.name,
            "version": result.version,
            "sha256": result.model_sha256,
            "path": result.model_path,
            "run": result.run,
            "refused_by": [gate.name for gate in result.gates if not gate.passed],
        }
        emit(f"gradmill.model.{result.outcome}", result.name, payload)


def verdict(result: RetrainReport) -> str:
    """The run in one page of markdown."""
    headline = {
        "published": f"published version {result.version}",
        "unchanged": f"unchanged: version {result.version} has these very bytes",
        "refused": "refused by " + ", ".join(gate.name for gate in result.gates if not gate.passed),
    }[result.outcome]
    figures = [
        f"| {name.replace('_', ' ')} | {value:.4g} |"
        for name, value in result.metrics.items()
        if isinstance(value, float)
    ]
    lines = [
        f"# {result.name}: {headline}",
        f"{result.model}, {result.implementation}, on {result.device}. Evidence: `{result.run}`",
        *([f"Model: `{result.model_path}`, SHA-256 `{result.model_sha256}`"] if result.model_path else []),
        "## Gates\n\n| gate | found | required | verdict |\n|---|---|---|---|\n"
        + "\n".join(map(_gate_row, result.gates)),
        "## Figures\n\n| figure | value |\n|---|---|\n" + "\n".join(figures),
        "## Seconds\n\n| stage | seconds |\n|---|---|\n"
        + "\n".join(f"| {stage} | {seconds:.2f} |" for stage, seconds in result.seconds.items()),
    ]
    return "\n\n".join(lines)


def _gate_row(gate: GateVerdict) -> str:
    bounds = [
        f"at {which} {bound:g}"
        for which, bound in (("least", gate.minimum), ("most", gate.maximum))
        if bound is not None
    ]
    detail = gate.detail.replace("|", "\\|")
    required = " and ".join(bounds) or "recorded only"
    return f"| {gate.name} | {gate.value:.6g} | {required}: {detail} | {'passed' if gate.passed else '**refused**'} |"


def told_of_prediction(result: Prediction) -> None:
    """Tell what a batch prediction came to, and that its files are there."""
    with _never_in_the_way():
        _tell_prediction(result)


def _tell_prediction(result: Prediction) -> None:
    index = ", ".join(f"{name} {value:.3f}" for name, value in result.drift.index.items())
    rows = {
        "rows": f"{result.rows:,}",
        "rejected rows": f"{result.rejects:,}",
        "rows a second": f"{result.rows / result.seconds:,.0f}" if result.seconds else "",
        "provider": result.provider,
        "model": f"{result.name} version {result.version}, `{result.model_sha256}`",
        "accuracy": "unknown: the input has no labels" if result.accuracy is None else f"{result.accuracy:.4f}",
        "drift": f"{result.drift.verdict}{f' (population stability index {index})' if index else ''}",
        "output": f"`{result.path}`, {result.parts} parts",
    }
    table = "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    shown = picture(result.picture) if result.picture else ""
    _artifact(
        f"{result.name}-predictions", f"# {result.rows:,} rows predicted\n\n{table}\n\n{shown}", "batch prediction"
    )
    _tag(f"model:{result.name}")
    payload = {
        "name": result.name,
        "version": result.version,
        "sha256": result.model_sha256,
        "path": str(result.path),
        "job": result.job,
        "rows": result.rows,
        "rejects": result.rejects,
    }
    emit("gradmill.predictions.written", result.name, payload)


def emit(event: str, name: str, payload: dict[str, Any]) -> None:
    """An event about a model, for automations and for services that follow it."""
    resource = {"prefect.resource.id": f"gradmill.model.{name}", "prefect.resource.name": name}
    emit_event(event=event, resource=resource, payload=payload)


def picture(path: Path) -> str:
    """A PNG inside markdown: the UI can show no local files."""
    return f"![{path.stem}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"


def _with_pictures(card: str, folder: Path) -> str:
    for path in folder.glob("*.png"):
        card = card.replace(
            f"]({path.name})", f"](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"
        )
    return card


def _artifact(key: str, markdown: str, description: str) -> None:
    create_markdown_artifact(markdown, key=key, description=description)


def _tag(*tags: str) -> None:
    """Add tags to this run, for the UI's filters."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, *tags}))
