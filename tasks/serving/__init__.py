"""The ONNX file: contract, sessions, drift of its answers."""
