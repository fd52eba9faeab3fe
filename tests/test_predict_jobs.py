"""Jobs of batch prediction: identity, resumption, rejected rows, drift, sessions, on Prefect's real engine."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
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
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from prefect.task_runners import ThreadPoolTaskRunner
from scipy.stats import entropy

import flows.__main__
import flows.cli.app
from candidate import Candidate, seal
from conftest import REPOSITORY
from prediction_jobs import FEATURES, NAME, expected, interrupt, predict_rows, table
from prefect_api import wait_for
from tasks.batch import session_pool, shard
from tasks.data.io import inputs
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.records import PublishedModel
from tasks.serving import runtime
from tasks.stage import shards
from tasks.store import artifact_paths, housekeeping


@pytest.fixture(autouse=True)
def published(candidates: list[Candidate], prefect_api: str) -> PublishedModel:
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
    one = table(predict_rows(input=rows, output=str(tmp_path / "one"), workers=1))
    many = table(predict_rows(input=rows, output=str(tmp_path / "many"), shard_rows=123, workers=3))
    assert one.equals(many)


def test_every_output_names_its_job_rows_and_model(tmp_path: Path, published: PublishedModel) -> None:
    rows, model = FEATURES.copy(), {"name": NAME, "version": 1, "sha256": published.model.sha256}
    for num_bad in (0, 1):
        rows[:num_bad] = np.nan
        np.save(tmp_path / "rows.npy", rows)
        done = predict_rows(input=str(tmp_path / "rows.npy"), shard_rows=1000, max_rejects=1)
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
    asked = {"input": str(tmp_path / "moved.npy")}
    first = predict_rows(**asked, max_drift=1000)
    part = first.path / "part-00000.parquet"
    before = part.stat().st_mtime_ns
    assert (first.drift.verdict, "drifted" in caplog.text) == ("stable", False)
    second = predict_rows(**asked)
    assert (second.drift.verdict, second.drift.maximum, "drifted" in caplog.text) == ("drift", 0.2, True)
    assert second == first.model_copy(update={"drift": second.drift})
    assert job(first.path)["drift"]["verdict"] == "drift"
    assert predict_rows(**asked) == second
    assert f"job {first.job} is done" in caplog.text
    assert part.stat().st_mtime_ns == before, "no row was predicted again"
    assert {path.name for path in first.path.iterdir()} == {"_job.json", "_rejects.parquet", part.name}


@pytest.mark.slow
def test_a_done_job_that_has_lost_a_part_or_its_rejects_is_finished_anew(tmp_path: Path) -> None:
    bad = FEATURES.copy()
    bad[7] = np.nan
    np.save(tmp_path / "rows.npy", bad)
    options = {"input": str(tmp_path / "rows.npy"), "shard_rows": 500, "max_rejects": 1}
    first = predict_rows(**options)
    before = table(first)
    for lost in ("part-00000.parquet", "part-00003.parquet", "_rejects.parquet"):
        (first.path / lost).unlink()
        assert predict_rows(**options).rejects == 1
        assert table(first).equals(before)
        assert pq.read_table(first.path / "_rejects.parquet")["row"].to_pylist() == [7]


def test_what_a_failed_plan_unpacked_is_never_taken_for_another_input(
    tmp_path: Path, candidates: list[Candidate]
) -> None:
    folder, output = tmp_path / "folder", str(tmp_path / "out")
    folder.mkdir()
    (folder / "a.csv").write_text("x1,x2\n9,9\n9,9\n")
    (folder / "b.csv").write_text("no,such\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv"):
        predict_rows(input=str(folder), output=output)
    (tmp_path / "good.csv").write_text("x1,x2\n1,2\n")
    done = predict_rows(input=str(tmp_path / "good.csv"), output=output)
    np.testing.assert_allclose(
        table(done)["prediction"], expected(candidates[0], np.array([[1, 2]], np.float32)), atol=1e-4
    )


@pytest.mark.slow
def test_input_model_and_parameters_each_make_another_job(rows: str, candidates: list[Candidate]) -> None:
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
        return [predict_rows(input=str(tmp_path / "large.npy"), full_digest=full).job for full in (False, True)]

    before, after = jobs(0), jobs(1)
    assert before[0] == after[0], "the sampled blocks are the same"
    assert before[1] != after[1]


@pytest.mark.slow
def test_an_unfinished_job_is_finished_with_its_own_version_and_what_is_whole_and_its_own(
    rows: str, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {"input": rows, "output": str(tmp_path / "out"), "shard_rows": 250}
    other = predict_rows(input=rows, shard_rows=250, batch_size=3)
    interrupt(monkeypatch, 4, **asked)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*.parquet")}
    assert len(kept) == 4
    torn, whole, *_ = sorted(kept)  # which shards came first is the threads' affair
    torn.write_bytes(torn.read_bytes()[:-10])
    of_other_shard, of_other_job, *_ = {torn.with_name(f"part-{number:05d}.parquet") for number in range(10)} - {*kept}
    of_other_shard.write_bytes(whole.read_bytes())
    of_other_job.write_bytes((other.path / of_other_job.name).read_bytes())
    assert job(tmp_path / "out")["status"] == "running"
    candidates[1].publish()
    assert 1 in housekeeping.find_protected(NAME)
    done = predict_rows(**asked)
    assert (done.path, done.version, done.parts) == (tmp_path / "out", 1, 10)
    assert {path for path in kept if path.stat().st_mtime_ns == kept[path]} == {*kept} - {torn}
    assert {footer(path)["job"] for path in done.path.glob("part-*.parquet")} == {done.job}
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
    bad, asked = FEATURES.copy(), {"input": str(tmp_path / "rows.npy"), "workers": 1}
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
    assert predict_rows(input=str(path)).rejects == 2
    path.write_text("x1,x2\n" + "1,2\n" * 197 + "1,\n" * 3)
    with pytest.raises(DataError, match="3 of 200 rows"):
        predict_rows(input=str(path))


def test_columns_name_the_features_in_the_models_order(tmp_path: Path, candidates: list[Candidate]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("b,a\n1,2\n3,4\n")
    found = table(predict_rows(input=str(path), columns=("a", "b")))["prediction"]
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
def test_drift_is_the_population_stability_index_and_reported_as_an_event_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, candidates: list[Candidate], prefect_api: str
) -> None:
    np.save(tmp_path / "same.npy", FEATURES)
    same = predict_rows(input=str(tmp_path / "same.npy"))
    assert same.drift.verdict == "stable"
    assert "drifted" not in caplog.text
    np.save(tmp_path / "moved.npy", MOVED)
    moved = predict_rows(input=str(tmp_path / "moved.npy"), shard_rows=700)
    assert moved.drift.verdict == "drift"
    assert "drifted" in caplog.text
    test = safetensors.numpy.load_file(candidates[0].prepared.test.path)["features"]
    old, new = expected(candidates[0], test), expected(candidates[0], MOVED)
    bins = np.concatenate([[-np.inf], np.quantile(old, np.linspace(0.1, 0.9, 9)), [np.inf]])
    e, f = (np.maximum(np.histogram(each, bins)[0] / len(each), 1e-4) for each in (old, new))
    assert moved.drift.index["prediction"] == pytest.approx(entropy(f, e) + entropy(e, f), rel=0.02)
    drifts = {"filter": {"event": {"name": ["gradmill.drift"]}}}
    event = wait_for(prefect_api, "events/filter", drifts, lambda each: each["payload"]["path"] == str(moved.path))
    assert event["resource"]["prefect.resource.id"] == f"gradmill.model.{NAME}"
    assert (event["payload"]["sha256"], event["payload"]["index"]) == (moved.model_sha256, moved.drift.index)
    roles = {each["prefect.resource.role"]: each["prefect.resource.id"] for each in event["related"]}
    run = roles["flow-run"].removeprefix("prefect.flow-run.")
    progress = {"artifacts": {"type": {"any_": ["progress"]}, "flow_run_id": {"any_": [run]}}}
    wait_for(prefect_api, "artifacts/filter", progress, lambda each: each["data"] == 100.0)
    np.save(tmp_path / "few.npy", MOVED[:10])
    assert predict_rows(input=str(tmp_path / "few.npy")).drift.verdict == "too few rows"


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


def test_a_version_without_a_profile_predicts_and_says_that_drift_is_unknown(rows: str) -> None:
    folder = artifact_paths.version(NAME, 1)
    document = json.loads((folder / "manifest.json").read_text())
    del document["profile"]
    seal(folder, document)
    assert predict_rows(input=rows).drift.verdict == "no reference"


def test_a_pinned_version_with_other_bytes_is_exit_4(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, 1, input=rows, shard_rows=1250, version=1)
    model = artifact_paths.version(NAME, 1) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[content.index(b"dataset_digest") + 20] ^= 1
    model.chmod(0o644)
    model.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        predict_rows(input=rows, shard_rows=1250, version=1)


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
    done = predict_rows(name=name, input=str(tmp_path / "rows.npy"), output=str(tmp_path / "out"))
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
    predict_rows(input=str(tmp_path / "rows.npy"))  # done, and refused all the same
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EnvironmentProblem, match=f"no Dask scheduler at {address}: .*{found}"),
    ):
        predict_rows(input=str(tmp_path / "rows.npy"), runner="dask", dask_address=address)


NOT_UTF_8 = os.fsdecode(b"caf\xe9.npy")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([""], "an empty input"),
        ([NOT_UTF_8], "caf\ufffd.npy is not UTF-8"),
        (["rows.npy", "--output", NOT_UTF_8], "caf\ufffd.npy is not UTF-8"),
    ],
)
def test_what_can_be_no_path_is_exit_2(arguments: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert flows.cli.app.run(["predict", *arguments, "--name", NAME]) == UsageError.exit_code
    assert found in capsys.readouterr().err


def test_arrow_pandas_duckdb_and_polars_read_the_same_rows(tmp_path: Path) -> None:
    rejects, rows = [7, 1234], FEATURES.copy()
    rows[rejects] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    done = predict_rows(input=str(tmp_path / "rows.npy"), shard_rows=700, max_rejects=2)
    folder, parts = done.path, f"{done.path}/part-*.parquet"
    read = {
        "pyarrow": pyarrow.dataset.dataset(folder).to_table().to_pandas(),
        "pandas": pd.read_parquet(folder),
        "duckdb": duckdb.connect().execute(f"from '{parts}' order by row").df(),
        "polars": pl.read_parquet(parts).sort("row").to_pandas(),
    }
    expected = table(done)
    for reader, frame in read.items():
        assert list(frame) == ["row", "source", "prediction"], reader
        assert frame["row"].tolist() == np.delete(np.arange(len(FEATURES)), rejects).tolist(), reader
        assert frame["prediction"].tolist() == expected["prediction"].to_pylist(), reader
        assert frame["source"].astype(str).tolist() == expected["source"].to_pylist(), reader
    assert pd.read_parquet(folder / "_rejects.parquet")["row"].tolist() == rejects


@pytest.mark.slow
def test_reading_stops_soon_after_too_many_rows_were_rejected(
    nothing_good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, chunks = [], inputs.batches

    def counted(*arguments: Any) -> Any:
        for chunk in chunks(*arguments):
            read.append(len(chunk.rejects))
            yield chunk

    monkeypatch.setattr(inputs, "batches", counted)
    with pytest.raises(DataError, match=r"of 1,000,000 rows cannot be read, the first is row 0 of"):
        predict_rows(input=nothing_good, workers=1, max_rejects=200_000, shard_rows=1_000_000)
    assert 200_000 < sum(read) <= 200_000 + 2**17
    (folder,) = (path.parent for path in artifact_paths.all_predictions().glob("*/_job.json"))
    assert pq.read_metadata(folder / "_rejects.parquet").num_rows == sum(read)
    assert not list(folder.glob("part-*")), "a part appears whole or not at all"
