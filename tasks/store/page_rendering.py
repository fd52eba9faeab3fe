"""A page as sections of text, tables and pictures, rendered as Markdown (Prefect, READMEs), HTML, or for a terminal.

The terminal's renderer is in flows/cli/display.py.

Text from users and data is kept as it is and escaped only here: only ``Code``, ``Strong``, ``Link`` and our own
addresses are markup. Credentials in addresses are removed.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tasks.errors import without_credentials
from tasks.machine.words import escape_control_characters, in_markdown

if TYPE_CHECKING:
    import jinja2

LONGEST = 2000  # characters of a text
BEGINS_A_BLOCK = re.compile(r"^(\d*)([-+=.)])")  # begins a list or a rule at the start of a Markdown line


class Code(str):
    """Text that is shown as code, such as a command to copy."""

    element = "code"


class Strong(str):
    """Emphasised text."""

    element = "strong"


class Link(str):
    """Words that link to one of our addresses."""

    element = "a"
    address: str

    def __new__(cls, words: str, address: str) -> Self:
        """Create the text with its address."""
        made = super().__new__(cls, words)
        made.address = address
        return made


Text = str | tuple[str, ...]  # a line, or its parts in order


class PageTable(NamedTuple):
    """Rows below a header; without a header the first cell of a row names the second.

    A narrow terminal leaves out the ``spare`` columns, the first of them first.
    """

    rows: Sequence[tuple[Text, ...]]
    head: Sequence[str] = ()
    spare: Sequence[str] = ()


class PagePicture(NamedTuple):
    """A PNG with its title, file name and a caption that explains it. A photo is not inverted in dark mode."""

    title: str
    png: bytes
    name: str
    caption: str = ""
    is_photo: bool = False


class Program(str):
    """Lines of Python."""


class Section(NamedTuple):
    """Blocks below a title, which may be empty. Renderers omit empty sections."""

    title: str
    blocks: Sequence[Text | PageTable | PagePicture | Program | None]


class Page(NamedTuple):
    """A page; ``links`` are pairs of words and one of our addresses."""

    title: str = ""
    headline: Text = ""
    sections: Sequence[Section] = ()
    links: tuple[tuple[str, str], ...] = ()


def render_markdown(page: Page, embed: bool = True) -> str:
    """The page as Markdown; without ``embed`` pictures refer to files beside it."""
    return re.sub(r"\n{3,}", "\n\n", _render(page, "page.md.jinja", embed=embed)).strip() + "\n"


def markdown_line(text: Text) -> str:
    """A line as Markdown, such as a description."""
    return BEGINS_A_BLOCK.sub(r"\1\\\2", _markdown_inline(text))


def render_html(page: Page) -> str:
    """The page as one HTML file that needs no other file and runs no script."""
    return _render(page, "page.html.jinja")


def _render(page: Page, template: str, **options: bool) -> str:
    sections = [*list_sections(page)]
    return _load_templates().get_template(template).render(page=page, sections=sections, **options)


@cache
def _load_templates() -> "jinja2.Environment":
    import jinja2  # not at the top, because most commands render no page

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        trim_blocks=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    environment.filters |= {"parts": list_parts, "kind": lambda block: type(block).__name__, "uri": make_data_uri}
    environment.filters |= {"inline": _markdown_inline, "line": markdown_line, "cell": _markdown_cell}
    return environment


def make_data_uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def list_sections(page: Page) -> Iterator[Section]:
    """The sections of a page that have content, without empty blocks."""
    for title, blocks in page.sections:
        if shown := tuple(block for block in blocks if block and not (isinstance(block, PageTable) and not block.rows)):
            yield Section(title, shown)


def list_parts(text: Text) -> Iterator[tuple[str, str, str]]:
    """Yield each part as (HTML element or "", text, address or "").

    The text is one line without invisible characters.
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
    shown = ((marked.get(element, in_markdown)(words), address) for element, words, address in list_parts(text))
    return "".join(f"[{words}]({address})" if address else words for words, address in shown).strip()


def _markdown_cell(text: Text) -> str:
    """Text in a table cell, where bars must be escaped even in code."""
    parts = (text,) if isinstance(text, str) else text
    return _markdown_inline(
        tuple(Code(re.sub(r"\\*\|", r"\\|", part)) if isinstance(part, Code) else part for part in parts)
    )


def _markdown_code(words: str) -> str:
    """Inline code: nothing can be escaped in it, so backticks in the text need longer ones around it."""
    words, longest = words.strip(), max(map(len, re.findall("`+", words)), default=0)
    return f"{'`' * (longest + 1)} {words} {'`' * (longest + 1)}" if longest else f"`{words}`"
