"""Commands, options, errors and what the terminal shows."""
