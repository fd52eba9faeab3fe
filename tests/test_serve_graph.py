"""The graph that ``export`` writes: its outputs against closed forms, its shape against the contract, its bytes."""

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.special
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from own_tables import CLASSES, RECIPE, by_hand, category, drawn_rows, drawn_weights, number, recipes
from tasks.data.recipe import Column, Columns, Pixels, Recipe, Target
from tasks.serving import onnx_graph, raw_units
from tasks.serving.contract import Signature
from tasks.serving.task import TASKS, TaskName

Array = np.ndarray[Any, Any]
PIXELS, COLOUR = (Pixels(shape=shape, scale=1 / 255) for shape in ((5, 4), (3, 4, 3)))
NUMBERS = Columns(columns=tuple(Column(name=name) for name in "abc"))
PROPERTIES = {"dataset_digest": "0" * 64, "labels": '["a", "b"]'}
MODELS: list[tuple[Recipe, TaskName]] = [
    (PIXELS, "classification"),
    (COLOUR, "classification"),
    (NUMBERS, "regression"),
    (NUMBERS, "classification"),
    (RECIPE, "regression"),
    (CLASSES, "classification"),
]


def sign(recipe: Recipe, task: TaskName) -> Signature:
    return TASKS[task].signature(recipe, "abc" if task == "classification" else "")


def draw(recipe: Recipe, task: TaskName, seed: int = 0) -> dict[str, Array]:
    """Weights of three classes, or of a number."""
    num_outputs = 3 if task == "classification" else 1
    if isinstance(recipe, Columns):
        return drawn_weights(recipe, num_outputs, seed)
    rng = np.random.default_rng(seed)
    sizes = {"W": (math.prod(recipe.shape), num_outputs), "b": (num_outputs,)}
    return {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}


def write(recipe: Recipe, task: TaskName) -> bytes:
    return onnx_graph.write_model(draw(recipe, task), recipe, sign(recipe, task), PROPERTIES)


def answers(content: bytes, rows: Array) -> list[list[Array]]:
    """What onnxruntime says, and ONNX's own reference, whose Flatten knows no empty batch."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    runtimes = [session, ReferenceEvaluator(onnx.load_from_string(content))] if len(rows) else [session]
    return [runtime.run(None, {session.get_inputs()[0].name: rows}) for runtime in runtimes]


@st.composite
def models(draw: st.DrawFn) -> tuple[Recipe, TaskName]:
    """A model of images or the book's, or one of any table."""
    if draw(st.booleans()):
        return draw(st.sampled_from(MODELS[:4]))
    recipe, task = draw(recipes()), draw(st.sampled_from([*TASKS]))
    return recipe if task == "regression" else recipe.model_copy(update={"target": Target(name="kind")}), task


@settings(max_examples=40, deadline=None)
@example((RECIPE, "regression"), 1000, 0)
@example((CLASSES, "classification"), 1000, 0)
@given(model=models(), num_rows=st.sampled_from([0, 1, 20]), seed=st.integers(0, 2**32 - 1))
def test_any_model_answers_as_its_recipe_by_hand_whatever_the_values_are(
    model: tuple[Recipe, TaskName], num_rows: int, seed: int
) -> None:
    recipe, task = model
    weights = draw(recipe, task, seed)
    if isinstance(recipe, Pixels):
        rows = np.random.default_rng(seed).integers(0, 256, (num_rows, *recipe.shape), np.uint8)
        pixels = rows.reshape(num_rows, math.prod(recipe.shape)) * recipe.scale
        scores = pixels @ weights["W"].astype(np.float64) + weights["b"]
    else:
        rows = drawn_rows(recipe, num_rows, seed, odd=0.0 if recipe.is_plain else 0.3)
        scores = by_hand(weights, recipe, rows)
    content = onnx_graph.write_model(weights, recipe, sign(recipe, task), {})
    for found in answers(content, rows):
        if task == "classification":
            np.testing.assert_allclose(found[0], scipy.special.softmax(scores, axis=1), rtol=0, atol=1e-4)
            np.testing.assert_array_equal(found[1], found[0].argmax(axis=1))
            assert (found[0].dtype, found[1].dtype, found[1].shape) == (np.float32, np.int64, (num_rows,))
        else:
            scale = recipe.target.scale if isinstance(recipe, Columns) and recipe.target else 1.0
            spacing = np.spacing(np.float32(np.abs(scores).max(initial=0)))
            np.testing.assert_allclose(found[0], scores[:, 0], rtol=0, atol=1e-4 * scale + 4 * spacing)
            assert (found[0].dtype, found[0].shape) == (np.float32, (num_rows,))


def test_of_equal_probabilities_the_first_is_the_label() -> None:
    weights = {"W": np.zeros((3, 3), np.float32), "b": np.array([0, 1, 1], np.float32)}
    content = onnx_graph.write_model(weights, NUMBERS, sign(NUMBERS, "classification"), {})
    for _, label in answers(content, np.zeros((2, 3), np.float32)):
        np.testing.assert_array_equal(label, [1, 1])


def parts(message: Message) -> list[Message]:
    """A message of the file and all that it holds, at every depth."""
    held = [value for field, value in message.ListFields() if field.message_type is not None]
    inner = [each for value in held for each in (value if not isinstance(value, Message) else [value])]
    return [message, *(part for each in inner for part in parts(each))]


@pytest.mark.parametrize(("recipe", "task"), MODELS)
def test_the_file_keeps_the_contract_and_tells_of_nothing_else(recipe: Recipe, task: TaskName) -> None:
    model, signature = onnx.load_from_string(write(recipe, task)), sign(recipe, task)
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
    task: TaskName = "classification"
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx_graph.write_model(draw(NUMBERS, task), PIXELS, sign(PIXELS, task), {})


# Folding a table's weights into raw units: the same scores as the recipe applied by hand, row by row


@settings(max_examples=25, deadline=None)
@example(RECIPE, 1)
@example(CLASSES, 3)
@example(Columns(columns=(category("city", (20, 5)),), target=Target(name="y")), 1)  # without a product
@given(recipe=recipes(), num_outputs=st.integers(1, 3))
def test_folded_weights_score_any_raw_rows_as_the_recipe_by_hand(recipe: Columns, num_outputs: int) -> None:
    weights, rows = drawn_weights(recipe, num_outputs), drawn_rows(recipe, 100, odd=0.3)
    expected, scale = by_hand(weights, recipe, rows), recipe.target.scale if recipe.target else 1.0
    exact = raw_units.score_rows(raw_units.fold_weights(weights, recipe, np.float64), recipe, rows)
    np.testing.assert_allclose(exact, expected, rtol=1e-12, atol=1e-9 * scale)
    found = raw_units.score_rows(raw_units.fold_weights(weights, recipe), recipe, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-4 * scale)


def test_what_rounding_takes_from_a_mean_is_not_lost() -> None:
    recipe = Columns(columns=(number("pressure", 101_325.004, 50.0),), target=Target(name="y"))
    weights = {"W": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    rows = np.arange(101_200, 101_450, dtype=np.float32)[:, np.newaxis]
    found = raw_units.score_rows(raw_units.fold_weights(weights, recipe), recipe, rows)
    np.testing.assert_allclose(found, by_hand(weights, recipe, rows), rtol=0, atol=1e-6)
