"""What the command line, the path, the header or the store shows to be wrong is said here, before a server starts.

Neither Prefect nor torch is imported. The run looks at everything again: a schedule has no command line.
"""

import glob
import os
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from flows.cli.options import require
from tasks.data.io.discovery import DataFile
from tasks.data.schema import ImageSchema, Request, Schema, require_columns
from tasks.errors import DataError, UsageError
from tasks.parameters import EvaluateParameters, Learned, ModelName, PredictParameters, addresses, is_name
from tasks.parameters.form import WORDS, Frozen
from tasks.store import own_data, reading, regular_files, verification


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


def check_training(given: dict[str, Any], parameters: Learned) -> None:
    """Check what ``retrain`` and ``tune`` have in common: options, name, device, and columns or images.

    Raises:
        UsageError: options that change nothing, contradict each other, or are not those that the name keeps.
        DataError: there are no such data, or their first file lacks columns.
        DeviceMissing: the device is not there.
    """
    _check_uses(given, parameters)
    own_data.require_same_kind(parameters)
    data, previous = parameters.data, own_data.fixed(parameters.name)
    if data.source and data.is_images:
        from tasks.data.image_dataset import find_images

        find_images(data.source)
        if isinstance(previous, ImageSchema):
            previous.require(data)
    elif data.source:
        request = Request(data, previous if isinstance(previous, Schema) else None)
        request.require_sound()
        try:
            _check_header(data.source, lambda names: require_columns(names, request))
        except DataError:
            for number in reading.versions(parameters.name)[-1:] if previous else ():
                verification.verify_version(parameters.name, number)  # what is damaged fixes other columns
            raise
    require(parameters.training.device)


def check_prediction(parameters: PredictParameters) -> None:
    """Check version, input, columns and output.

    Raises:
        UsageError: there is no such model, version or input, or an option that this input or output has no use for.
        DataError: the version is damaged, or the first file of a table lacks columns.
        DeviceMissing: the device is not there.
    """
    number, _ = reading.load(parameters.name, parameters.version)
    if parameters.output:
        from tasks.batch.output_dir import Output

        Output.locate(parameters.output)
    if parameters.input is not None:
        from tasks.data.io import inputs
        from tasks.data.io.batches import ReadSpec
        from tasks.data.io.discovery import is_table
        from tasks.data.recipe import Columns

        recipe = reading.manifest(parameters.name, number).recipe
        spec = ReadSpec(recipe, parameters.columns, ids=parameters.id_columns)
        if isinstance(recipe, Columns) or not _is_there(parameters.input):
            with redirect_stdout(None):  # what is left out of a folder is for the run to tell
                files = inputs.find_inputs(parameters.input).files
                inputs.check_header(files[0], spec)
                if len(files) == 1 and is_table(Path(files[0].name)) and not files[0].is_remote:
                    _require_rows(files[0])
    elif parameters.id_columns:
        raise UsageError(f"--id-column {parameters.id_columns[0]} without INPUT", "a table to copy it from", "name one")
    require(parameters.device)


def check_evaluation(parameters: EvaluateParameters) -> None:
    """Check version, data and columns.

    Raises:
        UsageError: there is no such model or version, or the version takes no such data.
        DataError: the version is damaged, there are no such data, or their first file lacks columns.
    """
    number, _ = reading.load(parameters.name, parameters.version)
    from tasks.judging import labelled

    manifest = reading.manifest(parameters.name, number)
    schema = labelled.table_schema(manifest, parameters)
    if parameters.data is not None and schema:
        _check_header(parameters.data, lambda names: labelled.require_columns(names, schema, parameters))
    elif parameters.data is not None:
        labelled.find_images(parameters.data)


def check_source(source: str, of_table: bool) -> None:
    """Say that there are no such data, before what else is wrong with the command."""
    local = source.removeprefix("file://")
    if local and "://" not in local and not _is_there(local):
        from tasks.data.image_dataset import find_images
        from tasks.data.io.discovery import find_table, is_table

        find_table(source) if of_table or is_table(Path(local)) else find_images(source)


def _check_uses(given: dict[str, Any], parameters: Learned) -> None:
    """Refuse what was typed and would change nothing, such as a gate of the other model."""
    for part in ("data", "gates"):
        values: Frozen = getattr(parameters, part, parameters)
        for name in given.get(part, {}):
            if not (of := values.use_of(name)) & parameters.uses:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} with {parameters.name}", f"{WORDS[of]}, which it is for", f"leave {flag} out")


def _check_header(source: str, check: Callable[[list[str]], None]) -> None:
    """Check the columns of a local table's first file; what all its files together have is left to the run.

    No URL is looked at, since its host may take long. Of JSON lines, each of which has names of its own, only the
    first ones are read.
    """
    from tasks.data.io.batches import read_header
    from tasks.data.io.discovery import JSON_SUFFIXES, find_table

    if "://" in source.removeprefix("file://"):
        return
    with redirect_stdout(None):  # what is left out of a folder is for the run to tell
        files = find_table(source).files
    if not any(file.suffix in JSON_SUFFIXES for file in files):
        try:
            check(read_header(files[:1]))
        except DataError:
            if len(files) == 1:
                raise
            check(read_header(files))  # a column that only some of them have is no misspelt one
    if len(files) == 1:
        _require_rows(files[0])


def _require_rows(file: DataFile) -> None:
    """Refuse a table of a header alone."""
    from tasks.data.io.batches import table_batches
    from tasks.data.io.tabular import Selection

    if not any(batch.num_rows for batch in table_batches(file, Selection(only=frozenset()), "reject")):
        raise DataError(f"{file.path} holds no rows", "rows below the header", "name data with at least one row")


def _is_there(path: str) -> bool:
    """Whether a path, or a glob, names anything."""
    return os.path.exists(path) or next(glob.iglob(path, recursive=True), None) is not None  # noqa: PTH110, PTH207
