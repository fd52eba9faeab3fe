"""A real tritonserver reads ``models/`` as it stands.

The server in the wheel ``nvidia-pytriton`` has no ONNX backend, so a copy of the repository names the Python backend in
its ``config.pbtxt`` and gets a ``model.py`` that runs the very ``model.onnx`` beside it. That proves the repository's
layout, the version policy, the names, types and shapes of ``config.pbtxt``, and the protocol; it does not prove
Triton's own ONNX backend.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

import served_images
from candidate import Contender
from conftest import REPOSITORY
from documents import load
from duty import free_port
from fenced_blocks import blocks
from prefect_api import eventually
from tasks.store import artifact_paths, pointer
from tasks.store.artifact_paths import METADATA
from tasks.store.run_folder import RunFolder

pytestmark = [pytest.mark.consumers, pytest.mark.slow]

NAME = "linear-regression"
IMAGES = """name: "softmax-regression"
backend: "python"
max_batch_size: 0
input { name: "images" data_type: TYPE_UINT8 dims: [ -1, 28, 28 ] }
output { name: "probabilities" data_type: TYPE_FP32 dims: [ -1, 10 ] }
output { name: "label" data_type: TYPE_INT64 dims: [ -1 ] }
version_policy { specific { versions: [ 3 ] } }
"""
BACKEND = """
import os
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        names = [node.name for node in self.session.get_outputs()]
        source = self.session.get_inputs()[0].name
        answers = []
        for request in requests:
            rows = backend.get_input_tensor_by_name(request, source).as_numpy()
            outputs = zip(names, self.session.run(names, {source: rows}))
            answers.append(backend.InferenceResponse([backend.Tensor(*output) for output in outputs]))
        return answers
"""


@pytest.fixture(scope="module")
def tritonserver() -> Path:
    """The server's folder in an environment of its own (its backend needs numpy below 2), made once."""
    environment = REPOSITORY / ".venv" / "triton"
    python = environment / "bin" / "python"
    if not (environment / ".installed").exists():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        for packages in (["--no-deps", "nvidia-pytriton>=0.7,<0.8"], ["numpy<2", "onnxruntime"]):
            done = subprocess.run(
                [python, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"nvidia-pytriton does not install here: {done.stderr.strip()[-300:]}")
        (environment / ".installed").touch()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = environment / "lib" / f"python{version}" / "site-packages" / "pytriton" / "tritonserver"
    stub = folder / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"nvidia-pytriton has no backend for Python {version}")
    shutil.copy(stub, folder / "backends" / "python")
    (folder / "backends" / "python" / stub.name).chmod(0o755)
    return folder


@pytest.fixture
def repository(candidates: list[Contender], tmp_path: Path) -> Path:
    """A copy of ``models/`` with two versions, rolled back to the first, for the Python backend; and a model of images.

    A folder that a first candidate of another name has left, on which Triton would not start, has gone.
    """
    artifact_paths.lock(artifact_paths.model("refused")).parent.mkdir(parents=True)
    artifact_paths.lock(artifact_paths.model("refused")).touch()
    for candidate in candidates[:2]:
        candidate.publish()
    RunFolder.open("a-later-run", {})
    pointer.rollback(NAME)
    copy = tmp_path / "repository"
    shutil.copytree(artifact_paths.models(), copy)
    config = copy / NAME / "config.pbtxt"
    config.write_text(config.read_text().replace('platform: "onnxruntime_onnx"', 'backend: "python"'))
    for version in ("1", "2"):
        (copy / NAME / version).chmod(0o755)
        (copy / NAME / version / "model.py").write_text(BACKEND)
    images = served_images.write(copy)
    (images / "config.pbtxt").write_text(IMAGES)
    (images / "3" / "model.py").write_text(BACKEND)
    return copy


@pytest.fixture
def address(tritonserver: Path, repository: Path, tmp_path: Path) -> Iterator[str]:
    port, packages = free_port(), tritonserver.parents[1]
    environment = os.environ | {
        "PATH": f"{packages.parents[2] / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
    }
    options = {
        "model-repository": repository, "backend-directory": tritonserver / "backends", "http-address": "127.0.0.1",
        "http-port": port, "allow-grpc": "false", "allow-metrics": "false",
    }  # fmt: skip
    log = tmp_path / "triton.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [tritonserver / "bin" / "tritonserver", *(f"--{name}={value}" for name, value in options.items())],
            stdout=stream,
            stderr=stream,
            env=environment,
        )
    url = f"http://127.0.0.1:{port}/v2"

    def has_begun() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK
        return server.poll() is not None

    try:
        eventually(has_begun, 60, "tritonserver is ready")
        if server.poll() is not None:
            text = log.read_text(errors="replace")
            if "Importing the numpy C-extensions failed" in text:  # seen with Debian's own Python 3.13
                pytest.skip("the Python inside nvidia-pytriton's backend cannot load this machine's modules")
            pytest.fail(f"tritonserver has ended: {text[-2000:]}")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def test_tritonserver_serves_the_champion_alone_under_the_published_signature(address: str) -> None:
    served = httpx.get(f"{address}/models/{NAME}").json()
    metadata = load(artifact_paths.version(NAME, 1) / METADATA)
    for key in ("name", "versions", "inputs", "outputs"):
        assert served[key] == metadata[key]
    assert httpx.get(f"{address}/models/{NAME}/versions/1/ready").status_code == httpx.codes.OK
    assert httpx.get(f"{address}/models/{NAME}/versions/2/ready").status_code != httpx.codes.OK
    with np.load(artifact_paths.version(NAME, 1) / "sample.npz", allow_pickle=False) as archive:
        sample = dict(archive)
    rows = sample["features"]
    request = {"inputs": [{"name": "features", "datatype": "FP32", "shape": rows.shape, "data": rows.ravel().tolist()}]}
    (output,) = httpx.post(f"{address}/models/{NAME}/infer", json=request).raise_for_status().json()["outputs"]
    np.testing.assert_allclose(output["data"], sample["prediction"], atol=2e-5)


def test_the_documented_client_prints_the_name_of_a_label(address: str, repository: Path) -> None:
    (script,) = [each.text for each in blocks(REPOSITORY / "docs" / "consumers.md") if "/v2/models/" in each.text]
    (repository.parent / "served" / "artifacts").mkdir(parents=True)
    (repository.parent / "served" / "artifacts" / "models").symlink_to(repository)
    assert "http://localhost:8000/v2" in script
    command = [sys.executable, "-c", script.replace("http://localhost:8000/v2", address)]
    done = subprocess.run(command, cwd=repository.parent / "served", capture_output=True, text=True, check=True)
    assert done.stdout == f"class {served_images.OF_BLACK}\n"
