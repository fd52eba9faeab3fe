"""Jobs of batch prediction: identity, resumption, rejected rows, drift, sessions, on Prefect's real engine."""

import json
import os
import pkgutil
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  (its settings, before one of them is changed)
import duckdb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import entropy

from candidate import Contender, synthetic
from documents import load
from prediction_jobs import FEATURES, NAME, contents, expected, interrupt, predict_rows, table, times
from table_files import written
from tasks.data.io import inputs
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.records import PublishedModel
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder


@pytest.fixture(autouse=True)
def published(candidates: list[Contender], prefect_api: str) -> PublishedModel:
    return candidates[0].publish()


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A file of 2500 rows of features."""
    np.save(tmp_path / "rows.npy", FEATURES)
    return str(tmp_path / "rows.npy")


MOVED = FEATURES + np.array([1, -1], np.float32)


def with_bad_rows(folder: Path, bad: list[int]) -> str:
    """A file of these rows of which some are no numbers."""
    rows = FEATURES.copy()
    rows[bad] = np.nan
    np.save(folder / "rows.npy", rows)
    return str(folder / "rows.npy")


def job(folder: Path) -> Any:
    return load(folder / "_job.json")


def footer(path: Path) -> Any:
    return json.loads(pq.read_metadata(path).metadata[b"gradmill"])


def load_test_features(candidate: Contender) -> Any:
    return safetensors.numpy.load_file(candidate.prepared.test.path)["features"]


def test_every_output_names_its_job_rows_and_model_and_tools_read_the_same_rows(
    tmp_path: Path, published: PublishedModel
) -> None:
    """Parts and workers do not change a single bit."""
    rejects = [7, 1234]
    asked = {"input": with_bad_rows(tmp_path, rejects), "max_rejects": 2}
    done = predict_rows(**asked, shard_rows=700, workers=3)
    document, model = job(done.path), {"name": NAME, "version": 1, "sha256": published.model.sha256}
    assert (document["job"], document["model"], done.path.name) == (done.job, model, done.job)
    parts = [f"part-{number:05d}.parquet" for number in range(4)]
    for part, rows, count in zip(parts, document["shards"], (1, 1, 0, 0), strict=True):
        expected_of_part = {"job": done.job, "model": model, "shard": rows, "rejects": count}
        assert expected_of_part.items() <= footer(done.path / part).items()
        assert pq.read_schema(done.path / part).equals(pq.read_schema(done.path / parts[0]))
    assert {path.name for path in done.path.iterdir()} == {"_job.json", *parts}
    answers, file = table(done), tmp_path / "answers.parquet"
    predict_rows(**asked, output=file)
    assert table(predict_rows(**asked, shard_rows=123, workers=1)).equals(answers)
    frame = answers.to_pandas()
    assert [*frame] == ["row", "source", "prediction", "rejected"]
    assert frame["row"].tolist() == [*range(len(FEATURES))]
    for is_rejected in (frame["rejected"].notna(), frame["prediction"].isna()):
        assert frame.index[is_rejected].tolist() == rejects
    for read in (
        pyarrow.dataset.dataset(done.path).to_table().to_pandas(),
        pd.read_parquet(done.path),
        duckdb.connect().execute(f"from '{done.path}/part-*.parquet' order by row").df(),
        pl.read_parquet(f"{done.path}/part-*.parquet").sort("row").to_pandas(),
        pd.read_parquet(file),
    ):
        pd.testing.assert_frame_equal(read.astype(frame.dtypes), frame)


@pytest.mark.slow
def test_the_same_job_again_only_judges_drift_by_the_bound_that_is_asked_for_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, candidates: list[Contender]
) -> None:
    """Drift is the population stability index."""
    np.save(tmp_path / "moved.npy", MOVED)
    asked = {"input": tmp_path / "moved.npy", "shard_rows": 700}
    first = predict_rows(**asked, max_drift=1000)
    before = times(first.path)
    assert (first.drift.verdict, "drifted" in caplog.text) == ("stable", False)
    second = predict_rows(**asked)
    assert (second.drift.verdict, second.drift.maximum, "drifted" in caplog.text) == ("drift", 0.2, True)
    assert second == first.model_copy(update={"drift": second.drift})
    assert job(first.path)["drift"]["verdict"] == "drift"
    assert predict_rows(**asked) == second
    assert f"job {first.job} is done" in caplog.text
    assert times(first.path) == before, "no row was predicted again"
    old, new = expected(candidates[0], load_test_features(candidates[0])), expected(candidates[0], MOVED)
    bins = np.concatenate([[-np.inf], np.quantile(old, np.linspace(0.1, 0.9, 9)), [np.inf]])
    e, f = (np.maximum(np.histogram(each, bins)[0] / len(each), 1e-4) for each in (old, new))
    assert second.drift.index["prediction"] == pytest.approx(entropy(f, e) + entropy(e, f), rel=0.02)
    np.save(tmp_path / "moved.npy", MOVED[:10])
    assert predict_rows(**asked).drift.verdict == "too few rows"


def make_older(out: Path) -> None:
    """Leave what 82fab8f3 left: parts without their rejected rows, which are in a file beside them."""
    for part in out.glob("part-*"):
        rows, document = pq.read_table(part), footer(part)
        del document["first_rejects"]
        good = rows.filter(pc.is_null(rows["rejected"])).drop_columns("rejected")
        pq.write_table(good.replace_schema_metadata({"gradmill": json.dumps(document)}), part)
    written(out / "_rejects.parquet", {"row": [7], "reason": ["x1 is missing"]})


def make_older_and_unfinished(out: Path) -> None:
    make_older(out)
    (out / "part-00001.parquet").unlink()
    (out / "_job.json").write_text(json.dumps(job(out) | {"status": "running"}))


# What becomes of a job that was done, and how many of its parts are there and of no use.
ENDS: dict[str, tuple[Callable[[Path], None], int]] = {
    "a part lost": (lambda out: (out / "part-00003.parquet").unlink(), 0),
    "of 82fab8f3": (make_older, 5),
    "of 82fab8f3, half done": (make_older_and_unfinished, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_has_lost_a_part_or_is_of_82fab8f3_is_finished_anew_but_not_beside_what_was_added(
    end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, (change, useless) = tmp_path / "out", ENDS[end]
    options = {"input": with_bad_rows(tmp_path, [7]), "output": out, "shard_rows": 500, "max_rejects": 1}
    first = predict_rows(**options)
    names, before = {path.name for path in out.iterdir()}, table(first)
    change(out)
    assert predict_rows(**options).rejects == 1
    assert table(first).equals(before)
    assert {path.name for path in out.iterdir()} == names
    assert (f"predicted again: {useless} parts, " in caplog.text) == (useless > 0)
    (out / "part-00077.parquet").write_bytes(b"somebody's")
    whole = contents(out)
    for others in ({"restart": True}, {"batch_size": 7}):
        with pytest.raises(UsageError, match=r"something else \(part-00077"):
            predict_rows(**options, **others)
    assert predict_rows(**options).job == first.job, "a done job is read only"
    assert contents(out) == whole


@pytest.mark.slow
def test_input_model_and_parameters_each_make_another_job(rows: str, candidates: list[Contender]) -> None:
    """Only a full digest sees a change between the sampled blocks."""
    jobs = [predict_rows(input=rows).job, predict_rows(input=rows, batch_size=7).job]
    os.utime(rows, (1, 1))
    jobs.append(predict_rows(input=rows).job)
    candidates[1].publish()
    jobs += [predict_rows(input=rows, version=version).job for version in (None, 1)]
    for value in (0, 1):
        large = np.zeros((500_000, 2), np.float32)
        large[90_000] = value  # byte 720 128, between the third and the fourth block
        np.save(rows, large)
        os.utime(rows, (1, 1))
        jobs += [predict_rows(input=rows, full_digest=full).job for full in (False, True)]
    assert jobs[5] == jobs[7], "the sampled blocks are the same"
    assert len(set(jobs)) == len(jobs) - 1


@pytest.mark.slow
@pytest.mark.parametrize("has_input", [True, False])
def test_an_unfinished_job_is_finished_with_its_own_version_and_test_split_and_what_is_whole_and_its_own(
    has_input: bool, rows: str, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is unfinished a note of it is there, by which pruning finds its version wherever it writes."""
    out = artifact_paths.all_predictions() / "deep" / "out"
    features = FEATURES if has_input else load_test_features(candidates[0])
    asked = {"input": rows if has_input else None, "shard_rows": len(features) // 10}
    other = predict_rows(**asked, batch_size=3)
    interrupt(monkeypatch, 4, **asked, output=out)
    kept = times(out)
    assert (len(kept), job(out)["status"]) == (4, "running")
    torn, whole, *_ = sorted(kept)  # which shards came first is the threads' affair
    torn.write_bytes(torn.read_bytes()[:-10])
    of_other_shard, of_other_job, *_ = {out / f"part-{number:05d}.parquet" for number in range(10)} - {*kept}
    of_other_shard.write_bytes(whole.read_bytes())
    of_other_job.write_bytes((other.path / of_other_job.name).read_bytes())
    run = RunFolder.open("other", {})
    Contender(run, synthetic(run, 1, num_examples=1200), 0).publish()
    (note,) = artifact_paths.jobs_elsewhere().iterdir()
    done = predict_rows(**asked, output=out)
    assert not note.exists()
    assert (done.path, done.version, done.parts) == (out, 1, 10)
    after = times(out)
    assert {path for path in kept if after[path] == kept[path]} == {*kept} - {torn}
    assert {footer(path)["job"] for path in after} == {done.job}
    assert table(done)["row"].to_pylist() == [*range(len(features))]
    assert_allclose(table(done)["prediction"], expected(candidates[0], features), atol=1e-4)
    following = predict_rows(**asked)
    assert (following.version, following.rows) == (2, 2500 if has_input else 1200), "it takes the champion of now"


@pytest.mark.slow
def test_another_job_in_the_output_folder_is_named_by_its_first_difference(
    rows: str, tmp_path: Path, candidates: list[Contender]
) -> None:
    out = tmp_path / "out"
    predict_rows(input=rows, output=out)

    def refuse(words: str, **options: Any) -> None:
        with pytest.raises(UsageError, match=f"holds job [0-9a-f]+, which has {words}"):
            predict_rows(**{"input": rows} | options, output=out)

    refuse("other options", batch_size=7)
    refuse("another input, .*rows.npy", input=write_csv(tmp_path / "other.csv", 3))
    os.utime(rows, (1, 1))
    refuse("another input, .*rows.npy as it was before")
    candidates[1].publish()
    refuse(f"another model, {NAME} version 1")


def test_a_second_process_waits_for_the_first_and_finds_the_job_done(rows: str) -> None:
    contexts = [copy_context() for _ in range(2)]  # Prefect keeps its settings there
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda each: each.run(predict_rows, input=rows, shard_rows=100), contexts))
    assert done[0] == done[1]
    assert table(done[0]).num_rows == 2500


def write_short(path: Path, num_bad: int) -> str:
    """200 rows of which some are too short."""
    path.write_text("x1,x2\n" + "1,2\n" * (200 - num_bad) + "1,\n" * num_bad)
    return str(path)


@pytest.mark.slow
def test_one_row_in_a_hundred_may_be_rejected_more_stop_the_job_and_a_higher_limit_resumes_it(tmp_path: Path) -> None:
    assert predict_rows(input=write_short(tmp_path / "two.csv", 2)).rejects == 2
    asked = {"input": write_short(tmp_path / "three.csv", 3), "output": tmp_path / "out"}
    with pytest.raises(DataError, match=r"at least 3 of 200 rows .* line 199 of .*three\.csv: x2 is missing") as caught:
        predict_rows(**asked)
    assert "at most 2" in caught.value.expected
    assert job(tmp_path / "out")["status"] == "running"
    done = predict_rows(**asked, max_rejects=3)
    assert (done.rows, done.rejects) == (197, 3)
    with pytest.raises(DataError, match="the first is line 199 of"):
        predict_rows(**asked, max_rejects=2)  # what is done is measured by what is tolerated now
    assert predict_rows(**asked, max_rejects=3) == done


@pytest.mark.slow  # hundreds of thousands of rows
def test_rejected_rows_in_hundreds_of_thousands_are_never_all_in_memory_and_reading_stops_soon_after_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "bad.npy", np.full((400_000, 2), np.nan, np.float32))
    asked, read, chunks = {"input": tmp_path / "bad.npy", "workers": 1}, list[int](), inputs.read_batches

    def counted(*arguments: Any) -> Any:
        for chunk in chunks(*arguments):
            read.append(len(chunk.reasons))
            yield chunk

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "read_batches", counted)
        with pytest.raises(DataError, match=r"of 400,000 rows cannot be predicted, the first is row 1 of"):
            predict_rows(**asked, max_rejects=100_000, shard_rows=400_000)
    assert 100_000 < sum(read) <= 100_000 + 2**17
    (folder,) = (path.parent for path in artifact_paths.all_predictions().glob("*/_job.json"))
    assert not list(folder.glob("part-*")), "a part appears whole or not at all"
    tracemalloc.start()
    try:
        done = predict_rows(**asked, max_rejects=400_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.rows, done.rejects) == (0, 400_000)
    assert table(done)["rejected"].null_count == 0
    assert peak < 80 * 2**20, "as tuples they take over 100 MB"


@pytest.mark.slow
@pytest.mark.parametrize(("address", "found"), [("tcp://127.0.0.1", "missing port"), ("tcp://127.0.0.1:1", "tcp:")])
def test_a_dask_scheduler_that_is_not_there_is_named(address: str, found: str, rows: str) -> None:
    predict_rows(input=rows)  # done, and refused all the same
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EnvironmentProblem, match=f"no Dask scheduler at {address}: .*{found}"),
    ):
        predict_rows(input=rows, runner="dask", dask_address=address)


# Folders and files that jobs write into: nothing of anybody else's is touched, and every job can be repeated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files of rows."""
    data = tmp_path / "data"
    data.mkdir()
    for number, rows in enumerate(np.split(FEATURES, 2)):
        np.save(data / f"{number}.npy", rows)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("source", ["", "/*", "/**"])
def test_output_inside_the_input_can_be_repeated_and_resumed_and_is_no_input_itself(
    source: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = str(folder / "out"), str(folder / "deep" / "second")
    options = {"input": f"{folder}{source}", "shard_rows": 250}
    interrupt(monkeypatch, 2, **options, output=first)
    whole = predict_rows(**options, output=first)
    assert_array_equal(table(whole)["row"], np.arange(len(FEATURES)))
    assert predict_rows(**options, output=second).job == whole.job, "what the first wrote is no input of the second"
    assert predict_rows(**options, output=first) == whole
    before = contents(whole.path)
    for each in (whole.path, whole.path / "part-00000.parquet"):
        with pytest.raises(UsageError, match="output folder"):
            predict_rows(input=each, output=first, restart=True)
    assert contents(whole.path) == before


@pytest.mark.slow
def test_artifacts_below_the_input_are_no_input_but_can_be_named(folder: Path, tmp_path: Path) -> None:
    assert artifact_paths.root().parent == tmp_path
    first = predict_rows(input=tmp_path)
    assert first.rows == len(FEATURES)
    assert predict_rows(input=tmp_path) == first
    inside = artifact_paths.dataset("mine")
    shutil.copytree(folder, inside)
    for source in (inside, inside / "0.npy", f"{artifact_paths.root()}/datasets/mine/*.npy"):
        assert predict_rows(input=source).rows >= len(FEATURES) / 2


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
        predict_rows(input=rows, shard_rows=100, workers=1)
    jobs = artifact_paths.all_predictions().glob("*/_job.json")
    assert [load(job)["status"] for job in jobs] == statuses


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lost": (Path.unlink, r"job\.json"),
    "damaged": (lambda document: os.truncate(document, 200), r"job\.json"),
    "version gone": (lambda _: shutil.rmtree(artifact_paths.version(NAME, 1)), "has no version 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_an_unfinished_job_whose_document_or_version_is_gone_says_so_and_is_done_anew_by_restart(
    harm: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: list[Contender]
) -> None:
    out, (change, words) = tmp_path / "out", HARMS[harm]
    asked = {"input": folder, "output": out, "shard_rows": 250}
    interrupt(monkeypatch, 2, **asked)
    candidates[1].publish()
    change(out / "_job.json")
    before = contents(out)
    with pytest.raises(DataError if "job" in words else UsageError, match=words) as caught:
        predict_rows(**asked)
    assert ("--restart" in caught.value.action) == ("job" in words)
    assert contents(out) == before
    done = predict_rows(**asked, restart=True)
    assert_array_equal(table(done)["row"], np.arange(len(FEATURES)))
    assert done.version == 2


# One file of all rows


def write_csv(path: Path, count: int) -> str:
    """The first rows of the features, with a column more."""
    x1, x2 = FEATURES[:count].T
    return str(written(path, {"note": ["plain"] * count, "x1": x1, "x2": x2}))


def test_a_parquet_keeps_types_and_columns_of_several_files(tmp_path: Path) -> None:
    days = pa.array([0, None], pa.date32())
    first = {"x1": [1.0, None], "day": days, "kind": pa.array(["a", None]).dictionary_encode()}
    written(tmp_path / "data/a.parquet", first | {"x2": [3, 4], "tags": [[1], None]})
    written(tmp_path / "data/b.parquet", {"x2": [7], "x1": [0.5], "kind": [1], "more": [True]})
    done = predict_rows(input=tmp_path / "data", output=tmp_path / "out.parquet", max_rejects=1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["day"].type == pa.date32()
    assert found.to_pydict() == {
        "x1": [1.0, None, 0.5],
        "day": [*days.to_pylist(), None],
        "kind": ["a", None, "1"],
        "x2": [3, 4, 7],
        "more": [None, None, True],
        "prediction": table(done)["prediction"].to_pylist(),
        "rejected": [None, "x1 is missing", None],
    }


def test_a_file_of_json_lines_has_the_columns_that_any_row_has(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x1": 1, "x2": 2}\n{"x1": 3, "x2": 4, "who": "me"}\n')
    predict_rows(input=tmp_path / "in.jsonl", output=tmp_path / "out.csv")
    rows = pd.read_csv(tmp_path / "out.csv")
    assert [*rows] == ["x1", "x2", "who", "prediction", "rejected"]
    assert rows["who"].fillna("").tolist() == ["", "me"]


@pytest.mark.slow
def test_a_file_appears_when_its_job_is_whole_and_the_same_command_finds_it_though_it_lies_beside_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "in.csv", 2500)
    out = tmp_path / "data" / "out.csv"
    asked = {"input": tmp_path / "data", "output": out, "shard_rows": 250}
    interrupt(monkeypatch, 3, **asked)
    assert not out.exists()
    kept = times(artifact_paths.all_predictions(), "*/part-*")
    assert len(kept) == 3
    done = predict_rows(**asked)
    before = out.stat().st_mtime_ns
    assert predict_rows(**asked) == done
    assert out.stat().st_mtime_ns == before, "it was not written again"
    out.unlink()
    predict_rows(**asked)
    assert len(pd.read_csv(out)) == 2500, "made anew of the same parts"
    assert kept.items() <= times(artifact_paths.all_predictions(), "*/part-*").items()
    for source in ("data", "data/*.csv"):
        asked = {"input": tmp_path / source, "output": tmp_path / "out", "shard_rows": 250}
        assert predict_rows(**asked).job == done.job, "it is no input"
    assert predict_rows(input=out).rows == 2500, "unless it is named"
    with pytest.raises(UsageError, match="is the output file"):
        predict_rows(input=out, output=out)
    out.write_text(out.read_text().replace("plain", "edited"))
    assert predict_rows(input=tmp_path / "data").rows == 5000, "somebody has changed it"


@pytest.mark.slow
def test_a_file_is_replaced_only_as_a_prediction_wrote_it(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    first, second = (write_csv(tmp_path / f"{count}.csv", count) for count in (10, 20))
    out.write_text("mine\n")
    with pytest.raises(UsageError, match=r"out\.csv already exists") as caught:
        predict_rows(input=first, output=out)
    assert "--restart" in caught.value.action
    assert out.read_text() == "mine\n"
    assert not artifact_paths.all_predictions().exists(), "nothing was predicted"
    predict_rows(input=first, output=out, restart=True)
    predict_rows(input=second, output=out)
    assert len(pd.read_csv(out)) == 20, "of another input, over what the first has written"
    out.write_text(out.read_text().replace("plain", "edited"))
    with pytest.raises(UsageError, match=r"out\.csv already exists"):
        predict_rows(input=first, output=out)
    assert "edited" in out.read_text()


@pytest.mark.slow
def test_columns_of_the_input_that_are_called_like_ours_are_exit_2_before_a_row_is_predicted(tmp_path: Path) -> None:
    source = str(tmp_path / "in.csv")
    Path(source).write_text("x1,x2,prediction,rejected\n1,2,3,4\n")
    with pytest.raises(UsageError, match="a column prediction, rejected"):
        predict_rows(input=source, output=tmp_path / "out.csv")
    assert not artifact_paths.all_predictions().exists()
    assert predict_rows(input=source, output=tmp_path / "out").rows == 1, "a folder has none of these"
