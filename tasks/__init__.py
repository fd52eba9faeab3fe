"""WHAT a run does: one file per stage, and the plain values that stages exchange."""
