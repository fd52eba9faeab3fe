"""What ``gradmill status`` counts as stuck, on a real server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.server import status
from prefect_api import post


def test_runs_that_nobody_takes_or_that_have_fallen_silent_are_stuck_and_no_others(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = post(prefect_api, "flows/", {"name": "stuck"})["id"]
    past, future = (
        {"scheduled_time": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()} for minutes in (-2, 2)
    )

    def run(name: str, tag: str = "gradmill", /, **state: Any) -> str:
        return str(
            post(prefect_api, "flow_runs/", {"flow_id": flow, "name": name, "tags": [tag], "state": state})["id"]
        )

    made = {
        run("late", type="SCHEDULED", state_details=past): "no worker has taken it",
        run("second", type="SCHEDULED", name="AwaitingConcurrencySlot", state_details=past): "waits for another run",
        run("silent", type="RUNNING"): "no heartbeat for 0 seconds",
        run("not due", type="SCHEDULED", state_details=future): "",
        run("of others", "others", type="SCHEDULED", state_details=past): "",
        run("ended", type="COMPLETED"): "",
    }

    def stuck() -> dict[str, str]:
        return {each.name: each.reason for each in status.status().stuck if each.id in made}

    assert set(stuck()) == {"late", "second"}, "the other has just begun"
    monkeypatch.setattr(status, "SILENT_SECONDS", 0)
    found = stuck()
    assert set(found) == {"late", "second", "silent"}
    reasons = {each.id: each.reason for each in status.status().stuck}
    assert all(reasons[each].startswith(reason) for each, reason in made.items() if reason)
