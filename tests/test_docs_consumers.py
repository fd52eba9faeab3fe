"""docs/consumers.md: its tables of fields, and its programs, run as they stand against real files."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import served_images
import small_models
from browsing import open_tab
from conftest import REPOSITORY
from fenced_blocks import blocks, in_node
from node_packages import node_modules
from served_folders import serve
from store_state import damage
from tasks.store import artifact_paths, pointer
from tasks.store.model_folder import ChampionPointer

PAGE = REPOSITORY / "docs" / "consumers.md"
NAME = "linear-regression"


def block(language: str, phrase: str) -> str:
    """The one block of the page in this language that has these words."""
    (found,) = [each.text for each in blocks(PAGE) if each.language == language and phrase in each.text]
    return found


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by what stands in their first cell as code."""
    section = PAGE.read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_fields_of_champion_json_are_those_of_a_real_one(two_versions: None) -> None:
    pointer.rollback(NAME)
    written = json.loads(artifact_paths.champion(NAME).read_bytes())
    shown = json.loads(block("json", "promoted_at"))
    assert list(table("`champion.json`, field by field")) == list(written) == list(shown)
    assert ChampionPointer.model_validate_json(json.dumps(shown)).version == shown["version"]


KINDS_OF_MODELS = {
    frozenset[str](): NAME,
    frozenset({"classes", "images"}): "softmax-regression",
    frozenset({"own tables"}): "houses",
    frozenset({"classes", "own tables"}): "segments",
}


def test_the_keys_of_metadata_props_are_those_of_real_models(two_versions: None) -> None:
    served_images.write(artifact_paths.models())
    small_models.publish("houses")
    small_models.publish("segments", ("a", "b"))
    said = table("`metadata_props`, field by field")
    for traits, name in KINDS_OF_MODELS.items():
        (model, *_) = artifact_paths.model(name).glob("*/model.onnx")
        written = onnxruntime.InferenceSession(model).get_modelmeta().custom_metadata_map
        assert {key for key, (of, _) in said.items() if of == "all" or of in traits} == set(written), traits
        for key, value in written.items():
            if key != "dataset_digest" and not key.startswith("Image."):
                json.loads(value)


@pytest.fixture
def images(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model of pictures, below the working folder."""
    monkeypatch.chdir(artifacts.parent)
    return served_images.write(artifacts / "models")


def test_the_champion_is_loaded_in_python(images: Path) -> None:
    command = [sys.executable, "-c", block("python", "np.load")]
    said = subprocess.check_output(command, text=True)
    assert said == f"{[served_images.LABELS[each] for each in np.load(images / '3/sample.npz')['label']]}\n"


@pytest.mark.slow
@pytest.mark.consumers
def test_the_champion_is_loaded_in_node(images: Path) -> None:
    said = subprocess.check_output(in_node(block("js", "Uint8Array(784)")), text=True)
    assert said == "class 4\n", "of a black picture the bias decides"


@pytest.mark.consumers
@pytest.mark.browser
@pytest.mark.slow
def test_the_champion_is_loaded_in_the_browser(images: Path) -> None:
    from playwright.sync_api import expect

    (images / "dist").symlink_to(node_modules() / "onnxruntime-web" / "dist")
    (images / "index.html").write_text(block("html", "ort.wasm"))
    with serve(images) as address, open_tab() as page:
        page.goto(f"{address}/")
        expect(page.locator("p")).to_have_text("class 4", timeout=60_000)


@contextmanager
def following(command: Sequence[str | Path]) -> Iterator[Any]:
    """Wait for a line that a consumer prints; it is ended with us, or after a minute."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        patience = threading.Timer(60, process.kill)
        patience.start()
        lines = iter(process.stdout.readline, "")
        try:
            yield lambda wanted: wanted in (line.rstrip() for line in lines)
        finally:
            patience.cancel()
            process.kill()


@pytest.mark.slow
@pytest.mark.consumers
@pytest.mark.parametrize("language", ["python", "js"])
def test_a_consumer_that_polls_takes_over_each_champion_and_never_a_damaged_one(
    language: str, two_versions: None, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifacts.parent)
    (artifacts / "models" / "softmax-regression").symlink_to(NAME)
    champion, script = artifact_paths.champion(NAME), block(language, "is loaded")
    to_the_second = champion.read_bytes()
    with following([sys.executable, "-c", script] if language == "python" else in_node(script)) as says:
        assert says("version 2 is loaded")
        pointer.rollback(NAME)
        assert says("version 1 is loaded")
        whole = damage(artifact_paths.version(NAME, 2) / "model.onnx", 100)
        champion.write_bytes(to_the_second)
        assert says("the model before stays: version 2 is damaged")
        (artifact_paths.version(NAME, 2) / "model.onnx").write_bytes(whole)
        assert says("version 2 is loaded")
