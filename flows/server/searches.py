"""Searches for settings of own names: what ``gradmill schedule NAME --tune`` was told."""

from pathlib import Path
from typing import Any

from flows.server.schedules import Schedule
from tasks.parameters import TuneParameters
from tasks.store import artifact_paths, own_data

MONTHLY = "0 2 1 * *"  # an hour before the nightly retrains


class Searches(Schedule):
    """Searches for settings of a name; it may be ``monthly``, as in ``tune-monthly``."""

    FLOW = "tune"
    DEPLOYMENT = "search-{}"
    ABOUT = "Searches settings for {0}; gradmill unschedule {0} --tune ends it."
    WHAT = "that searches settings for"

    cron: str | None = MONTHLY

    @classmethod
    def path(cls, name: str) -> Path:
        """See ``Schedule``."""
        return artifact_paths.search_schedule(name)

    def asked(self) -> dict[str, Any]:
        """See ``Schedule``; from the settings that its champion has."""
        again = own_data.again(self.name, {"tuned": False}, with_found=True)
        own_data.leave_split_open(again["data"])
        parameters = {field: again[field] for field in ("name", "training", "data")}
        TuneParameters.model_validate(parameters)
        return parameters
