"""A contact sheet: some images of each class on one picture."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.data.images.examining import Rows
from tasks.data.images.reading import Images
from tasks.machine import lettering

EXAMPLES, MOST_CLASSES = 10, 40
CELL, GAP, LABEL, FONT = 56, 4, 180, 14  # pixels
INK = "#7d7d7d"  # on no ground of its own: to be read on light and dark pages
LONGEST = 22  # characters of a class's name


def draw(images: Images, rows: Rows) -> bytes:
    """A PNG with a line for each of the first classes: its name, how many images it has, and some of them.

    What is between them is transparent.
    """
    counts = np.bincount(rows.truth.values.astype(np.int64), minlength=len(rows.truth.class_names))
    names = rows.truth.class_names[:MOST_CLASSES]
    step = CELL + GAP
    sheet = Image.new("RGBA", (LABEL + EXAMPLES * step, len(names) * step + GAP))
    pen = ImageDraw.Draw(sheet)
    for line, name in enumerate(names):
        top = GAP + line * step
        pen.text((GAP, top + 10), f"{_short(name)}\n{counts[line]:,}", INK, _font(name))
        for column, image in enumerate(_some(images, rows, line)):
            sheet.paste(image, (LABEL + column * step, top))
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _some(images: Images, rows: Rows, label: int) -> Iterator[Image.Image]:
    """Images of a class, evenly spread over all it has."""
    of_class = rows.numbers[rows.truth.values == label]
    chosen = np.unique(np.linspace(0, len(of_class) - 1, min(EXAMPLES, len(of_class))).astype(int))
    height, width = images.shape[:2]
    scale = CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR  # small pixels are to be seen as such
    for pixels in images.some(int(of_class[at]) for at in chosen):
        yield Image.fromarray(pixels).convert("RGB").resize(size, way)


def _font(name: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, or one with the letters of a name that it has not."""
    if _is_latin(name):
        return ImageFont.load_default(FONT)
    return ImageFont.truetype(lettering.font_file(lettering.spelt(name)), FONT)


def _is_latin(name: str) -> bool:
    return max(map(ord, name), default=0) < 256  # what Pillow's own font has


def _short(name: str) -> str:
    shown = name if _is_latin(name) else lettering.spelt(name)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
