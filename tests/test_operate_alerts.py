"""Alerts: who is told of what, through Prefect's own blocks, which speak with stand-ins on this machine."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from apprise.plugins.slack import NotifySlack
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.blocks.system import Secret

from command_line import assert_clear, gradmill
from duty import Duty
from flows.cli import operate, schedule
from flows.server import alerts, api, deployments, registration
from flows.server.connection import use_api
from http_stand_ins import endpoint
from prefect_api import api_client, eventually
from tasks.errors import EnvironmentProblem, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of apprise's plugins
SUBJECT = "gradmill: a test"
OVERDUE = {"gradmill: notify of softmax-nightly without success", "gradmill: notify of linear-weekly without success"}
ALWAYS = {
    "gradmill: notify of runs that fail or crash",
    "gradmill: notify of drift",
    "gradmill: notify of a full disk",
}


@pytest.fixture
def bare(prefect_api: str) -> Iterator[httpx.Client]:
    """The server of all tests, as one without alerts, deployments and blocks of ours."""
    with api_client(prefect_api) as client:
        for kind in ("automations", "deployments", "block_documents"):
            for each in client.post(f"/{kind}/filter", json={}).raise_for_status().json():
                client.delete(f"/{kind}/{each['id']}").raise_for_status()
        yield client


def webhook(url: str, name: str = "on-duty") -> CustomWebhookNotificationBlock:
    block = CustomWebhookNotificationBlock(name=name, url=url, json_data={"title": "{{subject}}", "text": "{{body}}"})
    block.save(name, overwrite=True)
    return block


def registered(monkeypatch: pytest.MonkeyPatch, notify: str = "", strictly: bool = False) -> None:
    monkeypatch.setenv("GRADMILL_NOTIFY", notify)
    registration.register(strictly)


def on_server(bare: httpx.Client) -> dict[str, dict[str, Any]]:
    found = bare.post("/automations/filter", json={}).raise_for_status().json()
    return {each["name"]: each for each in found if "notify" in each["name"]}


@pytest.mark.slow
def test_a_registration_without_a_block_leaves_alerts_and_none_removes_them(
    bare: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered(monkeypatch)
    registered(monkeypatch, "custom-webhook/nobody")
    assert "custom-webhook/nobody: no such block" in capsys.readouterr().err
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
    bare.patch(f"/automations/{first[off]['id']}", json={"enabled": False}).raise_for_status()
    bare.delete(f"/automations/{first['gradmill: notify of a full disk']['id']}").raise_for_status()
    registered(monkeypatch)
    assert set(on_server(bare)) == ALWAYS | OVERDUE, "what an older version did not have is added"
    assert not on_server(bare)[off]["enabled"]
    webhook("http://127.0.0.1:9/", "second")
    registered(monkeypatch, "custom-webhook/second")
    (block,) = {each["actions"][0]["block_document_id"] for each in on_server(bare).values()}
    assert block != first[off]["actions"][0]["block_document_id"]
    assert str(operate.notify().text).splitlines()[0] == "alerts go to custom-webhook/second"
    registered(monkeypatch, "none")
    assert not on_server(bare)
    assert operate.notify()[1] == f"no alerts: {alerts.MAKE_ONE}"
    with pytest.raises(UsageError, match="no alerts"):
        operate.notify(test=True)


@pytest.mark.slow
def test_a_deployment_is_late_two_hours_after_its_schedules_longest_pause_or_when_it_was_told(
    bare: httpx.Client, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hours() -> dict[str, float]:
        found = {name: each["trigger"] for name, each in on_server(bare).items() if name in OVERDUE}
        return {name.split()[3]: trigger["within"] / 3600 for name, trigger in found.items()}

    webhook("http://127.0.0.1:9/")
    registered(monkeypatch, "custom-webhook/on-duty")
    a_week = {"linear-weekly": 7 * 24 + 2}
    assert hours() == a_week | {"softmax-nightly": 26}
    monkeypatch.setenv("GRADMILL_NOTIFY_AFTER", "50")
    registered(monkeypatch)
    monkeypatch.delenv("GRADMILL_NOTIFY_AFTER")
    registered(monkeypatch)
    assert hours() == a_week | {"softmax-nightly": 50}, "also from another shell"
    for each in on_server(bare).values():  # as c692a25 left them
        document = {key: value for key, value in each.items() if key not in ("id", "created", "updated")}
        bare.put(f"/automations/{each['id']}", json=document | {"tags": []}).raise_for_status()
    bare.delete(f"/automations/{on_server(bare)['gradmill: notify of softmax-nightly without success']['id']}")
    registered(monkeypatch)
    assert hours() == a_week | {"softmax-nightly": 50}, "read once from a description"
    schedule.pause("linear-weekly")
    assert hours() == {"softmax-nightly": 50}, "nothing is due of one that is paused"
    schedule.resume("linear-weekly")
    assert hours() == a_week | {"softmax-nightly": 50}, "at once, not with the next registration"
    schedule.schedule(["softmax-nightly"], cron="0 3 * * 6")
    assert hours()["softmax-nightly"] == 7 * 24 + 2


def test_a_block_that_notifies_nobody_and_alerts_that_are_off_are_told(
    bare: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    Secret(value="word").save("no-webhook", overwrite=True)  # type: ignore[call-arg, unused-ignore]
    with pytest.raises(UsageError, match="secret/no-webhook is not a notification block"):
        sent(monkeypatch, "secret/no-webhook")
    assert not on_server(bare)
    with endpoint() as service:
        webhook(service.url)
        sent(monkeypatch, "custom-webhook/on-duty")
        for each in on_server(bare).values():
            bare.patch(f"/automations/{each['id']}", json={"enabled": False}).raise_for_status()
        assert operate.notify()[0]["block"] is None
        with pytest.raises(UsageError, match="no alerts that are on"):
            operate.notify(test=True)
        assert len(service.received) == 1


def sent(monkeypatch: pytest.MonkeyPatch, slug: str) -> str:
    monkeypatch.setenv("GRADMILL_NOTIFY", slug)
    with api.client() as client:
        alerts.update_alerts(client)
    return str(operate.notify(test=True)[1])


@pytest.mark.slow
def test_a_test_word_is_taken_by_a_webhook_or_said_to_be_refused(
    bare: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint() as service:
        webhook(f"{service.url}/hooks/token")
        assert sent(monkeypatch, "custom-webhook/on-duty") == "custom-webhook/on-duty has accepted a test"
        (request,) = service.received
        assert request.document == {"title": SUBJECT, "text": alerts.BODY}
        service.status[0] = 503
        with pytest.raises(EnvironmentProblem) as refused:
            operate.notify(test=True)
        assert refused.value.found == "custom-webhook/on-duty rejected the message: HTTP 503", "its address is a secret"


def test_a_host_that_does_not_answer_is_said_in_time(bare: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TRY_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(EnvironmentProblem, match="custom-webhook/on-duty rejected the message: no answer in time"):
            sent(monkeypatch, "custom-webhook/on-duty")


@pytest.mark.slow  # a command
def test_a_host_that_is_not_there_is_said_by_the_command_without_a_word_of_prefects(
    bare: httpx.Client, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook("http://127.0.0.1:9/")
    registered(monkeypatch, "custom-webhook/on-duty")
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    told = gradmill("notify", "--test")
    assert_clear(told, 1)
    assert told.stderr.startswith("gradmill: custom-webhook/on-duty rejected the message: ConnectError")


def test_slack_is_sent_what_its_incoming_webhooks_take(bare: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint() as service:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"{service.url}/services")
        url = "https://hooks.slack.com/services/T12345678/B12345678/abcdefghijklmnopqrstuvwx"
        SlackWebhook(url=url).save("on-duty", overwrite=True)
        assert "has accepted a test" in sent(monkeypatch, "slack-webhook/on-duty")
        (request,) = service.received
        assert request.path == "/services/T12345678/B12345678/abcdefghijklmnopqrstuvwx"
        assert request.headers["Content-Type"].startswith("application/json")
        (attachment,) = request.document["attachments"]
        assert (attachment["title"], attachment["text"]) == (SUBJECT, alerts.BODY)
        service.status[0] = 404  # Slack's answer to a webhook that was revoked
        with pytest.raises(EnvironmentProblem, match="slack-webhook/on-duty rejected the message"):
            operate.notify(test=True)


@pytest.mark.slow  # a running gradmill up
def test_drift_a_full_disk_and_a_missing_success_are_told_by_the_server(
    duty: Duty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event(name: str, of: str, message: str, flow: str = "predict") -> dict[str, Any]:
        resource = {"prefect.resource.id": of, "prefect.resource.name": "x", "gradmill.flow": flow}
        told = {"payload": {"name": "x", "message": message}, "resource": resource}
        return told | {"event": name, "occurred": datetime.now(UTC).isoformat(), "id": str(uuid4())}

    with endpoint() as service, use_api(f"{duty.ui}/api", duty.credential), api.client() as client:
        webhook(service.url, "told")
        monkeypatch.setenv("GRADMILL_NOTIFY", "custom-webhook/told")
        alerts.update_alerts(client)
        block = client.read_block_document_by_name("told", "custom-webhook").id
        weekly = deployments.find_deployment(client, "linear-weekly").id
        late = alerts.alert_of_no_success(block, "linear-weekly", weekly, 12 / 3600, timedelta(seconds=12))
        client.create_automation(late.model_copy(update={"name": "gradmill: late"}))
        found = [
            event("gradmill.drift", "gradmill.model.x", "it has drifted"),
            event("gradmill.data", "gradmill.model.x", "a retrain's own", flow="retrain"),
            *(event("gradmill.disk", "gradmill.disk.here", "nearly full") for _ in range(2)),
        ]
        duty.api.post("/events", json=found).raise_for_status()
        duty.trigger("linear-weekly", at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
        late_one = "linear-weekly: no success for 0.00333333 hours: see its runs"

        def told() -> list[str]:
            return sorted(request.document["text"] for request in service.received)

        eventually(lambda: late_one in told(), 90, "it is said that there was no success", 1)
        assert told() == ["it has drifted", late_one, "nearly full"]
        client.delete_automation(client.read_automations_by_name("gradmill: late")[0].id)
        monkeypatch.setenv("GRADMILL_NOTIFY", "none")
        alerts.update_alerts(client)
