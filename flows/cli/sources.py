"""Where own data and inputs are, as they were typed, and whether anything is there."""

import glob
import os
import re
from pathlib import Path

from tasks.errors import UsageError
from tasks.parameters import Learned, ModelName, is_name
from tasks.store import regular_files


def require_input(text: str | None) -> None:
    """Say before a server starts that there is nothing to predict; the run looks at what there is."""
    if text and not _is_there(text):
        from tasks.data import readers

        readers.find(text)


def require_data(source: str, of_table: bool) -> None:
    """Say that there are no such data before what else is wrong with the command, and before a server starts."""
    local = source.removeprefix("file://")
    if local and "://" not in local and not _is_there(local):
        from tasks.data.image_dataset import find_images
        from tasks.data.sources import table_files

        of_table = of_table or table_files.is_table(Path(local))
        (table_files.find if of_table else find_images)(source)


def _is_there(path: str) -> bool:
    """Whether a path, or a glob, names anything."""
    return os.path.exists(path) or next(glob.iglob(path, recursive=True), None) is not None  # noqa: PTH110, PTH207


def utf8(path: str | None) -> str | None:
    """The path, which goes through JSON to Prefect and to _job.json."""
    if path is not None and path != (shown := os.fsencode(path).decode(errors="replace")):
        raise UsageError(f"the path {shown} is not UTF-8", "a path in UTF-8", "rename the file")
    return path


def place(source: str | None) -> str | None:
    """Where own data or an input are: a URL as it is, a path absolute."""
    source = utf8(source)
    return str(regular_files.absolute(source)) if source and "://" not in source else source


def require_images(parameters: Learned) -> None:
    """Say before a server starts that data are none, if they are to be; the run looks at them again."""
    if parameters.data.is_images:
        from tasks.data.image_dataset import find_images

        find_images(str(parameters.data.source))


def suggested_name(source: str) -> str:
    """A name for the model of own data, made of their file's; NAME where that cannot be one."""
    stem = re.sub("[^a-z0-9]+", "-", Path(source).stem.lower()).strip("-")
    return stem if is_name(stem) and stem not in [*ModelName] else "NAME"
