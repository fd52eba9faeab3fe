"""Whether a model may pass: gates, comparisons, servability, figures."""
