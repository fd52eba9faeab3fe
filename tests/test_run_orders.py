"""The same rows in any order, cut into any files: the same split and the same model, however they came."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candidate import plain
from tasks.data import own_rows
from tasks.data.prepared_splits import read_arrays
from tasks.data.recipe import Columns
from tasks.data.schema import Schema
from tasks.download import download
from tasks.parameters import RetrainParameters
from tasks.preprocess import preprocess
from tasks.records import PreparedDataset
from tasks.serving import onnx_graph
from tasks.store import verified
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate

PARTS = 6
MODELS = {"price": "linear-regression", "kind": "softmax-regression"}


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


ROWS = [part(number) for number in range(PARTS)]
orders = st.permutations(range(1, PARTS))
cuts = st.sets(st.integers(1, PARTS * 60 - 1), max_size=4)
datas = st.fixed_dictionaries(
    {"target": st.sampled_from([*MODELS])},
    optional={"split_by": st.just("customer")},
) | st.fixed_dictionaries({"target": st.sampled_from([*MODELS]), "time_column": st.just("at")})
FEW = settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fixed(prepared: PreparedDataset) -> Schema | None:
    """What later nights are bound to."""
    return Schema.from_manifest(prepared, prepared.recipe)


class Made(NamedTuple):
    """What came of a night."""

    prepared: PreparedDataset
    model: bytes

    def answers(self, rows: pd.DataFrame) -> list[Any]:
        """What a consumer gets who names columns and levels."""
        recipe = self.prepared.recipe
        assert isinstance(recipe, Columns)
        features = np.empty((len(rows), len(recipe.columns)), np.float32)
        for at, column in enumerate(recipe.columns):
            codes = {level: code for code, level in enumerate(column.levels)}
            features[:, at] = rows[column.name].map(codes) if codes else rows[column.name]
        session = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        return list(session.run(None, {"features": features}))


def by_name(prepared: PreparedDataset, side: str) -> list[tuple[Any, ...]]:
    """The rows of a side, levels by name, in an order of their own."""
    recipe = prepared.recipe
    assert isinstance(recipe, Columns)
    arrays = read_arrays(getattr(prepared, side), "")
    columns = [
        [column.levels[int(code)] if code == code and column.levels else str(code) for code in values]
        for column, values in zip(recipe.columns, arrays["features"].T, strict=True)
    ]
    return sorted(zip(*columns, arrays["labels" if prepared.class_names else "target"].tolist(), strict=True))


class Nights:
    """Stages up to the model's bytes, on a folder of files whose names are in order."""

    def __init__(self, folder: Path, data: dict[str, Any], **training: Any) -> None:
        self.folder, self.number = folder, 0
        others = {*MODELS, "customer", "at"} - {*data.values()}
        document = {"source": str(folder), "ignore": sorted(others), **data}
        training |= {"model": MODELS[data["target"]]}
        self.parameters = RetrainParameters.model_validate({"name": "own", "training": training, "data": document})

    def bring(self, frames: Sequence[pd.DataFrame]) -> None:
        """So many more files, of text and of Parquet in turn."""
        self.folder.mkdir(exist_ok=True)
        for frame in frames:
            self.number += 1
            path = self.folder / f"{self.number:03}"
            if self.number % 2:
                frame.to_parquet(path.with_suffix(".parquet"), index=False)
            else:
                frame.to_csv(path.with_suffix(".csv"), index=False)

    def prepare(self, kept: Schema | None = None) -> PreparedDataset:
        """The rows that are there now."""
        run, data = RunFolder.open("run", {}), self.parameters.data
        task = "regression" if data.target == "price" else "classification"
        validated = plain(validate)(run, plain(download)(run, "own", data), data, task, kept)
        prepared: PreparedDataset = plain(preprocess)(run, validated, data, 0)
        return prepared

    def retrain(self, kept: Schema | None = None) -> Made:
        """A model of the rows that are there now."""
        prepared, training = self.prepare(kept), self.parameters.training
        trained = plain(train)(RunFolder.open("run", {}), prepared, training)
        weights = safetensors.numpy.load(verified.read(trained.weights))
        facts = onnx_graph.describe_model(prepared, training)
        return Made(prepared, onnx_graph.write_model(weights, prepared.recipe, prepared.signature, facts))


def cut(rows: pd.DataFrame, places: set[int]) -> list[pd.DataFrame]:
    """The rows in so many pieces and one more."""
    edges = [0, *sorted(places), len(rows)]
    return [rows[start:stop] for start, stop in itertools.pairwise(edges)]


def assert_same_data(found: Made, expected: Made) -> None:
    """The same rows on the same sides, told by name and by digest."""
    for side in ("train", "test"):
        assert by_name(found.prepared, side) == by_name(expected.prepared, side)
    assert found.prepared.rows == expected.prepared.rows


def assert_order_is_nothing(folder: Path, data: dict[str, Any], frames: list[pd.DataFrame], **training: Any) -> None:
    """These files make the very model that the same rows part by part make."""
    by_part, other = (Nights(folder / name, data, **training) for name in ("parts", "other"))
    by_part.bring(ROWS[:1])
    kept = fixed(by_part.prepare())
    by_part.bring(ROWS[1:])
    other.bring(frames)
    expected, found = by_part.retrain(kept), other.retrain(kept)
    assert_same_data(found, expected)
    assert found.prepared.digest == expected.prepared.digest
    assert found.model == expected.model


def assert_names_are_nothing(folder: Path, data: dict[str, Any], names: Sequence[int]) -> None:
    """Files of more rows than are sorted make the very same model, whatever they are called."""
    nights, others = (Nights(folder / name, data, batch_size=50, num_epochs=2) for name in ("named", "other"))
    nights.bring(ROWS)
    others.folder.mkdir()
    for path, name in zip(sorted(nights.folder.iterdir()), names, strict=True):
        shutil.copy(path, others.folder / f"{name}{path.suffix}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_rows.TableRows, "most_ordered", 0)
        expected, found = nights.retrain(), others.retrain()
    assert_same_data(found, expected)
    assert found.prepared.digest == expected.prepared.digest
    assert found.model == expected.model


def test_many_rows_make_the_same_model_whatever_their_files_are_called(tmp_path: Path) -> None:
    assert_names_are_nothing(tmp_path, {"target": "price"}, range(PARTS, 0, -1))


@pytest.mark.slow  # a dozen models are trained
@FEW
@given(datas, orders, cuts, st.sampled_from([{}, {"batch_size": 50, "num_epochs": 2}]))
def test_any_order_and_cutting_of_files_gives_the_same_split_digest_and_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    data: dict[str, Any],
    order: list[int],
    places: set[int],
    training: dict[str, Any],
) -> None:
    frames = cut(pd.concat([*(ROWS[at] for at in order), ROWS[0]]), places)
    assert_order_is_nothing(tmp_path_factory.mktemp("orders"), data, frames, **training)


@pytest.mark.slow  # a dozen models are trained
@FEW
@given(datas, orders)
def test_nights_in_any_order_give_the_same_rows_and_predictions_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("nights")
    at_once, nightly = Nights(folder / "once", data), Nights(folder / "nightly", data)
    for each in (at_once, nightly):
        each.bring(ROWS[:1])
    kept = first = fixed(at_once.prepare())
    for number in order:
        nightly.bring([ROWS[number]])
        kept = fixed(nightly.prepare(kept))  # with this night's new levels appended
    at_once.bring(ROWS[1:])
    expected, found = at_once.retrain(first), nightly.retrain(kept)
    assert_same_data(found, expected)
    every = pd.concat(ROWS)
    scale = every.price.std() if data["target"] == "price" else 1.0
    for one, other in zip(found.answers(every), expected.answers(every), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale)
