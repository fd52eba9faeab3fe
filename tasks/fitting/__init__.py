"""Between data and networks: trainers, rules for values that are not given, progress, search."""
