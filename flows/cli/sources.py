"""Where own data and inputs are, as they were typed."""

import os
import re
from pathlib import Path

from tasks.errors import UsageError
from tasks.parameters import ModelName, addresses, is_name
from tasks.store import regular_files


def utf8(path: str | None) -> str | None:
    """The path, which goes through JSON to Prefect and to _job.json."""
    if path is not None and path != (shown := os.fsencode(path).decode(errors="replace")):
        raise UsageError(f"the path {shown} is not UTF-8", "a path in UTF-8", "rename the file")
    return path


def place(source: str | None) -> str | None:
    """Where own data or an input are: a URL as it is, a path absolute.

    Raises:
        UsageError: a path is not UTF-8, or a URL may have a credential in it.
    """
    source = utf8(source)
    addresses.require_no_credentials(source or "")
    return str(regular_files.absolute(source)) if source and "://" not in source else source


def suggested_name(source: str) -> str:
    """A name for the model of own data, made of their file's; NAME where that cannot be one."""
    stem = re.sub("[^a-z0-9]+", "-", Path(source).stem.lower()).strip("-")
    return stem if is_name(stem) and stem not in [*ModelName] else "NAME"
