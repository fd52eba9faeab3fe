"""The ONNX file of a linear model, its graph in ONNX's own text format: raw rows → scores → outputs."""

import json
from collections.abc import Mapping, Sequence
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
from tasks.serving.raw_units import FoldedWeights, Weights, count_codes, fold_weights, list_pairs, locate_columns

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
# A missing number counts as its mean.
NUMBERS = """
    raw = Gather (by_column, numbers)
    missing_number = IsNaN (raw)
    number = Where (missing_number, mean, raw)
    {X} = Sub (number, mean)
"""
# Numbers are clamped to the training range: what is beyond it, nobody knows.
CLAMP = """
    above = Max (unbounded, low)
    X = Min (above, high)
"""
# How far into each segment of its curve a number reaches.
SEGMENTS = """
    bent = Gather (number, segment_numbers)
    above_start = Max (bent, segment_starts)
    below_end = Min (above_start, segment_ends)
    segments = Sub (below_end, segment_starts)
"""
PRODUCTS = """
    left_factor = Gather (X, left)
    right_factor = Gather (X, right)
    products = Mul (left_factor, right_factor)
"""
JOIN = "inputs = Concat <axis = 0> ({inputs})"
PRODUCT = "o = Gemm <transA = 1> ({inputs}, W, b)"
# A slope for each code of a category, and what each two codes add. Codes are small enough for float32 to be exact.
SLOPES = """
    slope_code = Gather (position, slope_categories)
    slope_place = Add (slope_code, slope_start)
    slope_row = Cast <to = 7> (slope_place)
    slope = Gather <axis = 0> (slopes, slope_row)
    sloped = Gather (X, slope_numbers)
    sloped_number = Unsqueeze (sloped, last)
    rise = Mul (slope, sloped_number)
    slope_sum = ReduceSum <keepdims = 0> (rise, columns)
"""
CELLS = """
    first_code = Gather (position, first_categories)
    second_code = Gather (position, second_categories)
    first_place = Mul (first_code, second_codes)
    both_codes = Add (first_place, second_code)
    cell_place = Add (both_codes, cell_start)
    cell_row = Cast <to = 7> (cell_place)
    cell = Gather <axis = 0> (cells, cell_row)
    cell_sum = ReduceSum <keepdims = 0> (cell, columns)
"""
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
    nodes, constants, scores = (write_plain if recipe.is_plain else write_table)(weights, recipe)
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


def write_plain(weights: Weights, recipe: Recipe) -> tuple[list[str], Constants, str]:
    """Nodes, constants and the name of the scores of unencoded rows; the scale of pixels is folded into ``W``.

    Dividing every pixel in the graph would cost a third of the speed.
    """
    is_pixels = recipe.input.dtype != "float32"
    scale = np.float32(recipe.scale)
    return [PIXELS if is_pixels else PLAIN], {"W": weights["W"] * scale, "b": weights["b"]}, "o"


def write_table(weights: Weights, recipe: Recipe) -> tuple[list[str], Constants, str]:
    """Nodes, constants and the name of the scores of a table's rows."""
    folded = fold_weights(weights, recipe)
    nodes = [BY_COLUMN]
    constants: Constants = {"b": folded.b}
    terms = list[str]()
    if recipe.categories:
        nodes.append(EFFECTS)
        constants |= _describe_effects(folded, recipe)
        terms.append("sum")
    terms.append("b")
    if recipe.numbers:
        _write_numbers(folded, recipe, nodes, constants)
        terms[-1] = "o"
    _write_pairs(folded, recipe, nodes, constants, terms)
    for count, term in enumerate(terms[1:]):
        name = "scores" if count == len(terms) - 2 else f"scores_{count}"
        nodes.append(f"{name} = Add ({terms[0] if count == 0 else f'scores_{count - 1}'}, {term})")
    return nodes, constants, "scores" if len(terms) > 1 else terms[0]


def _describe_effects(folded: FoldedWeights, recipe: Recipe) -> Constants:
    num_levels = np.array(recipe.num_levels, np.float32)[:, np.newaxis]
    return {
        "categories": np.array(recipe.categories, np.int64),
        "first": np.zeros((1, 1), np.float32),
        "num_levels": num_levels,
        "unknown": num_levels + 1,
        "start": locate_columns(recipe)[:, np.newaxis],
        "effects": folded.effects,
        "columns": np.zeros(1, np.int64),
    }


def _write_numbers(folded: FoldedWeights, recipe: Recipe, nodes: list[str], constants: Constants) -> None:
    """Add what slopes, curves and products of numbers need: one product of all these inputs with their weights."""
    nodes.append(NUMBERS.format(X="unbounded" if recipe.limits else "X"))
    if recipe.limits:
        nodes.append(CLAMP)
        constants |= _centre_limits(recipe, folded.mean)
    inputs, weights = ["X"], [folded.W]
    if len(folded.slopes):
        nodes.append(SEGMENTS)
        inputs.append("segments")
        weights.append(folded.slopes)
        constants |= {
            "segment_numbers": folded.segment_numbers,
            "segment_starts": folded.segment_starts[:, np.newaxis],
            "segment_ends": folded.segment_ends[:, np.newaxis],
        }
    positions = {at: place for place, at in enumerate(recipe.numbers)}
    are_numbers = np.array([set(pair) <= positions.keys() for pair in list_pairs(recipe)], bool)
    if are_numbers.any():
        nodes.append(PRODUCTS)
        inputs.append("products")
        weights.append(folded.pair_weights[folded.pair_starts[are_numbers]])
        for name, members in zip(("left", "right"), folded.pairs[are_numbers].T.tolist(), strict=True):
            constants[name] = np.array([positions[at] for at in members], np.int64)
    if len(inputs) > 1:
        nodes.append(JOIN.format(inputs=", ".join(inputs)))
    nodes.append(PRODUCT.format(inputs="inputs" if len(inputs) > 1 else "X"))
    constants |= {
        "numbers": np.array(recipe.numbers, np.int64),
        "mean": folded.mean[:, np.newaxis],
        "W": np.concatenate(weights) if len(weights) > 1 else folded.W,
    }


def _write_pairs(
    folded: FoldedWeights, recipe: Recipe, nodes: list[str], constants: Constants, terms: list[str]
) -> None:
    """Add what pairs with a category need, and the names of their sums to the terms."""
    positions = {at: place for place, at in enumerate(recipe.numbers)}
    places = {at: place for place, at in enumerate(recipe.categories)}
    slopes, cells = list[tuple[int, int, int, int]](), list[tuple[int, int, int, int]]()
    for (first, second), start in zip(list_pairs(recipe), folded.pair_starts.tolist(), strict=True):
        size = count_codes(recipe, first) * count_codes(recipe, second)
        if {first, second} <= places.keys():
            cells.append((places[first], places[second], start, size))
        elif not {first, second} <= positions.keys():
            number, category = (first, second) if first in positions else (second, first)
            slopes.append((positions[number], places[category], start, size))
    if slopes:
        nodes.append(SLOPES)
        terms.append("slope_sum")
        numbers, categories, starts, sizes = zip(*slopes, strict=True)
        constants |= {
            "slope_categories": np.array(categories, np.int64),
            "slope_numbers": np.array(numbers, np.int64),
            "slope_start": _stack_starts(sizes),
            "slopes": _take_rows(folded.pair_weights, starts, sizes),
            "last": np.array([2], np.int64),
        }
    if cells:
        nodes.append(CELLS)
        terms.append("cell_sum")
        firsts, seconds, starts, sizes = zip(*cells, strict=True)
        second_codes = [recipe.num_levels[at] + 2 for at in seconds]
        constants |= {
            "first_categories": np.array(firsts, np.int64),
            "second_categories": np.array(seconds, np.int64),
            "second_codes": np.array(second_codes, np.float32)[:, np.newaxis],
            "cell_start": _stack_starts(sizes),
            "cells": _take_rows(folded.pair_weights, starts, sizes),
        }


def _stack_starts(sizes: Sequence[int]) -> NDArray[np.float32]:
    """Where tables of these numbers of rows start, one after the other ``(tables, 1)``."""
    return np.cumsum([0, *sizes[:-1]]).astype(np.float32)[:, np.newaxis]


def _take_rows(rows: NDArray[Any], starts: Sequence[int], sizes: Sequence[int]) -> NDArray[Any]:
    """Some tables' rows, one table after the other."""
    return np.concatenate([rows[start : start + size] for start, size in zip(starts, sizes, strict=True)])


def _centre_limits(recipe: Recipe, mean: NDArray[np.float32]) -> Constants:
    """Finite bounds to which numbers less their means ``(numbers, batch)`` are clamped: runtimes need no infinity."""
    largest = np.finfo(np.float32).max
    bounds = np.array([[-largest, largest]] * len(mean), np.float32)
    for at, *limits in recipe.limits:
        bounds[at] = np.array(limits, np.float32) - mean[at]
    return {"low": bounds[:, :1], "high": bounds[:, 1:]}


def _describe(tensor: Tensor) -> str:
    return f"{TYPES.get(tensor.dtype, tensor.dtype)}[{', '.join(map(str, (BATCH, *tensor.shape)))}] {tensor.name}"
