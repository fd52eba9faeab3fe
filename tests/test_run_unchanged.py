"""Own data that come again: what is the same is not trained anew, be it written, sorted or asked for otherwise."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from flows.pages.report import RetrainReport
from flows.pages.run_pages import retrain_page
from flows.retrain import retrain
from tasks.errors import DataError, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data, reading
from tasks.store.page import render_markdown

READ = {"download", "validate", "preprocess"}


def houses(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"area": rng.uniform(40, 200, rows).round(2), "city": rng.choice(["Bonn", "Köln"], rows)})
    return frame.assign(price=(3000 * frame.area + 9000 * (frame.city == "Köln") + rng.normal(0, 5000, rows)).round())


@pytest.fixture
def folder(artifacts: Path, prefect_api: str, tmp_path: Path) -> Path:
    """A folder of days, of which a model was made."""
    path = tmp_path / "days"
    path.mkdir()
    houses(300).to_csv(path / "day-1.csv", index=False)
    data = {"source": str(path), "target": "price"}
    training = {"model": "linear-regression", "seed": "auto"}
    document = {"name": "houses", "training": training, "data": data, "predict": False}
    assert retrain(RetrainParameters.model_validate(document)).outcome == "published"
    return path


def again(**given: Any) -> RetrainReport:
    return retrain(RetrainParameters.model_validate(own_data.again("houses", {"predict": False, **given})))


@pytest.mark.slow
def test_the_same_rows_are_unchanged_without_training(folder: Path, tmp_path: Path) -> None:
    first = reading.manifest("houses", 1)
    untouched = again()
    assert (untouched.outcome, untouched.version, set(untouched.seconds)) == ("unchanged", 1, {"download"})
    assert untouched.metrics == first.metrics.model_dump(mode="json")
    assert tuple(untouched.gates) == first.gates
    assert "Nothing was trained" in render_markdown(retrain_page(untouched))
    assert json.loads(Path(untouched.run, "run.json").read_text())["stages"]["unchanged"]["version"] == 1
    frame = pd.read_csv(folder / "day-1.csv").sample(frac=1, random_state=0)
    frame[["price", "city", "area"]].to_parquet(tmp_path / "rows.parquet", index=False)
    same = again(data={"source": str(tmp_path / "rows.parquet")})
    assert (same.outcome, same.version, set(same.seconds)) == ("unchanged", 1, READ)
    files = own_data.list_files("houses", first.dataset.digest)
    assert files == (str(folder / "day-1.csv"),), "of which it was made, and not the copy"


@pytest.mark.slow  # five runs of the flow, one of which trains
def test_files_that_were_touched_copied_or_cut_otherwise_are_unchanged(folder: Path, tmp_path: Path) -> None:
    os.utime(folder / "day-1.csv")
    shutil.copytree(folder, tmp_path / "copied")
    cut, frame = tmp_path / "cut", pd.read_csv(folder / "day-1.csv").sample(frac=1, random_state=1)
    cut.mkdir()
    for number in range(3):
        frame[number::3].to_csv(cut / f"{number}.csv", index=False, sep=";")
    for source in (folder, tmp_path / "copied", cut):
        same = again(data={"source": str(source)})
        assert (same.outcome, same.version, set(same.seconds)) == ("unchanged", 1, READ), source.name
    assert set(again(data={"source": str(cut)}).seconds) == {"download"}, "they are remembered as they look now"


@pytest.mark.slow  # eight runs of the flow, four of which train
def test_a_row_more_another_option_or_force_is_trained_on(folder: Path) -> None:
    houses(1, seed=1).to_csv(folder / "day-2.csv", index=False)
    appended = again()
    assert (appended.outcome, appended.version) == ("published", 2)
    assert "train" in again(training={"lr": 0.25}).seconds
    assert "train" in again(force=True).seconds
    with pytest.raises(UsageError, match="customer"):
        again(data={"split_by": "customer"})
    for given in ({"gates": {"min_gain": 0.1}}, {"training": {"device": "cpu"}}, {"data": {"min_new_rows": 5}}):
        assert "train" not in again(**given).seconds, given


@pytest.mark.slow  # five runs of the flow, two of which train
def test_few_new_rows_wait_for_others_night_after_night(folder: Path) -> None:
    houses(30, seed=1).to_csv(folder / "day-2.csv", index=False)
    waiting = again(data={"min_new_rows": 50})
    assert (waiting.outcome, waiting.version, set(waiting.seconds)) == ("unchanged", 1, READ)
    assert "30 new rows" in waiting.detail
    assert "--min-new-rows 50" in waiting.detail
    later = again()
    assert later.detail == waiting.detail, "it is kept with the name, though no version knows of it"
    assert set(later.seconds) == {"download"}
    houses(20, seed=2).to_csv(folder / "day-3.csv", index=False)
    assert (again().outcome, own_data.again("houses", {})["data"]["min_new_rows"]) == ("published", 50)


@pytest.mark.slow  # seven runs of the flow, two of which train
def test_a_night_of_half_written_files_publishes_nothing_and_the_next_goes_on(folder: Path, tmp_path: Path) -> None:
    rows = houses(200, seed=1)
    rows.to_parquet(tmp_path / "whole.parquet", index=False)
    nights = {
        "day-2.parquet": (tmp_path / "whole.parquet").read_bytes()[:-500],
        "day-2.csv": rows.to_csv(index=False).encode()[:-30],
        "day-2.jsonl": b"",
    }
    for name, content in nights.items():
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            again()
        (folder / name).unlink()
    yesterday = (folder / "day-1.csv").rename(tmp_path / "day-1.csv")
    with pytest.raises(DataError, match="holds nothing"):
        again()
    assert (reading.versions("houses"), reading.resolve("houses", None)) == ([1], 1)
    yesterday.rename(folder / "day-1.csv")
    assert again().outcome == "unchanged"
    shutil.copy(tmp_path / "whole.parquet", folder / "day-2.parquet")
    assert (again().outcome, reading.versions("houses")) == ("published", [1, 2])


@pytest.mark.slow  # three runs of the flow, one of which trains
def test_prepared_rows_that_are_gone_are_prepared_anew(folder: Path) -> None:
    split = reading.manifest("houses", 1).dataset.test.path
    content = split.read_bytes()
    split.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert set(again().seconds) == READ
    assert split.read_bytes() == content
    artifact_paths.look("houses").write_text("{")
    assert set(again().seconds) == READ
