"""The same rows in any order, cut into any files: the same split and the same model, however they came."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import safetensors.numpy

from candidate import plain, prepare_own
from tasks.data import own_rows
from tasks.data.schema import Schema
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset
from tasks.serving import onnx_graph
from tasks.store import verified_files
from tasks.store.run_folder import RunFolder
from tasks.train import train

MODELS = {"price": "linear-regression", "kind": "softmax-regression"}
MINIBATCHES = {"batch_size": 50, "num_epochs": 2}


def part(number: int, rows: int = 60) -> pd.DataFrame:
    """Rows of all kinds of columns; every part but the first has levels of its own, rare and common ones."""
    rng = np.random.default_rng(number)
    frame = pd.DataFrame({"area": rng.normal(120, 30, rows).round(1), "customer": rng.integers(0, 40, rows)})
    frame["city"] = rng.choice(["Rom", "Köln", *[f"{'zyxwv'[number - 1]}-{number}"] * (number > 0)], rows)
    frame["heating"] = rng.choice(np.array([None, "gas", *[f"new {number % 3}"] * (number > 0)]), rows)
    frame["garden"] = rng.random(rows) < 0.3
    frame["at"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**7, rows), "s")
    price = frame.area + 40 * (frame.city == "Rom") - 9 * frame.heating.isna() + rng.normal(0, 20, rows)
    frame["price"], frame["kind"] = price.round(2), np.where(price + rng.normal(0, 20, rows) > 130, "dear", "cheap")
    frame.loc[rng.random(rows) < 0.1, "area"] = np.nan
    return frame


PARTS = [part(number) for number in range(6)]


def write(folder: Path, frames: Sequence[pd.DataFrame], names: Sequence[int] = range(9)) -> Path:
    """Files of text and of Parquet in turn."""
    folder.mkdir(exist_ok=True)
    for at, (name, frame) in enumerate(zip(names, frames, strict=False)):
        if at % 2:
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        else:
            frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def prepare(folder: Path, parameters: RetrainParameters, kept: Schema | None = None) -> PreparedDataset:
    data = parameters.data.model_copy(update={"source": str(folder)})
    return prepare_own(data, "regression" if data.target == "price" else "classification", kept)


def retrain(folder: Path, parameters: RetrainParameters, kept: Schema | None) -> tuple[Any, ...]:
    """The digests of the rows in a folder and of their split, and the model that they make."""
    prepared = prepare(folder, parameters, kept)
    trained = plain(train)(RunFolder.open("run", {}), prepared, parameters.training)
    weights = safetensors.numpy.load(verified_files.read(trained.weights))
    facts = onnx_graph.describe_model(prepared, parameters.training)
    model = onnx_graph.write_model(weights, prepared.recipe, prepared.signature, facts)
    return prepared.digest, prepared.rows, prepared.train, prepared.test, model


def ask(target: str, training: dict[str, Any], **data: Any) -> RetrainParameters:
    ignore = sorted({*MODELS, "customer", "at"} - {target, *data.values()})
    document = {"source": "nights", "target": target, "ignore": ignore, **data}
    return RetrainParameters.model_validate(
        {"name": "own", "training": {"model": MODELS[target], **training}, "data": document}
    )


@pytest.mark.slow  # a dozen models are trained
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "asked",
    [
        ask("price", {}),
        ask("kind", MINIBATCHES),
        ask("price", MINIBATCHES, split_by="customer"),
        ask("kind", {}, time_column="at"),
    ],
)
def test_any_order_and_cutting_of_files_gives_the_same_split_digest_and_bytes(
    asked: RetrainParameters, seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    first = prepare(write(tmp_path / "first", PARTS[:1]), asked)
    kept = Schema.from_manifest(first, first.recipe)  # what later nights are bound to
    rows = pd.concat([PARTS[at] for at in rng.permutation(6)])
    edges = [0, *np.sort(rng.choice(360, 3, replace=False)), 360]
    cut = [rows[start:stop] for start, stop in itertools.pairwise(edges)]
    folders = write(tmp_path / "parts", PARTS), write(tmp_path / "cut", cut)
    assert retrain(folders[1], asked, kept) == retrain(folders[0], asked, kept)


def test_many_rows_make_the_same_model_whatever_their_files_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are sorted."""
    monkeypatch.setattr(own_rows.TableRows, "most_ordered", 0)
    folders = [write(tmp_path / str(names), PARTS, names) for names in (range(6), range(6, 0, -1))]
    found = [retrain(folder, ask("price", MINIBATCHES), None) for folder in folders]
    assert found[0] == found[1]
