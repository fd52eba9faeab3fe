"""The ONNX file of a linear model, its graph written node by node: raw rows → scores → outputs."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.data.recipe import Recipe
from tasks.parameters import Training
from tasks.records import PreparedDataset
from tasks.serving.contract import (
    BATCH,
    COLUMNS,
    IR_VERSION,
    LABEL,
    OPSET,
    PREDICTION,
    PROBABILITIES,
    Signature,
    Tensor,
)
from tasks.serving.raw_units import Weights, fold_weights, locate_columns


def describe_model(prepared: PreparedDataset, training: Training) -> dict[str, str]:
    """``metadata_props``: what a consumer may want to know, and nothing that changes from day to day.

    All but the digest and the image keys of the ONNX standard are JSON.
    """
    recipe = prepared.recipe
    facts: dict[str, Any] = {
        "signature": prepared.signature.model_dump(mode="json"),
        "training": training.exported,
        COLUMNS: [column.model_dump(mode="json") for column in recipe.describe_columns()],
        "labels": prepared.class_names,
    }
    texts = {key: json.dumps(value, sort_keys=True) for key, value in facts.items() if value}
    return {"dataset_digest": prepared.digest} | texts | recipe.metadata_props


def write_model(weights: Weights, recipe: Recipe, signature: Signature, metadata_props: Mapping[str, str]) -> bytes:
    """The file of a model with trained weights (``records.TrainedModel``).

    Equal arguments give equal bytes: no date, no path, no version of anything is written.

    Raises:
        onnx.shape_inference.InferenceError: the weights do not fit the signature.
    """
    graph = Graph()
    (source,) = signature.inputs
    scores = graph.add_scores(source.name, weights, recipe)
    if any(tensor.name == LABEL for tensor in signature.outputs):
        probabilities = graph.add("Softmax", PROBABILITIES, scores, axis=1)
        graph.add("ArgMax", LABEL, probabilities, axis=1, keepdims=0)  # of the largest, the first of equals
    else:
        graph.add("Squeeze", PREDICTION, scores, graph.keep("axes", np.array([1], np.int64)))
    inputs, outputs = ([_describe(tensor) for tensor in tensors] for tensors in (signature.inputs, signature.outputs))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "linear", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="gradmill",
    )
    helper.set_model_props(model, dict(metadata_props))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class Graph:
    """Nodes and constants as they are added; each is known by the name of what it gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def keep(self, name: str, value: NDArray[Any]) -> str:
        """Add an array."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of the ONNX operator set."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def add_scores(self, rows: str, weights: Weights, recipe: Recipe) -> str:
        """Scores ``(batch, outputs)`` of raw rows, as the contract has them.

        The scale of pixels is folded into ``W``: a division of every pixel costs a third of the speed.
        """
        if not recipe.is_plain:
            return self.add_table_scores(rows, weights, recipe)
        if recipe.input.dtype != "float32":
            rows = self.add("Cast", "X", self.add("Flatten", "flat", rows, axis=1), to=TensorProto.FLOAT)
            weights = {"W": weights["W"] * np.float32(recipe.scale), "b": weights["b"]}
        return self.add_product(rows, weights["W"], weights["b"])

    def add_product(self, X: str, W: NDArray[Any], b: NDArray[Any], **attributes: int) -> str:  # noqa: N803  (the book's letters)
        """``XW + b``."""
        return self.add("Gemm", "o", X, self.keep("W", W), self.keep("b", b), **attributes)

    def add_table_scores(self, features: str, weights: Weights, recipe: Recipe) -> str:
        """Scores of a table's rows.

        They are turned, so that what differs between columns is the same along memory, and effects are gathered, not
        multiplied: one-hot columns and one product take three times as long (1024 rows of 6 numbers, two categories).
        """
        mean, W, effects, b = fold_weights(weights, recipe)  # noqa: N806
        by_column = self.add("Transpose", "by_column", features, perm=[1, 0])
        total = self.add_effects(by_column, effects, recipe) if recipe.categories else ""
        if total and not recipe.numbers:
            return self.add("Add", "scores", total, self.keep("b", b))
        at = self.keep("numbers", np.array(recipe.numbers, np.int64))
        raw = self.add("Gather", "raw", by_column, at)
        centred = self.add("Sub", "centred", raw, self.keep("mean", mean[:, np.newaxis]))
        missing = self.add("IsNaN", "missing_number", centred)  # a missing number is its mean, and so 0
        zero = self.keep("zero", np.zeros((1, 1), np.float32))
        scores = self.add_product(self.add("Where", "X", missing, zero, centred), W, b, transA=1)
        return self.add("Add", "scores", total, scores) if total else scores

    def add_effects(self, by_column: str, effects: NDArray[Any], recipe: Recipe) -> str:
        """The sum ``(batch, outputs)`` of the effects of a row's categories, as ``raw_units.encode_levels`` says it.

        No value fails, nor infinity: by comparison, since a cast of what is no level's code could be any number.
        """
        code = self.add("Gather", "code", by_column, self.keep("categories", np.array(recipe.categories, np.int64)))
        num_levels = np.array(recipe.num_levels, np.float32)[:, np.newaxis]
        first, size = self.keep("first", np.zeros((1, 1), np.float32)), self.keep("num_levels", num_levels)
        not_below = self.add("GreaterOrEqual", "not_below", code, first)
        inside = self.add("And", "inside", not_below, self.add("Less", "not_above", code, size))
        whole = self.add("Equal", "is_whole", code, self.add("Floor", "floor", code))
        known = self.add("And", "known", inside, whole)
        missing = self.add("IsNaN", "missing_code", code)
        other = self.add("Where", "missing_or_unknown", missing, size, self.keep("unknown", num_levels + 1))
        position = self.add("Where", "position", known, code, other)
        in_column = self.add("Cast", "in_column", position, to=TensorProto.INT64)
        row = self.add("Add", "row", in_column, self.keep("start", locate_columns(recipe)[:, np.newaxis]))
        found = self.add("Gather", "effect", self.keep("effects", effects), row, axis=0)
        return self.add("ReduceSum", "sum", found, self.keep("columns", np.zeros(1, np.int64)), keepdims=0)


def _describe(tensor: Tensor) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, dtype, [BATCH, *tensor.shape])
