"""The model card of any data set: nothing about it is looked up by a name."""

import json
from typing import Any

import pytest
import yaml

from candidate import Candidate
from tasks.serving.contract import ModelMetadata
from tasks.store import artifact_paths
from tasks.store.model_card import model_card


def rendered(**changes: Any) -> tuple[dict[str, Any], str]:
    """Front matter and text of the card of a version of other data."""
    folder = artifact_paths.version("linear-regression", 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["dataset"] |= {"name": "houses", "title": "House prices", "identifier": "someone/houses"}
    path = folder / "metadata.json"
    _, front, body = model_card(manifest | changes, ModelMetadata.read(path), ["a.png"]).split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_of_other_data_names_them(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    front, body = rendered()
    assert front["datasets"] == ["someone/houses"]
    assert front["pipeline_tag"] == "tabular-regression"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": "House prices", "type": "someone/houses", "split": "test"}
    assert "trained by Gradmill on House prices (digest" in body


@pytest.mark.parametrize(("kind", "tag"), [("pixels", "image-classification"), ("columns", "tabular-classification")])
def test_a_classifier_is_listed_by_its_accuracy(candidates: list[Candidate], kind: str, tag: str) -> None:
    candidates[0].publish()
    dataset = {"task": "classification", "title": "Iris", "identifier": "iris", "digest": "0" * 64, "num_test": 30}
    metrics = {"test_accuracy": 0.9, "train_loss": 0.2, "test_loss": 0.3}
    front, body = rendered(dataset=dataset, metrics=metrics, recipe={"kind": kind})
    assert front["pipeline_tag"] == tag
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.9}]
    assert "0.2, 0.3 (cross-entropy in nats)" in body
