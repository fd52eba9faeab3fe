"""From raw rows to arrays: data sets, readers of input files, and where raw files can be obtained."""
