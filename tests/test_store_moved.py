"""An artifacts folder that was moved or copied works where it is now, and never reaches back to where it was."""

import json
import shutil
from pathlib import Path

import pytest

from candidate import Candidate
from command_line import assert_clear, gradmill
from tasks.errors import DataError
from tasks.store import artifact_paths
from tasks.store.documents import Document
from tasks.store.record import ArtifactPath, ChosenPath

NAME = "linear-regression"


class Paths(Document):
    """A document with both kinds of path."""

    ours: ArtifactPath
    chosen: ChosenPath | None = None


@pytest.mark.parametrize("path", ["/etc/passwd", "../elsewhere", "datasets/../../elsewhere", 3])
def test_a_path_out_of_the_folder_is_damage(path: object) -> None:
    with pytest.raises(DataError, match="ours"):
        Paths.parse(json.dumps({"ours": path}).encode(), "a document")


def paths_in(document: object) -> list[str]:
    """Every text in a JSON document that is an absolute path."""
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        return [path for each in document for path in paths_in(each)]
    return [document] if isinstance(document, str) and document.startswith("/") else []


def documents_without_absolute_paths(artifacts: Path) -> set[str]:
    """The names, or the folders of those named by a digest, of all JSON documents, each of which is looked through."""
    found = set()
    for path in artifacts.rglob("*.json"):
        assert paths_in(json.loads(path.read_text())) == [], path
        found.add(path.parent.name if path.parent.name == ".stages" else path.name)
    return found


def test_no_manifest_holds_an_absolute_path(candidates: list[Candidate]) -> None:
    candidates[0].publish()
    manifest = json.loads((artifact_paths.version(NAME, 1) / "manifest.json").read_text())
    assert paths_in(manifest) == []


@pytest.mark.slow  # four runs of the command line
def test_a_moved_folder_predicts_and_a_copy_never_uses_the_files_of_the_original(
    candidates: list[Candidate], artifacts: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    candidates[0].publish()
    moved = tmp_path / "moved"
    artifacts.rename(moved)
    done = gradmill("predict", "--name", NAME, "--artifacts", str(moved), "--json")
    assert done.returncode == 0, done.stderr
    predicted = json.loads(done.stdout)
    assert predicted["rows"] == 1000
    assert Path(predicted["path"]).parent == moved / "predictions", "absolute on stdout"
    assert {"manifest.json", "run.json", "_job.json"} <= documents_without_absolute_paths(moved)
    assert not artifacts.exists()

    copy = tmp_path / "copy"
    shutil.copytree(moved, copy)
    split = next(copy.glob("datasets/*/test.*"))
    split.unlink()
    done = gradmill("predict", "--name", NAME, "--artifacts", str(copy))
    assert_clear(done, 4)
    assert str(split) in done.stderr


@pytest.mark.slow  # two real retrains
def test_a_moved_folder_retrains_and_reuses_what_it_has(
    artifacts: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    assert gradmill("retrain", NAME, "--no-predict").returncode == 0
    moved = tmp_path / "moved"
    artifacts.rename(moved)
    done = gradmill("retrain", NAME, "--json", "--artifacts", str(moved))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["outcome"], result["model_path"]) == ("unchanged", str(moved / "models" / NAME / "1" / "model.onnx"))
    assert "train      nothing has changed: reused what an earlier run left" in done.stderr.splitlines()
    written = documents_without_absolute_paths(moved)
    assert {"manifest.json", "run.json", "_job.json", "evaluation.json", ".stages"} <= written
    assert not artifacts.exists()
