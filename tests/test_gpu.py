"""What only a GPU can show: the CUDA lanes give the CPU's answers, with a CUDA graph and without."""

import numpy as np
import pytest

from candidate import Candidate
from tasks import devices, onnx_session
from tasks.predict.cuda import CudaLane
from tasks.predict.lanes import open_lanes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(devices.cuda_fault() is not None, reason=f"no GPU: {devices.cuda_fault()}"),
]


@pytest.mark.parametrize("graphs", ["1", "0"])
def test_cuda_lanes_answer_like_the_cpu_whole_batches_and_padded_ones(
    candidates: list[Candidate], graphs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADMILL_CUDA_GRAPHS", graphs)
    published = candidates[0].publish()
    rows = np.random.default_rng(0).standard_normal((2500, 2)).astype(np.float32)
    found = {}
    for provider in (onnx_session.CUDA, onnx_session.CPU):
        lanes = open_lanes(published.model.path, published.model.sha256, provider, 1000, 2)
        found[provider] = lanes.run(rows)["prediction"]
    np.testing.assert_allclose(found[onnx_session.CUDA], found[onnx_session.CPU], atol=1e-5)


def test_a_cuda_lane_runs_on_cuda_and_forgets_the_batch_before(candidates: list[Candidate]) -> None:
    lane = CudaLane(candidates[0].exported.onnx.path.read_bytes(), 8)
    assert onnx_session.provider(lane._session) == onnx_session.CUDA
    rows = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
    (whole,) = (each.copy() for each in lane(rows))
    (short,) = (each.copy() for each in lane(rows[5:]))
    np.testing.assert_array_equal(short, whole[5:])
