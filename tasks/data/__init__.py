"""Raw rows to arrays: datasets, readers of input files, and where raw files can be had."""
