"""Rejected rows beyond counting: streamed, stopped early, named by model; and faults around a job told as they are."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  (its settings, before one of them is changed)
import numpy as np
import pyarrow.parquet as pq
import pytest

import flows.__main__
import flows.cli.app
from candidate import Candidate
from prediction_jobs import NAME, predict_rows
from tasks.data.io import inputs
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.records import PublishedModel
from tasks.store import artifact_paths

MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def published(candidates: list[Candidate], prefect_api: str) -> PublishedModel:
    return candidates[0].publish()


@pytest.fixture
def nothing_good(tmp_path: Path) -> str:
    """A file of a million rows of which none can be predicted."""
    np.save(tmp_path / "bad.npy", np.full((1_000_000, 2), np.nan, np.float32))
    return str(tmp_path / "bad.npy")


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


def test_rejects_name_job_and_model_like_every_other_output(tmp_path: Path, published: PublishedModel) -> None:
    (tmp_path / "t.csv").write_text("x1,x2\n1,2\n1\n")
    for expected in (1, 0):
        done = predict_rows(input=str(tmp_path / "t.csv"), max_rejects=1)
        metadata = json.loads(pq.read_metadata(done.path / "_rejects.parquet").metadata[b"gradmill"])
        model = {"name": NAME, "version": 1, "sha256": published.model.sha256}
        assert metadata == {"job": done.job, "model": model, "rejects": expected}
        (tmp_path / "t.csv").write_text("x1,x2\n1,2\n")


def test_a_job_that_is_done_is_measured_by_what_is_tolerated_now(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x1,x2\n1,2\n1\n")
    assert predict_rows(input=str(tmp_path / "t.csv"), max_rejects=1).rejects == 1
    with pytest.raises(DataError, match=r"the first is row 1 of .*t\.csv: 1 field"):
        predict_rows(input=str(tmp_path / "t.csv"), max_rejects=0)
    assert predict_rows(input=str(tmp_path / "t.csv"), max_rejects=1).rejects == 1


@pytest.mark.parametrize(("address", "found"), [("tcp://127.0.0.1", "missing port"), ("tcp://127.0.0.1:1", "tcp:")])
def test_a_dask_scheduler_that_is_not_there_is_named(address: str, found: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((3, 2), np.float32))
    predict_rows(input=str(tmp_path / "rows.npy"))  # done, and refused all the same
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EnvironmentProblem, match=f"no Dask scheduler at {address}: .*{found}"),
    ):
        predict_rows(input=str(tmp_path / "rows.npy"), runner="dask", dask_address=address)


@pytest.mark.parametrize("option", [[], ["rows.npy", "--output"]])
def test_a_path_on_the_command_line_that_is_not_utf_8_is_exit_2(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["predict", *option, os.fsdecode(b"caf\xe9.npy"), "--name", NAME]) == UsageError.exit_code
    assert "caf\ufffd.npy is not UTF-8" in capsys.readouterr().err


def test_an_empty_argument_is_exit_2_and_not_the_test_split(capsys: pytest.CaptureFixture[str]) -> None:
    assert flows.cli.app.run(["predict", "", "--name", NAME]) == UsageError.exit_code
    assert "an empty input" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "told"), [("predict", "goes on from here"), ("retrain", "starts afresh")])
def test_ctrl_c_tells_what_the_same_command_will_do(
    command: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(flows.cli.app, "run", interrupted)
    monkeypatch.setattr("flows.interrupt.watch", lambda leave: None)
    monkeypatch.setattr("flows.cli.streams.guard", lambda: None)
    monkeypatch.setattr("sys.argv", ["gradmill", command])
    monkeypatch.setattr(os, "_exit", lambda code: None)
    with pytest.raises(SystemExit):
        flows.__main__.main()
    assert told in capsys.readouterr().err
