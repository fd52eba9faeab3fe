"""Alerts: who is told of what, through Prefect's own blocks, which speak with stand-ins on this machine."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret

from command_line import output
from conftest import REPOSITORY
from duty import Duty
from fenced_blocks import blocks
from flows.cli import schedule
from flows.server import alerts, api, deployments, registration
from flows.server.connection import use_api
from flows.server.status import describe
from http_stand_ins import endpoint
from prefect_api import eventually
from prefect_ui import Server
from tasks.errors import UsageError
from tasks.store import state

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of apprise's plugins
OVERDUE = {"gradmill: notify of softmax-nightly without success", "gradmill: notify of linear-weekly without success"}
ALWAYS = {
    "gradmill: notify of runs that fail or crash",
    "gradmill: notify of runs that Prefect cancels",
    "gradmill: notify of drift",
    "gradmill: notify of a full disk",
}


@pytest.fixture
def bare(ui: Server, prefect_api: str) -> Server:
    """The server of all tests, as one without alerts, deployments and blocks of ours."""
    for each in ui.list("block_documents"):
        ui.api.delete(f"/block_documents/{each['id']}").raise_for_status()
    return ui


def webhook(url: str, name: str = "on-duty") -> CustomWebhookNotificationBlock:
    block = CustomWebhookNotificationBlock(name=name, url=url, json_data={"title": "{{subject}}", "text": "{{body}}"})
    block.save(name, overwrite=True)
    return block


def registered(monkeypatch: pytest.MonkeyPatch, notify: str = "", strictly: bool = False) -> None:
    monkeypatch.setenv("GRADMILL_NOTIFY", notify)
    registration.register(strictly)


def on_server(bare: Server) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in bare.list("automations") if "notify" in each["name"]}


@pytest.mark.slow
def test_a_registration_without_a_block_leaves_alerts_and_none_removes_them(
    bare: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered(monkeypatch, "custom-webhook/nobody")
    assert "custom-webhook/nobody: no such block" in capsys.readouterr().err
    assert not on_server(bare)
    Secret(value="word").save("no-webhook", overwrite=True)  # type: ignore[call-arg, unused-ignore]
    with pytest.raises(UsageError, match="secret/no-webhook is not a notification block"):
        registered(monkeypatch, "secret/no-webhook")
    assert not on_server(bare)
    webhook("http://127.0.0.1:9/")
    registered(monkeypatch, "custom-webhook/on-duty")
    first = on_server(bare)
    assert set(first) == ALWAYS | OVERDUE
    with pytest.raises(UsageError, match="custom-webhook/nobody: no such block") as refused:
        registered(monkeypatch, "custom-webhook/nobody", strictly=True)
    assert refused.value.expected == "one of: custom-webhook/on-duty; or none"
    registered(monkeypatch, "custom-webhook/nobody")
    assert on_server(bare) == first
    off = "gradmill: notify of drift"
    bare.api.patch(f"/automations/{first[off]['id']}", json={"enabled": False}).raise_for_status()
    bare.api.delete(f"/automations/{first['gradmill: notify of a full disk']['id']}").raise_for_status()
    registered(monkeypatch)
    assert set(on_server(bare)) == ALWAYS | OVERDUE, "what an older version did not have is added"
    assert not on_server(bare)[off]["enabled"]
    webhook("http://127.0.0.1:9/", "second")
    registered(monkeypatch, "custom-webhook/second")
    found = describe(state.read())
    assert (found.alerts, found.alerts_off) == ("custom-webhook/second", ["drift"])
    registered(monkeypatch, "none")
    assert not on_server(bare)
    assert f"alerts      none: {alerts.MAKE_ONE}"[:70] in output("status")


@pytest.mark.slow
def test_a_deployment_is_late_two_hours_after_its_schedules_longest_pause_or_when_it_was_told(
    bare: Server, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hours() -> dict[str, float]:
        found = {name: each["trigger"] for name, each in on_server(bare).items() if name in OVERDUE}
        return {name.split()[3]: trigger["within"] / 3600 for name, trigger in found.items()}

    webhook("http://127.0.0.1:9/")
    registered(monkeypatch, "custom-webhook/on-duty")
    a_week = {"linear-weekly": 7 * 24 + 2}
    assert hours() == a_week | {"softmax-nightly": 26}
    with monkeypatch.context() as patch:
        patch.setenv("GRADMILL_NOTIFY_AFTER", "50")
        registered(patch)
    registered(monkeypatch)
    assert hours() == a_week | {"softmax-nightly": 50}, "also from another shell"
    schedule.pause("linear-weekly")
    assert hours() == {"softmax-nightly": 50}, "nothing is due of one that is paused"
    schedule.resume("linear-weekly")
    assert hours() == a_week | {"softmax-nightly": 50}, "at once, not with the next registration"
    schedule.schedule(["softmax-nightly"], cron="0 3 * * 6")
    assert hours()["softmax-nightly"] == 7 * 24 + 2


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_the_test_message_of_the_docs_arrives_or_fails(prefect_api: str) -> None:
    (code,) = (block.text for block in blocks(REPOSITORY / "docs" / "on-duty.md") if "Block.load" in block.text)
    command = [sys.executable, "-c", code.replace("slack-webhook/on-duty", "custom-webhook/on-duty")]
    environment = os.environ | {"PREFECT_API_URL": prefect_api}
    with endpoint() as service:
        webhook(service.url)
        subprocess.run(command, env=environment, check=True, timeout=120)
        assert service.received == [{"title": "gradmill: a test", "text": "Alerts arrive here."}]
        service.status[0] = 503
        assert subprocess.run(command, env=environment, capture_output=True, timeout=120).returncode == 1


@pytest.mark.slow  # a running gradmill up
def test_a_refusal_drift_a_full_disk_and_a_missing_success_are_told_by_the_server(duty: Duty) -> None:
    def event(name: str, of: str, message: str, flow: str = "predict") -> dict[str, Any]:
        store = json.loads((duty.artifacts / "store.json").read_bytes())["id"]
        labels = {"gradmill.flow": flow, "gradmill.store": store}
        resource = {"prefect.resource.id": of, "prefect.resource.name": "x"} | labels
        told = {"payload": {"name": "x", "message": message}, "resource": resource}
        return told | {"event": name, "occurred": datetime.now(UTC).isoformat(), "id": str(uuid4())}

    def told(words: str) -> int:
        return sum(words in each["text"] for each in service.received)

    with endpoint() as service, use_api(f"{duty.ui}/api", duty.credential):
        webhook(service.url, "told")
        duty.does("register", GRADMILL_NOTIFY="custom-webhook/told")
        asked = {"model": "linear-regression", "num_epochs": 1}
        run = duty.ended(duty.trigger("linear-weekly", name="hopeless", training=asked))
        eventually(lambda: told("test_loss"), 60, "it is notified")
        refused = {"filter": {"event": {"name": ["gradmill.model.refused"]}}}

        def judged() -> list[str]:
            events = duty.post("/events/filter", refused)["events"]
            return [gate for each in events for gate in each["payload"]["refused_by"]]

        assert "test_loss" in eventually(judged, 60, "its event is there")
        status = json.loads(duty.does("status", "--json"))["deployments"]
        (weekly,) = [each for each in status if each["name"] == "linear-weekly"]
        expected = (run["name"], "Refused", "refused", run["state"]["message"])
        assert (weekly["last_run"], weekly["state"], weekly["verdict"], weekly["message"]) == expected
        with api.client() as client:  # not before the run: it may be used for a minute
            block = client.read_block_document_by_name("told", "custom-webhook").id
            deployment = deployments.find_deployment(client, "linear-weekly").id
            late = alerts.alert_of_no_success(block, "linear-weekly", deployment, 12 / 3600, timedelta(seconds=12))
            late_one = client.create_automation(late.model_copy(update={"name": "gradmill: late"}))
        found = [
            event("gradmill.drift", "gradmill.model.x", "it has drifted"),
            event("gradmill.data", "gradmill.model.x", "a retrain's own", flow="retrain"),
            *(event("gradmill.disk", "gradmill.disk.here", "nearly full") for _ in range(2)),
        ]
        duty.api.post("/events", json=found).raise_for_status()
        later = duty.trigger("linear-weekly", at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
        success = "linear-weekly: no success for 0.00333333 hours: see its runs"
        eventually(lambda: told(success), 90, "it is said that there was no success")
        assert [told(words) for words in ("it has drifted", "nearly full", "a retrain's own")] == [1, 1, 0]
        with api.client() as client:
            client.delete_automation(late_one)
        duty.api.delete(f"/flow_runs/{later}").raise_for_status()
        duty.does("register", GRADMILL_NOTIFY="none")
