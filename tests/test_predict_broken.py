"""Input that is broken in ways that libraries do not foresee: exit 4 (or 2) with the file's name, or a rejected row."""

import json
import os
import struct
import warnings
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

from input_files import FEATURES, IMAGES, PIXELS, found_paths, idx_bytes, read, rejected, values
from tasks.data.io import inputs
from tasks.errors import DataError, UsageError

Make = Callable[[Path], object]


def npy(header: str) -> Make:
    """A ``.npy`` file with a header that numpy would not write."""
    text = header.encode().ljust(117) + b"\n"
    return lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(80))


def tensors(**arrays: Any) -> Make:
    return lambda path: safetensors.numpy.save_file(arrays, path)


def foreign(dtype: str, size: int) -> Make:
    """A safetensors file of 4 x 5 pixels of a type that numpy has not."""
    header = json.dumps({"images": {"dtype": dtype, "shape": [1, 4, 5], "data_offsets": [0, 20 * size]}}).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(20 * size))


def encrypted(path: Path) -> None:
    np.savez(path, PIXELS)
    content = bytearray(path.read_bytes())
    for place in (6, content.rindex(b"PK\x01\x02") + 8):  # the flags in both headers
        content[place] |= 1
    path.write_bytes(content)


def damaged_lzma(path: Path) -> None:
    np.save(path.with_suffix(".tmp.npy"), PIXELS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(path.with_suffix(".tmp.npy"), "images.npy")
    content = bytearray(path.read_bytes())
    content[80:160] = bytes(byte ^ 0x5A for byte in content[80:160])
    path.write_bytes(content)


def member_that_is_no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"no array" * 20)


BROKEN_IMAGES: dict[str, Make] = {
    "member.npz": member_that_is_no_array,
    "token.npy": npy("((("),
    "overflow.npy": npy("{'descr':'|u1','fortran_order':False,'shape':(99999999999999999999999,4,5)}"),
    "type.npy": npy("{'descr':'|u1','fortran_order':False,'shape':(4611686018427387904,4,5)}"),
    "encrypted.npz": encrypted,
    "lzma.npz": damaged_lzma,
    "content.npz": lambda path: np.savez(path, PIXELS.astype(np.float32)),
    "bf16.safetensors": foreign("BF16", 2),
    "f8.safetensors": foreign("F8_E4M3", 1),
    "norows.safetensors": tensors(images=PIXELS[:0]),
    "short.safetensors": tensors(images=PIXELS, labels=np.arange(49)),
    "scalar.safetensors": tensors(images=PIXELS, labels=np.array(4)),
    "onehot.safetensors": tensors(images=PIXELS, labels=np.zeros((50, 10), np.int64)),
    "floats.safetensors": tensors(images=PIXELS, labels=np.zeros(50, np.float32)),
    "twice.parquet": lambda path: pq.write_table(
        pa.Table.from_arrays([pa.array([bytes(20)])] * 2, names=["images"] * 2), path
    ),
}


@pytest.mark.parametrize("name", BROKEN_IMAGES)
def test_whatever_a_library_raises_over_a_file_is_exit_4_and_names_the_users_file(name: str, tmp_path: Path) -> None:
    BROKEN_IMAGES[name](tmp_path / name)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, IMAGES, tmp_path / "spool")
    assert str(tmp_path / name) in caught.value.found
    assert "spool" not in str(caught.value)
    assert ".npy" not in caught.value.expected or name.endswith(".npy"), "what it was unpacked into"


def test_labels_are_of_no_use_to_a_model_that_does_not_classify(tmp_path: Path) -> None:
    tensors(features=np.zeros((3, 2), np.float32), labels=np.zeros(7, np.float32))(tmp_path / "rows.safetensors")
    (chunk,) = read(tmp_path / "rows.safetensors", FEATURES, tmp_path)
    assert chunk.y_true is None


def test_large_integers_of_parquet_are_rounded_as_numpy_rounds_them(tmp_path: Path) -> None:
    nanoseconds, large = [1_700_000_000_123_456_789, -(2**53) - 1], [2**64 - 1, 3]
    table = pa.table({"x1": pa.array(nanoseconds, pa.int64()), "x2": pa.array(large, pa.uint64())})
    pq.write_table(table, tmp_path / "t.parquet")
    found = values(read(tmp_path / "t.parquet", FEATURES, tmp_path))
    np.testing.assert_array_equal(found[:, 0], np.array(nanoseconds, np.int64).astype(np.float32))
    np.testing.assert_array_equal(found[:, 1], np.array(large, np.uint64).astype(np.float32))


def test_a_parquet_column_that_is_there_twice_is_exit_4_only_where_it_is_wanted(tmp_path: Path) -> None:
    columns = [pa.array([1.0]), pa.array([2.0]), pa.array([3.0]), pa.array([4.0])]
    pq.write_table(pa.Table.from_arrays(columns, names=["x1", "n", "n", "x2"]), tmp_path / "t.parquet")
    np.testing.assert_array_equal(values(read(tmp_path / "t.parquet", FEATURES, tmp_path)), [[1, 4]])
    pq.write_table(pa.Table.from_arrays(columns, names=["x1", "x1", "n", "x2"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet has columns x1 \(double\), x1"):
        read(tmp_path / "t.parquet", FEATURES, tmp_path)


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


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_with_a_broken_exif_tag_is_one_rejected_row(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "abc", 6  # maker, orientation
    for name in ("a", "b"):
        Image.fromarray(PIXELS[0]).save(folder / f"{name}.{suffix}", exif=exif)
    content = bytearray((folder / f"a.{suffix}").read_bytes())
    directory = content.index(b"MM\0*") + 8
    content[directory + 3] = 0  # the maker becomes the width, which is then a text
    if suffix == "png":
        chunk = content.index(b"eXIf")
        end = chunk + 4 + struct.unpack(">I", content[chunk - 4 : chunk])[0]
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[chunk:end]))
    (folder / f"a.{suffix}").write_bytes(content)
    chunks = read(folder, IMAGES, tmp_path)
    assert set(rejected(chunks)) == {0}
    assert len(values(chunks)) == 1


def test_a_byte_that_is_not_utf_8_costs_its_own_row_of_a_csv_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"x1,note,x2\n1,a,2\n\xff,a,3\n4,\xff,5\n6\xe9,a,7\n 8 ,a,9\n")
    chunks = read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), [[1, 2], [4, 5], [8, 9]])
    assert rejected(chunks) == {1: "x1 is '\ufffd', not a number", 3: "x1 is '6\ufffd', not a number"}


@pytest.mark.parametrize(
    "rows",
    [
        ["1"] * 3,
        ["1", "2,3", "1", "1"],
        pytest.param(["1"] * 600_000, marks=pytest.mark.slow),  # longer than a block
        pytest.param(["1"] * 600_000 + ["2,3"], marks=pytest.mark.slow),
    ],
)
def test_short_rows_of_a_csv_keep_their_places_wherever_its_blocks_end(rows: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["x1,x2", *rows]))
    chunks = read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")
    assert np.concatenate([chunk.row_ids for chunk in chunks]).tolist() == [
        number for number, row in enumerate(rows) if "," in row
    ]
    assert list(rejected(chunks)) == [number for number, row in enumerate(rows) if "," not in row]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npy"])
def test_numbers_beyond_float32_are_rejected_without_a_warning(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x1,x2\n1,2\n3,-1e300\n")
    pq.write_table(pa.table({"x1": [1.0, 3.0], "x2": [2.0, -1e300]}), tmp_path / "t.parquet")
    np.save(tmp_path / "t.npy", np.array([[1, 2], [3, -1e300]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = read(tmp_path / name, FEATURES, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), [[1, 2]])
    assert "not a finite number" in rejected(chunks)[1]


def test_one_percent_of_pictures_is_counted_over_all_of_them(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03d}.png").touch()
    np.save(tmp_path / "rows.npy", PIXELS)  # of arrays none may be rejected
    sources = inputs.count_inputs(inputs.find_inputs(str(tmp_path)).files, IMAGES, tmp_path / "spool")
    assert inputs.tolerated_rejects(sources) == 3
    assert inputs.tolerated_rejects(sources[:199]) == 1


def test_a_glob_gives_each_file_once_and_those_in_the_folders_that_it_matches(tmp_path: Path) -> None:
    (tmp_path / "day" / "deep").mkdir(parents=True)
    for name in ("a.npy", "day/b.npy", "day/deep/c.npy", "day/.hidden.npy", "day/notes.txt"):
        np.save(tmp_path / name, PIXELS) if name.endswith("npy") else (tmp_path / name).touch()
    everything = [tmp_path / name for name in ("a.npy", "day/b.npy", "day/deep/c.npy")]
    for pattern in ("*", "**/**/*.npy", "**/*.npy"):
        assert found_paths(f"{tmp_path}/{pattern}") == everything
    assert found_paths(f"{tmp_path}/d*") == everything[1:]


def test_the_labels_of_mnists_relatives_are_left_out_of_a_folder(tmp_path: Path) -> None:
    for name in ("t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte"):
        (tmp_path / name).write_bytes(b"labels")
    images = [tmp_path / name for name in ("t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz")]
    for path in images:
        path.write_bytes(idx_bytes(PIXELS))
    assert found_paths(str(tmp_path)) == images


def test_an_empty_input_is_exit_2() -> None:
    with pytest.raises(UsageError, match="empty"):
        found_paths("")
