"""The ONNX file of a linear model, its graph in ONNX's own text format: raw rows → scores → outputs."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from tasks.data.recipe import Recipe
from tasks.parameters import Training
from tasks.records import PreparedDataset
from tasks.serving.contract import (
    BATCH,
    COLUMNS,
    IR_VERSION,
    LABEL,
    OPSET,
    Signature,
    Tensor,
)
from tasks.serving.raw_units import Weights, fold_weights, locate_columns

Constants = dict[str, NDArray[Any]]
TYPES = {"float32": "float"}  # the names in ONNX's text format, where they differ from numpy's
PIXELS = """
    flat = Flatten <axis = 1> (images)
    X = Cast <to = 1> (flat)
    o = Gemm (X, W, b)
"""
PLAIN = "o = Gemm (features, W, b)"
# For a table, rows are transposed, so that what differs between columns is constant along memory.
BY_COLUMN = "by_column = Transpose <perm = [1, 0]> (features)"
# The sum ``(batch, outputs)`` of the effects of a row's categories, coded as in ``raw_units.encode_levels``. They are
# gathered, not multiplied: one-hot columns and one product take three times as long (1024 rows of 6 numbers, two
# categories). No value makes this fail, not even infinity: codes are checked by comparison, since a cast of a value
# that is no level's code could give any number.
EFFECTS = """
    code = Gather (by_column, categories)
    not_below = GreaterOrEqual (code, first)
    not_above = Less (code, num_levels)
    inside = And (not_below, not_above)
    floor = Floor (code)
    is_whole = Equal (code, floor)
    known = And (inside, is_whole)
    missing_code = IsNaN (code)
    missing_or_unknown = Where (missing_code, num_levels, unknown)
    position = Where (known, code, missing_or_unknown)
    in_column = Cast <to = 7> (position)
    row = Add (in_column, start)
    effect = Gather <axis = 0> (effects, row)
    sum = ReduceSum <keepdims = 0> (effect, columns)
"""
# A missing number counts as its mean, which is 0 after centring.
NUMBERS = """
    raw = Gather (by_column, numbers)
    centred = Sub (raw, mean)
    missing_number = IsNaN (centred)
    {X} = Where (missing_number, zero, centred)
"""
# Years are clamped: a line through time would extrapolate.
CLAMP = """
    above = Max (unbounded, low)
    X = Min (above, high)
"""
PRODUCT = "o = Gemm <transA = 1> (X, W, b)"
# The class of the largest probability, the first among equals.
CLASSES = """
    probabilities = Softmax <axis = 1> ({scores})
    label = ArgMax <axis = 1, keepdims = 0> (probabilities)
"""
TARGET = "prediction = Squeeze ({scores}, axes)"


def describe_model(prepared: PreparedDataset, training: Training) -> dict[str, str]:
    """``metadata_props``: what a consumer may want to know, and nothing that changes from day to day.

    All values are JSON except the digest and the image keys of the ONNX standard.
    """
    recipe = prepared.recipe
    facts: dict[str, Any] = {
        "signature": prepared.signature.model_dump(mode="json"),
        "training": training.exported_values,
        COLUMNS: [column.model_dump(mode="json") for column in recipe.describe_columns()],
        "labels": prepared.class_names,
    }
    texts = {key: json.dumps(value, sort_keys=True) for key, value in facts.items() if value}
    return {"dataset_digest": prepared.digest} | texts | recipe.metadata_props


def write_model(weights: Weights, recipe: Recipe, signature: Signature, metadata_props: Mapping[str, str]) -> bytes:
    """The file of a model with trained weights (``records.TrainedModel``).

    Equal arguments give equal bytes: no date, path or version is written.

    Raises:
        onnx.shape_inference.InferenceError: the weights do not fit the signature.
    """
    (nodes, constants), scores = (write_plain if recipe.is_plain else write_table)(weights, recipe), "o"
    if recipe.categories:
        scores = "scores"
        nodes.append(f"scores = Add (sum, {'o' if recipe.numbers else 'b'})")
    if any(tensor.name == LABEL for tensor in signature.outputs):
        nodes.append(CLASSES.format(scores=scores))
    else:
        nodes.append(TARGET.format(scores=scores))
        constants["axes"] = np.array([1], np.int64)
    inputs, outputs = (", ".join(map(_describe, tensors)) for tensors in (signature.inputs, signature.outputs))
    graph = parser.parse_graph(f"linear ({inputs}) => ({outputs}) {{ {' '.join(nodes)} }}")
    for node in graph.node:
        node.ClearField("domain")  # the default domain, left out as it always was, so that files keep their bytes
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="gradmill"
    )
    helper.set_model_props(model, dict(metadata_props))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def write_plain(weights: Weights, recipe: Recipe) -> tuple[list[str], Constants]:
    """Nodes and constants that compute scores of unencoded rows; the scale of pixels is folded into ``W``.

    Dividing every pixel in the graph would cost a third of the speed.
    """
    is_pixels = recipe.input.dtype != "float32"
    scale = np.float32(recipe.scale)
    return [PIXELS if is_pixels else PLAIN], {"W": weights["W"] * scale, "b": weights["b"]}


def write_table(weights: Weights, recipe: Recipe) -> tuple[list[str], Constants]:
    """Nodes and constants that compute scores of a table's rows."""
    nodes, constants = [BY_COLUMN], Constants()
    mean, W, effects, b = fold_weights(weights, recipe)  # noqa: N806  (the book's letters)
    if recipe.categories:
        num_levels = np.array(recipe.num_levels, np.float32)[:, np.newaxis]
        nodes.append(EFFECTS)
        constants = {
            "categories": np.array(recipe.categories, np.int64),
            "first": np.zeros((1, 1), np.float32),
            "num_levels": num_levels,
            "unknown": num_levels + 1,
            "start": locate_columns(recipe)[:, np.newaxis],
            "effects": effects,
            "columns": np.zeros(1, np.int64),
        }
    if recipe.numbers:
        nodes.append(NUMBERS.format(X="unbounded" if recipe.limits else "X"))
        if recipe.limits:
            nodes.append(CLAMP)
            constants |= _centre_limits(recipe, mean)
        nodes.append(PRODUCT)
        constants |= {
            "numbers": np.array(recipe.numbers, np.int64),
            "mean": mean[:, np.newaxis],
            "zero": np.zeros((1, 1), np.float32),
            "W": W,
        }
    return nodes, constants | {"b": b}


def _centre_limits(recipe: Recipe, mean: NDArray[np.float32]) -> Constants:
    """Finite bounds to which numbers less their means ``(numbers, batch)`` are clamped: runtimes need no infinity."""
    largest = np.finfo(np.float32).max
    bounds = np.array([[-largest, largest]] * len(mean), np.float32)
    for at, *limits in recipe.limits:
        bounds[at] = np.array(limits, np.float32) - mean[at]
    return {"low": bounds[:, :1], "high": bounds[:, 1:]}


def _describe(tensor: Tensor) -> str:
    return f"{TYPES.get(tensor.dtype, tensor.dtype)}[{', '.join(map(str, (BATCH, *tensor.shape)))}] {tensor.name}"
