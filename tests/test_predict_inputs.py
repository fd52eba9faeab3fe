"""Every kind of input file, whole, broken or hostile: its rows of any range, rejects, or exit 4; and never a wait."""

import gzip
import io
import json
import os
import resource
import socket
import struct
import tracemalloc
import zipfile
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

from input_files import (
    FEATURES,
    IMAGES,
    PIXELS,
    RESIZED,
    ROWS,
    Save,
    found_paths,
    idx_bytes,
    parquet,
    read,
    rejected,
    values,
)
from tasks.data.io import arrays, batches, inputs, pictures, tabular
from tasks.data.io.inputs import PICTURES
from tasks.errors import DataError, UsageError

IMAGE_FILES: dict[str, Save] = {
    "plain-idx3-ubyte": lambda path, pixels: path.write_bytes(idx_bytes(pixels)),
    "packed-idx3-ubyte.gz": lambda path, pixels: path.write_bytes(gzip.compress(idx_bytes(pixels))),
    "rows.npy": np.save,
    "stored.npz": lambda path, pixels: np.savez(path, pixels),
    "named.npz": lambda path, pixels: np.savez_compressed(path, images=pixels, other=np.zeros(3)),
    "rows.safetensors": lambda path, pixels: safetensors.numpy.save_file({"images": pixels}, path),
    "pictures.parquet": parquet,
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks even of a few rows."""
    monkeypatch.setattr(batches, "CHUNK_ROWS", 7)


@pytest.mark.parametrize("name", IMAGE_FILES)
@pytest.mark.parametrize(("start", "stop"), [(0, 50), (3, 30), (49, 50)])
def test_every_kind_of_image_file_gives_its_own_rows_of_any_range(
    name: str, start: int, stop: int, tmp_path: Path
) -> None:
    IMAGE_FILES[name](tmp_path / name, PIXELS)
    chunks = read(tmp_path / name, IMAGES, tmp_path / "spool", start, stop)
    np.testing.assert_array_equal(values(chunks), PIXELS[start:stop])
    np.testing.assert_array_equal(np.concatenate([chunk.row_ids for chunk in chunks]), np.arange(start, stop))
    assert all(len(chunk.row_ids) <= 2 * batches.CHUNK_ROWS for chunk in chunks), "memory stays bounded"


Make = Callable[[Path], object]


def make(path: Path, content: bytes | Make) -> None:
    path.write_bytes(content) if isinstance(content, bytes) else content(path)


def idx(*shape: int) -> bytes:
    """The header of an IDX file."""
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


def zipped(method: int, content: bytes | None = None) -> bytes:
    """An ``.npz`` file of one member."""
    packed, array = io.BytesIO(), io.BytesIO()
    np.save(array, PIXELS)
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("images.npy", content or array.getvalue())
    return packed.getvalue()


def saved(**arrays: Any) -> Make:
    return lambda path: safetensors.numpy.save_file(arrays, path)


def tensors(header: dict[str, Any] | bytes, data: int = 0) -> bytes:
    """A safetensors file whose header may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(shape: list[int], *offsets: int, dtype: str = "U8", name: str = "images") -> dict[str, Any]:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def floats(data: int, rows: int, *offsets: int) -> bytes:
    """A safetensors file of features that promises these rows, from where to where they lie, and has so many bytes."""
    return tensors(tensor([rows, 2], *offsets, dtype="F32", name="features"), data)


def npy(*shape: int, data: int = 1000) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(data)


def footer_alone(path: Path) -> None:
    parquet(path, PIXELS)
    pq.read_metadata(path).write_metadata_file(path)


MOST = 2**32 - 1
# Of images.
BROKEN: dict[str, bytes | Make] = {
    "table.csv": b"x1,x2\n1,2\n",
    "all-idx3-ubyte": idx(MOST, MOST, MOST),
    "all-idx3-ubyte.gz": gzip.compress(idx(MOST, MOST, MOST)),
    "flat-idx3-ubyte": idx(MOST, 0, MOST),
    "none-idx3-ubyte": idx(0, MOST, MOST),
    "cut-idx3-ubyte.gz": gzip.compress(idx_bytes(PIXELS))[:-20],
    "scalar.npy": lambda path: np.save(path, np.float32(1)),
    "floats.npy": lambda path: np.save(path, PIXELS.astype(np.float32)),
    "member.npz": zipped(zipfile.ZIP_STORED, b"no array" * 20),
    "bzip2.npz": zipped(zipfile.ZIP_BZIP2),
    "cut.npz": zipped(zipfile.ZIP_DEFLATED)[:-60],
    "floats.npz": lambda path: np.savez(path, PIXELS.astype(np.float32)),
    "empty.safetensors": tensors({}),
    "deep.safetensors": tensors(b"[" * 100_000),
    "surplus.safetensors": tensors(tensor([50, 4, 5], 0, 1000), 1001),
    "shape.safetensors": tensors(tensor([60, 4, 5], 0, 1000), 1000),
    "truth.safetensors": tensors(tensor([1, 4, 5], 0, 20, dtype="BOOL"), 20),
    "bf16.safetensors": tensors(tensor([1, 4, 5], 0, 40, dtype="BF16"), 40),
    "renamed.safetensors": saved(pictures=PIXELS, others=PIXELS),
    "norows.safetensors": saved(images=PIXELS[:0]),
    "short.safetensors": saved(images=PIXELS, labels=np.arange(49)),
    "onehot.safetensors": saved(images=PIXELS, labels=np.zeros((50, 10), np.int64)),
    "floats.safetensors": saved(images=PIXELS, labels=np.zeros(50, np.float32)),
    "broken.parquet": b"PAR1 no parquet PAR1",
    "columns.parquet": lambda path: pq.write_table(pa.table({"pixels": [1.0]}), path),
    "footer.parquet": footer_alone,
    "twice.parquet": lambda path: pq.write_table(
        pa.Table.from_arrays([pa.array([bytes(20)])] * 2, names=["images"] * 2), path
    ),
}


# Of rows of two features.
BROKEN_ROWS: dict[str, bytes] = {
    "huge.npy": npy(2**40, 2),
    "beyond.npy": npy(2**62, 2),
    "negative.npy": npy(-125, 2),
    "narrow.npy": npy(250, 1),
    "norows.npy": npy(0, 2, data=0),
    "cut.npy": npy(125, 2, data=999),
    "empty.npy": b"",
    "huge.npz": zipped(zipfile.ZIP_STORED, npy(2**40, 2)),
    "beyond.safetensors": floats(1000, 2**62, 0, 1000),
    "short.safetensors": floats(999, 125, 0, 1000),
    "backwards.safetensors": floats(1000, 125, 1000, 0),
    "header.safetensors": struct.pack("<Q", 2**63) + floats(1000, 125, 0, 1000)[8:],
}


@pytest.mark.parametrize("name", [*BROKEN, *BROKEN_ROWS])
def test_whatever_is_wrong_with_a_file_is_exit_4_and_names_the_users_file_before_anything_is_allocated(
    name: str, tmp_path: Path
) -> None:
    make(tmp_path / name, BROKEN.get(name) or BROKEN_ROWS[name])
    tracemalloc.start()
    try:
        for wanted in (IMAGES, RESIZED) if name in BROKEN else (FEATURES,):
            with pytest.raises(DataError) as caught:
                read(tmp_path / name, wanted, tmp_path / "spool")
            assert str(tmp_path / name) in caught.value.found
            assert "spool" not in str(caught.value)
            assert "whole .npy" not in caught.value.expected or name.endswith(".npy"), "what it was unpacked into"
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_of_predictions_is_read_without_its_rejects(tmp_path: Path) -> None:
    for name in ("part-00000.parquet", "_rejects.parquet", "_job.json"):
        (tmp_path / name).write_bytes(b"rows")
    assert found_paths(str(tmp_path)) == [tmp_path / "part-00000.parquet"]


# Rows of features


def parquet_of(**columns: Any) -> Make:
    return lambda path: pq.write_table(pa.table(columns), path)


def with_twice(name: str, values: list[Any]) -> Make:
    """A table of x1 and x2, and of two columns of one name."""
    columns = [pa.array([1.0, None]), pa.array(values), pa.array(values), pa.array([3.0, 4.0])]
    return lambda path: pq.write_table(pa.Table.from_arrays(columns, ["x1", name, name, "x2"]), path)


SHORT, BYTES = "1 field, expected 2", "x1 is '{}\ufffd', not a number"
NANOSECONDS, LARGE = np.array([1_700_000_000_123_456_789, -(2**53) - 1]), np.array([2**64 - 1, 3], np.uint64)
ROUNDED = np.stack([NANOSECONDS.astype(np.float32), LARGE.astype(np.float32)], axis=1)
# What a file holds, its good rows by their number, and its rejects.
ROWS_OF: dict[str, tuple[bytes | Make, dict[int, Any], dict[int, str]]] = {
    "all that can be wrong.csv": (
        b'id,x1,x2\nk,1,2\nk,3\n\nk,4,5,6\n"q\nz",7,8\nk,9,\nk,abc,1\nbad\nk,1e3, 2 \nk,nan,1\nk,1,2\nlast\n',
        {0: [1, 2], 3: [7, 8], 7: [1000, 2], 9: [1, 2]},
        {
            1: "2 fields, expected 3",
            2: "4 fields, expected 3",
            4: "x2 is missing",
            5: "x1 is 'abc', not a number",
            6: "1 field, expected 3",
            8: "x1 is missing",
            10: "1 field, expected 3",
        },
    ),
    "bytes that are not UTF-8.csv": (
        b"x1,note,x2\n1,a,2\n\xff,a,3\n4,\xff,5\n6\xe9,a,7\n 8 ,a,9\n",
        {0: [1, 2], 2: [4, 5], 4: [8, 9]},
        {1: "x1 is 'ÿ', not a number", 3: "x1 is '6é', not a number"},  # Windows-1252
    ),
    "bytes that are not text.csv": (
        b"x1,note,x2\n1,a,2\n\x81,a,3\n4,\xff,5\n6\xe9,a,7\n 8 ,a,9\n",
        {0: [1, 2], 2: [4, 5], 4: [8, 9]},
        {1: BYTES.format(""), 3: BYTES.format("6")},
    ),
    "such bytes in short rows.csv": (
        b"x1,x2\n1,2\n\xff\n3,4\n\xc3,\xa9,5\n6,7\n\xe2\x82",
        {0: [1, 2], 2: [3, 4], 4: [6, 7]},
        {1: SHORT, 3: "3 fields, expected 2", 5: SHORT},
    ),
    "short rows alone.csv": (b"x1,x2\n1\n1\n1", {}, dict.fromkeys(range(3), SHORT)),
    "short rows around one.csv": (b"x1,x2\n1\n2,3\n1\n1", {1: [2, 3]}, dict.fromkeys((0, 2, 3), SHORT)),
    "many short rows.csv": (b"x1,x2\n" + b"1\n" * 999 + b"2,3", {999: [2, 3]}, dict.fromkeys(range(999), SHORT)),
    "commas behind the header.csv": (b"x1,x2,,\n1,2,,\n", {0: [1, 2]}, {}),
    "large integers.parquet": (parquet_of(x1=NANOSECONDS, x2=LARGE), dict(enumerate(ROUNDED)), {}),
    "beyond float32.csv": (b"x1,x2\n1,2\n3,-1e300\n", {0: [1, 2]}, {1: "x2 is -1e+300, not a finite number"}),
    "beyond float32.parquet": (
        parquet_of(x1=[1.0, 3], x2=[2, -1e300]),
        {0: [1, 2]},
        {1: "x2 is -1e+300, not a finite number"},
    ),
    "beyond float32.npy": (
        lambda path: np.save(path, np.array([[1, 2], [3, -1e300]])),
        {0: [1, 2]},
        {1: "not a finite number"},
    ),
    "another twice.parquet": (with_twice("n", [1.0, 2.0]), {0: [1, 3]}, {1: "x1 is missing"}),
    "named like our own.parquet": (with_twice("gradmill.fault", ["a", "b"]), {0: [1, 3]}, {1: "x1 is missing"}),
    "such a number.parquet": (with_twice("gradmill.fault", [1, 2]), {0: [1, 3]}, {1: "x1 is missing"}),
    "such a struct.parquet": (with_twice("gradmill.fault", [{"a": 1}, None]), {0: [1, 3]}, {1: "x1 is missing"}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("block", [16, 2**20])
@pytest.mark.parametrize("name", ROWS_OF)
def test_rows_keep_their_numbers_whatever_is_wrong_between_them_and_wherever_blocks_end(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", block)
    content, good, bad = ROWS_OF[name]
    make(tmp_path / name, content)
    chunks = read(tmp_path / name, FEATURES, tmp_path / "spool")
    assert np.concatenate([chunk.row_ids for chunk in chunks]).tolist() == [*good]
    np.testing.assert_array_equal(values(chunks), np.reshape([*good.values()], (-1, 2)))
    assert rejected(chunks) == bad


@pytest.mark.parametrize("columns", [("x1",), ("x1", "x2", "x1"), ("x1", "x1")])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_that_are_not_one_for_each_feature_are_exit_2(
    suffix: str, columns: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("x1,x2\n1,2\n")
    pq.write_table(pa.table({"x1": [1.0], "x2": [2.0]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=", ".join(columns)):
        read(tmp_path / f"t.{suffix}", FEATURES._replace(columns=columns), tmp_path / "spool")


def test_a_file_name_that_is_not_utf_8_is_exit_4_and_can_be_printed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.npy")).touch()
    for text in (str(folder), f"{folder}/*.npy", str(next(folder.iterdir()))):
        with pytest.raises(DataError, match="not UTF-8") as caught:
            found_paths(text)
        assert "caf\ufffd.npy" in str(caught.value).encode().decode()
    (folder / "a.npy").write_bytes(b"rows")
    os.rename(os.fsencode(folder) + b"/caf\xe9.npy", os.fsencode(folder) + b"/caf\xe9.txt")  # noqa: PTH104  (bytes)
    assert found_paths(str(folder)) == [folder / "a.npy"]


def test_a_picture_with_a_broken_exif_tag_is_one_rejected_row(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "abc", 6  # maker, orientation
    for name in ("a", "b"):
        Image.fromarray(PIXELS[0]).save(folder / f"{name}.jpg", exif=exif)
    content = bytearray((folder / "a.jpg").read_bytes())
    content[content.index(b"MM\0*") + 11] = 0  # the maker becomes the width, which is then a text
    (folder / "a.jpg").write_bytes(content)
    chunks = read(folder, IMAGES, tmp_path)
    assert set(rejected(chunks)) == {0}
    assert len(values(chunks)) == 1


def test_a_glob_gives_each_file_once_and_those_in_the_folders_that_it_matches(tmp_path: Path) -> None:
    (tmp_path / "day" / "deep").mkdir(parents=True)
    for name in ("a.npy", "day/b.npy", "day/deep/c.npy", "day/.hidden.npy", "day/notes.txt"):
        np.save(tmp_path / name, PIXELS) if name.endswith("npy") else (tmp_path / name).touch()
    everything = [tmp_path / name for name in ("a.npy", "day/b.npy", "day/deep/c.npy")]
    for pattern in ("*", "**/**/*.npy", "**/*.npy"):
        assert found_paths(f"{tmp_path}/{pattern}") == everything
    assert found_paths(f"{tmp_path}/d*") == everything[1:]


MEGABYTE = 2**20

# Cut off while it is read

LARGE = np.random.default_rng(0).integers(0, 256, (20_000, 4, 5), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain-idx3-ubyte", "rows.npy", "rows.safetensors", "pictures.parquet"])
def test_a_file_that_is_cut_off_while_it_is_read_is_exit_4(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is mapped, the kernel kills the process with SIGBUS."""
    monkeypatch.setattr(batches, "CHUNK_ROWS", 500)
    path = tmp_path / name
    IMAGE_FILES[name](path, LARGE)
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, IMAGES, tmp_path)
    chunks = inputs.read_batches(sources, 0, len(LARGE), IMAGES)
    np.testing.assert_array_equal(next(chunks).X, LARGE[:500])
    os.truncate(path, 12_000)
    with pytest.raises(DataError, match=name):
        [np.asarray(chunk.X) for chunk in chunks]


def test_many_small_files_are_read_with_few_of_them_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 1000)
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


def test_a_link_to_a_folder_that_the_input_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere" / "b.npy", ROWS)
    (tmp_path / "other").symlink_to("elsewhere")
    for text in ("other", "other/*.npy"):
        assert found_paths(f"{tmp_path}/{text}") == [tmp_path / "other" / "b.npy"]


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, listening, lambda path: path.symlink_to("/dev/zero")])
def test_a_fifo_a_socket_or_a_device_is_never_waited_for(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.npy"
    make(path)
    with pytest.raises(DataError, match=r"rows\.npy is no regular file"):
        found_paths(str(path))
    with pytest.raises(DataError, match=r"rows\.npy"):
        arrays.open_idx(path)
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
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 4 * MEGABYTE)
    monkeypatch.setattr(batches, "CHUNK_ROWS", 1000)
    rows = pa.array([{"bytes": bytes([number]) * MEGABYTE} for number in range(48)])
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table({"images": rows}), path, compression="none", use_dictionary=False, write_batch_size=1)
    del rows
    before, most = pa.total_allocated_bytes(), 0
    (source,) = inputs.count_inputs(inputs.find_inputs(str(path)).files, IMAGES, tmp_path)
    for piece in PICTURES.batches(source, 0, source.rows, IMAGES):
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


def drawn(kind: str) -> bytes:
    """A picture of a kind that is not read."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(stream, kind)
    return stream.getvalue()


BOMB = zlib.compress(bytes(64 * MEGABYTE))
NO_PICTURES = {
    "postscript": EPS,
    "tiff": drawn("TIFF"),
    "ppm": drawn("PPM"),
    "ico": drawn("ICO"),
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
