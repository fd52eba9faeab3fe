"""Whose an output folder is: what no job wrote is refused before anything is touched."""

from pathlib import Path

import pytest

from tasks import artifact_paths
from tasks.errors import DataError, UsageError
from tasks.predict import output, scratch


@pytest.mark.parametrize("name", [".cache", ".spool", ".rejects", ".sources.parquet", "x.partial", ".gradmill-scratch"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / name).mkdir(parents=True)
    (home / name / "download.partial").write_text("mine")
    for restart in (False, True):
        with pytest.raises(UsageError, match="holds something else"):
            output.claim(home, "0" * 16, restart)
    assert [path.relative_to(home) for path in home.rglob("*")] == [Path(name), Path(name) / "download.partial"]


def test_a_scratch_that_is_a_link_is_never_followed(tmp_path: Path) -> None:
    scratch.make(tmp_path / "theirs")
    (tmp_path / "out").mkdir()
    artifact_paths.scratch(tmp_path / "out").symlink_to(artifact_paths.scratch(tmp_path / "theirs"))
    with pytest.raises(UsageError, match="holds something else"):
        output.claim(tmp_path / "out", "0" * 16, restart=True)
    assert scratch.is_ours(tmp_path / "theirs")


@pytest.mark.parametrize(
    "where", ["", "models", "models/m/1", "predictions", "predictions/../models", "predictions/.x"]
)
def test_output_inside_artifacts_is_only_below_predictions(where: str, artifacts: Path) -> None:
    with pytest.raises(UsageError, match="inside the artifacts folder"):
        output.folder_of(str(artifacts / where))
    assert output.folder_of(str(artifacts / "predictions" / "mine")) == artifacts / "predictions" / "mine"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": 3}'])
def test_a_damaged_document_is_named_and_restart_replaces_it(content: str, tmp_path: Path) -> None:
    scratch.make(tmp_path / "out")
    (tmp_path / "out" / "_job.json").write_text(content)
    with pytest.raises(DataError, match=r"_job\.json") as caught:
        output.claim(tmp_path / "out", "0" * 16, restart=False)
    assert "--restart" in caught.value.action
    assert output.claim(tmp_path / "out", "0" * 16, restart=True) is None
    output.clear(tmp_path / "out")
    assert not (tmp_path / "out" / "_job.json").exists()
