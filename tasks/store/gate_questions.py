"""What each gate asks of a candidate, for people who meet its name for the first time."""

QUESTIONS = {
    "train_loss": "Has training brought the loss as far down as the book asserts?",
    "train_accuracy": "Does it label the training images as well as the book asserts?",
    "test_accuracy": "Does it label images that it was not trained on as well as the book asserts?",
    "test_loss": "Does it predict the test rows nearly as well as the best fit to the training rows does?",
    "parameter_error": "Are the learned parameters close to those that the synthetic data were made with?",
    "baseline": "Is it better than giving every row the same answer, by more than chance?",
    "reference": "Is it nearly as good as the same model fitted until it has converged?",
    "parity_float64": "Does it answer as the same computation in double precision does?",
    "parity": "Does the exported file give the numbers that torch gives?",
    "parity_labels": "Does the exported file give the labels that torch gives?",
    "servability": "Can a new process without torch load the file and get the right answers?",
    "latency_ms": "How long does one row take?",
    "memory_mb": "How much memory does a process that serves the file need?",
    "champion_signature": "Can services that use the champion use this one unchanged?",
    "champion_accuracy": "Is it as accurate as every kept version, except by chance?",
    "champion_recall": "Does it recognise each class as often as every kept version, except by chance?",
    "champion_loss": "Is its test loss about as small as that of the kept versions?",
    "champion_not_compared": "How many kept versions cannot read the test rows, and so could not be compared?",
}
