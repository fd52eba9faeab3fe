"""Input that changes while it is read, leads in a circle, is no file, or lies: exit 4 (or 2), and never a wait."""

import gzip
import io
import json
import os
import resource
import socket
import struct
import subprocess
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

from candidate import Candidate
from command_line import gradmill
from input_files import FEATURES, IMAGES, PIXELS, RESIZED, ROWS, found_paths, idx_bytes, parquet, read, rejected, values
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">i2", np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_layout_gives_the_rows_that_numpy_reads(order: Any, dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.asarray(ROWS * 10, dtype=dtype, order=order))
    chunks = read(path, FEATURES, tmp_path, 11, 42)
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


# Headers that lie


def tensors(header: dict[str, Any] | bytes, data: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def tensor(shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"images": {"dtype": "U8", "shape": shape, "data_offsets": offsets}}


def zipped(method: int) -> bytes:
    packed, array = io.BytesIO(), io.BytesIO()
    np.save(array, PIXELS)
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("pictures.npy", array.getvalue())
    return packed.getvalue()


def promising(*shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


def npy(*shape: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(1000)


MOST = 2**32 - 1
LIES: dict[str, bytes] = {
    "all-idx3-ubyte": promising(MOST, MOST, MOST),
    "all-idx3-ubyte.gz": gzip.compress(promising(MOST, MOST, MOST)),
    "flat-idx3-ubyte": promising(MOST, 0, MOST),
    "flat-idx3-ubyte.gz": gzip.compress(promising(MOST, 0, MOST)),
    "none-idx3-ubyte": promising(0, MOST, MOST),
    "wide-idx3-ubyte": promising(1, MOST, MOST),
    "long.safetensors": tensors({}, length=2**63),
    "nothing.safetensors": tensors({}, length=0),
    "empty.safetensors": tensors({}),
    "deep.safetensors": tensors(b"[" * 100_000),
    "list.safetensors": tensors(b"[]"),
    "twice.safetensors": tensors(b'{"images":{},"images":{}}'),
    "beyond.safetensors": tensors(tensor([50, 4, 5], 0, 1000), 999),
    "surplus.safetensors": tensors(tensor([50, 4, 5], 0, 1000), 1001),
    "backwards.safetensors": tensors(tensor([50, 4, 5], 1000, 0), 0),
    "negative.safetensors": tensors(tensor([-50, -4, 5], 0, 1000), 1000),
    "shape.safetensors": tensors(tensor([60, 4, 5], 0, 1000), 1000),
    "huge.safetensors": tensors(tensor([2**62, 4, 5], 0, 1000), 1000),
    "bzip2.npz": zipped(zipfile.ZIP_BZIP2),
    "cut.npz": zipped(zipfile.ZIP_DEFLATED)[:-60],
    "huge.npy": npy(2**62, 4, 5),
    "negative.npy": npy(-50, -4, 5),
    "sparse.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_exit_4_before_anything_is_allocated(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LIES[name])
    tracemalloc.start()
    try:
        for wanted in (IMAGES, RESIZED):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name, wanted, tmp_path / "spool")
        if "idx3" in name:
            with pytest.raises(DataError, match=name):
                arrays.open_idx(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_gzip_is_read_in_blocks_whatever_its_header_promises(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(promising(4, 1000, 1000) + bytes(MEGABYTE)))
    tracemalloc.start()
    try:
        assert len(arrays.read_payload(path, 2**62)) == 16 + MEGABYTE
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_more_rows_than_can_be_planned_are_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_ROWS", 49)
    np.save(tmp_path / "rows.npy", ROWS)
    with pytest.raises(DataError, match="promises 50 rows"):
        inputs.count_inputs(inputs.find_inputs(str(tmp_path / "rows.npy")).files, FEATURES, tmp_path)


def test_a_parquet_footer_without_the_rows_that_it_promises_is_exit_4(tmp_path: Path) -> None:
    parquet(tmp_path / "whole.parquet", PIXELS)
    pq.read_metadata(tmp_path / "whole.parquet").write_metadata_file(tmp_path / "footer.parquet")
    with pytest.raises(DataError, match=r"footer\.parquet"):
        read(tmp_path / "footer.parquet", IMAGES, tmp_path)


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


# Tables


@pytest.mark.parametrize("fault", [["mine", "theirs"], [1, 2], [{"a": 1}, None]])
def test_a_parquet_column_named_like_our_own_is_the_users(fault: list[Any], tmp_path: Path) -> None:
    columns = [pa.array([1.0, None]), pa.array([3.0, 4.0]), pa.array(fault), pa.array(fault)]
    names = ["x1", "x2", "gradmill.fault", "gradmill.fault"]
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "t.parquet")
    assert rejected(read(tmp_path / "t.parquet", FEATURES, tmp_path)) == {1: "x1 is missing"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_feature_may_have_any_name(suffix: str, tmp_path: Path) -> None:
    columns = ("gradmill.fault", "x.y,z")
    (tmp_path / "t.csv").write_text('"x.y,z",gradmill.fault\n1,2\n3,four\n')
    pq.write_table(pa.table({"x.y,z": [1.0, 3.0], "gradmill.fault": [2.0, None]}), tmp_path / "t.parquet")
    chunks = read(tmp_path / f"t.{suffix}", FEATURES._replace(columns=columns), tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), [[2, 1]])
    assert "gradmill.fault is" in rejected(chunks)[1]


@pytest.mark.parametrize(
    ("header", "found"),
    [("x1,x2,x1", "'x1' stands 2"), ("n,x1,n,x2,n", "'n' stands 3"), ('x1,x2,"n",n', "'n' stands 2")],
)
def test_a_csv_header_that_names_a_column_twice_is_exit_4(header: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\n{','.join('1' * (header.count(',') + 1))}\n")
    with pytest.raises(DataError, match=rf"t\.csv: {found}"):
        read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")


def test_a_csv_header_that_ends_in_commas_names_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x1,x2,,\n1,2,,\n")
    np.testing.assert_array_equal(values(read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")), [[1, 2]])


@pytest.mark.filterwarnings("error")
def test_a_short_row_with_a_byte_that_is_not_utf_8_is_rejected_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"x1,x2\n1,2\n\xff\n3,4\n\xc3,\xa9,5\n6,7\n\xe2\x82")
    chunks = read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), [[1, 2], [3, 4], [6, 7]])
    assert rejected(chunks) == {1: "1 field, expected 2", 3: "3 fields, expected 2", 5: "1 field, expected 2"}


# Pictures

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 5 4
%%EndComments
showpage
"""


def test_a_file_named_png_that_is_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(EPS)
        with pytest.raises(DataError, match="is no picture"):
            pictures.decode(tmp_path / name, (4, 5))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO"])
def test_only_the_listed_kinds_are_pictures_whatever_a_file_is_named(kind: str, tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match="is no picture"):
        pictures.decode(tmp_path / "a.png", (4, 5))


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (5, 4)) -> bytes:
    """A grey picture with extra chunks before its pixels."""
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(4 * 6))
    every = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in every
    )


BOMB = zlib.compress(bytes(64 * MEGABYTE))


@pytest.mark.parametrize(
    "content",
    [
        png((b"zTXt", b"note\0\0" + BOMB)),
        png((b"iTXt", b"note\0\1\0\0\0" + BOMB)),
        png((b"iCCP", b"profile\0\0" + BOMB)),
        png(size=(9000, 9000)),
        png(size=(11_000, 11_000)),
        png(size=(2**31 - 1, 2**31 - 1)),
    ],
    ids=["text", "international", "profile", "large", "larger", "largest"],
)
def test_a_picture_that_unpacks_without_bound_is_rejected_in_little_memory(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a\.png is no picture"):
            pictures.decode(tmp_path / "a.png", (4, 5))
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
    (tmp_path / "a.png").write_bytes(png())
    np.testing.assert_array_equal(pictures.decode(tmp_path / "a.png", (4, 5))[0], np.zeros((4, 5)))


# From outside


@pytest.fixture
def published(candidates: list[Candidate], server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    candidates[0].publish()


def predict(text: Path | str) -> "subprocess.CompletedProcess[str]":
    return gradmill("predict", str(text), "--name", "linear-regression", "--json")


@pytest.mark.slow  # the same is tried in process
@pytest.mark.usefixtures("published")
def test_the_command_line_reads_a_folder_with_links_to_itself_once(circle: Path) -> None:
    done = predict(circle)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == len(ROWS)
    assert "links to folders are not followed" in done.stderr


@pytest.mark.slow  # the same is tried in process
@pytest.mark.usefixtures("published")
def test_the_command_line_does_not_wait_for_a_fifo(tmp_path: Path) -> None:
    fifo(tmp_path / "rows.npy")
    done = predict(tmp_path / "rows.npy")
    assert done.returncode == 4, done.stderr
    assert "rows.npy is no regular file" in json.loads(done.stdout)["error"]["found"]
