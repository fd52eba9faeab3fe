"""A page as sections of plain text, tables and a picture: the same in Markdown and in HTML.

In plain text what stands between backticks is code, such as a command to copy; nothing else is special. So what users
or their data say goes through ``said``, wherever it stands on a page.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.errors import without_credentials
from tasks.machine.words import in_markdown, printable
from tasks.stage.live import make_data_uri

CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")  # every second part of what it splits
TEMPLATE = Path(__file__).with_name("overview.html.jinja")


class Bold(str):
    """A cell that should be seen."""


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
    """What users or their data say, as plain text without credentials."""
    return " ".join(without_credentials(printable(text)).replace("`", "'").split())


def markdown(page: Page) -> str:
    """The page for the Prefect UI."""
    blocks = [f"# {escaped(page.title)}", f"**{escaped(page.headline)}**"]
    if page.links:
        blocks.append(" · ".join(f"[{escaped(words)}]({address})" for words, address in page.links))
    for section in page.sections:
        blocks += [f"## {escaped(section.title)}", *map(escaped, section.lines)]
        if section.rows:
            blocks.append(table(section.head, section.rows))
        if section.picture:
            blocks.append(f"![{escaped(section.picture.alt)}]({make_data_uri(section.picture.light)})")
    return "\n\n".join(blocks) + "\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of plain text in Markdown."""
    lines = [head, ("---",) * len(head), *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str, code: Callable[[str], str] = str) -> str:
    """A line of plain text in Markdown; ``code`` is done to what is code, where nothing can be escaped."""
    parts = CODE.split(" ".join(text.split()))
    return "".join(f"`{code(part)}`" if at % 2 else in_markdown(part) for at, part in enumerate(parts))


def html(page: Page) -> str:
    """The page as one file that needs no other."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    environment.filters |= {"parts": CODE.split, "uri": make_data_uri}
    text: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(page._asdict())
    return text


def _cell(text: str) -> str:
    shown = escaped(text, lambda code: re.sub(r"\\*\|", r"\\|", code))  # the one thing that tables look for in code
    return f"**{shown}**" if isinstance(text, Bold) else shown
