"""The pictures of README and docs/: small, described, and made by ``make pictures``."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [*sorted(REPOSITORY.glob("README*.md")), *sorted(DOCS.glob("**/*.md"))]
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)\)")
FEWEST_LETTERS = 10


@pytest.mark.parametrize("path", sorted(DOCS.glob("**/*.png")), ids=lambda path: path.name)
def test_a_picture_is_small_and_whole(path: Path) -> None:
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.width >= 600, "readable where a page shows it in its whole width"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_that_a_page_shows_is_there_and_described(page: Path) -> None:
    text = page.read_text()
    shown = PICTURE.findall(text)
    assert len(shown) == text.count("![")
    assert "<img" not in text, "which this test would not see"
    for description, target in shown:
        assert (page.parent / target).is_file(), target
        assert len(description.strip()) >= FEWEST_LETTERS, target


def test_every_picture_is_shown_by_a_page_and_made_by_the_script() -> None:
    there = {path.name for path in DOCS.glob("**/*.png")}
    shown = {Path(target).name for page in PAGES for _, target in PICTURE.findall(page.read_text())}
    tree = ast.parse((DOCS / "pictures.py").read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    made = {text for text in texts if text.endswith(".png")}
    assert there == shown == made
