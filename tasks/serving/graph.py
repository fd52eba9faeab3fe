"""The ONNX graph of a linear model, written node by node: raw rows → scores → outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tasks.data.recipe import Columns, Pixels
from tasks.serving.contract import BATCH, IR_VERSION, LABEL, OPSET, PREDICTION, PROBABILITIES, Signature, Tensor
from tasks.serving.folding import Folded, fold, offsets, sizes
from tasks.serving.task import of_signature


class Graph:
    """Nodes and constants as they are added; each is known by the name of what it gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an array."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, *inputs: str, gives: str, **attributes: Any) -> str:
        """Add a node of the ONNX operator set."""
        self.nodes.append(helper.make_node(operator, inputs, [gives], **attributes))
        return gives


Weights = Mapping[str, NDArray[np.float32]]


def pixels(graph: Graph, images: str, weights: Weights, recipe: Pixels) -> str:
    """Scores of raw pixels, uint8 ``(batch, height, width)``, or RGB ``(batch, height, width, 3)``.

    The recipe's scale is folded into ``W``: a division of every pixel costs a third of the speed.
    """
    flat = graph.node("Flatten", images, gives="flat", axis=1)
    X = graph.node("Cast", flat, gives="X", to=onnx.TensorProto.FLOAT)  # noqa: N806  (the book's letters, as in tasks/networks)
    return product(graph, X, weights["W"] * np.float32(recipe.scale), weights["b"])


def columns(graph: Graph, features: str, weights: Weights, recipe: Columns) -> str:
    """Scores of raw rows, float32 ``(batch, columns)``: plain numbers as they are, tables by their recipe."""
    if recipe.is_plain:
        return product(graph, features, weights["W"], weights["b"])
    return table(graph, features, fold(weights, recipe), recipe)


def product(graph: Graph, X: str, W: NDArray[Any], b: NDArray[Any], **attributes: int) -> str:  # noqa: N803
    """``XW + b``."""
    return graph.node("Gemm", X, graph.constant("W", W), graph.constant("b", b), gives="o", **attributes)


def table(graph: Graph, features: str, folded: Folded, recipe: Columns) -> str:
    """Scores of a table's rows.

    They are turned, so that what differs between columns is the same along memory, and effects are gathered, not
    multiplied: one-hot columns and one product take three times as long (1024 rows of 6 numbers and two categories).
    """
    by_column = graph.node("Transpose", features, gives="by_column", perm=[1, 0])
    if not recipe.categories:
        return numbers(graph, by_column, folded, recipe)
    effects = categories(graph, by_column, folded, recipe)
    rest = numbers(graph, by_column, folded, recipe) if recipe.numbers else graph.constant("b", folded.b)
    return graph.node("Add", effects, rest, gives="scores")


def numbers(graph: Graph, by_column: str, folded: Folded, recipe: Columns) -> str:
    """Scores of numbers and booleans; a missing one is its mean, and so 0 after ``- mean``."""
    raw = graph.node("Gather", by_column, graph.constant("numbers", np.array(recipe.numbers, np.int64)), gives="raw")
    centred = graph.node("Sub", raw, graph.constant("mean", folded.mean[:, np.newaxis]), gives="centred")
    missing = graph.node("IsNaN", centred, gives="missing_number")
    zero = graph.constant("zero", np.zeros((1, 1), np.float32))
    return product(graph, graph.node("Where", missing, zero, centred, gives="X"), folded.W, folded.b, transA=1)


def categories(graph: Graph, by_column: str, folded: Folded, recipe: Columns) -> str:
    """The sum ``(batch, outputs)`` of the effects of a row's categories."""
    which = graph.constant("categories", np.array(recipe.categories, np.int64))
    code = graph.node("Gather", by_column, which, gives="code")
    num_levels = np.array(sizes(recipe), np.float32)[:, np.newaxis]
    in_column = graph.node("Cast", position(graph, code, num_levels), gives="in_column", to=onnx.TensorProto.INT64)
    start = graph.constant("start", offsets(recipe)[:, np.newaxis])
    row = graph.node("Add", in_column, start, gives="row")
    effects = graph.node("Gather", graph.constant("effects", folded.effects), row, gives="effect", axis=0)
    return graph.node("ReduceSum", effects, graph.constant("columns", np.zeros(1, np.int64)), gives="sum", keepdims=0)


def position(graph: Graph, code: str, num_levels: NDArray[np.float32]) -> str:
    """Where a code's effect is among its column's, as ``folding.codes`` says it: no value fails, nor infinity.

    By comparison: a cast of what is no level's code would be a number of any size.
    """
    first, size = graph.constant("first", np.zeros((1, 1), np.float32)), graph.constant("num_levels", num_levels)
    not_below = graph.node("GreaterOrEqual", code, first, gives="not_below")
    inside = graph.node("And", not_below, graph.node("Less", code, size, gives="not_above"), gives="inside")
    whole = graph.node("Equal", code, graph.node("Floor", code, gives="floor"), gives="is_whole")
    known = graph.node("And", inside, whole, gives="known")
    missing = graph.node("IsNaN", code, gives="missing_code")
    other = graph.node("Where", missing, size, graph.constant("unknown", num_levels + 1), gives="missing_or_unknown")
    return graph.node("Where", known, code, other, gives="position")


def classification(graph: Graph, o: str) -> None:
    """Scores ``(batch, classes)`` to their probabilities and the class of the largest, the first of equals."""
    probabilities = graph.node("Softmax", o, gives=PROBABILITIES, axis=1)
    graph.node("ArgMax", probabilities, gives=LABEL, axis=1, keepdims=0)


def regression(graph: Graph, o: str) -> None:
    """Scores ``(batch, 1)`` to the prediction ``(batch,)``."""
    graph.node("Squeeze", o, graph.constant("axes", np.array([1], np.int64)), gives=PREDICTION)


SCORES: dict[str, Callable[[Graph, str, Weights, Any], str]] = {"pixels": pixels, "columns": columns}
HEADS = {"classification": classification, "regression": regression}


def write(
    weights: Weights,
    recipe: Pixels | Columns,
    signature: Signature,
    metadata_props: Mapping[str, str],
) -> bytes:
    """The file of a model with trained weights (``records.TrainedModel``).

    Equal arguments give equal bytes: no date, no path, no version of anything is written.
    """
    graph = Graph()
    (source,) = signature.inputs
    HEADS[of_signature(signature).name](graph, SCORES[recipe.kind](graph, source.name, weights, recipe))
    inputs, outputs = ([_described(tensor) for tensor in tensors] for tensors in (signature.inputs, signature.outputs))
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


def _described(tensor: Tensor) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, dtype, [BATCH, *tensor.shape])
