"""Own tables as files of any format, and what the code finds in them."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from tasks.data.sources import tables
from tasks.data.table import own
from tasks.data.table.examining import Examined, examine
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.rows import Rows
from tasks.parameters.own_data import OwnData
from tasks.records import ChampionData
from tasks.serving.task import TaskName

FORMATS = (".csv", ".parquet", ".feather", ".jsonl")


def written(path: Path, columns: pa.Table | Mapping[str, Any]) -> Path:
    """A table as a file; of a number of decimals no format keeps another."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, path)
    else:
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    return path


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
