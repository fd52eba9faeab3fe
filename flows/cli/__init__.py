"""Commands, options, errors, and the output on the terminal."""
