"""The tags and state names by which runs and deployments are found on a server; Prefect is not imported."""

TAG = "gradmill"  # set by prefect.yaml on every deployment, and so on their runs and these runs' events
UNSCHEDULED = "unscheduled"  # the tag of deployments that people or automations start
MODEL_TAG, VERDICT_TAG, DRIFT_TAG = "model:", "verdict:", "drift:"  # prefixes of the tags of runs and deployments
SKIPPED = "Skipped"  # the name of a state, of type CANCELLED
LOST_SLOT = "Deployment concurrency slot lost"  # how the message begins of a run that Prefect cancels by itself
QUEUED = "AwaitingConcurrencySlot"
REFUSED = "Refused"  # of type FAILED: the final state of a run whose candidate was refused
