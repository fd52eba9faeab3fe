"""A search for hyperparameters: what is tried, what came of it, and how many trials are trained at once."""
