"""The markdown pages of a retrain: verdict, pictures, model card. Plain functions of what was recorded."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.story import periods
from flows.story.blocks import Bold, escaped, said, table
from flows.story.report import RetrainReport
from tasks.errors import GradmillError
from tasks.judging.evaluation_result import PeriodMetrics
from tasks.judging.gates import format_value
from tasks.machine.words import readable
from tasks.records import GateVerdict
from tasks.stage.live import embed_picture
from tasks.store import artifact_paths, reading
from tasks.store.record import FileRef
from tasks.store.versions import Manifest

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


def headline(result: RetrainReport) -> str:
    """What became of a candidate."""
    return {
        "published": f"published version {result.version}",
        "unchanged": f"unchanged: version {result.version}, {result.detail}",
        "refused": "refused by " + ", ".join(gate.name for gate in result.gates if not gate.passed),
        "judged": "judged: every gate was passed, and nothing is published",
    }[result.outcome]


def in_words(result: RetrainReport) -> tuple[str, str]:
    """For the run's name, and for its first tag: what became of the candidate, and the figure by which it is known."""
    if result.outcome == "refused":
        gate, *others = [gate for gate in result.gates if not gate.passed]
        more = f" and {len(others)} more" if others else ""
        return f"refused by {gate.name} {format_value(gate)}{more}", f"{format_value(gate)} refused"
    version = f" version {result.version}" if result.version else ""
    known = ("test_accuracy", "rmse", "test_loss")
    name, value = next((name, result.metrics[name]) for name in known if result.metrics.get(name) is not None)
    words = f"{result.outcome}{version}, {name.removeprefix('test_')} {readable(value)}"
    return words, f"{readable(value)} {result.outcome}"


def verdict(result: RetrainReport) -> str:
    """What became of a candidate, and why; its figures beside those of the champion of before."""
    before = _champion_before(result)
    figures = [
        (name.replace("_", " "), readable(value), *([_figure(before, name)] if before else []))
        for name, value in result.metrics.items()
        if isinstance(value, float)
    ]
    word = "the champion before" if result.outcome == "published" else "the champion"
    of_before = [f"version {before.version}, {word}, when published"] if before else []
    gates = [
        (gate.name, gate.verdict if gate.passed else Bold(gate.verdict), format_value(gate), *_required(gate))
        for gate in result.gates
    ]
    seconds = [(stage, f"{seconds:.2f}") for stage, seconds in result.seconds.items()]
    changes = "\n".join(f"- {escaped(said(each.sentence))}" for each in result.data_changes)
    blocks = [
        f"# {escaped(f'{result.name}: {headline(result)}')}",
        f"{result.model}, {result.implementation}, on {result.device}. Evidence: `{said(result.run)}`",
        *_kept_from_the_champion(result),
        f"Model: `{said(result.model_path)}`, SHA-256 `{result.model_sha256}`" if result.model_path else "",
        "" if result.was_trained else "Nothing was trained: gates and figures are those of the version's own run.",
        f"## Data\n\n{changes}" if changes else "",
        "## Gates\n\n" + table(("gate", "verdict", "found", "required", ""), gates),
        "## Figures\n\n"
        + table(("figure", f"version {result.version}" if result.version else "candidate", *of_before), figures),
        _by_period(result.metrics["periods"]) if result.metrics.get("periods") else "",
        "## Seconds\n\n" + table(("stage", "seconds"), seconds),
    ]
    return "\n\n".join(filter(None, blocks))


def _required(gate: GateVerdict) -> tuple[str, str]:
    """The bound, and what it is made of, which may be long."""
    bound, _, rest = said(gate.detail).partition(" (")
    return bound.removesuffix(" required"), rest.removesuffix(")")


def _champion_before(result: RetrainReport) -> Manifest | None:
    """The champion that the candidate was to replace, if it is kept and is another."""
    with suppress(GradmillError):
        pointer = reading.champion(result.name)
        if pointer is None:
            return None
        was_promoted = result.outcome == "published" and pointer.version == result.version
        number = pointer.previous if was_promoted else pointer.version
        return reading.manifest(result.name, number) if number and number != result.version else None
    return None


def _figure(version: Manifest, name: str) -> str:
    value = version.metrics.model_dump(mode="json").get(name)
    return readable(value) if isinstance(value, float) else ""


def _kept_from_the_champion(result: RetrainReport) -> Iterator[str]:
    """What no retrain changes, and the command that ends it."""
    if result.frozen:
        yield f"Frozen: version {result.champion} stays until `gradmill unfreeze {result.name}`"
    with suppress(GradmillError):
        pointer = reading.champion(result.name)
        if pointer and pointer.held:
            held = ", ".join(map(str, pointer.held))
            yield f"Held, for they were rolled back from: {held}. `gradmill promote {result.name} VERSION` ends that"


def _by_period(documents: list[dict[str, Any]]) -> str:
    found = [PeriodMetrics.model_validate(each) for each in documents]
    return "## By period\n\n" + table(periods.head(found[0]), periods.rows(found))


def pictures(files: Iterable[FileRef]) -> str:
    """Those of these pictures that are still there, under their titles."""
    paths = {file.path.name: file.path for file in files}
    drawn = {title: paths[name] for name, title in TITLES.items() if name in paths and paths[name].is_file()}
    return "\n\n".join(f"### {title}\n\n{embed_picture(path)}" for title, path in drawn.items())


def card(path: Path) -> str:
    """The model card without its front matter, its pictures inside."""
    text = re.split(r"^---$", path.read_text(), maxsplit=2, flags=re.MULTILINE)[-1]
    for image in path.parent.glob("*.png"):
        text = re.sub(rf"!\[[^]]*\]\({re.escape(image.name)}\)", embed_picture(image), text)
    return text
