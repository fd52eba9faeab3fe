"""Retention: what old runs and predictions left behind. Prefect trims its own history (flows/server/operation.py)."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.parameters import MaintainParameters
from tasks.store import housekeeping


@flow(name="maintain", flow_run_name="maintain", log_prints=True)
def maintain(parameters: MaintainParameters = MaintainParameters()) -> dict[str, list[str]]:  # noqa: B008  (frozen)
    """Remove all but the newest run folders and predictions of each model; return the names of what was removed."""
    predictions = prune_predictions(parameters.keep)  # first: no damaged manifest is in their way
    return {"runs": prune_runs(parameters.keep), "predictions": predictions}


@task(name="prune runs", cache_policy=NO_CACHE)
def prune_runs(keep: int) -> list[str]:
    """Remove old run folders, never the evidence of a kept version."""
    removed = housekeeping.prune_runs(keep)
    print(f"run folders removed: {len(removed)}")
    return removed


@task(name="prune predictions", cache_policy=NO_CACHE)
def prune_predictions(keep: int) -> list[str]:
    """Remove old finished predictions."""
    removed = housekeeping.prune_predictions(keep)
    print(f"predictions removed: {len(removed)}")
    return removed
