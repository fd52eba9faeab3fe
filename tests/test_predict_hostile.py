"""Input that changes while it is read, leads in a circle, is no file, or lies: exit 4 (or 2), and never a wait."""

import io
import os
import resource
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from input_files import FEATURES, IMAGES, PIXELS, ROWS, found_paths, idx_bytes, parquet, read, values
from tasks.data.io import arrays, batches, image_formats, inputs, pictures
from tasks.data.io.image_formats import PICTURES
from tasks.errors import DataError, UsageError

Save = Callable[[Path, Any], object]
MEGABYTE = 2**20


# Cut off while it is read

LARGE = np.random.default_rng(0).integers(0, 256, (20_000, 4, 5), dtype=np.uint8)
CUT_OFF: dict[str, Save] = {
    "rows.npy": np.save,
    "rows-idx3-ubyte": lambda path, pixels: path.write_bytes(idx_bytes(pixels)),
    "rows.safetensors": lambda path, pixels: safetensors.numpy.save_file({"images": pixels}, path),
    "rows.parquet": lambda path, pixels: parquet(path, pixels, row_group_size=1000),
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_file_that_is_cut_off_while_it_is_read_is_exit_4(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is mapped, the kernel kills the process with SIGBUS."""
    monkeypatch.setattr(batches, "CHUNK_ROWS", 500)
    path = tmp_path / name
    CUT_OFF[name](path, LARGE)
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, IMAGES, tmp_path)
    chunks = inputs.batches(sources, 0, len(LARGE), IMAGES)
    np.testing.assert_array_equal(next(chunks).X, LARGE[:500])
    os.truncate(path, 12_000)
    with pytest.raises(DataError, match=name):
        [np.asarray(chunk.X) for chunk in chunks]


def test_many_small_files_are_read_with_few_of_them_open(tmp_path: Path) -> None:
    for number in range(200):
        np.save(tmp_path / f"{number:03d}.npy", ROWS[:1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, hard))
    try:
        assert len(values(read(tmp_path, FEATURES, tmp_path))) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">i2", np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_layout_gives_the_rows_that_numpy_reads_as_float32(order: Any, dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    rows = (ROWS * 10).astype(np.int64) if dtype is np.uint8 else ROWS * 10  # whole numbers wrap in one byte
    np.save(path, rows.astype(dtype, order=order))
    chunks = read(path, FEATURES, tmp_path, 11, 42)
    assert all(chunk.X.dtype == np.float32 for chunk in chunks)
    np.testing.assert_array_equal(values(chunks), np.load(path)[11:42].astype(np.float32))


# Links and what is no file


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    """A folder of two files, one of them behind a link, with three links to itself and one to another folder."""
    folder = tmp_path / "circle"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere" / "b.npy", ROWS[25:])
    np.save(folder / "a.npy", ROWS[:25])
    (folder / "b.npy").symlink_to(tmp_path / "elsewhere" / "b.npy")
    for name, target in {"self": ".", "deep/up": "..", "deep/top": str(folder), "other": "../elsewhere"}.items():
        (folder / name).symlink_to(target)
    (folder / "nowhere.npy").symlink_to("nowhere.npy")
    return folder


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/**/*", "/**/*.npy", "/**/**/*.np[xy]"])
def test_links_to_folders_are_not_followed_and_said(
    pattern: str, circle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found_paths(f"{circle}{pattern}") == [circle / "a.npy", circle / "b.npy"]
    told = capsys.readouterr().out
    assert ("links to folders are not followed" in told) == ("np" not in pattern or "**" in pattern)
    assert ("no regular file: 1, first" in told) == ("**" not in pattern or pattern.endswith(("**", "*", "y", "]")))


def test_a_link_to_a_folder_that_the_input_names_is_followed(circle: Path, tmp_path: Path) -> None:
    assert found_paths(f"{circle}/other") == found_paths(f"{circle}/other/*.npy") == [circle / "other" / "b.npy"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [fifo, listening, lambda path: path.symlink_to("/dev/zero")])
def test_a_fifo_a_socket_or_a_device_is_never_waited_for(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.npy"
    make(path)
    with pytest.raises(DataError, match=r"rows\.npy is no regular file"):
        found_paths(str(path))
    for reading in (
        lambda: inputs.count_inputs(inputs.find_inputs(str(path)).files, IMAGES, tmp_path),
        lambda: arrays.open_idx(path),
    ):
        with pytest.raises(DataError, match=r"rows\.npy"):
            reading()
    np.save(tmp_path / "whole.npy", ROWS)
    for text in (tmp_path, tmp_path / "*", tmp_path / "**"):
        assert found_paths(str(text)) == [tmp_path / "whole.npy"]
        assert "no regular file: 1" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["/proc/kmsg", "/proc/km[s]g", "/proc/version"])
def test_files_of_proc_are_not_opened(text: str) -> None:
    """Some give their content once and then wait for ever; all of them say that they have no bytes."""
    with pytest.raises(DataError, match="empty, or no file on disk"):
        found_paths(text)


@pytest.mark.parametrize("text", ["x" * 300, "x" * 300 + "/*", "/" + "y/" * 3000, "*" * 300, "~nobody-here/x", "a\0b"])
def test_a_name_that_the_system_does_not_take_is_exit_2_and_named(text: str) -> None:
    with pytest.raises(UsageError, match="the input ") as caught:
        found_paths(text)
    assert text[:60] in caught.value.found
    assert len(caught.value.found) < 500


# Memory


def test_more_rows_than_can_be_planned_are_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_ROWS", 49)
    np.save(tmp_path / "rows.npy", ROWS)
    with pytest.raises(DataError, match="promises 50 rows"):
        inputs.count_inputs(inputs.find_inputs(str(tmp_path / "rows.npy")).files, FEATURES, tmp_path)


def test_wide_rows_of_parquet_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "CHUNK_BYTES", 4 * MEGABYTE)
    monkeypatch.setattr(batches, "CHUNK_ROWS", 1000)
    rows = [{"bytes": bytes([number % 256]) * MEGABYTE} for number in range(48)]
    pq.write_table(
        pa.table({"images": pa.array(rows, pa.struct([("bytes", pa.binary())]))}),
        tmp_path / "wide.parquet",
        compression="none",
        use_dictionary=False,
        write_batch_size=1,
    )
    del rows
    before, most = pa.total_allocated_bytes(), 0
    (source,) = inputs.count_inputs(inputs.find_inputs(str(tmp_path / "wide.parquet")).files, IMAGES, tmp_path)
    for piece in PICTURES.batches(tmp_path / "wide.parquet", 0, source.rows, IMAGES):
        most = max(most, pa.total_allocated_bytes() - before)
        assert {each.reason for each in piece.rejects} == {"it is no picture: none of PNG, JPEG, WEBP, BMP, GIF"}
    assert most < 24 * MEGABYTE


# Pictures

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 5 4
%%EndComments
showpage
"""


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (5, 4)) -> bytes:
    """A grey picture with extra chunks before its pixels."""
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(4 * 6))
    every = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in every
    )


def saved(kind: str) -> bytes:
    """A picture of a kind that is not read."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(stream, kind)
    return stream.getvalue()


BOMB = zlib.compress(bytes(64 * MEGABYTE))
NO_PICTURES = {
    "postscript": EPS,
    "tiff": saved("TIFF"),
    "ppm": saved("PPM"),
    "ico": saved("ICO"),
    "a bomb of text": png((b"zTXt", b"note\0\0" + BOMB)),
    "a bomb of international text": png((b"iTXt", b"note\0\1\0\0\0" + BOMB)),
    "a bomb of a profile": png((b"iCCP", b"profile\0\0" + BOMB)),
    "large": png(size=(9000, 9000)),
    "larger": png(size=(11_000, 11_000)),
    "largest": png(size=(2**31 - 1, 2**31 - 1)),
}


@pytest.mark.parametrize("content", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_or_unpacks_without_bound_is_rejected_in_little_memory_and_starts_no_program(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a\.png is no picture"):
            pictures.decode(tmp_path / "a.png", (4, 5))
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "started").exists()
    (tmp_path / "a.png").write_bytes(png())
    np.testing.assert_array_equal(pictures.decode(tmp_path / "a.png", (4, 5))[0], np.zeros((4, 5)))
