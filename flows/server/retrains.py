"""Retrains of own names: what ``gradmill schedule NAME`` was told."""

from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore

from flows.server import automations
from flows.server.registered import Registered
from flows.server.schedules import Schedule
from tasks.errors import UsageError
from tasks.store import artifact_paths, own_data
from tasks.store.retention import Told


class Retrains(Schedule, Told):
    """Retrains of a name by a time, on drift of its input, or both."""

    FLOW = "retrain"
    DEPLOYMENT = "retrain-{}"
    ABOUT = "Retrains {0} as gradmill schedule was told; gradmill unschedule {0} ends it."
    WHAT = "of"

    on_drift: bool = False

    @classmethod
    def path(cls, name: str) -> Path:
        """See ``Schedule``."""
        return artifact_paths.schedule(name)

    def asked(self) -> dict[str, Any]:
        """See ``Schedule``."""
        if self.cron is None and not self.on_drift:
            found = f"nothing that would start a retrain of {self.name}"
            raise UsageError(found, "--cron, --on-drift or both", "give one")
        parameters = own_data.again(self.name, {})
        own_data.leave_split_open(parameters["data"])
        return parameters

    def automation(self, deployed: dict[str, UUID]) -> AutomationCore | None:
        """See ``Schedule``."""
        return automations.on_drift(self.name, deployed[self.deployment]) if self.on_drift else None

    @classmethod
    def delete_automation(cls, client: SyncPrefectClient, name: str) -> None:
        """See ``Schedule``."""
        for each in client.read_automations_by_name(automations.on_drift(name, UUID(int=0)).name):
            Registered(client, each.id).forget()
            client.delete_automation(each.id)
