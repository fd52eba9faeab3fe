"""The model card of any data set: nothing about it is looked up by a name."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks.store
from candidate import Candidate
from tasks.data.report import ColumnReport, DataReport, Finding
from tasks.serving.contract import ModelMetadata
from tasks.store import artifact_paths
from tasks.store.version_page import describe_version, render_card


def rendered(**changes: Any) -> tuple[dict[str, Any], str]:
    """Front matter and text of the card of a version of other data."""
    folder = artifact_paths.version("linear-regression", 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["dataset"] |= {"name": "houses", "title": "House prices", "identifier": "someone/houses"}
    path = folder / "metadata.json"
    manifest |= changes
    _, front, body = render_card(describe_version(manifest, ModelMetadata.read(path), {}), manifest).split("---\n", 2)
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
    metrics = {"train_accuracy": 0.95, "test_accuracy": 0.9, "train_loss": 0.2, "test_loss": 0.3}
    front, body = rendered(dataset=dataset, metrics=metrics, recipe={"kind": kind})
    assert front["pipeline_tag"] == tag
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.9}]
    assert "0.2, 0.3 (cross-entropy in nats)" in body
    assert "| train accuracy, test accuracy | 0.9500, 0.9000 |" in body


def test_what_the_store_holds_is_utf_8_whatever_the_locale() -> None:
    """A card tells of columns and levels in any script, and its page is read elsewhere."""
    asked = [
        (path.name, call.lineno, {keyword.arg for keyword in call.keywords})
        for path in Path(tasks.store.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr.endswith("_text")
    ]
    assert asked, "text is written"
    assert [(name, line) for name, line, keywords in asked if "encoding" not in keywords] == []


# A user's own table


SPLIT = {"rule": "group", "column": "customer", "test": 0.2, "features": ["area"]}
RECIPE = {
    "kind": "columns",
    "columns": [
        {"name": "area", "kind": "number", "mean": 10.0, "scale": 3.0},
        {"name": "district", "kind": "category", "levels": ["east", "west"], "counts": [60, 40]},
    ],
    "target": {"name": "price", "mean": 5.0, "scale": 2.0},
}
METRICS = {
    "train_loss": 1.5, "test_loss": 2.0,
    "r2": 0.75, "rmse": 2.0, "r2_interval": [0.7, 0.8], "rmse_interval": [1.9, 2.1],
    "objective_loss": 2.0, "reference_loss": 1.875, "baseline_loss": 8.0,
    "weights": {"area": -0.25, "district": {"east": -4.0, "west": 6.0}}, "bias": 3.5,
}  # fmt: skip


def of_a_table() -> str:
    """The card of a version whose data are a user's."""
    columns = (
        ColumnReport(name="area", role="feature", kind="number"),
        ColumnReport(name="district", role="feature", kind="category"),
        ColumnReport(name="price", role="target", kind="number"),
    )
    warning = Finding(severity="warning", rule="missing", column="district", found="column 'district' lacks 40 % *")
    report = DataReport(
        name="houses", summary="", rows=1234, columns=columns, target="price",
        num_train=1000, num_test=200, unlabelled=34, findings=(warning,),
    )  # fmt: skip
    folder = artifact_paths.version("linear-regression", 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["dataset"] |= {"title": "houses", "split": SPLIT, "left_out": ["sold on"], "ignored": ["id"]}
    manifest["trained"] |= {"steps": {"num_epochs": 3, "batch_size": 1000, "lr": 0.5, "weight_decay": 0.25}}
    manifest["parameters"]["training"] |= {"lr": None, "batch_size": None, "weight_decay": None}
    described = ModelMetadata.read(folder / "metadata.json")
    manifest |= {"metrics": METRICS, "recipe": RECIPE}
    return render_card(describe_version(manifest, described, {"coefficients.png": b""}, report), manifest)


def test_the_card_of_a_table_says_what_was_in_it_how_it_was_split_and_what_it_is_held_against(
    candidates: list[Candidate],
) -> None:
    candidates[0].publish()
    card = of_a_table()
    for line in (
        "| target | price |",
        "| categories (1) | district |",
        "| ignored | id |",
        "| left out: dates, ids and the like | sold on |",
        "| rows | 1,234, of which 34 without a target were left out |",
        "| split | 1,000 for training, 200 for the test, by a hash of the value of customer |",
        r"| **warning** | column 'district' lacks 40 % \* |",
        "| batch size | 1000 |",
        "| lr | 0.5, constant |",
        "| weight decay (section 4.5) | 0.25 |",
        "| this model | 2 |",
        "| reference | 1.875 |",
        "| baseline | 8 |",
        "| district = west | 6 | 6 |",
        "![Coefficients](coefficients.png)",
        "| R² | 0.75 (95 % interval 0.7 to 0.8) |",
    ):
        assert line in card.splitlines(), line
