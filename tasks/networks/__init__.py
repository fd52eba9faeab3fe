"""HOW the networks learn: chapter 3 of Dive into Deep Learning, without Prefect, files or configuration."""
