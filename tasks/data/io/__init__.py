"""Own data and prediction inputs: which files they are, and their rows, batch by batch."""
