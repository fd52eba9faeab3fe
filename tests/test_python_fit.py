"""``gradmill.fit``: what ``gradmill retrain`` does, from a script, and where it keeps the rows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest

import gradmill
from conftest import REPOSITORY
from gradmill import training
from tasks.store import own_data

FRAME = {"area": [50.0, 60.0, None], "city": ["Köln", None, "Bonn"]}
# In an event loop, as in a notebook, and without a guard for __main__.
SCRIPT = """
import asyncio, json
import numpy as np, pandas as pd
import gradmill

rng = np.random.default_rng(0)
frame = pd.DataFrame({"area": rng.uniform(40, 200, 400), "city": rng.choice(["Berlin", "Köln"], 400)})
frame["price"] = 3 * frame.area + 50 * (frame.city == "Köln") + rng.normal(0, 5, 400)
frame.index = rng.permutation(400)

async def cell():
    said = []
    for order in (1, -1):
        model = gradmill.fit(frame[::order], "price", "houses", no_predict=True)
        said.append([model.outcome, model.version, [*model.columns], model.metrics["r2"]])
    frame["luck"] = rng.normal(size=400)
    for target, name in (("luck", "luck"), ("luck", "houses")):
        try:
            gradmill.fit(frame, target, name, features=["area"])
        except gradmill.Refused as error:
            said.append([gate["name"] for gate in error.gates if not gate["passed"]])
        except Exception as error:
            said.append([type(error).__name__, str(error)])
    print(json.dumps(said))

asyncio.run(cell())
"""


@pytest.mark.slow
def test_a_script_beside_modules_named_as_ours_fits_and_is_refused(artifacts: Path, tmp_path: Path) -> None:
    for module in ("tasks.py", "flows.py"):
        (tmp_path / module).write_text("raise RuntimeError('this is theirs')")
    command = [sys.executable, "-c", SCRIPT]
    environment = {"PYTHONPATH": str(REPOSITORY), "GRADMILL_ARTIFACTS": str(artifacts)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    first, second, refused, changed = json.loads(done.stdout)
    assert first[:3] == ["published", 1, ["area", "city"]], "no index is among them"
    assert first[3] > 0.99
    assert second[:2] == ["unchanged", 1], "the order of rows is no other data"
    assert refused == ["baseline"]
    assert changed[0] == "GradmillError"
    assert "price" in changed[1]
    assert "gate baseline passed" in done.stderr
    source = json.loads((artifacts / "datasets" / "houses" / "source.json").read_bytes())["source"]
    assert source.startswith("datasets/houses/frame-")
    artifacts.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / source).is_file()


def test_rows_of_every_kind_are_kept_by_their_content_and_without_an_index(tmp_path: Path) -> None:
    frames = pd.DataFrame(FRAME, index=[7, 8, 9]), pl.DataFrame(FRAME), pa.table(FRAME)
    for frame in frames:
        path = training._keep_frame(frame, tmp_path)
        assert pd.read_parquet(path).columns.tolist() == ["area", "city"]
        assert training._keep_frame(frame, tmp_path) == path
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_options_are_named_as_on_the_command_line() -> None:
    options: dict[str, Any] = {"weight_decay": "auto", "ignore": ["a", "b"], "no_predict": True, "lr": 0.1, "seed": 0}
    words = ["--weight-decay=auto", "--ignore=a", "--ignore=b", "--no-predict", "--lr=0.1", "--seed=0"]
    assert training._as_options(options | {"force": False, "window": None}) == words


def test_rows_that_are_kept_are_found_where_the_store_is(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, elsewhere = artifacts / "source.json", "/data/houses.csv"
    for source, written in (
        (f"{artifacts}/datasets/a/frame-0.parquet", "datasets/a/frame-0.parquet"),
        (elsewhere,) * 2,
    ):
        own_data.Source(source=source).write(path)
        assert json.loads(path.read_bytes())["source"] == written
        monkeypatch.setenv("GRADMILL_ARTIFACTS", "/moved")
        found = own_data.Source.read(path).source
        assert found == (elsewhere if source == elsewhere else f"/moved/{written}")
        monkeypatch.setenv("GRADMILL_ARTIFACTS", str(artifacts))


def test_a_name_that_none_can_have_is_refused_before_anything_is_written(artifacts: Path) -> None:
    for name in ("../houses", "Houses", ""):
        with pytest.raises(ValueError, match="is not of lower-case letters"):
            gradmill.fit(pd.DataFrame(FRAME), "area", name)
    assert not artifacts.exists()
    assert np.all([issubclass(each, Exception) for each in (gradmill.Refused, gradmill.DataError)])


def test_rows_that_are_no_frame_are_refused_before_anything_is_written(artifacts: Path) -> None:
    with pytest.raises(TypeError, match="a frame is dict, not a pandas or polars DataFrame, or an Arrow table"):
        gradmill.fit({"a": [1, 2]}, "a", "houses")
    assert not (artifacts / "datasets" / "houses").exists()


def test_the_rows_that_later_retrains_read_stay_where_a_fit_published_nothing(tmp_path: Path) -> None:
    for name in ("frame-0.parquet", "frame-1.parquet", "other.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "source.json").write_text('{"source": "datasets/houses/frame-0.parquet"}')
    training.remove_frames(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["frame-0.parquet", "other.parquet"]
