"""May it pass: gates, comparisons, servability, figures."""
