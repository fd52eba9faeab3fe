"""Between data and networks: splits as tensors, watching."""
