"""Measured speeds that a page names are in a benchmark's document, which is kept in docs/benchmarks/."""

import json
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Report
from conftest import REPOSITORY
from fenced_blocks import in_millions

KEPT = REPOSITORY / "docs" / "benchmarks"
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)*(?:e[-+]?\d+)?(?: million)?")
EXEMPT = re.compile(r"\(goals?: [^)]*\)|`[^`]*`|\]\([^)]*\)")  # goals, code, addresses of links
SEEDED = {"gates", "seeds"}  # whose figures are the same on a machine that is busy
ELSEWHERE = "History"  # how the heading of a section begins whose figures were measured otherwise


@cache
def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text())
    return found


@cache
def known(name: str) -> list[float]:
    """What a document says: conditions, best and median of each side and of how many, ratios, parts of commands."""
    found = document(name)
    said = [found["conditions"], found["ratios"], found.get("parts", {})]
    figures = ("best", "median", "name", "note")
    said += [[len(side["figures"]), *(side.get(each) for each in figures)] for side in found["sides"]]
    said += [100 * side["best"] for side in found["sides"] if side["unit"] == "refused"]
    return [value_of(text) for text in NUMBER.findall(json.dumps(said)) if text.count(".") < 2]


def value_of(text: str) -> float:
    plain, _, million = text.replace(",", "").partition(" ")
    return float(plain) * (1e6 if million else 1)


def is_said(text: str, names: list[str]) -> bool:
    """Whether a number, rounded as it is printed, or a version, is in one of the documents."""
    plain, _, million = text.partition(" ")
    if any(re.search(rf'"{re.escape(plain)}[."]', json.dumps(document(name)["conditions"])) for name in names):
        return True
    half = 0.5 * 10.0 ** -len(plain.partition(".")[2]) * (1e6 if million else 1) * (1 + 1e-9)
    return plain.count(".") < 2 and any(abs(each - value_of(text)) <= half for name in names for each in known(name))


def unknown(text: str, names: list[str]) -> list[str]:
    """The numbers of a text that none of the documents has."""
    return [found for found in NUMBER.findall(EXEMPT.sub(" ", text)) if not is_said(found, names)]


def sections(page: Path) -> list[str]:
    return re.split(r"(?m)^(?=#+ )", page.read_text())


def documents_of(section: str) -> list[str]:
    return re.findall(r"\]\((?:docs/)?benchmarks/(\w+)\.json\)", section)


SPEED = sections(REPOSITORY / "docs" / "speed.md")


def list_measured() -> Iterator[Any]:
    """Sections of docs/ with the documents that they link to, and the tables of speed in both READMEs with all."""
    for section in [*SPEED, *sections(REPOSITORY / "docs" / "gates.md")]:
        if names := documents_of(section):
            yield pytest.param(section, names, id=section.splitlines()[0])
    for page in ("README.md", "README.zh-CN.md"):
        (section,) = (each for each in sections(REPOSITORY / page) if "(docs/speed.md)" in each)
        tables = "\n\n".join(re.findall(r"(?m)(?:^\|.*\n)+", section))
        yield pytest.param(in_millions(tables), [path.stem for path in KEPT.glob("*.json")], id=page)


@pytest.mark.parametrize(("text", "names"), [*list_measured()])
def test_every_figure_of_a_text_with_measurements_is_in_a_document_that_it_links_to(
    text: str, names: list[str]
) -> None:
    assert NUMBER.search(text)
    assert unknown(text, names) == []


def test_only_sections_whose_headings_say_so_have_figures_of_no_document() -> None:
    for section in SPEED:
        if not documents_of(section):
            heading = section.partition("\n")[0].lstrip("# ")
            assert heading.startswith(ELSEWHERE) or not NUMBER.search(EXEMPT.sub(" ", section)), heading


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_the_documents_are_of_whole_runs_and_tell_nothing_of_whose_machine_it_was(path: Path) -> None:
    text = path.read_text()
    report = Report.model_validate_json(text)
    assert report.benchmark == path.stem
    assert not report.conditions.get("quick")
    if report.benchmark not in SEEDED:
        assert report.conditions["load"] <= 1.25 * report.conditions["cores"]
    assert platform.node() not in text
    assert not re.search(r"/(?:home|root|tmp|srv|usr)/", text)
