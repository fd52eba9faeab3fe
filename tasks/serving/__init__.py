"""The ONNX file: contract, graph, raw units, runtime, drift of its answers; what the two tasks differ in."""
