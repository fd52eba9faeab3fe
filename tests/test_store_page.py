"""A version's ``index.html``: one file with everything inside, for everybody."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from browsing import CHROMIUM, MARKS, keep
from candidate import Candidate
from conftest import REPOSITORY
from node_packages import node_modules
from tasks.errors import DataError
from tasks.serving.contract import ModelMetadata
from tasks.store import artifact_paths, reading
from tasks.store.page import render_html
from tasks.store.version_page import describe_version, find_html, read_version

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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
def test_every_picture_is_described_and_every_table_has_heads() -> None:
    elements = Elements(find_html(NAME, 2).read_text())
    assert all(image["alt"] for image in elements.of("img"))
    assert all(head["scope"] in ("row", "col") for head in elements.of("th"))


@pytest.mark.usefixtures("two_versions")
def test_a_damaged_page_is_not_shown() -> None:
    path = artifact_paths.version(NAME, 1) / "index.html"
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_text("<p>all is well")
    with pytest.raises(DataError, match=re.escape(str(path))):
        find_html(NAME, 1)


def test_the_weights_of_each_class_are_shown_and_never_inverted(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    folder = artifact_paths.version(NAME, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    with io.BytesIO() as stream:
        Image.new("RGB", (4, 4)).save(stream, "PNG")
        contents = dict.fromkeys((artifact_paths.CLASS_WEIGHTS, artifact_paths.RELIABILITY), stream.getvalue())
    elements = Elements(render_html(describe_version(manifest, ModelMetadata.read(folder / "metadata.json"), contents)))
    assert [image["alt"] for image in elements.of("img")] == ["Calibration", "Weights of each class"]
    assert [image.get("class") for image in elements.of("img")] == ["plot", None]


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
