"""Own data and inputs of predictions: which files they are, and their rows, batch by batch."""
