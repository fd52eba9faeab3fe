"""The plainest PNG files, of which data sets of small pictures are full, without Pillow's general and slower reader."""

import io
import struct
import zlib
from pathlib import Path
from typing import IO

from PIL import Image

START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
HEADER = struct.Struct(">IIBB3sI")  # width, height, bits, colour type, three methods, checksum
CHUNK = struct.Struct(">I4s")
FIRST = 33  # byte after the header
MODES = {0: "L", 2: "RGB"}
UNHEEDED = {b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD"}  # chunks that say nothing of pixels
MOST_BYTES, MOST_PIXELS = 2**18, 2**18  # larger ones gain nothing


def plain(file: Path | str | IO[bytes]) -> Image.Image | None:
    """A small grey or RGB picture of 8 bits a channel in one piece; None of anything else, broken ones too.

    Pillow says of those what they are, or what is wrong.
    """
    if isinstance(file, str) and file.lower().endswith(".png"):
        with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  (a third of the time of a Path)
            content = opened.read(MOST_BYTES)
    elif isinstance(file, io.BytesIO):
        content = file.getvalue()
    else:
        return None
    try:
        return _decoded(content)
    except (struct.error, ValueError, OSError):
        return None


def _decoded(content: bytes) -> Image.Image | None:
    if not content.startswith(START):
        return None
    width, height, bits, colour, methods, checksum = HEADER.unpack_from(content, len(START))
    is_small = 0 < width * height <= MOST_PIXELS
    if not is_small or bits != 8 or colour not in MODES or any(methods) or checksum != zlib.crc32(content[12:29]):
        return None
    pieces, at = [], FIRST
    while True:
        length, kind = CHUNK.unpack_from(content, at)
        if kind == b"IDAT":
            pieces.append(content[at + 8 : at + 8 + length])
        elif kind == b"IEND":
            return Image.frombytes(MODES[colour], (width, height), b"".join(pieces), "zip", MODES[colour])
        elif kind not in UNHEEDED:
            return None
        at += length + 12
