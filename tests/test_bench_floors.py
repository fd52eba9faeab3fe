"""What benchmarks show as a floor does the work that is measured beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tasks.networks.sgd import SGD, ConciseSGD, decaying
from tasks.networks.softmax_concise import SoftmaxRegressionConcise
from tasks.networks.softmax_scratch import SoftmaxRegressionScratch

from conftest import Pipeline
from flows.bench import predict_floor, train_floor
from flows.predict import predict
from small_images import IMAGES, generator
from tasks.networks.training import train
from tasks.parameters import Device, PredictParameters
from tasks.serving import sessions
from tasks.store import reading

SCRATCH, CONCISE = (SoftmaxRegressionScratch, SGD), (SoftmaxRegressionConcise, ConciseSGD)


@pytest.mark.parametrize(
    ("step", "ours"),
    [(train_floor.by_hand, SCRATCH), (train_floor.by_autograd, CONCISE), (train_floor.by_kernels, CONCISE)],
)
def test_barest_torch_comes_to_our_weights_bit_for_bit(step: train_floor.Step, ours: tuple[Any, Any]) -> None:
    seed, (network, optimizer) = generator(), ours
    net = network(64, 5, seed)
    moves = optimizer(decaying(net.parameters(), 0), lr=train_floor.LR)
    *_, last = train(net, moves, IMAGES, IMAGES, [train_floor.LR] * 3, 32, seed)
    data = IMAGES.X.flatten(1), IMAGES.y
    found = train_floor.train(step, data, data, batch_size=32, num_epochs=3)
    assert torch.equal(found.weights.T, net.weights()["W"])
    assert torch.equal(found.bias, net.weights()["b"])
    assert found.figures[1::2] == [last.train["accuracy"], last.test["accuracy"]]


@pytest.mark.slow  # a real run
@pytest.mark.parametrize("write", ["all", "label"])
def test_bare_calls_write_the_rows_of_a_predictions_parts(
    write: str, pipeline: Pipeline, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = pipeline.report("softmax-regression").name
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(pipeline.artifacts))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setattr(predict_floor, "CHUNK", 100)
    monkeypatch.setattr(predict_floor, "BATCH", 32)
    np.save(rows := tmp_path / "rows.npy", np.random.default_rng(0).integers(0, 256, (333, 28, 28), np.uint8))
    job = {"name": name, "input": str(rows), "output": str(tmp_path / "ours"), "write": write, "shard_rows": 200}
    done = predict(PredictParameters.model_validate(job))
    number, model = reading.load(name, None)
    class_names = list(reading.manifest(name, number).dataset.class_names)
    predict_floor.rate([sessions.open_session(model, Device.CPU) for _ in range(2)], rows, class_names, write)
    found, expected = (pq.read_table(sorted(folder.glob("part-*.parquet"))) for folder in (tmp_path, done.path))
    assert found.equals(expected)
