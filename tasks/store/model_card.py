"""The version's README: a model card with Hugging Face front matter (huggingface.co/docs/hub/model-cards)."""

from pathlib import Path
from typing import Any

import yaml

from tasks.data.recipe import Columns
from tasks.data.report import DataReport
from tasks.machine.words import in_markdown, readable
from tasks.records import GateVerdict
from tasks.serving.contract import ModelMetadata
from tasks.serving.raw_units import Coefficient, list_coefficients
from tasks.serving.task import TASKS
from tasks.store.gate_questions import QUESTIONS
from tasks.store.image_card import ImageFacts

KINDS = {"pixels": "image", "columns": "tabular"}  # how Hugging Face calls what a recipe reads
SECTIONS = {"linear-regression": "3.1 to 3.3", "softmax-regression": "3.4 to 3.7"}
LONGEST = 80  # characters of a name
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(
    manifest: dict[str, Any], metadata: ModelMetadata, pictures: list[str], report: DataReport | None = None
) -> str:
    """The card's text; ``manifest`` is the version's own, before its checksums, ``report`` that of own data."""
    import jinja2  # here: a retrain of what has not changed writes no card

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  (Markdown)
    environment.filters |= {"cell": cell, "readable": readable}
    text: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts(manifest, metadata, report), front_matter=_front_matter(manifest), pictures=pictures
    )
    return text


def facts(manifest: dict[str, Any], metadata: ModelMetadata, report: DataReport | None) -> dict[str, Any]:
    """What the templates of card and page may tell of a version, by name."""
    return manifest | {
        "title": manifest["dataset"]["title"] or manifest["dataset"]["name"],  # of old there was no title
        "training": _settings(manifest),
        "report": report,
        "images": ImageFacts.of(manifest),
        "standards": _standards(manifest["metrics"]),
        "coefficients": _coefficients(manifest),
        "sections": SECTIONS[manifest["parameters"]["training"]["model"]],
        "loss_unit": TASKS[manifest["dataset"]["task"]].loss_unit,
        "verdicts": [GateVerdict.model_validate(gate).verdict for gate in manifest["gates"]],
        "questions": QUESTIONS,
        "inputs": metadata.inputs,
        "outputs": metadata.outputs,
    }


def cell(text: str, longest: int = LONGEST) -> str:
    """Text of a user's data in a cell or a line of Markdown."""
    words = " ".join(text.split())
    return in_markdown(words if len(words) <= longest else f"{words[: longest - 1]}…")


def _settings(manifest: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, and what became of what own data decide."""
    asked: dict[str, Any] = manifest["parameters"]["training"]
    found = (manifest["trained"] or {}).get("steps")
    return asked | (found or {})


def _standards(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """The losses of own data's model, of the converged fit and of the best constant, as training counts them."""
    named = {"this model": "objective_loss", "reference": "reference_loss", "baseline": "baseline_loss"}
    return [(words, metrics[name]) for words, name in named.items() if name in metrics]


def _coefficients(manifest: dict[str, Any]) -> list[Coefficient]:
    if not isinstance(manifest["metrics"].get("weights"), dict):
        return []
    return list_coefficients(
        manifest["metrics"], Columns.model_validate(manifest["recipe"]), manifest["dataset"].get("class_names", ())
    )


def _front_matter(manifest: dict[str, Any]) -> str:
    dataset = manifest["dataset"]
    metric, value = TASKS[dataset["task"]].hub_metric(manifest["metrics"])
    pipeline = f"{KINDS[manifest['recipe']['kind']]}-{dataset['task']}"
    result = {
        "task": {"type": pipeline},
        "dataset": {"name": dataset["title"], "type": dataset["identifier"], "split": "test"},
        "metrics": [{"type": metric, "value": value}],
    }
    document = {
        "license": "mit",
        "library_name": "onnx",
        "pipeline_tag": pipeline,
        "tags": ["onnx", "gradmill", manifest["parameters"]["training"]["model"]],
        "datasets": [dataset["identifier"]],
        "metrics": [metric],
        "model-index": [{"name": f"{manifest['name']} version {manifest['version']}", "results": [result]}],
    }
    return yaml.safe_dump(document, sort_keys=False)
