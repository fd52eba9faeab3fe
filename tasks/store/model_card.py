"""The version's README: a model card with Hugging Face front matter (huggingface.co/docs/hub/model-cards)."""

from collections.abc import Iterator
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
        facts=_training_facts(manifest),
        verdicts=[GateVerdict.model_validate(gate).verdict for gate in manifest["gates"]],
        inputs=metadata.inputs,
        outputs=metadata.outputs,
        pictures=pictures,
    )
    return text


def _training_facts(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was really done, beside what was asked for where the two differ."""
    training, trained, metrics = manifest["parameters"]["training"], manifest["trained"], manifest["metrics"]
    held_out = f", and {trained['num_validation']} held out to watch" if trained["num_validation"] else ""
    yield "training examples", f"{trained['num_examples']}{held_out}"
    yield "test examples", f"{manifest['dataset']['num_test']}"
    if training["patience"]:
        asked = f"at most {training['num_epochs']}, with patience {training['patience']}"
        yield "epochs", f"{trained['num_epochs']} of {asked}"
        yield "weights", f"of epoch {trained['kept_epoch']}, whose validation loss was the smallest"
    else:
        yield "epochs", f"{trained['num_epochs']}"
    if "validation_loss" in metrics:
        yield "validation loss", f"{metrics['validation_loss']:.4g}"
    unit = TASKS[manifest["dataset"]["task"]].loss_unit
    yield "train loss, test loss", f"{metrics['train_loss']:.4g}, {metrics['test_loss']:.4g} ({unit})"
    yield "batch size", f"{training['batch_size']}"
    yield "lr", f"{training['lr']:g}, {training['schedule']}"
    if training["weight_decay"]:
        yield "weight decay (section 4.5)", f"{training['weight_decay']:g}"
    if training["dropout"]:
        yield "dropout (section 4.6)", f"{training['dropout']:g}"
    yield "seed", f"{training['seed']}"
    yield "device", f"{manifest['device']}"


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
