"""Retention: remove what old runs and predictions left. Prefect trims its own history (flows/server/up.py)."""

from prefect import flow

from flows.pages import run_artifacts, run_names
from tasks.parameters import MaintainParameters
from tasks.store import housekeeping


@flow(name="maintain", flow_run_name="maintain", log_prints=True, timeout_seconds=run_names.time_limit())
def maintain(parameters: MaintainParameters = MaintainParameters()) -> dict[str, list[str]]:  # noqa: B008  (frozen)
    """Remove all but the newest run folders and predictions of each model, and files that nothing needs any more.

    Old versions of names with a scheduled retrain are removed too. Returns the names of what was removed.
    """
    run_names.require_own_store()
    removed, failure = housekeeping.maintain(parameters.keep)
    for kind, gone in removed.items():
        print(f"{kind} removed: {(', '.join(gone) if kind == 'versions' else len(gone)) or 'none'}")
    run_artifacts.warn_of_full_disk()
    if failure:
        raise failure
    return removed
