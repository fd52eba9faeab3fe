"""The version's README: a model card with Hugging Face front matter (huggingface.co/docs/hub/model-cards)."""

from pathlib import Path
from typing import Any

import jinja2
import yaml

from tasks.records import GateVerdict
from tasks.serving.contract import ModelMetadata
from tasks.serving.task import TASKS

KINDS = {"pixels": "image", "columns": "tabular"}  # how Hugging Face calls what a recipe reads
SECTIONS = {"linear-regression": "3.1 to 3.3", "softmax-regression": "3.4 to 3.7"}
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(manifest: dict[str, Any], metadata: ModelMetadata, pictures: list[str]) -> str:
    """The card's text; ``manifest`` is the version's own, before its checksums."""
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    text: str = template.render(
        manifest,
        front_matter=_front_matter(manifest),
        title=manifest["dataset"]["title"],
        training=manifest["parameters"]["training"],
        sections=SECTIONS[manifest["parameters"]["training"]["model"]],
        loss_unit=TASKS[manifest["dataset"]["task"]].loss_unit,
        verdicts=[GateVerdict.model_validate(gate).verdict for gate in manifest["gates"]],
        inputs=metadata.inputs,
        outputs=metadata.outputs,
        pictures=pictures,
    )
    return text


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
