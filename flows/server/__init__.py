"""Which Prefect API; a temporary server; all of it on one host; registration, deployments, status."""
