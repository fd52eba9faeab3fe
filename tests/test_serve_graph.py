"""The graph that ``export`` writes: its outputs against closed forms, its shape against the contract, its bytes."""

import os
import subprocess
import sys
import timeit
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.special
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from conftest import REPOSITORY
from own_tables import CLASSES, RECIPE, by_hand, category, drawn_rows, drawn_weights, number, recipes
from tasks.data.recipe import Column, Columns, Pixels
from tasks.serving import folding, graph
from tasks.serving.contract import Signature
from tasks.serving.task import TASKS

Array = np.ndarray[Any, Any]
SCALE = 1 / 255
PIXELS, NUMBERS = Pixels(shape=(5, 4), scale=SCALE), Columns(columns=tuple(Column(name=name) for name in "abc"))
PROPERTIES = {"dataset_digest": "0" * 64, "labels": '["a", "b"]'}
CLASSIFIER = Signature(inputs=(PIXELS.input,), outputs=TASKS["classification"].outputs(3))
REGRESSOR = Signature(inputs=(NUMBERS.input,), outputs=TASKS["regression"].outputs(0))
CLASSIFIER_OF_NUMBERS = Signature(inputs=(NUMBERS.input,), outputs=TASKS["classification"].outputs(3))
TABLE = Signature(inputs=(RECIPE.input,), outputs=TASKS["regression"].outputs(0))
TABLE_OF_CLASSES = Signature(inputs=(CLASSES.input,), outputs=TASKS["classification"].outputs(3))
MODELS = [
    (PIXELS, CLASSIFIER),
    (NUMBERS, REGRESSOR),
    (NUMBERS, CLASSIFIER_OF_NUMBERS),
    (RECIPE, TABLE),
    (CLASSES, TABLE_OF_CLASSES),
]


def drawn(num_inputs: int, num_outputs: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    sizes = {"W": (num_inputs, num_outputs), "b": (num_outputs,)}
    return {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}


def written(recipe: Pixels | Columns, signature: Signature) -> tuple[bytes, dict[str, Array]]:
    num_outputs = sum(signature.outputs[0].shape) or 1
    if isinstance(recipe, Columns) and not recipe.is_plain:
        weights = drawn_weights(recipe, num_outputs)
    else:
        weights = drawn(int(np.prod(recipe.input.shape)), num_outputs)
    return graph.write(weights, recipe, signature, PROPERTIES), weights


def answers(content: bytes, name: str, rows: Array) -> list[list[Array]]:
    """What onnxruntime says, and ONNX's own reference, whose Flatten knows no empty batch."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    runtimes = [session, ReferenceEvaluator(onnx.load_from_string(content))] if len(rows) else [session]
    return [runtime.run(None, {name: rows}) for runtime in runtimes]


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_a_classifier_of_pixels_is_the_softmax_of_their_scaled_product(num_rows: int) -> None:
    content, weights = written(PIXELS, CLASSIFIER)
    images = np.random.default_rng(1).integers(0, 256, (num_rows, 5, 4), dtype=np.uint8)
    inputs = images.reshape(num_rows, 20).astype(np.float64) * SCALE
    expected = scipy.special.softmax(inputs @ weights["W"].astype(np.float64) + weights["b"], axis=1)
    for probabilities, label in answers(content, "images", images):
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
        assert (probabilities.dtype, label.dtype, label.shape) == (np.float32, np.int64, (num_rows,))
        if num_rows:
            np.testing.assert_array_equal(label, probabilities.argmax(axis=1))


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_a_regression_is_the_product_of_raw_features(num_rows: int) -> None:
    content, weights = written(NUMBERS, REGRESSOR)
    features = np.random.default_rng(1).normal(size=(num_rows, 3)).astype(np.float32)
    expected = features.astype(np.float64) @ weights["W"][:, 0].astype(np.float64) + weights["b"][0]
    for (prediction,) in answers(content, "features", features):
        np.testing.assert_allclose(prediction, expected, rtol=0, atol=1e-5)
        assert (prediction.dtype, prediction.shape) == (np.float32, (num_rows,))


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_a_regression_of_a_table_is_its_recipe_by_hand_whatever_the_values_are(num_rows: int) -> None:
    content, weights = written(RECIPE, TABLE)
    features = drawn_rows(RECIPE, num_rows, odd=0.3)
    assert RECIPE.target is not None
    for (prediction,) in answers(content, "features", features):
        expected = by_hand(weights, RECIPE, features)[:, 0]
        np.testing.assert_allclose(prediction, expected, rtol=0, atol=1e-5 * RECIPE.target.scale)
        assert (prediction.dtype, prediction.shape) == (np.float32, (num_rows,))


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_a_classifier_of_a_table_is_the_softmax_of_its_recipe_by_hand(num_rows: int) -> None:
    content, weights = written(CLASSES, TABLE_OF_CLASSES)
    features = drawn_rows(CLASSES, num_rows, odd=0.3)
    expected = scipy.special.softmax(by_hand(weights, CLASSES, features), axis=1)
    for probabilities, label in answers(content, "features", features):
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)
        assert (probabilities.dtype, label.dtype, label.shape) == (np.float32, np.int64, (num_rows,))


@settings(max_examples=25, deadline=None)
@given(recipe=recipes(), seed=st.integers(0, 2**32 - 1))
def test_any_table_is_its_recipe_by_hand(recipe: Columns, seed: int) -> None:
    assert recipe.target is not None
    signature = Signature(inputs=(recipe.input,), outputs=TASKS["regression"].outputs(0))
    weights, features = drawn_weights(recipe, 1, seed), drawn_rows(recipe, 20, seed, odd=0.2)
    content = graph.write(weights, recipe, signature, {})
    expected = by_hand(weights, recipe, features)[:, 0]
    for (prediction,) in answers(content, "features", features):
        error = np.abs(prediction - expected) / recipe.target.scale
        assert error.max() <= 1e-4 + 4 * np.spacing(np.float32(np.abs(expected).max())) / recipe.target.scale


def test_of_equal_probabilities_the_first_is_the_label() -> None:
    weights = {"W": np.zeros((3, 3), np.float32), "b": np.array([0, 1, 1], np.float32)}
    content = graph.write(weights, NUMBERS, CLASSIFIER_OF_NUMBERS, {})
    for _, label in answers(content, "features", np.zeros((2, 3), np.float32)):
        np.testing.assert_array_equal(label, [1, 1])


def parts(message: Message) -> list[Message]:
    """A message of the file and all that it holds, at every depth."""
    held = [value for field, value in message.ListFields() if field.message_type is not None]
    inner = [each for value in held for each in (value if not isinstance(value, Message) else [value])]
    return [message, *(part for each in inner for part in parts(each))]


@pytest.mark.parametrize(("recipe", "signature"), MODELS)
def test_the_file_keeps_the_contract_and_tells_of_nothing_else(recipe: Pixels | Columns, signature: Signature) -> None:
    model = onnx.load_from_string(written(recipe, signature)[0])
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version <= 20) for each in model.opset_import] == [("", True)]
    assert model.ir_version <= 10, "of onnxruntime 1.21"
    for kind, tensors in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        for node, tensor in zip(kind, tensors, strict=True):
            first, *others = node.type.tensor_type.shape.dim
            assert (node.name, first.dim_param) == (tensor.name, "batch")
            assert tuple(each.dim_value for each in others) == tensor.shape
            assert onnx.helper.tensor_dtype_to_np_dtype(node.type.tensor_type.elem_type) == np.dtype(tensor.dtype)
    assert {each.key: each.value for each in model.metadata_props} == PROPERTIES
    assert (model.producer_version, model.domain, model.model_version) == ("", "", 0)
    everything = parts(model)
    assert len(everything) > 20
    for part in everything:
        assert not getattr(part, "doc_string", "")
        assert part is model or not list(getattr(part, "metadata_props", []))
        assert not list(getattr(part, "external_data", []))
    assert "Div" not in {node.op_type for node in model.graph.node}, "scales are folded"
    is_table = isinstance(recipe, Columns) and not recipe.is_plain
    assert ("Sub" in {node.op_type for node in model.graph.node}) is is_table, "means are not"


def test_weights_that_do_not_fit_the_signature_are_no_file() -> None:
    with pytest.raises(onnx.shape_inference.InferenceError):
        graph.write(drawn(19, 3), PIXELS, CLASSIFIER, {})


CODE = """
import hashlib, sys
from test_serve_graph import MODELS, written
print([hashlib.sha256(written(*model)[0]).hexdigest() for model in MODELS], "torch" in sys.modules)
"""


def test_two_fresh_processes_write_the_same_bytes_without_torch() -> None:
    printed = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY / "tests")}
        command = [sys.executable, "-c", CODE]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY, env=environment)
        printed.add(done.stdout)
    (only,) = printed
    assert only.split()[-1] == "False"


def dense(recipe: Columns, weights: dict[str, Array]) -> bytes:
    """The usual graph of a regression: one-hot columns beside the numbers, and one product."""
    folded, made, parts = folding.fold(weights, recipe), graph.Graph(), []
    for at, column in enumerate(recipe.columns):
        where = made.constant(f"at_{at}", np.array([at]))
        raw = made.node("Gather", "features", where, gives=f"raw_{at}", axis=1)
        if column.kind == "category":
            codes = made.constant(f"codes_{at}", np.arange(len(column.levels), dtype=np.float32))
            is_level = made.node("Equal", raw, codes, gives=f"is_level_{at}")
            parts.append(made.node("Cast", is_level, gives=f"hot_{at}", to=onnx.TensorProto.FLOAT))
        else:
            mean = made.constant(f"mean_{at}", np.array([column.mean], np.float32))
            parts.append(made.node("Sub", raw, mean, gives=f"centred_{at}"))
    made.node("Concat", *parts, gives="X", axis=1)
    numbers, effects = iter(folded.W), iter(np.split(folded.effects, folding.offsets(recipe)[1:]))
    rows = [next(effects)[:-2] if column.kind == "category" else next(numbers)[None] for column in recipe.columns]
    graph.product(made, "X", np.concatenate(rows), folded.b)
    graph.regression(made, "o")
    features = onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["batch", len(recipe.columns)])
    prediction = onnx.helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, ["batch"])
    written = onnx.helper.make_graph(made.nodes, "dense", [features], [prediction], made.constants)
    opset = [onnx.helper.make_opsetid("", 20)]
    content: bytes = onnx.helper.make_model(written, opset_imports=opset, ir_version=9).SerializeToString()
    return content


@pytest.mark.slow
def test_a_table_is_predicted_at_least_as_fast_as_with_dense_one_hot_columns() -> None:
    numbers = tuple(number(name, 10.0, 3.0) for name in "abcdef")
    recipe = Columns(columns=(*numbers, category("carrier", (100,) * 16), category("airport", (100,) * 105)))
    weights, rows = drawn_weights(recipe, 1), drawn_rows(recipe, 1024, odd=0.0)
    signature = Signature(inputs=(recipe.input,), outputs=TASKS["regression"].outputs(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ours, theirs = (
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for content in (graph.write(weights, recipe, signature, {}), dense(recipe, weights))
    )
    found, expected = (session.run(None, {"features": rows})[0] for session in (ours, theirs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    best = {ours: float("inf"), theirs: float("inf")}
    for _ in range(100):  # in turn, so that both see the same machine
        for session in best:
            seconds = timeit.timeit(lambda session=session: session.run(None, {"features": rows}), number=3)  # type: ignore[misc]
            best[session] = min(best[session], seconds)
    assert best[ours] <= best[theirs]
