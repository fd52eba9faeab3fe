"""One model of a page: sections of text, tables and pictures; rendered as Markdown (Prefect, READMEs) or as HTML.

A page holds what users and their data say as it is. It is escaped here and nowhere else: only ``Code``, ``Strong``,
``Link`` and addresses, which are ours, are more than text. Credentials in addresses are left out.
"""

import base64
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tasks.errors import without_credentials
from tasks.machine.words import escape_control_characters, in_markdown

if TYPE_CHECKING:
    import jinja2

LONGEST = 2000  # characters of a text
BEGINS_A_BLOCK = re.compile(r"^(\d*)([-+=.)])")  # a list or a rule, where a line of Markdown starts with it


class Code(str):
    """Text that is shown as code, such as a command to copy."""

    element = "code"


class Strong(str):
    """Text that should be seen."""

    element = "strong"


class Link(str):
    """Words that lead to an address of ours."""

    element = "a"
    address: str

    def __new__(cls, words: str, address: str) -> Self:
        """Take the words as they are."""
        made = super().__new__(cls, words)
        made.address = address
        return made


Text = str | tuple[str, ...]  # a line, or its parts one after another


class PageTable(NamedTuple):
    """Rows below a head; without a head the first cell of a row names the second."""

    rows: tuple[tuple[Text, ...], ...]
    head: tuple[str, ...] = ()


class PagePicture(NamedTuple):
    """A PNG, how it is read, and its file's name. A photo is not inverted on dark paper."""

    title: str
    png: bytes
    name: str
    caption: str = ""
    is_photo: bool = False


class Program(str):
    """Lines of Python."""


class Section(NamedTuple):
    """Blocks below a title, which may be empty. Renderers leave out what is empty."""

    title: str
    blocks: tuple[Text | PageTable | PagePicture | Program | None, ...]


class Page(NamedTuple):
    """A page; ``links`` are words and an address of ours."""

    title: str
    headline: Text
    sections: tuple[Section, ...]
    links: tuple[tuple[str, str], ...] = ()


def render_markdown(page: Page, embed: bool = True) -> str:
    """The page as Markdown; without ``embed`` pictures are read from files beside it."""
    return re.sub(r"\n{3,}", "\n\n", _render(page, "page.md.jinja", embed=embed)).strip() + "\n"


def markdown_line(text: Text) -> str:
    """A line of Markdown, such as a description."""
    return BEGINS_A_BLOCK.sub(r"\1\\\2", _markdown_inline(text))


def render_html(page: Page) -> str:
    """The page as one file that needs no other and runs nothing."""
    return _render(page, "page.html.jinja")


def _render(page: Page, template: str, **options: bool) -> str:
    sections = [*_shown_sections(page)]
    return _load_templates().get_template(template).render(page=page, sections=sections, **options)


@cache
def _load_templates() -> "jinja2.Environment":
    import jinja2  # here: most commands render no page

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        trim_blocks=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    environment.filters |= {"parts": _parts, "kind": lambda block: type(block).__name__, "uri": make_data_uri}
    environment.filters |= {"inline": _markdown_inline, "line": markdown_line, "cell": _markdown_cell}
    return environment


def make_data_uri(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _shown_sections(page: Page) -> Iterator[Section]:
    for title, blocks in page.sections:
        if shown := tuple(block for block in blocks if block and not (isinstance(block, PageTable) and not block.rows)):
            yield Section(title, shown)


def _parts(text: Text) -> Iterator[tuple[str, str, str]]:
    """Each part after the HTML element that shows it, none of plain text, and before where it leads, if anywhere.

    It is one line, with nothing that cannot be seen.
    """
    for part in (text,) if isinstance(text, str) else text:
        visible = escape_control_characters(without_credentials(part)).encode(errors="backslashreplace").decode()
        line = re.sub(r"\s+", " ", visible)
        if line.strip() or not hasattr(part, "element"):
            shown = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
            yield getattr(part, "element", ""), shown, getattr(part, "address", "")


def _markdown_inline(text: Text) -> str:
    """Text within a line."""
    marked = {"code": _markdown_code, "strong": lambda words: f"**{in_markdown(words.strip())}**"}
    shown = ((marked.get(element, in_markdown)(words), address) for element, words, address in _parts(text))
    return "".join(f"[{words}]({address})" if address else words for words, address in shown).strip()


def _markdown_cell(text: Text) -> str:
    """A table looks for its bars in code, too."""
    parts = (text,) if isinstance(text, str) else text
    return _markdown_inline(
        tuple(Code(re.sub(r"\\*\|", r"\\|", part)) if isinstance(part, Code) else part for part in parts)
    )


def _markdown_code(words: str) -> str:
    """In which nothing can be escaped: backticks in it want longer ones around it."""
    words, longest = words.strip(), max(map(len, re.findall("`+", words)), default=0)
    return f"{'`' * (longest + 1)} {words} {'`' * (longest + 1)}" if longest else f"`{words}`"
