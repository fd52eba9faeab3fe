"""Whose an output folder is: what no job wrote is refused before anything is touched."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from candidate import Contender
from prediction_jobs import expected, predict_rows, table
from table_files import written
from tasks.batch.output_dir import Output
from tasks.batch.plan import cut_shards
from tasks.errors import DataError, UsageError


def test_an_output_folder_is_gone_again_where_no_job_came_of_it_and_the_next_takes_nothing_of_it(
    prefect_api: str, candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    written(tmp_path / "rows/a.csv", {"x1": [9, 9], "x2": [9, 9]})
    written(tmp_path / "rows/broken.csv", {"no": [1], "such": [2]})
    written(tmp_path / "good.csv", {"x1": [1], "x2": [2]})
    (tmp_path / "empty").mkdir()
    for out in ("docs", "docs/deep", "empty"):
        with pytest.raises(DataError, match=r"broken\.csv"):
            predict_rows(input=tmp_path / "rows", output=tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "empty", "good.csv", "rows"]
    assert not any((tmp_path / "empty").iterdir())
    found = table(predict_rows(input=tmp_path / "good.csv", output=tmp_path / "empty"))["prediction"]
    np.testing.assert_allclose(found, expected(candidates[0], np.array([[1, 2]], np.float32)), atol=1e-4)


INSIDE, OF_A_MODEL = "inside the artifacts folder", "in the folder of a model"
NO_FILE, NO_FOLDER, OTHER_FILE = "is not a file", "is not a folder", "has the suffix of a file"
PLACES = {
    "": INSIDE, "models": INSIDE, "predictions": INSIDE, "datasets/../models": INSIDE,
    "predictions/.x": INSIDE, "predictions/mine": "", "predictions/deep/mine.csv": "", "runs/m/5": INSIDE,
    "../disk/m/5": INSIDE, "../mirror/m": OF_A_MODEL, "../mirror/m/5/deep": OF_A_MODEL,
    "../mirror-of-mine": "", "../moved": INSIDE, "../moved/.elsewhere": INSIDE, "../moved/mine": "",
    "models/m/out.csv": INSIDE, "../folder.csv": NO_FILE, "../fifo.csv": NO_FILE, "../file": NO_FOLDER,
    "../file/out": "file is not a folder", "../link": NO_FOLDER, "../new.txt": OTHER_FILE, "../new.CSV.gz": OTHER_FILE,
    "predictions/new.json": OTHER_FILE, "predictions/new.v2": "", "../folder.txt": "",
}  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_output_is_a_folder_or_file_in_no_models_folder_and_in_artifacts_only_below_predictions(
    where: str, artifacts: Path, tmp_path: Path
) -> None:
    """Runs and predictions lie behind links."""
    for folder in ("disk", "moved", "mirror/m", "folder.csv", "folder.txt", artifacts):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("mirror/m/champion.json", "file"):
        (tmp_path / file).touch()
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (artifacts / "runs").symlink_to(tmp_path / "disk")
    (artifacts / "predictions").symlink_to(tmp_path / "moved")
    path = Path(os.path.normpath(artifacts / where)) if where.startswith("..") else artifacts / where
    if PLACES[where]:
        with pytest.raises(UsageError, match=PLACES[where]):
            Output.locate(str(path))
    else:
        assert Output.locate(str(path)) in (Output(folder=path), Output(file=path))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
@pytest.mark.parametrize("where", ["", "new", "deep/new.csv"])
def test_where_nothing_can_be_written_there_is_no_output(where: str, tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path]).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(UsageError, match="cannot be written to"):
            Output.locate(str(tmp_path / where))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    ("rows", "at_most", "workers", "sizes"),
    [
        (2**17, 2**20, 2, [2**16, 2**16]),
        (2**17 - 1, 2**20, 2, [2**17 - 1]),
        (2**18, 87_382, 2, [2**16] * 4),  # and not three
        (10, 4, 1, [3, 3, 4]),
    ],
)
def test_each_worker_gets_as_many_shards_unless_they_would_be_small(
    rows: int, at_most: int, workers: int, sizes: list[int]
) -> None:
    shards = cut_shards(rows, at_most, workers)
    assert [shard.stop - shard.start for shard in shards] == sizes
