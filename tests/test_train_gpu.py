"""What only a GPU can show: training and prediction on CUDA agree with the CPU, with CUDA graphs and without."""

import subprocess
from typing import Any

import numpy as np
import pytest
import torch

from candidate import Candidate
from small_images import IMAGES, generator
from tasks.batch.session_pool import open_pool
from tasks.machine import devices
from tasks.networks.cuda_graphs import GraphedEpochs
from tasks.networks.sgd import SGD, ConciseSGD, decaying
from tasks.networks.softmax_concise import SoftmaxRegressionConcise
from tasks.networks.softmax_scratch import SoftmaxRegressionScratch
from tasks.networks.training import train, train_epoch
from tasks.serving import sessions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(devices.cuda_fault() is not None, reason=f"no GPU: {devices.cuda_fault()}"),
]


def test_sessions_on_cuda_answer_like_those_on_the_cpu(candidates: list[Candidate]) -> None:
    published = candidates[0].publish()
    rows = np.random.default_rng(0).standard_normal((2500, 2)).astype(np.float32)
    found = {}
    for provider in (sessions.CUDA, sessions.CPU):
        pool = open_pool(published.model.path, published.model.sha256, provider, 2)
        found[provider] = pool.run(rows, 1000, {})["prediction"]
    np.testing.assert_allclose(found[sessions.CUDA], found[sessions.CPU], atol=1e-5)


@pytest.mark.parametrize("implementation", ["scratch", "concise"])
@pytest.mark.parametrize("rates", [[0.1, 0.1, 0.1], [0.3, 0.2, 0.1]])
def test_replayed_epochs_learn_what_single_steps_learn_and_the_cpu_learns(
    implementation: str, rates: list[float]
) -> None:
    learned = {}
    for device, run_epoch in (("cpu", train_epoch), ("cuda", train_epoch), ("graph", GraphedEpochs())):
        kind: Any = SoftmaxRegressionScratch if implementation == "scratch" else SoftmaxRegressionConcise
        net = kind(64, 5, generator())
        target = torch.device("cpu" if device == "cpu" else "cuda")
        net.to(target)
        optimizer = (SGD if implementation == "scratch" else ConciseSGD)(decaying(net.parameters(), 0.01), lr=0.1)
        split = IMAGES.to(target)
        curve = list(train(net, optimizer, split, split, rates, 32, generator(7), run_epoch=run_epoch))
        learned[device] = {name: each.cpu() for name, each in net.weights().items()}, curve[-1].train["loss"]
    assert learned["graph"][1] == pytest.approx(learned["cpu"][1], rel=1e-4)
    torch.testing.assert_close(learned["graph"][0], learned["cuda"][0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(learned["graph"][0], learned["cpu"][0], rtol=1e-3, atol=1e-5)


def test_the_driver_tells_what_nvidia_smi_tells() -> None:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    name, version = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    driver = devices.driver()
    assert (driver.gpus[0].name, driver.version) == (name, version)
    assert driver.gpus[0].memory == torch.cuda.get_device_properties(0).total_memory
    assert sessions.fault(sessions.CUDA) is None
