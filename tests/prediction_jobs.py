"""Batch predictions in this process, and what they must say by numpy alone."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from candidate import Contender
from flows.predict import predict
from tasks.batch import shard
from tasks.parameters import PredictParameters
from tasks.records import Prediction

NAME = "linear-regression"
FEATURES = np.random.default_rng(0).standard_normal((2500, 2)).astype(np.float32)


def predict_rows(**options: Any) -> Prediction:
    """A prediction; input and output may be paths."""
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    parameters = PredictParameters.model_validate({"name": NAME, **asked})
    done: Prediction = predict(parameters)
    return done


def table(done: Prediction) -> Any:
    return pq.read_table([done.path / f"part-{number:05d}.parquet" for number in range(done.parts)])


def expected(candidate: Contender, features: NDArray[np.float32] = FEATURES) -> NDArray[np.float32]:
    """The prediction by numpy, from the learned weights alone."""
    weights = safetensors.numpy.load_file(candidate.trained.weights.path)
    prediction: NDArray[np.float32] = (features @ weights["W"] + weights["b"])[:, 0]
    return prediction


def contents(folder: Path) -> dict[Path, bytes | None]:
    """All that a folder holds, however deep."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def times(folder: Path, parts: str = "part-*.parquet") -> dict[Path, int]:
    """When each part of a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(parts)}


def interrupt(monkeypatch: pytest.MonkeyPatch, parts: int, **options: Any) -> None:
    """Let a job die when it has written so many parts."""
    lock, left = threading.Lock(), [parts]

    def dying(*arguments: Any) -> Any:
        with lock:
            if not left[0]:
                raise RuntimeError("killed")
            left[0] -= 1
        return shard.predict_shard(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("tasks.stage.shards.predict_shard", dying)
        with pytest.raises(RuntimeError, match="killed"):
            predict_rows(**options)


def added_by_hand(row: Mapping[str, Any], metrics: Mapping[str, Any], recipe: Any) -> list[float]:
    """What each column adds by the figures that are told at publication, one output's; the last is the intercept."""
    added, intercept = [], metrics["bias"]
    for column in recipe.columns:
        value, weight = row[column.name], metrics["weights"][column.name]
        if column.kind == "category":
            added.append(weight.get("(missing)" if value is None else str(value), 0.0))
        else:
            intercept += column.mean * weight
            low, high = column.limits or (-np.inf, np.inf)
            clamped = column.mean if value is None else np.clip(float(np.float32(value)), low, high)
            added.append((clamped - column.mean) * weight)
    return [*added, intercept]
