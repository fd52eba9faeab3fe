"""Batch prediction: jobs, shards, sessions, parts and single files. Imports no torch."""
