"""Letters for names in pictures: matplotlib's own font has no Chinese letters, and draws a box for any it lacks."""

from functools import cache
from typing import Any

# Fonts with Chinese letters that systems come with, the commonest first; most have Japanese and Korean ones, too.
FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Heiti TC", "Microsoft YaHei", "SimHei",
)  # fmt: skip


@cache
def list_families() -> list[str]:
    """The fonts that matplotlib takes letters from: each letter comes from the first font that has it."""
    from matplotlib.font_manager import fontManager

    installed = fontManager.get_font_names()
    return ["sans-serif", *(each for each in FAMILIES if each in installed)]


@cache
def _open_fonts() -> dict[str, Any]:
    """The fonts that letters are taken from, by file, in order."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = (findfont(FontProperties(family=[family])) for family in list_families())
    return {file: get_font(file) for file in files}


def escape_letters(text: str) -> str:
    r"""``text`` with every letter that no font has escaped, as in ``\u6d77``: boxes would all look the same."""
    if text.isascii():
        return text
    fonts = _open_fonts().values()
    return "".join(
        letter
        if any(font.get_char_index(ord(letter)) for font in fonts)
        else letter.encode("ascii", "backslashreplace").decode()
        for letter in text
    )


def font_file(text: str) -> str:
    """The font that has most of a text's letters, for drawing without matplotlib; of equally good fonts, the first."""
    fonts = _open_fonts()
    return max(fonts, key=lambda file: sum(fonts[file].get_char_index(ord(each)) > 0 for each in text))
