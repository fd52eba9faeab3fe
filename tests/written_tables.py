"""Own tables as files of any format, and what the code finds in them."""

import tempfile
from pathlib import Path
from typing import Any

import documents
from table_files import written as written
from tasks.data.io.discovery import find_table
from tasks.data.own_rows import Examination, TableRows
from tasks.data.schema import Request, Schema
from tasks.data.table_dataset import examine_table, read_table
from tasks.parameters.data import OwnData
from tasks.records import ChampionData
from tasks.serving.task import TaskName


def examined(
    source: Path | str,
    target: str | None = "y",
    task: TaskName | None = None,
    kept: Schema | None = None,
    champion: ChampionData | None = None,
    **options: Any,
) -> Examination:
    """What is found in a table; encoded rows stay readable although their file is gone."""
    data = OwnData.model_validate({"source": str(source), "target": target, **options})
    request = Request(data, kept)
    with tempfile.TemporaryDirectory() as folder:
        table = read_table(find_table(str(source)), request, task, Path(folder))
        return examine_table(table, "test", request, task, Path(folder), champion)


def digest(found: Examination) -> str:
    """The digest of data without errors."""
    return recipe(found).digest(tuple(rows(found).ordering.result()[part].tobytes() for part in ("train", "other")))


def recipe(found: Examination) -> Schema:
    """What data without errors fix."""
    assert isinstance(found.schema, Schema), found.report.findings
    return found.schema


def rows(found: Examination) -> TableRows:
    """Their encoded rows."""
    assert found.rows is not None, found.report.findings
    encoded: TableRows = found.rows
    return encoded


def rules(found: Examination, severity: str) -> dict[str, str]:
    """The findings of a severity: what was found, by rule and column."""
    return documents.rules(found.report.model_dump(mode="json"), severity)
