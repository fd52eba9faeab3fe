"""What waits for the disk, counted: versions and all that they name, and nothing that a run can make again."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest

from candidate import Candidate, plain
from tasks.data.prepared_splits import write_arrays
from tasks.download import download
from tasks.parameters import RetrainParameters
from tasks.preprocess import preprocess
from tasks.store import artifact_paths
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate
from written_tables import written


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file and folder that is forced to disk, in order; and a renamed one as it is called afterwards."""
    found: list[Path] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def noted_rename(source: Path, target: Path, **options: int) -> None:
        rename(source, target, **options)
        found.append(Path(target))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    return found


def test_from_a_table_to_its_weights_only_the_notes_of_the_run_wait_for_the_disk(
    artifacts: Path, tmp_path: Path, forced: list[Path]
) -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(size=300)
    columns = {"size": size, "late": np.where(size > 0, "yes", "no"), "split": ["train"] * 250 + ["test"] * 50}
    artifact_paths.make_root()
    data = {"source": str(written(tmp_path / "table.csv", columns)), "target": "late", "split_column": "split"}
    document = {"name": "late", "training": {"model": "softmax-regression", "device": "cpu"}, "data": data}
    asked, run = RetrainParameters.model_validate(document), RunFolder.open("late", {})
    raw = plain(download)(run, asked.dataset, asked.data)
    prepared = plain(preprocess)(run, plain(validate)(run, raw, asked.data, "classification"), asked.data, 0)
    trained = plain(train)(run, prepared, asked.training)
    assert trained.weights.path.is_file()
    folder = trained.weights.path.parent
    assert {path.parent if path != folder else path for path in forced} == {folder}
    assert len(forced) == 2, "run.json, as it is called until it is whole, and its folder"


def test_row_digests_are_on_disk_before_the_version_that_names_them(
    candidates: list[Candidate], artifacts: Path, forced: list[Path]
) -> None:
    rows = artifacts / "rows"
    artifacts.mkdir()
    sha256 = write_arrays(rows, {"train": (np.uint64, (3,))}, {"train": [np.arange(3, dtype=np.uint64)]})
    assert not forced
    made = copy.copy(candidates[0])
    made.prepared = made.prepared.model_copy(update={"rows": FileRef(path=rows, sha256=sha256)})
    assert made.publish().version == 1
    version = artifact_paths.version("linear-regression", 1)
    assert forced.index(rows) < forced.index(artifacts) < forced.index(version)
