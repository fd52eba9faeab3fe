"""Every kind of input file, whole, broken or hostile: rows of any range, truth, rejects, or exit 4; never a wait."""

import gzip
import io
import json
import os
import re
import resource
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from command_line import plant
from gradmill.pictures import LARGEST_PIXELS
from image_folders import drawn, png, write, write_parquet
from tasks.data.io import batches, inputs, pictures, tabular
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.io.discovery import base_folder
from tasks.data.recipe import Column, Columns, Pixels
from tasks.errors import DataError, UsageError

Array = NDArray[Any]
CLASSES = ("cat", "dog", "owl")
GREY, RGB = (
    ReadSpec(Pixels(shape=shape, scale=1 / 255, resize="bilinear"), y_name="labels", class_names=CLASSES)
    for shape in ((8, 8), (8, 8, 3))
)
BOOK = ReadSpec(Pixels(shape=(8, 8), scale=1 / 255), y_name="labels")
FEATURES = ReadSpec(Columns(columns=(Column(name="x1"), Column(name="x2"))))
IMAGES = np.stack([drawn(label, seed) for label in range(3) for seed in range(4)])
LABELS = np.repeat(np.arange(3), 4)
ROWS = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
MEGABYTE = 2**20


def read(path: Path, wanted: ReadSpec, start: int = 0, stop: int | None = None) -> list[Batch]:
    """The rows of an input; what cannot be read from the middle is spilled beside it."""
    spool = path.parent / f"spool-{path.name}"
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, wanted, spool, base_folder(path))
    end = sources[-1].first_row + sources[-1].rows
    return list(inputs.read_batches(sources, start, end if stop is None else stop, wanted))


def rejected(chunks: list[Batch]) -> dict[int, str]:
    return {chunk.first_row + at: reason for chunk in chunks for at, reason in chunk.reasons.items()}


def values(chunks: list[Batch]) -> Array:
    return np.concatenate([chunk.X[chunk.is_accepted] for chunk in chunks])


def truth(chunks: list[Any]) -> list[float] | None:
    if any(chunk.y_true is None for chunk in chunks):
        return None
    return list(np.concatenate([chunk.y_true[chunk.is_accepted] for chunk in chunks]))


def found_paths(source: Path | str) -> list[Path]:
    """The files that an input stands for."""
    return [Path(file.path) for file in inputs.find_inputs(str(source)).files]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks even of a few rows."""
    monkeypatch.setattr(batches, "CHUNK_ROWS", 4)


# Images and their labels


Make = Callable[[Path], object]


def make(path: Path, content: bytes | Make) -> None:
    path.write_bytes(content) if isinstance(content, bytes) else content(path)


def npz(**arrays: Any) -> Make:
    return lambda path: np.savez_compressed(path, **arrays)


def saved(**arrays: Any) -> Make:
    return lambda path: safetensors.numpy.save_file(arrays, path)


# Those called bare tell no truth.
ARCHIVES: dict[str, bytes | Make] = {
    "keras.npz": npz(x_train=IMAGES[:1], y_train=LABELS[:1], x_test=IMAGES, y_test=LABELS[:, None].astype(np.uint8)),
    "in another order.npz": npz(images=IMAGES, labels=2 - LABELS, class_names=CLASSES[::-1]),
    "rows.safetensors": saved(images=IMAGES, labels=LABELS),
    "bare.npy": lambda path: np.save(path, IMAGES),
    "bare.npz": lambda path: np.savez(path, IMAGES),
    "bare of other classes.npz": npz(images=IMAGES, labels=LABELS, class_names=["a", "b", "c"]),
    "bare of others.parquet": lambda path: write_parquet(path, IMAGES, LABELS, ["car", "bus", "van"]),
    "words.parquet": lambda path: write_parquet(path, IMAGES, np.array(CLASSES)[LABELS].tolist(), group=5),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_archive_gives_its_images_of_any_range_and_where_it_has_some_its_labels(
    name: str, tmp_path: Path
) -> None:
    make(tmp_path / name, ARCHIVES[name])
    for start, stop in ((0, 12), (3, 10), (11, 12)):
        chunks = read(tmp_path / name, GREY, start, stop)
        assert_array_equal(values(chunks), IMAGES[start:stop])
        assert truth(chunks) == (None if "bare" in name else LABELS[start:stop].tolist())
        assert [chunk.first_row + at for chunk in chunks for at in range(chunk.num_rows)] == [*range(start, stop)]
        assert all(chunk.num_rows <= 2 * batches.CHUNK_ROWS for chunk in chunks), "memory stays bounded"


ODD = GREY._replace(class_names=("3", "5", "7"))
# A label is a class by its own name, or by its place in a prepared split; or it is no truth.
OF_LABELS: dict[str, tuple[Make, ReadSpec, list[float]]] = {
    "odd.npz": (npz(images=IMAGES[:4], labels=np.array([3, 5, 7, 9])), ODD, [0, 1, 2, -1]),
    "test.safetensors": (
        saved(images=IMAGES[:4], labels=np.array([0, 2, 1, 2]), split_key=np.arange(4)), ODD, [0, 2, 1, 2]
    ),
    "some.npz": (npz(images=IMAGES[:2], labels=np.array(["gull", "owl"])), GREY, [-1, 2]),
    "hidden.parquet": (lambda path: write_parquet(path, IMAGES[:3], [1, -1, 0], CLASSES), GREY, [1, np.nan, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_LABELS)
def test_a_label_is_a_class_by_its_own_name_or_by_its_place_in_a_prepared_split_or_no_truth(
    name: str, tmp_path: Path
) -> None:
    make, wanted, expected = OF_LABELS[name]
    make(tmp_path / name)
    assert_array_equal(truth(read(tmp_path / name, wanted)), expected)


@pytest.mark.parametrize("wanted", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("shape", [(4, 12, 9), (4, 12, 9, 3), (4, 8, 8), (4, 8, 8, 3), (4, 8, 8, 1)], ids=str)
def test_arrays_of_another_size_or_colour_become_what_training_makes_of_the_same_pictures(
    wanted: ReadSpec, shape: tuple[int, ...], tmp_path: Path
) -> None:
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "rows.npy", images)
    expected, *_, notes = pictures.decode_pictures([png(each.squeeze()) for each in images], wanted.recipe.input.shape)
    chunks = read(tmp_path / "rows.npy", wanted)
    assert_array_equal(values(chunks), expected)
    assert [note for chunk in chunks for note in chunk.notes] == [*notes], "what was done to them is said alike"


CAT_DOG = [0, 0, 0, 1, 1, 2, 2]
LAYOUTS: dict[str, tuple[str, str, list[int] | None]] = {
    "below a part": ("test/{0}/{1}.png", "", CAT_DOG),
    "deeper": ("{0}/2026/{1}.png", "", CAT_DOG),
    "one class": ("{0}/{1}.png", "dog", [1, 1]),
    "a glob": ("{0}/{1}.png", "*/1.png", [0, 1, 2]),
    "below a folder with nothing before its =": ("=old/{0}/{1}.png", "", CAT_DOG),
    "other folders": ("photos-{0}/{1}.png", "", None),
    "no folders": ("{0}-{1}.png", "", None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_called_as_the_models_classes_tell_the_truth_and_others_do_not(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What describes pictures lies among them unread; one in no class takes the accuracy from all, and is named."""
    folder, (pattern, below, expected) = tmp_path / "cat-pictures", LAYOUTS[layout]
    for number, label in enumerate(CAT_DOG):
        path = folder / pattern.format(CLASSES[label], number - CAT_DOG.index(label))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(drawn(label, number)))
    (path.parent / "metadata.csv").write_text("file_name,label\n0.png,cat\n")
    assert truth(read(folder / below, GREY)) == expected
    (folder / "newt.png").write_bytes(png(IMAGES[0]))
    assert truth(read(folder, GREY)) is None
    said = "1 picture outside any class folder; the first is" in capsys.readouterr().out
    assert said == (expected is not None)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_classes_are_equal_in_whatever_unicode_form_folders_and_labels_have_their_names(
    stored: Any, form: Any, tmp_path: Path
) -> None:
    model = GREY._replace(class_names=(unicodedata.normalize(stored, "café"), "dog"))
    name = unicodedata.normalize(form, "café")
    write(tmp_path / "pets", {name: 2, "dog": 1})
    np.savez(tmp_path / "pets.npz", images=IMAGES[:3], labels=np.array([name, name, "dog"]))
    write_parquet(tmp_path / "pets.parquet", IMAGES[:3], [1, 1, 0], ["dog", name])
    for source in ("pets", "pets.npz", "pets.parquet"):
        assert truth(read(tmp_path / source, model)) == [0, 0, 1]


def test_parquet_of_pictures_gives_pixels_truth_ids_and_rejects_with_their_names(tmp_path: Path) -> None:
    broken, path = {"bytes": b"\x89PNG no picture", "path": "spoilt.png"}, tmp_path / "test.parquet"
    names = [f"n{row}" for row in range(12)]
    write_parquet(path, [*IMAGES[:2], broken, None, *IMAGES[4:]], LABELS[::-1], CLASSES[::-1], group=5, name=names)
    chunks = read(path, GREY._replace(ids=("name",)))
    kept = np.delete(np.arange(12), [2, 3])
    assert_array_equal(values(chunks), IMAGES[kept])
    assert truth(chunks) == LABELS[kept].tolist(), "by name, whatever their order in the file"
    ids = [each for chunk in chunks if chunk.passthrough for each in chunk.passthrough["name"].to_pylist()]
    assert ids == names
    assert "spoilt.png cannot be used: " in rejected(chunks)[2]
    assert "it cannot be used: " in rejected(chunks)[3]


# Files that are broken, or lie


def zipped(method: int, content: bytes | None = None) -> bytes:
    """An ``.npz`` file of one member."""
    packed, array = io.BytesIO(), io.BytesIO()
    np.save(array, IMAGES)
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("images.npy", content or array.getvalue())
    return packed.getvalue()


def npy(*shape: int, data: int = 1000) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(data)


def footer_alone(path: Path) -> None:
    write_parquet(path, IMAGES, LABELS)
    pq.read_metadata(path).write_metadata_file(path)


LONG_TENSOR = json.dumps({"features": {"dtype": "F32", "shape": [2**40, 2], "data_offsets": [0, 2**43]}}).encode()
# Of images; IDX, too, which says what reads it and what to write.
BROKEN: dict[str, bytes | Make] = {
    **dict.fromkeys(("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte.gz"), b"\0\0\x08\x03"),
    "table.csv": b"x1,x2\n1,2\n",
    "packed.npy.gz": lambda path: path.write_bytes(gzip.compress(npy(250, 2))),
    "scalar.npy": lambda path: np.save(path, np.float32(1)),
    "one in colour.npy": lambda path: np.save(path, drawn(0, 0, channels=3)),
    "too many pixels.npy": lambda path: np.lib.format.open_memmap(path, "w+", np.uint8, (1, LARGEST_PIXELS + 1, 1)),
    "fractions.npz": npz(images=IMAGES / 255),
    "flat.npz": npz(images=IMAGES.reshape(12, -1)),
    "channels first.npz": npz(images=np.stack([IMAGES] * 3, axis=1)),
    "member.npz": zipped(zipfile.ZIP_STORED, b"no array" * 20),
    "bzip2.npz": zipped(zipfile.ZIP_BZIP2),
    "cut.npz": zipped(zipfile.ZIP_DEFLATED)[:-60],
    "empty.safetensors": saved(),
    "truth.safetensors": saved(images=IMAGES > 0),
    "renamed.safetensors": saved(pictures=IMAGES, others=IMAGES),
    "norows.safetensors": saved(images=IMAGES[:0]),
    "short.safetensors": saved(images=IMAGES, labels=LABELS[1:]),
    "broken.parquet": b"PAR1 no parquet PAR1",
    "columns.parquet": lambda path: pq.write_table(pa.table({"pixels": [1.0]}), path),
    "footer.parquet": footer_alone,
}
# Of rows of two features.
BROKEN_ROWS: dict[str, bytes | Make] = {
    "huge.npy": npy(2**40, 2),
    "negative.npy": npy(-125, 2),
    "narrow.npy": npy(250, 1),
    "cut.npy": npy(125, 2, data=999),
    "empty.npy": b"",
    "header.npy": b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little"),
    "pickled.npy": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "huge.safetensors": len(LONG_TENSOR).to_bytes(8, "little") + LONG_TENSOR,
    "huge.npz": zipped(zipfile.ZIP_STORED, npy(2**40, 2)),
}


@pytest.mark.parametrize("name", [*BROKEN, *BROKEN_ROWS])
def test_whatever_is_wrong_with_a_file_is_exit_4_and_names_the_users_file_before_anything_is_allocated(
    name: str, tmp_path: Path
) -> None:
    make(tmp_path / name, (BROKEN | BROKEN_ROWS)[name])
    tracemalloc.start()
    try:
        for wanted in (BOOK, GREY) if name in BROKEN else (FEATURES,):
            with pytest.raises(DataError) as caught:
                read(tmp_path / name, wanted)
            assert str(tmp_path / name) in caught.value.found
            assert "idx3" not in name or re.search(r"(?s)of no known kind.*\.npy.*torchvision", str(caught.value))
            assert "spool" not in str(caught.value)
            assert "whole .npy" not in caught.value.expected or name.endswith(".npy"), "what it was unpacked into"
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.rglob("*.partial"))


# Rows of features


SHORT = "1 field, expected 2"
LARGE = {"x1": [1_700_000_000_123_456_789, -(2**53) - 1], "x2": np.array([2**64 - 1, 3], np.uint64)}
# What a file holds, its good rows, and its rejects by their number.
ROWS_OF: dict[str, tuple[bytes | Make, Any, dict[int, str]]] = {
    "all that can be wrong.csv": (
        b'id,x1,x2\nk,1,2\nk,3\n\nk,4,5,6\n"q\nz",7,8\nk,9,\nk,abc,1\nbad\nk,1e3, 2 \nk,nan,1\nk,1,2\nlast\n',
        [[1, 2], [7, 8], [1000, 2], [1, 2]],
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
        [[1, 2], [4, 5], [8, 9]],
        {1: "x1 is 'ÿ', not a number", 3: "x1 is '6é', not a number"},  # Windows-1252
    ),
    "such bytes in short rows.csv": (
        b"x1,x2\n1,2\n\xff\n3,4\n\xc3,\xa9,5\n6,7\n\xe2\x82",
        [[1, 2], [3, 4], [6, 7]],
        {1: SHORT, 3: "3 fields, expected 2", 5: SHORT},
    ),
    "many short rows.csv": (b"x1,x2\n" + b"1\n" * 999 + b"2,3", [[2, 3]], dict.fromkeys(range(999), SHORT)),
    "commas behind the header.csv": (b"x1,x2,,\n1,2,,\n", [[1, 2]], {}),
    "among others.npz": (npz(features=ROWS[:2], other=np.zeros(3)), ROWS[:2], {}),
    "features.safetensors": (saved(features=ROWS[:2]), ROWS[:2], {}),
    "large integers.parquet": (
        lambda path: pq.write_table(pa.table(LARGE), path), [*zip(*LARGE.values(), strict=True)], {}
    ),
    "beyond float32.npy": (
        lambda path: np.save(path, np.array([[1, 2], [3, -1e300]])), [[1, 2]], {1: "x2 is -inf, not a finite number"}
    ),
    "named like our own, twice.parquet": (
        lambda path: pq.write_table(
            pa.table([[1.0, None], [{"a": 1}, None], [1, 2], [3.0, 4.0]], ["x1", *["gradmill.fault"] * 2, "x2"]), path
        ),
        [[1, 3]], {1: "x1 is missing"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("block", [16, 2**20])
@pytest.mark.parametrize("name", ROWS_OF)
def test_rows_keep_their_numbers_whatever_is_wrong_between_them_and_wherever_blocks_end(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", block)
    content, good, bad = ROWS_OF[name]
    make(tmp_path / name, content)
    chunks = read(tmp_path / name, FEATURES)
    assert_array_equal(values(chunks), np.array(good, np.float32))
    assert rejected(chunks) == bad


def test_columns_name_the_features_in_the_models_order_one_for_each(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("b,a\n1,2\n")
    found = values(read(tmp_path / "t.csv", FEATURES._replace(columns=("a", "b"))))
    assert_array_equal(found, [[2, 1]])
    for columns in (("a",), ("a", "b", "a"), ("a", "a")):
        with pytest.raises(UsageError, match=", ".join(columns)):
            read(tmp_path / "t.csv", FEATURES._replace(columns=columns))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">i2", np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_layout_gives_the_rows_that_numpy_reads_as_float32(order: Any, dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.abs(ROWS * 10).astype(dtype, order=order))
    chunks = read(path, FEATURES, 11, 42)
    assert all(chunk.X.dtype == np.float32 for chunk in chunks)
    assert_array_equal(values(chunks), np.load(path)[11:42].astype(np.float32))


# Which files an input stands for


def test_a_file_name_that_is_not_utf_8_is_exit_4_and_can_be_printed(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.npy")
    odd.touch()
    for text in (tmp_path, tmp_path / "*.npy", odd):
        with pytest.raises(DataError, match=r"caf\ufffd\.npy.* not UTF-8"):
            found_paths(text)
    (tmp_path / "a.npy").write_bytes(b"rows")
    odd.rename(odd.with_suffix(".txt"))
    assert found_paths(tmp_path) == [tmp_path / "a.npy"]


EVERYTHING = ["in/a.npy", "in/day/b.npy", "in/day/deep/c.npy"]
GLOBS = {
    "in/*": EVERYTHING,
    "in/**/**/*.npy": EVERYTHING,
    "in/**/*.npy": EVERYTHING,
    "in/d*": EVERYTHING[1:],
    "link": ["link/c.npy"],
    "link/*.npy": ["link/c.npy"],
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_a_glob_gives_each_file_once_and_those_in_the_folders_that_it_matches(pattern: str, tmp_path: Path) -> None:
    """Links to folders are followed where the input names them, and no rejects of predictions are rows."""
    (tmp_path / "in/day/deep").mkdir(parents=True)
    others = (".hidden.npy", "~$c.npy", "notes.txt", "_rejects.parquet", "_job.json")
    for name in (*EVERYTHING, *(f"in/day/{other}" for other in others)):
        (tmp_path / name).write_bytes(b"rows")
    (tmp_path / "link").symlink_to("in/day/deep")
    assert found_paths(tmp_path / pattern) == [tmp_path / name for name in GLOBS[pattern]]


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_a_fifo_a_socket_or_a_device_is_never_waited_for(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.npy"
    path.symlink_to("/dev/zero") if kind == "device" else plant(path, kind)
    with pytest.raises(DataError, match=r"rows\.npy is not a regular file"):
        found_paths(path)
    np.save(tmp_path / "whole.npy", ROWS)
    for pattern in ("", "*", "**"):
        assert found_paths(tmp_path / pattern) == [tmp_path / "whole.npy"]
        assert "not a regular file: 1" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["/proc/kmsg", "/proc/km[s]g", "/proc/version"])
def test_files_of_proc_are_not_opened(text: str) -> None:
    """Some give their content once and then wait for ever; all of them say that they have no bytes."""
    with pytest.raises(DataError, match="empty, or no file on disk"):
        found_paths(text)


# Memory and open files


def test_many_small_files_are_read_with_few_of_them_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 1000)
    for number in range(200):
        np.save(tmp_path / f"{number:03d}.npy", ROWS[:1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, hard))
    try:
        assert len(values(read(tmp_path, FEATURES))) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_rows_than_can_be_planned_are_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_ROWS", 49)
    np.save(tmp_path / "rows.npy", ROWS)
    with pytest.raises(DataError, match="promises 50 rows"):
        read(tmp_path / "rows.npy", FEATURES)


def test_wide_rows_of_parquet_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 4 * MEGABYTE)
    monkeypatch.setattr(batches, "CHUNK_ROWS", 1000)
    path, rows = tmp_path / "wide.parquet", [{"bytes": bytes([number]) * MEGABYTE} for number in range(48)]
    pq.write_table(pa.table({"images": rows}), path, compression="none", use_dictionary=False, write_batch_size=1)
    before, most = pa.total_allocated_bytes(), 0
    (source,) = inputs.count_inputs(inputs.find_inputs(str(path)).files, BOOK, tmp_path)
    for _ in inputs.PICTURES.batches(source, 0, source.rows, BOOK):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 24 * MEGABYTE


# Pictures


def with_broken_exif() -> bytes:
    """Of which Pillow says what no picture raises: the maker becomes the width, which is then a text."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "abc", 6  # maker, orientation
    content = bytearray(png(IMAGES[0], "JPEG", exif=exif))
    content[content.index(b"MM\0*") + 11] = 0
    return bytes(content)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 5 4
%%EndComments
showpage
"""


NOTE = PngInfo()
NOTE.add_text("note", "0" * 64 * MEGABYTE, zip=True)
NO_PICTURES: dict[str, Callable[[], bytes]] = {
    "postscript": lambda: EPS,
    "a broken Exif tag": with_broken_exif,
    "TIFF": lambda: png(IMAGES[0], "TIFF"),
    "a bomb of text": lambda: png(IMAGES[0], pnginfo=NOTE),
    "a bomb of a profile": lambda: png(IMAGES[0], icc_profile=bytes(64 * MEGABYTE)),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_or_unpacks_without_bound_is_rejected_in_little_memory_and_starts_no_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, path = tmp_path / "bin" / "gs", tmp_path / "a.png"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    path.write_bytes(NO_PICTURES[name]())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a\.png cannot be used"):
            pictures.decode(path, (8, 8))
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "started").exists()
