"""What somebody sees and sets in Prefect's UI, and a ``prefect.yaml`` to register from."""

from pathlib import Path
from typing import Any

import yaml

from prefect_api import api_client

NAMES = ["evaluate", "linear-weekly", "maintenance-weekly", "predict-daily", "softmax-nightly", "tune-monthly"]
DECEMBER = {"schedule": {"cron": "15 12 24 12 *", "timezone": "Europe/Lisbon"}, "active": True}


class Server:
    """What somebody sees and sets in Prefect's UI."""

    def __init__(self, address: str) -> None:
        self.api = api_client(address)

    def list(self, kind: str) -> list[dict[str, Any]]:
        return list(self.api.post(f"/{kind}/filter", json={}).raise_for_status().json())

    def deployment(self, name: str) -> dict[str, Any]:
        return {each["name"]: each for each in self.list("deployments")}[name]

    def set(self, name: str, **fields: Any) -> None:
        self.api.patch(f"/deployments/{self.deployment(name)['id']}", json=fields).raise_for_status()

    def remove(self, name: str) -> None:
        self.api.delete(f"/deployments/{self.deployment(name)['id']}").raise_for_status()

    def add_schedule(self, name: str) -> None:
        self.api.post(f"/deployments/{self.deployment(name)['id']}/schedules", json=[DECEMBER]).raise_for_status()

    def set_schedule(self, name: str, **fields: Any) -> None:
        found = self.deployment(name)
        ours = next(each for each in found["schedules"] if each["slug"])  # one added in the UI has none
        path = f"/deployments/{found['id']}/schedules/{ours['id']}"
        (self.api.patch(path, json=fields) if fields else self.api.delete(path)).raise_for_status()

    def crons(self, name: str) -> dict[str, bool]:
        """Each schedule's times, and whether it is active."""
        return {each["schedule"]["cron"]: each["active"] for each in self.deployment(name)["schedules"]}

    def forget(self) -> None:
        """Remove all that a registration makes."""
        for kind, path in (("deployments", "id"), ("automations", "id"), ("variables", "name")):
            for each in self.list(kind):
                where = f"/variables/name/{each['name']}" if path == "name" else f"/{kind}/{each['id']}"
                self.api.delete(where).raise_for_status()


def edit(home: Path, name: str, **fields: Any) -> None:
    document = yaml.safe_load((home / "prefect.yaml").read_text())
    (deployment,) = [each for each in document["deployments"] if each["name"] == name]
    deployment.update(fields)
    (home / "prefect.yaml").write_text(yaml.safe_dump(document))


def keep(home: Path, names: set[str]) -> None:
    """Leave no other deployments in it."""
    document = yaml.safe_load((home / "prefect.yaml").read_text())
    document["deployments"] = [each for each in document["deployments"] if each["name"] in names]
    (home / "prefect.yaml").write_text(yaml.safe_dump(document))
