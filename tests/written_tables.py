"""Own tables as files of any format, and what the code finds in them."""

import tempfile
from pathlib import Path
from typing import Any

from table_files import FORMATS as FORMATS
from table_files import written as written
from tasks.data.champion import ChampionData
from tasks.data.sources import tables
from tasks.data.table import own
from tasks.data.table.examining import Examined, examine
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.rows import Rows
from tasks.parameters.own_data import OwnData
from tasks.serving.task import TaskName


def examined(
    source: Path | str,
    target: str | None = "y",
    task: TaskName | None = None,
    kept: FixedRecipe | None = None,
    champion: ChampionData | None = None,
    **options: Any,
) -> Examined:
    """What is found in a table; encoded rows stay readable although their file is gone."""
    data = OwnData.model_validate({"source": str(source), "target": target, **options})
    with tempfile.TemporaryDirectory() as folder:
        table = own.read(tables.find(str(source)), data, task, kept, Path(folder))
        return examine(table, "test", data, task, kept, Path(folder), champion)


def digest(found: Examined) -> str:
    """The digest of data without errors."""
    return recipe(found).digest(tuple(rows(found).digests_of(training).tobytes() for training in (True, False)))


def recipe(found: Examined) -> FixedRecipe:
    """What data without errors fix."""
    assert found.recipe is not None, found.report.findings
    return found.recipe


def rows(found: Examined) -> Rows:
    """Their encoded rows."""
    assert found.rows is not None, found.report.findings
    return found.rows


def rules(found: Examined, severity: str) -> dict[str, str]:
    """The findings of a severity: what was found, by rule and column."""
    said = [each for each in found.report.findings if each.severity == severity]
    return {f"{each.rule} {each.column}" if each.column else each.rule: each.found for each in said}
