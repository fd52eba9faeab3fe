"""Folders and files that jobs write into: nothing of anybody else's is touched, and every job can be repeated."""

import csv
import json
import os
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

import flows.cli.app
from candidate import Candidate, synthetic
from prediction_jobs import FEATURES, NAME, contents, expected, interrupt, predict_rows, table
from tasks.batch import output_dir, plan, results
from tasks.errors import DataError, UsageError
from tasks.records import PublishedModel
from tasks.store import artifact_paths, housekeeping
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


@pytest.mark.slow
def test_restart_into_the_folder_of_its_own_input_keeps_the_input(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predict_rows(input=str(folder), output=str(output), shard_rows=500)
    before = contents(output)
    for source in (output, output / "part-00000.parquet"):
        with pytest.raises(UsageError, match="output folder"):
            predict_rows(input=str(source), output=str(output), restart=True)
    assert contents(output) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part-00077.parquet", "x.partial", ".sources.parquet", ".cache/download.partial"])
def test_restart_beside_something_that_was_added_is_refused_before_anything_is_touched(
    name: str, folder: Path, tmp_path: Path
) -> None:
    output, added = tmp_path / "out", tmp_path / "out" / name
    asked = {"input": str(folder), "output": str(output)}
    done = predict_rows(**asked, shard_rows=500)
    added.parent.mkdir(exist_ok=True)
    added.write_bytes(b"somebody's")
    before = contents(output)
    for options in ({"batch_size": 7, "restart": True}, {"restart": True}, {"batch_size": 7}):
        with pytest.raises(UsageError, match=rf"something else \({name.split('/')[0]}"):
            predict_rows(**asked, shard_rows=500, **options)
    assert predict_rows(**asked, shard_rows=500) == done, "a done job is read only"
    assert contents(output) == before


@pytest.mark.slow
@pytest.mark.parametrize("source", ["", "/*", "/**"])
def test_output_inside_the_input_can_be_repeated_and_resumed(
    source: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = str(folder / "out"), str(folder / "deep" / "second")
    options = {"input": f"{folder}{source}", "shard_rows": 250}
    interrupt(monkeypatch, 2, **options, output=first)
    whole = predict_rows(**options, output=first)
    np.testing.assert_array_equal(table(whole)["row"], np.arange(len(FEATURES)))
    assert predict_rows(**options, output=second).job == whole.job, "what the first wrote is no input of the second"
    assert predict_rows(**options, output=first) == whole


@pytest.mark.slow
def test_artifacts_below_the_input_are_no_input_but_can_be_named(folder: Path, tmp_path: Path) -> None:
    assert artifact_paths.root().parent == tmp_path
    first = predict_rows(input=str(tmp_path))
    assert first.rows == len(FEATURES)
    assert predict_rows(input=str(tmp_path)) == first
    inside = artifact_paths.dataset("mine")
    shutil.copytree(folder, inside)
    for source in (inside, inside / "0.npy", f"{artifact_paths.root()}/datasets/mine/*.npy"):
        assert predict_rows(input=str(source)).rows >= len(FEATURES) / 2


@pytest.mark.parametrize(
    ("place", "statuses"),
    [("tasks.data.io.inputs.count_inputs", []), ("tasks.stage.shards.predict_shard", ["running"])],
)
def test_input_that_is_written_to_while_it_is_counted_or_predicted_is_exit_4(
    place: str, statuses: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, really = tmp_path / "rows.npy", pkgutil.resolve_name(place)
    np.save(rows, FEATURES)

    def meddling(*arguments: Any) -> Any:
        if place.endswith("count_inputs") or arguments[1].number == 3:
            np.lib.format.open_memmap(rows, "r+")[:] = 0  # in place: the length stays
            os.utime(rows)
        return really(*arguments)

    monkeypatch.setattr(place, meddling)
    with pytest.raises(DataError, match=r"rows\.npy is gone or was written to"):
        predict_rows(input=str(rows), shard_rows=100, workers=1)
    jobs = artifact_paths.all_predictions().glob("*/_job.json")
    assert [json.loads(job.read_text())["status"] for job in jobs] == statuses


@pytest.mark.slow
def test_without_input_an_unfinished_job_keeps_the_test_split_of_its_own_version(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 2, shard_rows=250)
    (left,) = artifact_paths.all_predictions().glob("*/_job.json")
    run = RunFolder.open("other", {})
    Candidate(run, synthetic(run, 1, num_examples=1200), 0).publish()
    done = predict_rows(shard_rows=250)
    assert (done.path, done.version, done.rows) == (left.parent, 1, 1000)
    features = safetensors.numpy.load_file(candidates[0].prepared.test.path)["features"]
    np.testing.assert_allclose(table(done)["prediction"], expected(candidates[0], features), atol=1e-4)
    after = predict_rows(shard_rows=250)
    assert (after.version, after.rows) == (2, 1200), "the next one takes the champion of now"


@pytest.mark.slow
def test_an_unfinished_job_whose_version_is_gone_says_that_there_is_no_such_version(
    folder: Path, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt(monkeypatch, 2, input=str(folder), output=str(tmp_path / "out"), shard_rows=250)
    candidates[1].publish()
    shutil.rmtree(artifact_paths.version(NAME, 1))
    with pytest.raises(UsageError, match="has no version 1"):
        predict_rows(input=str(folder), output=str(tmp_path / "out"), shard_rows=250)
    done = predict_rows(input=str(folder), output=str(tmp_path / "out"), shard_rows=250, restart=True)
    assert done.version == 2


@pytest.mark.slow
def test_pruning_finds_the_version_of_an_unfinished_job_wherever_it_writes(
    folder: Path, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = [tmp_path / "one", artifact_paths.all_predictions() / "deep" / "two"]
    for output in outputs:
        interrupt(monkeypatch, 2, input=str(folder), output=str(output), shard_rows=250)
    for number in (1, 2):
        candidates[number].publish()
    monkeypatch.setattr(housekeeping, "GRACE", -housekeeping.GRACE)  # demoted long ago
    assert "unfinished job" in housekeeping.find_protected(NAME)[1]
    assert {artifact_paths.root() / note.read_text() for note in artifact_paths.jobs_elsewhere().iterdir()} == set(
        outputs
    )
    assert predict_rows(input=str(folder), output=str(outputs[0]), shard_rows=250).version == 1
    assert "unfinished job" in housekeeping.find_protected(NAME)[1], "the other one needs it still"
    predict_rows(input=str(folder), output=str(outputs[1]), shard_rows=250, restart=True)
    assert "unfinished job" not in housekeeping.find_protected(NAME).get(1, "")
    assert not list(artifact_paths.jobs_elsewhere().iterdir())


# Lost and damaged documents


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, lambda document: os.truncate(document, 200)], ids=["lost", "damaged"])
def test_a_job_whose_document_is_lost_or_damaged_says_so_and_is_done_anew_by_restart(
    damage: Callable[[Path], object], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"input": str(folder), "output": str(tmp_path / "out"), "shard_rows": 250}
    interrupt(monkeypatch, 2, **asked)
    damage(tmp_path / "out" / "_job.json")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match=r"job\.json") as caught:
        predict_rows(**asked)
    assert "--restart" in caught.value.action
    assert contents(tmp_path / "out") == before
    done = predict_rows(**asked, restart=True)
    np.testing.assert_array_equal(table(done)["row"], np.arange(len(FEATURES)))
    ours = {"_job.json", "_rejects.parquet", *(f"part-{number:05d}.parquet" for number in range(10))}
    assert {path.name for path in done.path.iterdir()} == ours


def test_rejects_and_sources_of_a_job_that_are_damaged_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, 2, input=str(folder), shard_rows=250)
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


def write_csv(path: Path, count: int) -> str:
    """The first rows of the features, with a column more."""
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("note", "x1", "x2"), *(("plain", *row) for row in FEATURES[:count].tolist())])
    return str(path)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_parquet_keeps_types_and_columns_of_several_files(tmp_path: Path) -> None:
    data, days = tmp_path / "data", pa.array([0, 1, None], pa.date32())
    data.mkdir()
    first = pa.table({"x1": [1.0, 2.0, None], "day": days, "kind": pa.array(["a", None, "b"]).dictionary_encode()})
    first = first.append_column("x2", pa.array([3, 4, 5])).append_column("tags", pa.array([[1], [], None]))
    second = pa.table({"x2": [7, 8], "x1": [0.5, 1.5], "kind": [1, 2], "more": [True, False]})
    pq.write_table(first, data / "a.parquet")
    pq.write_table(second, data / "b.parquet")
    done = predict_rows(input=str(data), output=str(tmp_path / "out.parquet"), max_rejects=1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["x1", "day", "kind", "x2", "more", "prediction", "rejected"]
    assert found["day"].type == pa.date32()
    assert found["kind"].to_pylist() == ["a", None, "b", "1", "2"]
    assert found["more"].to_pylist() == [None, None, None, True, False]
    assert found["x2"].to_pylist() == [3, 4, 5, 7, 8]
    assert found["rejected"].to_pylist() == [None, None, "x1 is missing", None, None]
    answers = table(done)["prediction"].to_pylist()
    assert found["prediction"].to_pylist() == [*answers[:2], None, *answers[2:]]


def test_a_file_of_json_lines_has_the_columns_that_any_row_has(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x1": 1, "x2": 2}\n{"x1": 3, "x2": 4.5, "who": "me"}\n')
    predict_rows(input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.csv"))
    found = read_csv(tmp_path / "out.csv")
    assert [(float(row["x1"]), float(row["x2"]), row["who"]) for row in found] == [(1, 2, ""), (3, 4.5, "me")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_users_text_stands_as_it_was_also_where_the_model_takes_it_for_missing(suffix: str, tmp_path: Path) -> None:
    words, out = ["NA", "null", "", "NaN", "N/A", " x "], tmp_path / f"out.{suffix}"
    lines = ["x1,country,x2", *(f"{at},{word},1.50" for at, word in enumerate(words))]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    predict_rows(input=str(tmp_path / "in.csv"), output=str(out))
    found = pq.read_table(out).to_pylist() if suffix == "parquet" else read_csv(out)
    assert [row["country"] or "" for row in found] == words
    assert {row["x2"] for row in found} == {"1.50"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_of_arrays_the_file_has_row_and_source(suffix: str, tmp_path: Path) -> None:
    bad = FEATURES.copy()
    bad[[0, 1234]] = np.nan
    np.save(tmp_path / "rows.npy", bad)
    out = tmp_path / f"out.{suffix}"
    done = predict_rows(input=str(tmp_path / "rows.npy"), output=str(out), max_rejects=2, shard_rows=700)
    found = pq.read_table(out).to_pylist() if suffix == "parquet" else read_csv(out)
    assert list(found[0]) == ["row", "source", "prediction", "rejected"]
    assert [int(row["row"]) for row in found] == list(range(2500))
    assert {row["source"] for row in found} == {str(tmp_path / "rows.npy")}
    assert [at for at, row in enumerate(found) if row["rejected"]] == [0, 1234]
    assert len([row for row in found if row["prediction"] not in (None, "")]) == done.rows == 2498


@pytest.mark.slow
def test_a_file_appears_when_its_job_is_whole_and_the_same_command_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"input": write_csv(tmp_path / "in.csv", 2500), "output": str(tmp_path / "out.csv")}
    interrupt(monkeypatch, 3, **asked, shard_rows=250)
    assert not (tmp_path / "out.csv").exists()
    kept = {path: path.stat().st_mtime_ns for path in artifact_paths.all_predictions().glob("*/part-*")}
    assert len(kept) == 3
    done = predict_rows(**asked, shard_rows=250)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    before = (tmp_path / "out.csv").stat().st_mtime_ns
    assert predict_rows(**asked, shard_rows=250) == done
    assert (tmp_path / "out.csv").stat().st_mtime_ns == before, "it was not written again"
    (tmp_path / "out.csv").unlink()
    predict_rows(**asked, shard_rows=250)
    assert len(read_csv(tmp_path / "out.csv")) == 2500, "made anew of the same parts"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_file_is_replaced_only_as_a_prediction_wrote_it(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    first, second = (write_csv(tmp_path / f"{count}.csv", count) for count in (10, 20))
    out.write_text("mine\n")
    with pytest.raises(UsageError, match=r"out\.csv is there") as caught:
        predict_rows(input=first, output=str(out))
    assert "--restart" in caught.value.action
    assert out.read_text() == "mine\n"
    assert not artifact_paths.all_predictions().exists(), "nothing was predicted"
    predict_rows(input=first, output=str(out), restart=True)
    predict_rows(input=second, output=str(out))
    assert len(read_csv(out)) == 20, "of another input, over what the first has written"
    out.write_text(out.read_text().replace("plain", "edited"))
    with pytest.raises(UsageError, match=r"out\.csv is there"):
        predict_rows(input=first, output=str(out))
    assert "edited" in out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("column", ["prediction", "rejected"])
def test_a_column_of_the_input_that_is_called_like_one_of_ours_is_exit_2_before_a_row_is_predicted(
    column: str, tmp_path: Path
) -> None:
    source = str(tmp_path / "in.csv")
    Path(source).write_text(f"x1,x2,{column}\n1,2,3\n")
    with pytest.raises(UsageError, match=f"a column {column}"):
        predict_rows(input=source, output=str(tmp_path / "out.csv"))
    assert not artifact_paths.all_predictions().exists()
    assert predict_rows(input=source, output=str(tmp_path / "out")).rows == 1, "a folder has none of these"


@pytest.mark.slow
def test_a_file_beside_its_input_is_no_input_the_next_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_csv(data / "in.csv", 10)
    options = {"input": str(data), "output": str(data / "out.csv")}
    first = predict_rows(**options)
    assert predict_rows(**options) == first
    with pytest.raises(UsageError, match="is the output file"):
        predict_rows(input=str(data / "out.csv"), output=str(data / "out.csv"))


@pytest.mark.parametrize("address", ["s3://bucket/out.csv", "file:///tmp/out", "https://host/out.parquet"])
def test_an_address_is_exit_2_and_makes_no_folder(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert flows.cli.app.run(["predict", "--name", NAME, "--output", address]) == UsageError.exit_code
    told = capsys.readouterr().err
    assert f"--output {address}" in told
    assert "machine" in told
    assert set(tmp_path.iterdir()) == before
