"""Jobs of batch prediction: identity, resumption, rejected rows, drift, sessions, on Prefect's real engine."""

import csv
import json
import os
import pkgutil
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from prefect.task_runners import ThreadPoolTaskRunner
from scipy.stats import entropy

from candidate import Contender, seal, synthetic
from command_line import assert_clear, typed
from conftest import REPOSITORY
from prediction_jobs import FEATURES, NAME, contents, expected, interrupt, predict_rows, table, times
from table_files import written
from tasks.batch import output_dir, plan, results, session_pool, shard
from tasks.data.io import inputs
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.records import PublishedModel
from tasks.serving import runtime
from tasks.serving.drift import Drift
from tasks.stage import shards
from tasks.store import artifact_paths, housekeeping
from tasks.store.predictions import Job, Shard
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


def job(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "_job.json").read_text())
    return document


def footer(path: Path) -> Any:
    return json.loads(pq.read_metadata(path).metadata[b"gradmill"])


@pytest.mark.slow
def test_parts_workers_and_batches_do_not_change_a_single_bit(rows: str, tmp_path: Path) -> None:
    one = table(predict_rows(input=rows, output=tmp_path / "one", workers=1))
    many = table(predict_rows(input=rows, output=tmp_path / "many", shard_rows=123, workers=3))
    assert one.equals(many)


def test_every_output_names_its_job_rows_and_model(tmp_path: Path, published: PublishedModel) -> None:
    rows, model = FEATURES.copy(), {"name": NAME, "version": 1, "sha256": published.model.sha256}
    for num_bad in (0, 1):
        rows[:num_bad] = np.nan
        np.save(tmp_path / "rows.npy", rows)
        done = predict_rows(input=tmp_path / "rows.npy", shard_rows=1000, max_rejects=1)
        document = job(done.path)
        assert document["job"] == done.job == done.path.name
        assert document["model"]["sha256"] == published.model.sha256 == done.model_sha256
        assert footer(done.path / "_rejects.parquet") == {"job": done.job, "model": model, "rejects": num_bad}
        parts = [f"part-{number:05d}.parquet" for number in range(done.parts)]
        for part, (number, start, stop) in zip(parts, document["shards"], strict=True):
            found = footer(done.path / part)
            assert (found["job"], found["model"], found["shard"]) == (done.job, model, [number, start, stop])
            assert stop - start - found["rejects"] == pq.read_metadata(done.path / part).num_rows
        assert {path.name for path in done.path.iterdir()} == {"_job.json", "_rejects.parquet", *parts}


@pytest.mark.slow
def test_the_same_job_again_only_judges_drift_by_the_bound_that_is_asked_for_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "moved.npy", MOVED)
    asked = {"input": tmp_path / "moved.npy"}
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
    assert {path.name for path in first.path.iterdir()} == {"_job.json", "_rejects.parquet", "part-00000.parquet"}


@pytest.mark.slow
def test_a_done_job_that_has_lost_a_part_or_its_rejects_is_finished_anew(tmp_path: Path) -> None:
    bad = FEATURES.copy()
    bad[7] = np.nan
    np.save(tmp_path / "rows.npy", bad)
    options = {"input": tmp_path / "rows.npy", "shard_rows": 500, "max_rejects": 1}
    first = predict_rows(**options)
    before = table(first)
    for lost in ("part-00000.parquet", "part-00003.parquet", "_rejects.parquet"):
        (first.path / lost).unlink()
        assert predict_rows(**options).rejects == 1
        assert table(first).equals(before)
        assert pq.read_table(first.path / "_rejects.parquet")["row"].to_pylist() == [7]


@pytest.mark.slow
def test_input_model_and_parameters_each_make_another_job(rows: str, candidates: list[Contender]) -> None:
    jobs = [predict_rows(input=rows).job, predict_rows(input=rows, batch_size=7).job]
    os.utime(rows, (1, 1))
    jobs.append(predict_rows(input=rows).job)
    candidates[1].publish()
    jobs.append(predict_rows(input=rows).job)
    jobs.append(predict_rows(input=rows, version=1).job)
    assert len(set(jobs)) == 5


@pytest.mark.slow
def test_only_a_full_digest_sees_a_change_between_the_sampled_blocks(tmp_path: Path) -> None:
    large = np.zeros((500_000, 2), np.float32)

    def jobs(value: float) -> list[str]:
        large[90_000] = value  # byte 720 128, between the third and the fourth block
        np.save(tmp_path / "large.npy", large)
        os.utime(tmp_path / "large.npy", (1, 1))
        return [predict_rows(input=tmp_path / "large.npy", full_digest=full).job for full in (False, True)]

    before, after = jobs(0), jobs(1)
    assert before[0] == after[0], "the sampled blocks are the same"
    assert before[1] != after[1]


@pytest.mark.slow
def test_an_unfinished_job_is_finished_with_its_own_version_and_what_is_whole_and_its_own(
    rows: str, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = {"input": rows, "output": out, "shard_rows": 250}
    other = predict_rows(input=rows, shard_rows=250, batch_size=3)
    interrupt(monkeypatch, 4, **asked)
    kept = times(out)
    assert len(kept) == 4
    torn, whole, *_ = sorted(kept)  # which shards came first is the threads' affair
    torn.write_bytes(torn.read_bytes()[:-10])
    of_other_shard, of_other_job, *_ = {out / f"part-{number:05d}.parquet" for number in range(10)} - {*kept}
    of_other_shard.write_bytes(whole.read_bytes())
    of_other_job.write_bytes((other.path / of_other_job.name).read_bytes())
    assert job(out)["status"] == "running"
    candidates[1].publish()
    assert 1 in housekeeping.find_protected(NAME)
    done = predict_rows(**asked)
    assert (done.path, done.version, done.parts) == (out, 1, 10)
    after = times(out)
    assert {path for path in kept if after[path] == kept[path]} == {*kept} - {torn}
    assert {footer(path)["job"] for path in after} == {done.job}
    assert table(done)["row"].to_pylist() == list(range(2500))
    np.testing.assert_allclose(table(done)["prediction"], expected(candidates[0]), atol=1e-4)
    assert predict_rows(input=rows, shard_rows=250).version == 2, "the next one takes the champion of now"


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_and_finds_the_job_done(rows: str) -> None:
    contexts = [copy_context() for _ in range(2)]  # Prefect keeps its settings there
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda each: each.run(predict_rows, input=rows, shard_rows=100), contexts))
    assert done[0] == done[1]
    assert table(done[0]).num_rows == 2500


@pytest.mark.slow
def test_too_many_rejects_stop_the_job_and_a_higher_limit_resumes_it(tmp_path: Path) -> None:
    bad, asked = FEATURES.copy(), {"input": tmp_path / "rows.npy", "workers": 1}
    bad[[700, 1234]] = np.nan
    np.save(tmp_path / "rows.npy", bad)
    with pytest.raises(DataError, match=r"row 700 of .*rows\.npy: not a finite number") as caught:
        predict_rows(**asked)
    assert "at most 0" in caught.value.expected
    (folder,) = artifact_paths.all_predictions().iterdir()
    assert pq.read_table(folder / "_rejects.parquet")["row"].to_pylist() == [700, 1234]
    assert job(folder)["status"] == "running"
    done = predict_rows(**asked, max_rejects=2)
    assert (done.path, done.rejects) == (folder, 2)
    with pytest.raises(DataError, match="the first is row 700 of"):
        predict_rows(**asked, max_rejects=1)  # what is done is measured by what is tolerated now
    assert predict_rows(**asked, max_rejects=2) == done


def test_one_percent_of_a_table_may_be_rejected(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x1,x2\n" + "1,2\n" * 198 + "1,\n" * 2)
    assert predict_rows(input=path).rejects == 2
    path.write_text("x1,x2\n" + "1,2\n" * 197 + "1,\n" * 3)
    with pytest.raises(DataError, match="3 of 200 rows"):
        predict_rows(input=path)


def test_columns_name_the_features_in_the_models_order(tmp_path: Path, candidates: list[Contender]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("b,a\n1,2\n3,4\n")
    found = table(predict_rows(input=path, columns=("a", "b")))["prediction"]
    features = np.array([[2, 1], [4, 3]], np.float32)
    np.testing.assert_allclose(found, expected(candidates[0], features), atol=1e-4)


def test_missing_part_is_noticed_by_the_final_check(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(folder: Path, rows_of: Any, *rest: Any) -> Any:
        footer = shard.predict_shard(folder, rows_of, *rest)
        if rows_of.number == 1:
            artifact_paths.part(folder, 1).unlink()
        return footer

    with monkeypatch.context() as patch:
        patch.setattr("tasks.stage.shards.predict_shard", forgetful)
        with pytest.raises(DataError, match=r"part-00001.* does not hold rows 1250 to 2500"):
            predict_rows(input=rows, shard_rows=1250)
    assert predict_rows(input=rows, shard_rows=1250).rows == 2500


@pytest.mark.slow
def test_drift_is_the_population_stability_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, candidates: list[Contender]
) -> None:
    def drift(rows: Any) -> Drift:
        np.save(tmp_path / "rows.npy", rows)
        return predict_rows(input=tmp_path / "rows.npy", shard_rows=700).drift

    assert [drift(rows).verdict for rows in (FEATURES, MOVED[:10])] == ["stable", "too few rows"]
    assert "drifted" not in caplog.text
    moved = drift(MOVED)
    assert moved.verdict == "drift"
    assert "drifted" in caplog.text
    test = safetensors.numpy.load_file(candidates[0].prepared.test.path)["features"]
    old, new = expected(candidates[0], test), expected(candidates[0], MOVED)
    bins = np.concatenate([[-np.inf], np.quantile(old, np.linspace(0.1, 0.9, 9)), [np.inf]])
    e, f = (np.maximum(np.histogram(each, bins)[0] / len(each), 1e-4) for each in (old, new))
    assert moved.index["prediction"] == pytest.approx(entropy(f, e) + entropy(e, f), rel=0.02)


def test_a_local_cluster_opens_one_session_a_worker_wherever_its_processes_are(
    rows: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The shards are labelled in this process, as by workers of one thread with other settings than the command's."""
    found, opened, label = list[Any](), runtime.open_session, shard.predict_shard

    def counted(*arguments: Any) -> Any:
        found.append(opened(*arguments))
        return found[-1]

    def elsewhere(*arguments: Any) -> Any:
        session_pool._open_pool.cache_clear()  # a process of its own
        with monkeypatch.context() as patch:
            patch.chdir("/")
            patch.delenv("GRADMILL_ARTIFACTS")
            patch.setattr(runtime, "open_session", counted)
            return label(*arguments)

    @contextmanager
    def one_by_one(*_: Any) -> Iterator[Any]:
        with ThreadPoolTaskRunner[Any](max_workers=1) as runner:
            yield runner

    with monkeypatch.context() as patch:
        patch.setattr(shards, "open_runner", one_by_one)
        patch.setattr(shards, "predict_shard", elsewhere)
        patch.setattr(shards, "_threads_of_dask_worker", lambda: 1)
        done = predict_rows(input=rows, runner="dask", shard_rows=1250, workers=4)
    assert len(found) == done.parts == 2
    assert table(done)["row"].to_pylist() == list(range(len(FEATURES)))


def test_a_pinned_version_with_other_bytes_is_exit_4(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, 1, input=rows, shard_rows=1250, version=1)
    model = artifact_paths.version(NAME, 1) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[content.index(b"dataset_digest") + 20] ^= 1
    model.chmod(0o644)
    model.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        predict_rows(input=rows, shard_rows=1250, version=1)


def test_a_version_without_a_profile_predicts_and_says_that_drift_is_unknown(rows: str) -> None:
    folder = artifact_paths.version(NAME, 1)
    document = json.loads((folder / "manifest.json").read_text())
    del document["profile"]
    seal(folder, document)
    assert predict_rows(input=rows).drift.verdict == "no reference"


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_leaves_the_job_done(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "softmax-regression"
    shutil.copytree(REPOSITORY / "tests" / "store_of_c692a25" / "models" / name, artifacts / "models" / name)
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8))

    def failing(*_: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("tasks.judging.plots.draw_image_grid", failing)
    done = predict_rows(name=name, input=tmp_path / "rows.npy", output=tmp_path / "out")
    assert (done.rows, done.picture, job(done.path)["status"]) == (20, None, "done")
    assert "no picture of the predictions: no font" in caplog.text
    assert not list(done.path.glob(".*"))


MEBIBYTE = 2**20


@pytest.fixture
def nothing_good(tmp_path: Path) -> str:
    """A file of a million rows of which none can be predicted."""
    np.save(tmp_path / "bad.npy", np.full((1_000_000, 2), np.nan, np.float32))
    return str(tmp_path / "bad.npy")


@pytest.mark.slow  # a million rows
def test_a_million_rejected_rows_are_never_all_in_memory(nothing_good: str) -> None:
    tracemalloc.start()
    try:
        done = predict_rows(input=nothing_good, workers=1, max_rejects=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.rows, done.rejects) == (0, 1_000_000)
    found = pq.read_table(done.path / "_rejects.parquet", columns=["row"])["row"].to_numpy()
    np.testing.assert_array_equal(found, np.arange(1_000_000))
    assert peak < 120 * MEBIBYTE, "as tuples they take over 250"


@pytest.mark.slow
@pytest.mark.parametrize(("address", "found"), [("tcp://127.0.0.1", "missing port"), ("tcp://127.0.0.1:1", "tcp:")])
def test_a_dask_scheduler_that_is_not_there_is_named(address: str, found: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((3, 2), np.float32))
    predict_rows(input=tmp_path / "rows.npy")  # done, and refused all the same
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EnvironmentProblem, match=f"no Dask scheduler at {address}: .*{found}"),
    ):
        predict_rows(input=tmp_path / "rows.npy", runner="dask", dask_address=address)


NOT_UTF_8 = os.fsdecode(b"caf\xe9.npy")


NO_PATHS = {
    "": "an empty input",
    NOT_UTF_8: "not UTF-8",
    f"rows.npy --output {NOT_UTF_8}": "caf\ufffd.npy is not UTF-8",
}


@pytest.mark.parametrize("words", NO_PATHS)
def test_what_can_be_no_path_is_exit_2(words: str) -> None:
    refused = typed("predict", *words.split(" "), "--name", NAME)
    assert_clear(refused, 2)
    assert NO_PATHS[words] in refused.stderr


def test_arrow_pandas_duckdb_and_polars_read_the_same_rows(tmp_path: Path) -> None:
    rejects, rows = [7, 1234], FEATURES.copy()
    rows[rejects] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    done = predict_rows(input=tmp_path / "rows.npy", shard_rows=700, max_rejects=2)
    folder, parts = done.path, f"{done.path}/part-*.parquet"
    answers = table(done)
    assert answers.column_names == ["row", "source", "prediction"]
    assert answers["row"].to_pylist() == np.delete(np.arange(len(FEATURES)), rejects).tolist()
    for read in (
        pyarrow.dataset.dataset(folder).to_table(),
        pa.Table.from_pandas(pd.read_parquet(folder)),
        pa.Table.from_pandas(duckdb.connect().execute(f"from '{parts}' order by row").df()),
        pl.read_parquet(parts).sort("row").to_arrow(),
    ):
        assert read.to_pylist() == answers.to_pylist()
    assert pd.read_parquet(folder / "_rejects.parquet")["row"].tolist() == rejects


@pytest.mark.slow
def test_reading_stops_soon_after_too_many_rows_were_rejected(
    nothing_good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, chunks = [], inputs.read_batches

    def counted(*arguments: Any) -> Any:
        for chunk in chunks(*arguments):
            read.append(len(chunk.rejects))
            yield chunk

    monkeypatch.setattr(inputs, "read_batches", counted)
    with pytest.raises(DataError, match=r"of 1,000,000 rows cannot be read, the first is row 0 of"):
        predict_rows(input=nothing_good, workers=1, max_rejects=200_000, shard_rows=1_000_000)
    assert 200_000 < sum(read) <= 200_000 + 2**17
    (folder,) = (path.parent for path in artifact_paths.all_predictions().glob("*/_job.json"))
    assert pq.read_metadata(folder / "_rejects.parquet").num_rows == sum(read)
    assert not list(folder.glob("part-*")), "a part appears whole or not at all"


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
def test_restart_into_the_folder_of_its_own_input_keeps_the_input(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predict_rows(input=folder, output=output, shard_rows=500)
    before = contents(output)
    for source in (output, output / "part-00000.parquet"):
        with pytest.raises(UsageError, match="output folder"):
            predict_rows(input=source, output=output, restart=True)
    assert contents(output) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part-00077.parquet", "x.partial", ".sources.parquet", ".cache/download.partial"])
def test_restart_beside_something_that_was_added_is_refused_before_anything_is_touched(
    name: str, folder: Path, tmp_path: Path
) -> None:
    output, added = tmp_path / "out", tmp_path / "out" / name
    asked = {"input": folder, "output": output}
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
    assert [json.loads(job.read_text())["status"] for job in jobs] == statuses


@pytest.mark.slow
def test_without_input_an_unfinished_job_keeps_the_test_split_of_its_own_version(
    candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 2, shard_rows=250)
    run = RunFolder.open("other", {})
    Contender(run, synthetic(run, 1, num_examples=1200), 0).publish()
    done = predict_rows(shard_rows=250)
    assert (done.version, done.rows) == (1, 1000)
    features = safetensors.numpy.load_file(candidates[0].prepared.test.path)["features"]
    np.testing.assert_allclose(table(done)["prediction"], expected(candidates[0], features), atol=1e-4)
    after = predict_rows(shard_rows=250)
    assert (after.version, after.rows) == (2, 1200), "the next one takes the champion of now"


@pytest.mark.slow
def test_an_unfinished_job_whose_version_is_gone_says_that_there_is_no_such_version(
    folder: Path, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt(monkeypatch, 2, input=folder, output=tmp_path / "out", shard_rows=250)
    candidates[1].publish()
    shutil.rmtree(artifact_paths.version(NAME, 1))
    with pytest.raises(UsageError, match="has no version 1"):
        predict_rows(input=folder, output=tmp_path / "out", shard_rows=250)
    done = predict_rows(input=folder, output=tmp_path / "out", shard_rows=250, restart=True)
    assert done.version == 2


@pytest.mark.slow
def test_pruning_finds_the_version_of_an_unfinished_job_wherever_it_writes(
    folder: Path, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = [
        {"input": folder, "shard_rows": 250, "output": output}
        for output in (tmp_path / "one", artifact_paths.all_predictions() / "deep" / "two")
    ]
    for each in asked:
        interrupt(monkeypatch, 2, **each)
    for number in (1, 2):
        candidates[number].publish()
    monkeypatch.setattr(housekeeping, "GRACE", -housekeeping.GRACE)  # demoted long ago
    assert "unfinished job" in housekeeping.find_protected(NAME)[1]
    assert predict_rows(**asked[0]).version == 1
    assert "unfinished job" in housekeeping.find_protected(NAME)[1], "the other one needs it still"
    predict_rows(**asked[1], restart=True)
    assert "unfinished job" not in housekeeping.find_protected(NAME).get(1, "")
    assert not list(artifact_paths.jobs_elsewhere().iterdir())


# Lost and damaged documents


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, lambda document: os.truncate(document, 200)], ids=["lost", "damaged"])
def test_a_job_whose_document_is_lost_or_damaged_says_so_and_is_done_anew_by_restart(
    damage: Callable[[Path], object], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"input": folder, "output": tmp_path / "out", "shard_rows": 250}
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
    interrupt(monkeypatch, 2, input=folder, shard_rows=250)
    (job,) = (path.parent for path in artifact_paths.all_predictions().glob("*/_job.json"))
    rows = Shard(0, 0, 250)
    artifact_paths.sources(job).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"sources\.parquet cannot be read"):
        plan.read_inputs(job, rows)
    rejects = output_dir.rejects_path(job, rows)
    rejects.parent.mkdir(exist_ok=True)
    rejects.write_bytes(b"PAR1")
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
    days = pa.array([0, 1, None], pa.date32())
    first = {"x1": [1.0, 2.0, None], "day": days, "kind": pa.array(["a", None, "b"]).dictionary_encode()}
    written(tmp_path / "data/a.parquet", first | {"x2": [3, 4, 5], "tags": [[1], [], None]})
    written(tmp_path / "data/b.parquet", {"x2": [7, 8], "x1": [0.5, 1.5], "kind": [1, 2], "more": [True, False]})
    done = predict_rows(input=tmp_path / "data", output=tmp_path / "out.parquet", max_rejects=1)
    found = pq.read_table(tmp_path / "out.parquet")
    answers = table(done)["prediction"].to_pylist()
    assert found["day"].type == pa.date32()
    assert found.to_pydict() == {
        "x1": [1.0, 2.0, None, 0.5, 1.5],
        "day": [*days.to_pylist(), None, None],
        "kind": ["a", None, "b", "1", "2"],
        "x2": [3, 4, 5, 7, 8],
        "more": [None, None, None, True, False],
        "prediction": [*answers[:2], None, *answers[2:]],
        "rejected": [None, None, "x1 is missing", None, None],
    }


def test_a_file_of_json_lines_has_the_columns_that_any_row_has(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x1": 1, "x2": 2}\n{"x1": 3, "x2": 4.5, "who": "me"}\n')
    predict_rows(input=tmp_path / "in.jsonl", output=tmp_path / "out.csv")
    found = read_csv(tmp_path / "out.csv")
    assert [(float(row["x1"]), float(row["x2"]), row["who"]) for row in found] == [(1, 2, ""), (3, 4.5, "me")]


def test_of_arrays_the_file_has_row_and_source(tmp_path: Path) -> None:
    bad = FEATURES.copy()
    bad[[0, 1234]] = np.nan
    np.save(tmp_path / "rows.npy", bad)
    asked = {"input": tmp_path / "rows.npy", "output": tmp_path / "out.parquet", "max_rejects": 2}
    done = predict_rows(**asked, shard_rows=700)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["row", "source", "prediction", "rejected"]
    assert found["row"].to_pylist() == list(range(2500))
    assert set(found["source"].to_pylist()) == {str(asked["input"])}
    assert [at for at, reason in enumerate(found["rejected"].to_pylist()) if reason] == [0, 1234]
    assert 2500 - found["prediction"].null_count == done.rows == 2498


@pytest.mark.slow
def test_a_file_appears_when_its_job_is_whole_and_the_same_command_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    asked = {"input": write_csv(tmp_path / "in.csv", 2500), "output": out, "shard_rows": 250}
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
    assert len(read_csv(out)) == 2500, "made anew of the same parts"
    assert kept.items() <= times(artifact_paths.all_predictions(), "*/part-*").items()


@pytest.mark.slow
def test_a_file_is_replaced_only_as_a_prediction_wrote_it(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    first, second = (write_csv(tmp_path / f"{count}.csv", count) for count in (10, 20))
    out.write_text("mine\n")
    with pytest.raises(UsageError, match=r"out\.csv is there") as caught:
        predict_rows(input=first, output=out)
    assert "--restart" in caught.value.action
    assert out.read_text() == "mine\n"
    assert not artifact_paths.all_predictions().exists(), "nothing was predicted"
    predict_rows(input=first, output=out, restart=True)
    predict_rows(input=second, output=out)
    assert len(read_csv(out)) == 20, "of another input, over what the first has written"
    out.write_text(out.read_text().replace("plain", "edited"))
    with pytest.raises(UsageError, match=r"out\.csv is there"):
        predict_rows(input=first, output=out)
    assert "edited" in out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("column", ["prediction", "rejected"])
def test_a_column_of_the_input_that_is_called_like_one_of_ours_is_exit_2_before_a_row_is_predicted(
    column: str, tmp_path: Path
) -> None:
    source = str(tmp_path / "in.csv")
    Path(source).write_text(f"x1,x2,{column}\n1,2,3\n")
    with pytest.raises(UsageError, match=f"a column {column}"):
        predict_rows(input=source, output=tmp_path / "out.csv")
    assert not artifact_paths.all_predictions().exists()
    assert predict_rows(input=source, output=tmp_path / "out").rows == 1, "a folder has none of these"


@pytest.mark.slow
def test_a_file_beside_its_input_is_no_input_the_next_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_csv(data / "in.csv", 10)
    options = {"input": data, "output": data / "out.csv"}
    first = predict_rows(**options)
    assert predict_rows(**options) == first
    with pytest.raises(UsageError, match="is the output file"):
        predict_rows(input=data / "out.csv", output=data / "out.csv")


@pytest.mark.parametrize("address", ["s3://bucket/out.csv", "file:///tmp/out", "https://host/out.parquet"])
def test_an_address_is_exit_2_and_makes_no_folder(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    refused = typed("predict", "--name", NAME, "--output", address)
    assert_clear(refused, 2)
    assert f"--output {address}" in refused.stderr
    assert set(tmp_path.iterdir()) == before
