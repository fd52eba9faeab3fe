"""Plain PNG files have a short cut: whatever it takes is what Pillow reads, and all else is left to Pillow."""

import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tasks.data import png


def saved(shape: tuple[int, ...], seed: int = 0, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(stream, "PNG", **options)
    return stream.getvalue()


def by_pillow(content: bytes) -> tuple[str, tuple[int, int], bytes]:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        return picture.mode, picture.size, picture.tobytes()


def test_what_is_taken_however_damaged_is_what_pillow_reads() -> None:
    rng, taken = random.Random(0), 0  # noqa: S311  (no secret)
    for seed in range(500):
        shape = (rng.randint(1, 9), rng.randint(1, 9), *rng.choice([(), (3,)]))
        content = bytearray(saved(shape, seed, compress_level=rng.randint(0, 9)))
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        elif rng.random() < 0.8:
            content[rng.randrange(len(content))] = rng.randrange(256)
        picture = png.plain(io.BytesIO(content))
        if picture is not None:
            taken += 1
            assert (picture.mode, picture.size, picture.tobytes()) == by_pillow(bytes(content))
    assert 100 < taken < 450


@pytest.mark.parametrize("what", ["exif", "text", "transparency", "16 bits", "palette", "large", "not a PNG"])
def test_what_says_more_than_its_pixels_is_left_to_pillow(what: str) -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("XML:com.adobe.xmp", "<tiff:Orientation>6</tiff:Orientation>")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    options: dict[str, dict[str, Any]] = {
        "exif": {"exif": exif},
        "text": {"pnginfo": told},
        "transparency": {"transparency": 0},
    }
    content = saved((600, 600) if what == "large" else (4, 4), **options.get(what, {}))
    if what in ("16 bits", "palette"):
        stream = io.BytesIO()
        Image.new("I;16" if what == "16 bits" else "P", (4, 4)).save(stream, "PNG")
        content = stream.getvalue()
    assert png.plain(io.BytesIO(content[1:] if what == "not a PNG" else content)) is None
    assert png.plain(io.BytesIO(saved((4, 4)))) is not None
