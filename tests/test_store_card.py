"""A version's model card, of any data, and its ``index.html``: one file with everything inside, for everybody."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image

from browsing import CHROMIUM, MARKS, keep
from candidate import Candidate
from conftest import REPOSITORY
from node_packages import node_modules
from tasks.data.io import pictures
from tasks.data.report import ColumnReport, DataReport, Finding
from tasks.errors import DataError
from tasks.parameters import Training
from tasks.serving import contract
from tasks.serving.contract import ModelMetadata, Signature, Tensor
from tasks.serving.task import TASKS
from tasks.store import artifact_paths, reading
from tasks.store.page import render_html
from tasks.store.version_page import describe_version, find_html, read_version, render_card

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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


# Own images


def card(
    names: tuple[str, ...] = ("cat", "dog|$"),
    shape: tuple[int, ...] = (30, 20),
    **metrics: Any,
) -> str:
    dataset = {
        "title": "pets", "identifier": "pets", "digest": "0" * 64, "task": "classification",
        "class_names": names, "class_counts": [100 + at for at in range(len(names))],
        "num_train": 1234, "num_test": 300, "split": {"rule": "rows", "test": 0.2},
    }  # fmt: skip
    recall = {name: 1 - at / 1000 for at, name in enumerate(names)}
    found: dict[str, Any] = {"train_loss": 0.5, "test_loss": 0.6, "test_accuracy": 0.9}
    found |= {"objective_loss": 0.6, "baseline_loss": 1.5, "precision": dict.fromkeys(names, 0.5), "recall": recall}
    manifest = {
        "name": "pets", "version": 3, "dataset": dataset, "device": "cpu", "gates": [],
        "recipe": {"kind": "pixels", "shape": shape, "scale": 1 / 255}, "metrics": found | metrics,
        "parameters": {"training": Training().model_dump(mode="json")},
        "trained": {"num_examples": 1234, "num_validation": 0, "num_epochs": 10, "collinear": []},
    }  # fmt: skip
    images = Tensor(name="images", dtype="uint8", shape=shape)
    signature = Signature(inputs=(images,), outputs=TASKS["classification"].outputs(len(names)))
    described = contract.open_inference_metadata("pets", 3, signature)
    return render_card(describe_version(manifest, described, {"class-weights.png": b""}), manifest)


def test_it_says_size_channels_split_and_every_class_in_the_order_of_labels() -> None:
    lines = card().splitlines()
    for line in (
        "pipeline_tag: image-classification",
        "| size | 30 by 20 pixels, height by width |",
        "| channels | grey: 0.299 red + 0.587 green + 0.114 blue |",
        "| split | 1,234 for training, 300 for the test, by a hash of their pixels |",
        "| 0 | cat | 100 | 0.500 | 1.000 |  |",
        r"| 1 | dog\|\$ | 101 | 0.500 | 0.999 |  |",
        "| baseline | 1.5 |",
        "![Weights of each class](class-weights.png)",
    ):
        assert line in lines, line
    assert "| reference |" not in card()
    assert "| channels | RGB |" in card(shape=(30, 20, 3)).splitlines()


def test_of_very_many_classes_those_with_the_smallest_recall_are_told() -> None:
    names = tuple(f"class {number}" for number in range(1000))
    told = re.findall(r"^\| (\d+) \| class", card(names), re.MULTILINE)
    assert told == [str(number) for number in range(999, 949, -1)]
    assert "The 50 of 1000 classes with the smallest recall; `labels.txt` has all" in card(names)


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 3)])
def test_its_lines_make_of_a_photograph_what_prediction_makes_of_it(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lies on its side, as telephones write them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))
    photo.save(tmp_path / "photo.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(import numpy\nfrom PIL.*?)```", card(shape=shape), re.DOTALL)
    found: dict[str, Any] = {}
    exec(lines, found)  # noqa: S102  (what a reader would do)
    expected, _ = pictures.decode(tmp_path / "photo.jpg", shape)
    assert found["images"].dtype == np.uint8
    np.testing.assert_array_equal(found["images"], expected[None])


# The page


NAME = "linear-regression"
SOFTMAX = "softmax-regression"


class Elements(HTMLParser):
    """Every element that a browser makes of a page, with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.usefixtures("two_versions")
def test_a_version_has_its_page_beside_its_card_with_every_picture_inside() -> None:
    found = find_html(NAME, 2)
    assert found == artifact_paths.version(NAME, 2) / "index.html"
    elements = Elements(found.read_text())
    pictures = {image["src"] for image in elements.of("img")}
    for name in ("learning-curve.png", "regression.png"):
        assert f"data:image/png;base64,{base64.b64encode((found.parent / name).read_bytes()).decode()}" in pictures
    manifest = reading.manifest(NAME, 2)
    for words in (*(gate.name for gate in manifest.gates), manifest.files["model.onnx"], manifest.dataset.digest):
        assert words in elements.words


@pytest.mark.usefixtures("two_versions")
def test_a_page_asks_nobody_for_anything_and_links_only_to_what_is_there() -> None:
    found = find_html(NAME, 2)
    elements = Elements(found.read_text())
    assert not elements.of("script")
    assert not elements.of("link")
    assert all((image["src"] or "").startswith("data:image/png;") for image in elements.of("img"))
    anchors = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    for link in elements.of("a"):
        address = link["href"] or ""
        assert address[1:] in anchors if address.startswith("#") else (found.parent / address).is_file()
    assert "default-src 'none'" in (elements.of("meta")[1]["content"] or "")


@pytest.mark.usefixtures("two_versions")
def test_a_damaged_page_is_not_shown() -> None:
    path = artifact_paths.version(NAME, 1) / "index.html"
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_text("<p>all is well")
    with pytest.raises(DataError, match=re.escape(str(path))):
        find_html(NAME, 1)


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Any:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root in CI
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [NAME, SOFTMAX])
def test_a_page_is_for_everybody(artifacts: Path, chromium: "Browser", name: str, scheme: Any, tmp_path: Path) -> None:
    """axe-core has nothing to say; a phone's width is enough; the browser asks for nothing but the file."""
    shutil.copytree(REPOSITORY / "tests" / "store_of_c692a25", artifacts)
    (page := tmp_path / "page.html").write_text(render_html(read_version(name, 1)))
    asked: list[str] = []
    context = chromium.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800}, bypass_csp=True)
    shown = context.new_page()
    shown.on("request", lambda request: asked.append(request.url.split(":")[0]))
    shown.goto(page.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    keep(shown, f"page-{name}-{scheme}")
    assert all(shown.evaluate("[...document.images].map(image => image.naturalWidth)"))
    assert set(asked) <= {"file", "data"}
    shown.evaluate((node_modules() / "axe-core" / "axe.min.js").read_text())
    assert shown.evaluate("axe.run()")["violations"] == []
    context.close()


for mark in MARKS:
    test_a_page_is_for_everybody = mark(test_a_page_is_for_everybody)
