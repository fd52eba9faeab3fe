"""docs/first-hour.md, typed from its first block to its last: what it shows is what comes."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from conftest import REPOSITORY
from fenced_blocks import PAGES, Block, Typist, blocks

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "first-hour.md"
PORT = 4200  # of gradmill up, as the page has it
# Places below artifacts/ that nothing of the first hour fills, and what does.
OF_OTHERS = {
    "artifacts/.restoring": "gradmill restore, until it is done",
    "artifacts/datasets/<data>/study-<key>.journal": "gradmill tune",
    "artifacts/.prefect/home": "where there is no home folder",
    "artifacts/javascript/": "gradmill demo",
    "artifacts/.store": "gradmill backup, and GRADMILL_MIRROR",
    "artifacts/mirror.json": "GRADMILL_MIRROR",
    "artifacts/site": "make docs",
    "artifacts/tuned/<name>.json": "gradmill tune",
}


@pytest.fixture(scope="module")
def typist(fashion_mnist_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    """Somebody in a checkout in which ``make run`` has ended, as far as commands look at it."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT} is taken, and the page has it")
    folder = tmp_path_factory.mktemp("first-hour") / "checkout"
    folder.mkdir()
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    (made,) = re.findall(r"(?m)^run:.*\n\t@\$\(BIN\)(/.*)\n", (REPOSITORY / "Makefile").read_text())
    environment = {
        "PREFECT_HOME": str(folder.parent / "prefect"),
        "GRADMILL_FASHION_MNIST_DIR": str(fashion_mnist_files),
    }
    # No artifacts folder but the one here, and no browser.
    environment |= dict.fromkeys(("GRADMILL_ARTIFACTS", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER"), "")
    typing = Typist(folder, environment)
    typing.type(Block(PAGE, "sh", f".venv/bin{made}\n"))
    yield typing
    typing.end()


def test_every_block_does_what_the_page_shows(typist: Typist) -> None:
    for block in blocks(PAGE):
        if block.language == "text":
            typist.assert_said(block.text)
        else:
            typist.type(block)


def test_every_place_below_artifacts_that_the_pages_name_is_there(typist: Typist) -> None:
    told = "\n".join(page.read_text() for page in PAGES if page.stem != "decisions")
    named = set(re.findall(r"artifacts/[\w.<>/-]*[\w>/]", told)) - set(OF_OTHERS)
    assert {place for place in named if not list(typist.folder.glob(re.sub(r"<\w+>", "*", place)))} == set()


def test_models_of_a_real_run_tell_what_the_table_of_metadata_props_has(typist: Typist) -> None:
    told = (REPOSITORY / "docs" / "consumers.md").read_text()
    for name in ("softmax-regression", "houses"):
        folder = typist.folder / "artifacts" / "models" / name
        champion = json.loads((folder / "champion.json").read_bytes())
        session = onnxruntime.InferenceSession(folder / str(champion["version"]) / "model.onnx")
        keys = {*champion, *session.get_modelmeta().custom_metadata_map}
        assert all(f"| `{key}` |" in told for key in keys), keys
