"""The Prefect API: the choice of a server, temporary servers, operation on one host, deployments and status."""
