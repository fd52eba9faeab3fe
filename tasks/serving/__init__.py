"""The ONNX file: contract, graph, raw units, runtime, drift of its answers; and how the two tasks differ."""
