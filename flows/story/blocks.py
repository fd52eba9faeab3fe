"""A page as sections of plain text, tables and a picture: the same in Markdown and in HTML.

In plain text what stands between backticks is code, such as a command to copy; nothing else is special.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tasks.machine.words import printable
from tasks.stage.live import data_uri
from tasks.store.model_card import SPECIAL

CODE = re.compile(r"(`[^`]*`)")
TEMPLATE = Path(__file__).with_name("overview.html.jinja")


class Pictures(NamedTuple):
    """A picture as PNG, for light and for dark paper, and what it shows."""

    light: bytes
    dark: bytes
    alt: str


class Section(NamedTuple):
    """Lines, then a table, then a picture: whatever there is."""

    title: str
    lines: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    picture: Pictures | None = None


class Page(NamedTuple):
    """A page; ``links`` have words and an address."""

    title: str
    headline: str
    sections: tuple[Section, ...]
    links: tuple[tuple[str, str], ...] = ()


def said(text: str) -> str:
    """What users or their data say, as plain text."""
    return " ".join(printable(text).replace("`", "'").split())


def markdown(page: Page) -> str:
    """The page for the Prefect UI."""
    blocks = [f"# {_escaped(page.title)}", f"**{_escaped(page.headline)}**"]
    if page.links:
        blocks.append(" · ".join(f"[{words}]({address})" for words, address in page.links))
    for section in page.sections:
        blocks += [f"## {_escaped(section.title)}", *map(_escaped, section.lines)]
        if section.rows:
            lines = [section.head, ("---",) * len(section.head), *(map(_cell, row) for row in section.rows)]
            blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        if section.picture:
            blocks.append(f"![{section.picture.alt}]({data_uri(section.picture.light)})")
    return "\n\n".join(blocks) + "\n"


def html(page: Page) -> str:
    """The page as one file that needs no other."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    environment.filters |= {"parts": CODE.split, "uri": data_uri}
    text: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(page._asdict())
    return text


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if part.startswith("`") else change(part) for part in CODE.split(text))


def _escaped(text: str) -> str:
    special = SPECIAL - {"`"}
    return _outside_code(text, lambda part: "".join(f"\\{each}" if each in special else each for each in part))


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", _escaped(text))
