"""The same rows in any order, cut into any files: the same split and the same weights, however they came."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

import table_files
from candidate import plain, prepare_own
from tasks.data import own_rows
from tasks.data.schema import Schema
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset
from tasks.store.run_folder import RunFolder
from tasks.train import train


def part(number: int, rows: int = 80) -> pd.DataFrame:
    """Every part has levels of its own, rare and common ones."""
    rng = np.random.default_rng(100 + number)
    cities = ("Rom", "Rom", "Rom", "Köln", f"{'azyxwv'[number]}-{number}", f"new {number % 3}")
    frame = table_files.houses(rows, number, cities).to_pandas()
    frame["customer"] = rng.integers(0, 40, rows)
    frame["at"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**7, rows), "s")
    frame["kind"] = np.where(frame.price > 450_000, "dear", "cheap")
    return frame


PARTS = [part(number) for number in range(6)]
ASKED: dict[str, tuple[str, dict[str, str]]] = {  # target, and what splits
    "numbers": ("price", {}),
    "classes": ("kind", {}),
    "numbers in groups": ("price", {"split_by": "customer"}),
    "classes in time": ("kind", {"time_column": "at"}),
}


def write(folder: Path, frames: Sequence[pd.DataFrame]) -> Path:
    """Files of Parquet, or of text where there is but one."""
    folder.mkdir()
    for at, frame in enumerate(frames):
        frame.to_parquet(folder / f"{at}.parquet") if len(frames) > 1 else frame.to_csv(folder / "0.csv", index=False)
    return folder


def prepare(case: str, folder: Path, kept: Schema | None = None) -> tuple[PreparedDataset, RetrainParameters]:
    target, splits = ASKED[case]
    model, task = {"price": ("linear-regression", "regression"), "kind": ("softmax-regression", "classification")}[
        target
    ]
    ignore = sorted({"price", "kind", "customer", "at"} - {target, *splits.values()})
    document: dict[str, Any] = {"name": "own", "training": {"model": model}}
    document["data"] = {"source": str(folder), "target": target, "ignore": ignore, **splits}
    parameters = RetrainParameters.model_validate(document)
    return prepare_own(RunFolder.open("run", {}), parameters.data, task, kept), parameters  # type: ignore[arg-type]


def retrain(case: str, folder: Path, kept: Schema | None = None) -> tuple[Any, ...]:
    """The digests of the rows in a folder and of their split, how they become inputs, and the weights they make."""
    prepared, parameters = prepare(case, folder, kept)
    trained = plain(train)(RunFolder.open("run", {}), prepared, parameters.training)
    return prepared.digest, prepared.rows, prepared.train, prepared.test, prepared.recipe, trained.weights


@pytest.mark.slow  # many models are trained
@pytest.mark.parametrize("case", ASKED)
def test_any_order_and_cutting_of_files_gives_the_same_split_and_weights(case: str, tmp_path: Path) -> None:
    first, _ = prepare(case, write(tmp_path / "first", PARTS[:1]))
    kept = Schema.from_manifest(first, first.recipe)  # what later nights are bound to
    rows = pd.concat(PARTS).sample(frac=1, random_state=0)
    folders = [write(tmp_path / str(len(frames)), frames) for frames in (PARTS, [rows], [rows[:100], rows[100:]])]
    found = [retrain(case, folder, kept) for folder in folders]
    assert found == [found[0]] * 3


def test_many_rows_make_the_same_weights_whatever_their_files_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are sorted."""
    monkeypatch.setattr(own_rows.TableRows, "most_ordered", 0)
    folders = write(tmp_path / "forth", PARTS), write(tmp_path / "back", PARTS[::-1])
    case = "numbers in groups"
    assert retrain(case, folders[1]) == retrain(case, folders[0])
