"""docs/notebook.ipynb, executed in a kernel of Jupyter as a person does it."""

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from conftest import REPOSITORY

pytestmark = pytest.mark.slow


def read_texts(cell: Any, kind: str) -> str:
    """What a cell shows, of one kind of content."""
    return "".join(each.get("data", {}).get(kind, "") for each in cell.outputs)


def test_the_notebook_leads_from_a_dataframe_to_predictions_and_what_columns_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cell fails; fit shows its stages and gates as HTML, no log line of Prefect, and nothing on stderr."""
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    notebook = nbformat.read(REPOSITORY / "docs" / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, fit, facts, predicted, refused, added, again = [each for each in notebook.cells if each.cell_type == "code"]
    shown = read_texts(fit, "text/html")
    for words in ("publish", "baseline", "notebook-houses version 1", "sold.month (category)"):
        assert words in shown, shown
    assert not re.search(r"prefect\.|INFO|Beginning flow run", shown)
    assert not [each for cell in notebook.cells for each in cell.get("outputs", ()) if each.get("name") == "stderr"]
    assert read_texts(facts, "text/plain").startswith("('published', 1, 0.9")
    assert "array([" in read_texts(predicted, "text/plain")
    assert "city is 'Rom', a level that the model has not seen" in refused.outputs[0]["text"]
    assert "sold.weekday" in read_texts(added, "text/html")
    assert read_texts(again, "text/plain").endswith("'unchanged'")
