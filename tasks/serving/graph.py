"""The ONNX graph of a linear model, written node by node: raw rows → ``X`` → scores ``o`` → outputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tasks.data.recipe import Columns, Pixels
from tasks.serving.contract import BATCH, IR_VERSION, LABEL, OPSET, PREDICTION, PROBABILITIES, Signature, Tensor
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


def pixels(graph: Graph, images: str) -> str:
    """Raw pixels, uint8 ``(batch, height, width)``, to float32 ``(batch, inputs)``; the weights scale them."""
    flat = graph.node("Flatten", images, gives="flat", axis=1)
    return graph.node("Cast", flat, gives="X", to=onnx.TensorProto.FLOAT)


def columns(graph: Graph, features: str) -> str:
    """Numbers, float32 ``(batch, inputs)``, in raw units: as they are."""
    return features


def classification(graph: Graph, o: str) -> None:
    """Scores ``(batch, classes)`` to their probabilities and the class of the largest, the first of equals."""
    probabilities = graph.node("Softmax", o, gives=PROBABILITIES, axis=1)
    graph.node("ArgMax", probabilities, gives=LABEL, axis=1, keepdims=0)


def regression(graph: Graph, o: str) -> None:
    """Scores ``(batch, 1)`` to the prediction ``(batch,)``."""
    graph.node("Squeeze", o, graph.constant("axes", np.array([1], np.int64)), gives=PREDICTION)


ENTRANCES = {"pixels": pixels, "columns": columns}
HEADS = {"classification": classification, "regression": regression}


def write(
    weights: Mapping[str, NDArray[np.float32]],
    recipe: Pixels | Columns,
    signature: Signature,
    metadata_props: Mapping[str, str],
) -> bytes:
    """The file of a model with weights ``W`` ``(inputs, outputs)`` and ``b`` ``(outputs,)``, both float32.

    The recipe's scale is folded into ``W``: a division of every pixel costs a third of the speed. Equal arguments
    give equal bytes: no date, no path, no version of anything is written.
    """
    graph = Graph()
    (source,) = signature.inputs
    W = graph.constant("W", weights["W"] * np.float32(recipe.scale))  # noqa: N806  (the book's letters, as in tasks/networks)
    X = ENTRANCES[recipe.kind](graph, source.name)  # noqa: N806
    HEADS[of_signature(signature).name](graph, graph.node("Gemm", X, W, graph.constant("b", weights["b"]), gives="o"))
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
