"""What README and docs/ name is there: files and headings; and docs/ are whole."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import REPOSITORY
from fenced_blocks import in_millions
from tasks.records import QUESTIONS

PAGES = [*sorted(REPOSITORY.glob("README*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_and_every_path_is_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            path = page.parent / file if file else page
            assert path.is_file(), target
            assert not anchor or anchor in anchors(path), target
    if page.stem != "decisions":
        for name in re.findall(r"`((?:flows|tasks|tests|docker|docs)/[\w./-]*)`", text):
            assert name == "docker/.env" or (REPOSITORY / name).exists(), name


def parts(page: str) -> list[Any]:
    """Headings, commands, figures and links, in order or sorted."""
    text = (REPOSITORY / page).read_text()
    told = re.sub(r" +# .*", "", in_millions(text))
    code = re.sub(r" +# .*", "", "\n".join(text.split("```")[1::2]))
    links = sorted(re.findall(r"\]\((docs/[^)]*)\)", text))
    return [re.findall(r"(?m)^#+ ", text), code, set(re.findall(r"\d+\.\d+|\d{2,}", told)), links]


def test_the_chinese_readme_has_the_headings_commands_figures_and_links_of_the_english_one() -> None:
    assert parts("README.zh-CN.md") == parts("README.md")


def test_every_page_stands_in_the_sites_navigation() -> None:
    navigation = json.dumps(tomllib.loads((REPOSITORY / "zensical.toml").read_text())["project"]["nav"])
    docs = REPOSITORY / "docs"
    assert sorted(re.findall(r'"([^"]+\.md)"', navigation)) == sorted(
        str(page.relative_to(docs)) for page in docs.rglob("*.md")
    )


def test_the_functions_of_every_package_that_others_use_are_on_a_page() -> None:
    text = "".join(page.read_text() for page in (REPOSITORY / "docs/api").iterdir())
    described = re.findall(r"(?m)^::: (\S+)$", text)
    packages = {path.parent.name for path in (REPOSITORY / "tasks").glob("*/__init__.py")} - {"machine", "stage"}
    assert {f"tasks.{name}" for name in packages} <= {*described}
    for name in described:
        path = REPOSITORY / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


def test_the_page_of_gates_has_the_question_and_the_bound_of_each() -> None:
    text = (REPOSITORY / "docs/gates.md").read_text()
    asked, bounds = text.split("\n## ")[:2]
    assert dict(re.findall(r"(?m)^\| `(\w+)` \| (.*) \|$", asked)) == QUESTIONS
    bounded = {name for cell in re.findall(r"(?m)^\| (`.*?) \|", bounds) for name in re.findall(r"`(\w+)`", cell)}
    assert bounded == QUESTIONS.keys() - {"champion_not_compared"}, "which is recorded"


def test_every_picture_is_small_and_whole_shown_by_a_page_with_its_description_and_made_by_the_script() -> None:
    docs, shown = REPOSITORY / "docs", set[Path]()
    for page in (*REPOSITORY.glob("README*.md"), *docs.glob("**/*.md")):
        text = page.read_text()
        found = re.findall(r"!\[([^\]]{10,})\]\(([^)\s]*)\)", text)
        assert len(found) == text.count("![")
        assert "<img" not in text, "which this test would not see"
        shown |= {(page.parent / target).resolve() for _, target in found}
    there = set(docs.glob("**/*.png"))
    assert there == shown
    assert {path.name for path in there} == set(re.findall(r'"([\w-]+\.png)"', (docs / "pictures.py").read_text()))
    for path in there:
        assert path.stat().st_size < 200_000, path
        with Image.open(path) as picture:
            picture.load()
            assert picture.width >= 600, "readable where a page shows it in its whole width"
