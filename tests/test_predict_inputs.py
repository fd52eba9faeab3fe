"""Every kind of input file, whole and broken, read in slices and compared with the arrays it was made from."""

import csv
import gzip
import hashlib
import itertools
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from input_files import (
    FEATURES,
    IMAGES,
    PIXELS,
    RESIZED,
    RNG,
    ROWS,
    Save,
    found_paths,
    idx_bytes,
    parquet,
    read,
    rejected,
    values,
)
from store_state import damage
from tasks.batch.plan import cut_shards
from tasks.data.io import batches
from tasks.errors import DataError, UsageError
from tasks.store import verified
from tasks.store.record import FileRef

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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_features_of_other_numeric_types_become_float32(dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", (ROWS * 10).astype(dtype))
    chunks = read(tmp_path / "rows.npy", FEATURES, tmp_path)
    assert values(chunks).dtype == np.float32
    np.testing.assert_array_equal(values(chunks), (ROWS * 10).astype(dtype).astype(np.float32))


def test_features_of_one_byte_are_numbers_and_no_pixels(tmp_path: Path) -> None:
    bytes_of_rows = np.arange(100, dtype=np.uint8).reshape(50, 2)
    np.save(tmp_path / "rows.npy", bytes_of_rows)
    chunks = read(tmp_path / "rows.npy", FEATURES, tmp_path)
    assert all(chunk.X.dtype == np.float32 for chunk in chunks)
    np.testing.assert_array_equal(values(chunks), bytes_of_rows)


def test_labels_come_along_from_safetensors(tmp_path: Path) -> None:
    labels = np.arange(50, dtype=np.uint8)
    safetensors.numpy.save_file({"images": PIXELS, "labels": labels}, tmp_path / "rows.safetensors")
    chunks = read(tmp_path / "rows.safetensors", IMAGES, tmp_path, 5, 25)
    np.testing.assert_array_equal(
        np.concatenate([chunk.y_true for chunk in chunks if chunk.y_true is not None]), labels[5:25]
    )


def test_rows_with_nan_or_infinity_are_rejected_with_their_number(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[3, 1], rows[20, 0], rows[49] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "rows.npy", rows)
    chunks = read(tmp_path / "rows.npy", FEATURES, tmp_path)
    assert set(rejected(chunks)) == {3, 20, 49}
    good = np.delete(np.arange(50), [3, 20, 49])
    np.testing.assert_array_equal(values(chunks), rows[good])
    np.testing.assert_array_equal(np.concatenate([chunk.row_ids for chunk in chunks]), good)


def test_parquet_columns_are_found_by_name_and_their_gaps_rejected(tmp_path: Path) -> None:
    table = pa.table({"x2": [1.0, None, 3.0, 4.0], "id": list("abcd"), "x1": pa.array([5, 6, 7, None], pa.int64())})
    pq.write_table(table, tmp_path / "t.parquet")
    chunks = read(tmp_path / "t.parquet", FEATURES, tmp_path)
    np.testing.assert_array_equal(values(chunks), [[5, 1], [7, 3]])
    assert rejected(chunks) == {1: "x2 is missing", 3: "x1 is missing"}


def test_csv_rows_keep_their_numbers_whatever_is_wrong_between_them(tmp_path: Path) -> None:
    content = 'id,x1,x2\nk,1,2\nk,3\n\nk,4,5,6\n"q\nz",7,8\nk,9,\nk,abc,1\nbad\nk,1e3, 2 \nk,nan,1\nk,1,2\nlast\n'
    (tmp_path / "t.csv").write_text(content)
    chunks = read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")
    np.testing.assert_array_equal(values(chunks), [[1, 2], [7, 8], [1000, 2], [1, 2]])
    assert np.concatenate([chunk.row_ids for chunk in chunks]).tolist() == [0, 3, 7, 9]
    assert rejected(chunks) == {
        1: "2 fields, expected 3",
        2: "4 fields, expected 3",
        4: "x2 is missing",
        5: "x1 is 'abc', not a number",
        6: "1 field, expected 3",
        8: "x1 is missing",
        10: "1 field, expected 3",
    }


@pytest.mark.slow
def test_a_csv_of_many_blocks_is_read_as_pythons_own_reader_reads_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["x1", "note", "x2"])
        for row in range(60_000):  # over two megabytes: several of pyarrow's blocks
            fields = [repr(rng.standard_normal()), f"some text to fill the line {row}", repr(rng.standard_normal())]
            writer.writerow(fields[: 2 if rng.random() < 0.01 else 3])
    expected, bad = [], set()
    with (tmp_path / "t.csv").open(newline="") as stream:
        for row, fields in enumerate(list(csv.reader(stream))[1:]):
            if len(fields) == 3:
                expected.append((row, float(fields[0]), float(fields[2])))
            else:
                bad.add(row)
    chunks = read(tmp_path / "t.csv", FEATURES, tmp_path / "spool")
    assert len(bad) > 300
    assert set(rejected(chunks)) == bad
    assert np.concatenate([chunk.row_ids for chunk in chunks]).tolist() == [row for row, _, _ in expected]
    np.testing.assert_array_equal(values(chunks), np.array([row[1:] for row in expected], np.float32))


def test_pictures_are_converted_and_resized_and_the_broken_ones_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "class").mkdir(parents=True)
    Image.fromarray(PIXELS[0]).save(folder / "a.png")
    Image.fromarray(PIXELS[1]).convert("RGB").save(folder / "b.PNG")
    Image.fromarray(PIXELS[2]).resize((50, 40)).save(folder / "class" / "c.jpg")
    whole = (folder / "a.png").read_bytes()
    (folder / "d.png").write_bytes(whole[: len(whole) // 2])
    (folder / "e.jpeg").write_bytes(b"no picture")
    Image.fromarray(PIXELS[3].astype(np.uint16) * 200).save(folder / "f.png")
    bomb = bytearray(whole)
    bomb[16:24] = struct.pack(">II", 30_000, 30_000)  # the header's width and height
    (folder / "g.png").write_bytes(bomb)
    (folder / "notes.txt").write_text("not an input")
    (folder / ".hidden.png").write_text("not an input")
    chunks = read(folder, IMAGES, tmp_path)
    assert [Path(each).name for chunk in chunks for each in chunk.sources] == [
        "a.png", "b.PNG", "c.jpg", "d.png", "e.jpeg", "f.png", "g.png",
    ]  # fmt: skip
    np.testing.assert_array_equal(values(chunks)[:2], PIXELS[:2])
    assert sorted(note for chunk in chunks for note in chunk.notes) == ["converted to grey", "resized to 5 by 4"]
    assert set(rejected(chunks)) == {3, 4, 5, 6}
    assert "more than 8 bits" in rejected(chunks)[5]


def test_images_of_another_size_are_resized_only_by_the_versions_recipe(tmp_path: Path) -> None:
    large = RNG.integers(0, 256, (3, 8, 10), dtype=np.uint8)
    np.save(tmp_path / "large.npy", large)
    with pytest.raises(DataError, match=r"rows of shape \[8, 10\]"):
        read(tmp_path / "large.npy", IMAGES, tmp_path)
    chunks = read(tmp_path / "large.npy", RESIZED, tmp_path)
    expected = [np.asarray(Image.fromarray(image).resize((5, 4), Image.Resampling.BILINEAR)) for image in large]
    np.testing.assert_array_equal(values(chunks), expected)


def liar(path: Path) -> None:
    """An IDX header that promises a terabyte, in a small gzip file."""
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**20, 1024, 1024)))


def cut_short(path: Path) -> None:
    np.save(path, PIXELS)
    path.write_bytes(path.read_bytes()[:-1])


BROKEN: dict[str, Callable[[Path], object]] = {
    "text.txt": lambda path: path.write_bytes(b"these are not images"),
    "empty.npy": lambda path: path.write_bytes(b""),
    "pickled.npy": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "scalar.npy": lambda path: np.save(path, np.float32(1)),
    "norows.npy": lambda path: np.save(path, PIXELS[:0]),
    "floats.npy": lambda path: np.save(path, PIXELS.astype(np.float32)),
    "shape.npy": lambda path: np.save(path, PIXELS[:, :3]),
    "short.npy": cut_short,
    "broken.safetensors": lambda path: path.write_bytes(b"\xff" * 40),
    "renamed.safetensors": lambda path: safetensors.numpy.save_file({"pictures": PIXELS, "others": PIXELS}, path),
    "broken.npz": lambda path: path.write_bytes(b"PK\x03\x04 no zip"),
    "two.npz": lambda path: np.savez(path, PIXELS, PIXELS),
    "broken.parquet": lambda path: path.write_bytes(b"PAR1 no parquet PAR1"),
    "columns.parquet": lambda path: pq.write_table(pa.table({"pixels": [1.0]}), path),
    "short-idx3-ubyte": lambda path: path.write_bytes(idx_bytes(PIXELS)[:-1]),
    "long-idx3-ubyte": lambda path: path.write_bytes(idx_bytes(PIXELS) + b"x"),
    "truncated-idx3-ubyte.gz": lambda path: path.write_bytes(gzip.compress(idx_bytes(PIXELS))[:-20]),
    "lying-idx3-ubyte.gz": liar,
    "table.csv": lambda path: path.write_text("x1,x2\n1,2\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_input_that_does_not_fit_is_exit_4_and_names_the_file(name: str, tmp_path: Path) -> None:
    BROKEN[name](tmp_path / name)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, IMAGES, tmp_path / "spool")
    assert caught.value.exit_code == 4
    assert name in caught.value.found
    assert not list(tmp_path.rglob("*.partial"))


def test_a_glob_and_a_folder_give_all_their_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        np.save(tmp_path / f"{number}.npy", PIXELS[number * 10 : number * 10 + 10])
    for text in (str(tmp_path), f"{tmp_path}/*.npy"):
        np.testing.assert_array_equal(values(read(text, IMAGES, tmp_path)), PIXELS[:30])


def test_what_is_left_out_is_counted_in_the_singular_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    for number, said in enumerate(("1 file of", "2 files of")):
        (tmp_path / f"notes-{number}.txt").touch()
        found_paths(str(tmp_path))
        assert capsys.readouterr().out == f"ignored {said} no known kind, the first is {tmp_path}/notes-0.txt\n"


def test_nothing_there_is_exit_2_and_nothing_readable_exit_4(tmp_path: Path) -> None:
    for text in ("/no/such/file", f"{tmp_path}/*.npy"):
        with pytest.raises(UsageError):
            found_paths(text)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="nothing that can be read"):
        found_paths(str(tmp_path))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.data())
def test_any_range_over_several_files_is_that_range_of_all_their_rows(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder, total = tmp_path_factory.mktemp("files"), sum(sizes)
    everything = np.arange(total * 2, dtype=np.float32).reshape(total, 2)
    for number, part in enumerate(np.split(everything, np.cumsum(sizes)[:-1])):
        np.save(folder / f"{number}.npy", part)
    if not total:
        return
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    chunks = read(folder, FEATURES, folder, start, stop)
    np.testing.assert_array_equal(values(chunks), everything[start:stop])
    for chunk in chunks:
        first = {source: sum(sizes[: int(Path(source).stem)]) for source in chunk.sources}
        for row, index in zip(chunk.row_ids, chunk.source_index, strict=True):
            source = chunk.sources[index]
            assert first[source] <= row < first[source] + sizes[int(Path(source).stem)]


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(1, 64))
def test_shards_hold_every_row_once_in_order_and_are_of_one_size(rows: int, at_most: int, workers: int) -> None:
    at_most = max(at_most, rows // 1000 + 1)  # a thousand shards are enough to check
    shards = cut_shards(rows, at_most, workers)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert (shards[0].start, shards[-1].stop) == (0, rows)
    assert all(left.stop == right.start for left, right in itertools.pairwise(shards))
    sizes = [shard.stop - shard.start for shard in shards]
    assert 0 < min(sizes) <= max(sizes) <= min(at_most, min(sizes) + 1)
    if workers == 1:
        assert len(shards) == -(-rows // at_most)


def test_a_split_is_compared_with_its_digest_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    digest = hashlib.sha256(bytes(64 * 2**20)).hexdigest()
    tracemalloc.start()
    try:
        verified.check(FileRef(path=path, sha256=digest))
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    damage(path, 12_345_678, 1)
    with pytest.raises(DataError, match=r"test\.safetensors has changed"):
        verified.check(FileRef(path=path, sha256=digest))
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read|missing"):
        verified.check(FileRef(path=path, sha256=digest))
