"""The kinds of files that can be predicted, and how to tell them apart."""

from pathlib import Path

from tasks.data.readers.arrays import IDX, NPY, NPZ, SAFETENSORS
from tasks.data.readers.formats import Format
from tasks.data.readers.pictures import PICTURE
from tasks.data.readers.tables import CSV, PARQUET

FORMATS = {each.name: each for each in (IDX, NPY, NPZ, SAFETENSORS, PARQUET, CSV, PICTURE)}
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}
IDX_IMAGES, IDX_LABELS = "idx3", "idx1-ubyte"  # in the names of the files of MNIST and its relatives


def format_of(path: Path) -> Format:
    """How to read a file, by its suffix; files without a known one are IDX, which have none."""
    return BY_SUFFIX.get(path.suffix.lower(), IDX)


def is_known(path: Path) -> bool:
    """Whether a file found in a folder is an input, by its name."""
    return (path.suffix.lower() in BY_SUFFIX or IDX_IMAGES in path.name) and IDX_LABELS not in path.name
