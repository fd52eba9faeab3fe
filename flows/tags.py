"""The tags and names of states by which runs and deployments are found on a server; Prefect is not imported."""

TAG = "gradmill"  # prefect.yaml gives it to every deployment, and so to their runs and these runs' events
UNSCHEDULED = "unscheduled"  # a tag of those that people or automations start
MODEL_TAG, VERDICT_TAG, DRIFT_TAG = "model:", "verdict:", "drift:"  # begin the tags of runs and deployments
SKIPPED = "Skipped"  # the name of a state, of type CANCELLED
QUEUED = "AwaitingConcurrencySlot"
REFUSED = "Refused"  # of type FAILED, in which a run ends whose candidate was refused
