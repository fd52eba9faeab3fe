"""Retention: what old runs and predictions left behind. Prefect trims its own history (flows/server/operation.py)."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pages import run_artifacts, run_names
from flows.server import overviews
from tasks.parameters import MaintainParameters
from tasks.store import housekeeping, retention, unreferenced


@flow(name="maintain", flow_run_name="maintain", log_prints=True, timeout_seconds=run_names.time_limit())
def maintain(parameters: MaintainParameters = MaintainParameters()) -> dict[str, list[str]]:  # noqa: B008  (frozen)
    """Remove all but the newest run folders and predictions of each model, and what was kept for what is gone.

    Of names that are retrained by a schedule old versions go, too. Returns the names of what was removed.
    """
    predictions = prune_predictions(parameters.keep)  # first: no damaged manifest is in their way
    versions = prune_versions()  # first of the others, which stay for what explains a version
    runs = prune_runs(parameters.keep)
    datasets = prune_datasets()
    run_artifacts.warn_of_full_disk()
    overviews.publish(*overviews.list_names())
    return {"runs": runs, "predictions": predictions, "versions": versions, "datasets": datasets}


@task(name="prune versions", cache_policy=NO_CACHE)
def prune_versions() -> list[str]:
    """Remove old versions of scheduled names, never one that somebody may still need."""
    removed = retention.prune_scheduled()
    print(f"versions removed: {', '.join(removed) or 'none'}")
    return removed


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


@task(name="prune datasets", cache_policy=NO_CACHE)
def prune_datasets() -> list[str]:
    """Remove prepared splits and row digests that nothing refers to."""
    removed = unreferenced.prune_datasets()
    print(f"files of data sets removed: {len(removed)}")
    return removed
