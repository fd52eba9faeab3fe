"""SIGKILL at random moments of one job of 200 shards, and the death of a Dask worker: every row once, in order."""

import itertools
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from candidate import Contender
from documents import load
from prediction_jobs import NAME, predict_rows
from table_files import written
from tasks.batch.shard import predict_shard
from tasks.stage import shards as shard_tasks
from tasks.store import artifact_paths
from victims import KILLS, cluster_with_victim, fork, run_silently

pytestmark = pytest.mark.slow
SHARDS = 200
ELSEWHERE = {"GRADMILL_ARTIFACTS": "/nowhere"}  # workers on another machine need not know where the store is


@pytest.fixture
def arguments(
    candidates: list[Contender], server: str, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A command that predicts 200 shards of a table, which is read once, beside its output.

    It names its artifacts, since a fork server keeps its first environment.
    """
    monkeypatch.setenv("PREFECT_API_URL", server)
    candidates[0].publish()
    rows = np.random.default_rng(0).standard_normal((20_000, 2))
    rows[[77, 19_999]] = np.nan
    file = written(tmp_path / "rows.csv", {"x1": rows[:, 0], "id": np.arange(20_000), "x2": rows[:, 1]})
    options = ["--name", NAME, "--id-column", "id", "--shard-rows", "100", "--max-rejects", "2"]
    return ["predict", str(file), *options, "--artifacts", str(artifacts)]


def everything(folder: Path, shards: int = SHARDS) -> Any:
    assert load(folder / "_job.json")["status"] == "done"
    assert len(list(folder.glob("part-*.parquet"))) == shards
    return pq.read_table([folder / f"part-{number:05d}.parquet" for number in range(shards)])


def run_but_hang(arguments: list[str], shards: int) -> None:
    """Run the command, but hang once so many shards are labelled: the kill comes before the end on any machine."""
    left = itertools.count(shards, -1)

    def hanging(*shard: Any) -> Any:
        return predict_shard(*shard) if next(left) > 0 else time.sleep(600)

    shard_tasks.predict_shard = hanging  # type: ignore[assignment, attr-defined]  # a re-import
    run_silently(arguments)


def run_in_a_fork(arguments: list[str], hang_after: int = SHARDS) -> BaseProcess:
    return fork(run_but_hang, arguments, hang_after)


def test_a_job_killed_again_and_again_loses_and_doubles_no_row(arguments: list[str], tmp_path: Path) -> None:
    whole = run_in_a_fork([*arguments, "--output", str(tmp_path / "whole")])
    whole.join()
    assert whole.exitcode == 0
    rng = np.random.default_rng(20261124)
    kept = 0
    for number in range(KILLS):
        target = SHARDS * (number + 1) // (KILLS + 1)  # die when about so many parts are there
        process = run_in_a_fork(arguments, (target + SHARDS) // 2 - kept)
        while process.is_alive() and len(list(artifact_paths.all_predictions().glob("*/part-*"))) < target:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        assert process.is_alive(), "the kill falls into the job"
        process.kill()
        process.join()
        (folder,) = (path.parent for path in artifact_paths.all_predictions().glob("*/_job.json"))
        assert load(folder / "_job.json")["status"] == "running"
        now = len(list(folder.glob("part-*.parquet")))
        assert now >= kept, "what was there stays"
        kept = now
    final = run_in_a_fork(arguments)
    final.join()
    assert final.exitcode == 0
    assert everything(folder).equals(everything(tmp_path / "whole").replace_schema_metadata(None))
    assert [at for at, reason in enumerate(everything(folder)["rejected"].to_pylist()) if reason] == [77, 19_999]
    assert {path.name for path in folder.glob(".*")} == set(), "leftovers are swept"


def test_dask_gives_the_same_bits_though_a_worker_is_killed(
    arguments: list[str], tmp_path: Path, prefect_api: str
) -> None:
    base = {"input": arguments[1], "shard_rows": 500, "max_rejects": 2}
    threads, output = predict_rows(**base, output=tmp_path / "threads"), tmp_path / "dask"
    with cluster_with_victim(lambda: len(list(output.glob("part-*"))) >= 8, env=ELSEWHERE) as cluster:
        dask = predict_rows(**base, runner="dask", dask_address=cluster.scheduler_address, output=output)
    assert everything(dask.path, 40).equals(everything(threads.path, 40))
    assert dask.rejects == threads.rejects == 2
