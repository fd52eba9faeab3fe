"""Jobs and the folders that they write into: nothing of anybody else's is touched, and every job can be repeated."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from candidate import Candidate, synthetic
from prediction_jobs import FEATURES, NAME, expected, predict_rows, stop_after, table
from tasks.batch import output_dir, plan, results, shard
from tasks.data.io import inputs
from tasks.data.io.discovery import DataFile
from tasks.errors import DataError, UsageError
from tasks.records import PublishedModel
from tasks.store import artifact_paths, retention, scratch
from tasks.store.predictions import Job, Shard
from tasks.store.run_folder import RunFolder


@pytest.fixture(autouse=True)
def published(candidates: list[Candidate], prefect_api: str) -> PublishedModel:
    return candidates[0].publish()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files of rows."""
    data = tmp_path / "data"
    data.mkdir()
    for number, rows in enumerate(np.split(FEATURES, 2)):
        np.save(data / f"{number}.npy", rows)
    return data


def parts_of_somebody(folder: Path) -> dict[Path, bytes]:
    """Parquet files named as a job would name its own, and what they hold."""
    folder.mkdir(exist_ok=True)
    for name in ("part-00000.parquet", "part-00001.parquet", "_rejects.parquet"):
        pq.write_table(pa.table({"x1": [1.0, 2.0], "x2": [3.0, 4.0]}), folder / name)
    (folder / ".download.partial").touch()
    return {path: path.read_bytes() for path in folder.iterdir()}


def interrupted(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(RuntimeError, match="killed"):
            predict_rows(shard_rows=250, **options)


@pytest.mark.parametrize("restart", [False, True])
def test_files_named_like_parts_are_never_taken_for_those_of_a_job(restart: bool, folder: Path, tmp_path: Path) -> None:
    theirs = parts_of_somebody(tmp_path / "theirs")
    for source in (str(tmp_path / "theirs"), f"{tmp_path}/theirs/*.parquet", str(min(theirs)), str(folder)):
        with pytest.raises(UsageError) as caught:
            predict_rows(input=source, output=str(tmp_path / "theirs"), restart=restart)
        assert "restart" not in caught.value.action
        assert {path: path.read_bytes() for path in theirs} == theirs


def test_restart_into_the_folder_of_its_own_input_keeps_the_input(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predict_rows(input=str(folder), output=str(output), shard_rows=500)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    for source in (output, output / "part-00000.parquet"):
        with pytest.raises(UsageError, match="output folder"):
            predict_rows(input=str(source), output=str(output), restart=True)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize("name", ["part-00077.parquet", "x.partial", ".sources.parquet", ".cache/download.partial"])
def test_restart_beside_something_that_was_added_is_refused_before_anything_is_touched(
    name: str, folder: Path, tmp_path: Path
) -> None:
    output, added = tmp_path / "out", tmp_path / "out" / name
    asked = {"input": str(folder), "output": str(output)}
    done = predict_rows(**asked, shard_rows=500)
    added.parent.mkdir(exist_ok=True)
    added.write_bytes(b"somebody's")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for options in ({"batch_size": 7, "restart": True}, {"restart": True}, {"batch_size": 7}):
        with pytest.raises(UsageError, match=rf"something else \({name.split('/')[0]}"):
            predict_rows(**asked, shard_rows=500, **options)
    assert predict_rows(**asked, shard_rows=500) == done, "a done job is read only"
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    added.unlink()
    if added.parent != output:
        added.parent.rmdir()
    predict_rows(**asked, batch_size=7, restart=True)
    assert sorted(path.name for path in output.iterdir()) == ["_job.json", "_rejects.parquet", "part-00000.parquet"]


@pytest.mark.parametrize("source", ["", "/*", "/**"])
def test_output_inside_the_input_can_be_repeated_and_resumed(
    source: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = str(folder / "out"), str(folder / "deep" / "second")
    options = {"input": f"{folder}{source}", "shard_rows": 250}
    interrupted(monkeypatch, input=options["input"], output=first)
    whole = predict_rows(**options, output=first)
    np.testing.assert_array_equal(table(whole)["row"], np.arange(len(FEATURES)))
    assert predict_rows(**options, output=second).job == whole.job, "what the first wrote is no input of the second"
    assert predict_rows(**options, output=first) == whole


def test_artifacts_below_the_input_are_no_input_but_can_be_named(folder: Path, tmp_path: Path) -> None:
    assert artifact_paths.root().parent == tmp_path
    first = predict_rows(input=str(tmp_path))
    assert first.rows == len(FEATURES)
    assert predict_rows(input=str(tmp_path)) == first
    inside = artifact_paths.dataset("mine")
    shutil.copytree(folder, inside)
    for source in (inside, inside / "0.npy", f"{artifact_paths.root()}/datasets/mine/*.npy"):
        assert predict_rows(input=str(source)).rows >= len(FEATURES) / 2


def test_input_that_is_written_to_while_the_job_runs_is_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.npy"
    np.save(rows, FEATURES)

    def meddling(job: Path, rows_of: Any, *rest: Any) -> Any:
        footer = shard.predict_shard(job, rows_of, *rest)
        if rows_of.number == 3:
            np.lib.format.open_memmap(rows, "r+")[:] = 0  # in place: the length stays
            os.utime(rows)
        return footer

    monkeypatch.setattr("tasks.stage.shards.predict_shard", meddling)
    with pytest.raises(DataError, match=r"rows\.npy is gone or was written to"):
        predict_rows(input=str(rows), shard_rows=100, workers=1)
    (job,) = artifact_paths.all_predictions().glob("*/_job.json")
    assert json.loads(job.read_text())["status"] == "running"


def test_input_that_is_written_to_while_it_is_counted_is_exit_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", FEATURES)
    count = inputs.count_inputs

    def late(files: Sequence[DataFile], *rest: Any) -> Any:
        np.save(files[0].path, FEATURES[:-1])
        return count(files, *rest)

    monkeypatch.setattr(inputs, "count_inputs", late)
    with pytest.raises(DataError, match="was written to"):
        predict_rows(input=str(tmp_path / "rows.npy"))


def test_without_input_an_unfinished_job_keeps_the_test_split_of_its_own_version(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch)
    (left,) = artifact_paths.all_predictions().glob("*/_job.json")
    run = RunFolder.open("other", {})
    Candidate(run, synthetic(run, 1, num_examples=1200), 0).publish()
    done = predict_rows(shard_rows=250)
    assert (done.path, done.version, done.rows) == (left.parent, 1, 1000)
    features = safetensors.numpy.load_file(candidates[0].prepared.test.path)["features"]
    np.testing.assert_allclose(table(done)["prediction"], expected(candidates[0], features), atol=1e-4)
    after = predict_rows(shard_rows=250)
    assert (after.version, after.rows) == (2, 1200), "the next one takes the champion of now"


def test_pruning_finds_the_version_of_an_unfinished_job_wherever_it_writes(
    folder: Path, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = [tmp_path / "one", artifact_paths.all_predictions() / "deep" / "two"]
    for output in outputs:
        interrupted(monkeypatch, input=str(folder), output=str(output))
    for number in (1, 2):
        candidates[number].publish()
    monkeypatch.setattr(retention, "GRACE", -retention.GRACE)  # demoted long ago
    assert "unfinished job" in retention.protected(NAME)[1]
    assert {artifact_paths.root() / note.read_text() for note in artifact_paths.jobs_elsewhere().iterdir()} == set(
        outputs
    )
    assert predict_rows(input=str(folder), output=str(outputs[0]), shard_rows=250).version == 1
    assert "unfinished job" in retention.protected(NAME)[1], "the other one needs it still"
    predict_rows(input=str(folder), output=str(outputs[1]), shard_rows=250, restart=True)
    assert 1 not in retention.protected(NAME)
    assert not list(artifact_paths.jobs_elsewhere().iterdir())


def test_a_done_job_sweeps_what_a_kill_right_after_its_end_has_left(folder: Path) -> None:
    done = predict_rows(input=str(folder))
    scratch.make(done.path)
    artifact_paths.spool(done.path).mkdir()
    (artifact_paths.spool(done.path) / "00000.npy").touch()
    assert predict_rows(input=str(folder)) == done
    assert not list(done.path.glob(".*"))


def test_output_that_is_a_file_or_in_one_is_exit_2(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for output in ("file", "file/out", "link"):
        with pytest.raises(UsageError, match=f"{output.split('/')[0]} is no folder"):
            predict_rows(input=str(folder), output=str(tmp_path / output))


def test_a_file_where_predictions_should_be_is_no_matter_of_the_output_option(folder: Path) -> None:
    artifact_paths.all_predictions().touch()
    with pytest.raises(NotADirectoryError, match="predictions/") as caught:
        predict_rows(input=str(folder))
    assert "--output" not in str(caught.value)


# Lost and damaged documents


DAMAGES: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "damaged": lambda document: document.write_bytes(document.read_bytes()[:-20]),
}


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_a_job_whose_document_is_lost_or_damaged_says_so_and_is_done_anew_by_restart(
    damage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"input": str(folder), "output": str(tmp_path / "out"), "shard_rows": 250}
    interrupted(monkeypatch, **{name: asked[name] for name in ("input", "output")})
    DAMAGES[damage](tmp_path / "out" / "_job.json")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"job\.json") as caught:
        predict_rows(**asked)
    assert "--restart" in caught.value.action
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    done = predict_rows(**asked, restart=True)
    np.testing.assert_array_equal(table(done)["row"], np.arange(len(FEATURES)))
    ours = {"_job.json", "_rejects.parquet", *(f"part-{number:05d}.parquet" for number in range(10))}
    assert {path.name for path in done.path.iterdir()} == ours


def test_rejects_and_sources_of_a_job_that_are_damaged_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, input=str(folder))
    (job,) = (path.parent for path in artifact_paths.all_predictions().glob("*/_job.json"))
    artifact_paths.sources(job).write_bytes(b"PAR1")
    rows = Shard(0, 0, 250)
    with pytest.raises(DataError, match=r"sources\.parquet cannot be read"):
        plan.read_inputs(job, rows)
    output_dir.rejects_path(job, rows).parent.mkdir(exist_ok=True)
    pq.write_table(pa.table([[1] * 9], ["row"]), output_dir.rejects_path(job, rows))
    content = bytearray(output_dir.rejects_path(job, rows).read_bytes())
    content[4:40] = bytes(36)
    output_dir.rejects_path(job, rows).write_bytes(content)
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read"):
        results.merge_rejects(job, Job.read(job / "_job.json"))
