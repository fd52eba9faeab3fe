"""What only a GPU can show: training and prediction on CUDA agree with the CPU."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import torch

import image_folders
from documents import ask
from tasks.fitting.devices import deterministic
from tasks.machine import devices
from tasks.serving import runtime

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(devices.cuda_fault() is not None, reason=f"no GPU: {devices.cuda_fault()}"),
]


def write_data(folder: Path, kind: str) -> list[Any]:
    """Own data of a kind, or the book's, and the options that retrain on them."""
    if kind == "images":
        return ["softmax-regression", "--data", image_folders.write(folder / "pictures", {"left": 100, "right": 100})]
    return ["linear-regression", "--implementation", kind]


@pytest.mark.parametrize("kind", ["scratch", "concise", "images"])
def test_the_books_and_own_data_are_learned_and_predicted_on_cuda_as_on_the_cpu(kind: str, tmp_path: Path) -> None:
    options, losses, answers = write_data(tmp_path, kind), [], []
    for device in ("cpu", "cuda"):
        done = ask("retrain", *options, "--name", f"on-{device}", "--device", device)
        assert done["device"].startswith(device)
        assert done["prediction"]["rows"] > 0
        losses.append(done["metrics"]["test_loss"])
        ask("predict", "--name", "on-cpu", "--device", device, "--output", output := tmp_path / f"{device}.parquet")
        answers.append(pd.read_parquet(output).select_dtypes("float32"))
    assert losses[1] == pytest.approx(losses[0], rel=0.005)
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_the_driver_tells_what_nvidia_smi_tells() -> None:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    name, version = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    driver = devices.query_driver()
    assert (driver.gpus[0].name, driver.version) == (name, version)
    assert driver.gpus[0].memory == torch.cuda.get_device_properties(0).total_memory
    assert runtime.find_fault(runtime.CUDA) is None


def test_deterministic_algorithms_are_asked_for_while_a_table_is_trained_on_a_gpu_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    during = []

    @deterministic(wanted=True)
    def diverge() -> None:
        during.append(torch.are_deterministic_algorithms_enabled())
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        diverge()
    assert during == [True]
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(wanted=False):
        assert not torch.are_deterministic_algorithms_enabled()
