"""Between data and networks: splits as tensors, and how training is watched."""
