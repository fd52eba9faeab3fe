"""The version's README: a model card with Hugging Face front matter (huggingface.co/docs/hub/model-cards)."""

from pathlib import Path
from typing import Any

import jinja2
import yaml

from tasks.contract import ModelMetadata

LANDING = {
    "fashion-mnist": ("Fashion-MNIST", "zalando-datasets/fashion_mnist", "image-classification"),
    "synthetic-linear": ("Synthetic linear data", "synthetic-linear", "tabular-regression"),
}


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(manifest: dict[str, Any], metadata: ModelMetadata, pictures: list[str]) -> str:
    """The card's text; ``manifest`` is the version's own, before its checksums."""
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    text: str = template.render(
        manifest,
        front_matter=_front_matter(manifest),
        title=LANDING[manifest["dataset"]["name"]][0],
        training=manifest["parameters"]["training"],
        inputs=metadata.inputs,
        outputs=metadata.outputs,
        pictures=pictures,
    )
    return text


def _front_matter(manifest: dict[str, Any]) -> str:
    title, dataset, task = LANDING[manifest["dataset"]["name"]]
    metric = ("accuracy", "test_accuracy") if "test_accuracy" in manifest["metrics"] else ("mse", "test_loss")
    value = manifest["metrics"][metric[1]] * (1 if metric[0] == "accuracy" else 2)  # our losses have the book's half
    result = {
        "task": {"type": task},
        "dataset": {"name": title, "type": dataset, "split": "test"},
        "metrics": [{"type": metric[0], "value": value}],
    }
    document = {
        "license": "mit",
        "library_name": "onnx",
        "pipeline_tag": task,
        "tags": ["onnx", "gradmill", manifest["parameters"]["training"]["model"]],
        "datasets": [dataset],
        "metrics": [metric[0]],
        "model-index": [{"name": f"{manifest['name']} version {manifest['version']}", "results": [result]}],
    }
    return yaml.safe_dump(document, sort_keys=False)
