"""Batch prediction: jobs, shards, lanes, parts. Imports no torch."""
