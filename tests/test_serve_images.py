"""The file of a model of own pictures: what it says of them, and what it answers however large they are."""

import io
import json
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.special
import torch

from candidate import plain
from own_images import HUES, Array, hues, prepare
from own_splits import trained
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Pixels
from tasks.export import export
from tasks.fitting import served
from tasks.networks import examples
from tasks.networks.training import outputs
from tasks.parameters import Device, Gates, Training
from tasks.serving import onnx_graph, runtime
from tasks.store.run_folder import RunFolder

ASKED = Training(defaults="data")
RNG = np.random.default_rng(0)


def drawn(shape: tuple[int, ...], outputs: int) -> dict[str, Array]:
    size = int(np.prod(shape))
    return {"W": RNG.normal(size=(size, outputs)).astype(np.float32), "b": RNG.normal(size=outputs).astype(np.float32)}


@pytest.mark.parametrize(("shape", "called"), [((5, 4), "Gray8"), ((5, 4, 3), "Rgb8")])
def test_the_file_says_size_channels_and_classes_and_the_sample_is_of_test_pictures(
    shape: tuple[int, ...], called: str
) -> None:
    images = RNG.integers(0, 256, (50, *shape), np.uint8)
    prepared = prepare(images, np.arange(50) % 2, ("cat", "dog"))
    content = onnx_graph.write_model(
        drawn(shape, 2), prepared.recipe, prepared.signature, onnx_graph.describe_model(prepared, ASKED)
    )
    model = onnx.load_from_string(content)
    described = {each.key: each.value for each in model.metadata_props}
    assert described["Image.BitmapPixelFormat"] == called
    assert json.loads(described["labels"]) == ["cat", "dog"]
    (source,) = model.graph.input
    dims = [each.dim_param or each.dim_value for each in source.type.tensor_type.shape.dim]
    assert (source.name, dims) == ("images", ["batch", *shape])
    session, test = runtime.open_session(content, Device.CPU), read_split(prepared.test, prepared)
    stored = np.load(io.BytesIO(runtime.write_sample(session, prepared.recipe, test.inputs)))
    assert (stored["images"] == test.inputs[:8]).all()
    assert (
        runtime.find_contradiction(
            session, prepared.recipe, runtime.write_sample(session, prepared.recipe, test.inputs)
        )
        is None
    )


@pytest.mark.parametrize("values", [1, 100, 2**24])
def test_large_pictures_are_answered_a_few_at_a_time_and_alike(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runtime, served, examples):
        monkeypatch.setattr(module, "VALUES", values)
    recipe = Pixels(shape=(6, 5, 3), scale=1 / 255)
    weights, images = drawn(recipe.shape, 3), RNG.integers(0, 256, (40, 6, 5, 3), np.uint8)
    prepared = prepare(images, np.arange(40) % 3, "abc")
    session = runtime.open_session(onnx_graph.write_model(weights, recipe, prepared.signature, {}), Device.CPU)
    expected = images.reshape(40, -1) / 255 @ weights["W"].astype(float) + weights["b"]
    answers = runtime.run_model(session, images)["probabilities"]
    np.testing.assert_allclose(answers, scipy.special.softmax(expected, axis=1), atol=1e-5)
    np.testing.assert_allclose(served.scores(weights, recipe, images), expected, atol=1e-4)
    split = examples.Split(torch.from_numpy(images), torch.zeros(40, dtype=torch.int64), 1 / 255)
    sizes: list[int] = []

    def net(X: torch.Tensor) -> torch.Tensor:  # noqa: N803  (the book's letter)
        sizes.append(len(X))
        return X.flatten(1) @ torch.from_numpy(weights["W"]) + torch.from_numpy(weights["b"])

    np.testing.assert_allclose(outputs(net, split).numpy(), expected, atol=1e-4)
    assert max(sizes) == min(40, max(1, values // 90))


def test_a_model_of_colour_pictures_passes_parity_and_servability() -> None:
    images, labels = hues(300, side=5)
    prepared, run = prepare(images, labels, tuple(HUES)), RunFolder.open("own", {})
    made: Any = plain(export)(run, prepared, trained(run, prepared, drawn((5, 5, 3), 3)), ASKED, Gates())
    assert {gate.name for gate in made.gates} == {"parity", "parity_labels", "servability", "latency_ms", "memory_mb"}
    assert all(gate.passed for gate in made.gates)
    described = json.loads(made.metadata.path.read_text())
    assert described["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 5, 5, 3]}]
