"""Alerts: who is told of what, through Prefect's own blocks, which speak with stand-ins on this machine."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from apprise.plugins.sendgrid import NotifySendGrid
from apprise.plugins.slack import NotifySlack
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook

from flows.cli import notify
from flows.server import alerts, api, registration
from notification_stand_ins import endpoint, mail_server
from prefect_api import api_client
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
def server(prefect_api: str) -> Iterator[httpx.Client]:
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


def registered(monkeypatch: pytest.MonkeyPatch, notify: str = "") -> None:
    monkeypatch.setenv("GRADMILL_NOTIFY", notify)
    registration.register()


def on_server(server: httpx.Client) -> dict[str, dict[str, Any]]:
    found = server.post("/automations/filter", json={}).raise_for_status().json()
    return {each["name"]: each for each in found if "notify" in each["name"]}


def test_a_registration_without_a_block_leaves_alerts_and_none_removes_them(
    server: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered(monkeypatch)
    assert not on_server(server)
    registered(monkeypatch, "custom-webhook/nobody")
    assert "custom-webhook/nobody: no such block" in capsys.readouterr().err
    assert not on_server(server)
    webhook("http://127.0.0.1:9/")
    registered(monkeypatch, "custom-webhook/on-duty")
    first = on_server(server)
    assert set(first) == ALWAYS | OVERDUE
    off = "gradmill: notify of drift"
    server.patch(f"/automations/{first[off]['id']}", json={"enabled": False}).raise_for_status()
    server.delete(f"/automations/{first['gradmill: notify of a full disk']['id']}").raise_for_status()
    registered(monkeypatch)
    assert set(on_server(server)) == ALWAYS | OVERDUE, "what an older version did not have is added"
    assert not on_server(server)[off]["enabled"]
    webhook("http://127.0.0.1:9/", "second")
    registered(monkeypatch, "custom-webhook/second")
    blocks = {each["actions"][0]["block_document_id"] for each in on_server(server).values()}
    assert len(blocks) == 1
    assert blocks != {first[off]["actions"][0]["block_document_id"]}
    document, text = notify.notify()[:2]
    assert text.splitlines()[0] == "alerts go to custom-webhook/second"
    assert document["block"] == "custom-webhook/second"
    registered(monkeypatch, "none")
    assert not on_server(server)
    assert notify.notify()[1] == f"no alerts: {alerts.MAKE_ONE}"
    with pytest.raises(UsageError, match="no alerts"):
        notify.notify(test=True)


def test_a_deployment_is_late_two_hours_after_its_schedules_longest_pause_or_when_it_was_told(
    server: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook("http://127.0.0.1:9/")
    registered(monkeypatch, "custom-webhook/on-duty")

    def hours() -> dict[str, float]:
        return {
            name.split()[3]: each["trigger"]["within"] / 3600
            for name, each in on_server(server).items()
            if name in OVERDUE
        }

    assert hours() == {"softmax-nightly": 26, "linear-weekly": 7 * 24 + 2}
    monkeypatch.setenv("GRADMILL_NOTIFY_AFTER", "50")
    registered(monkeypatch)
    assert hours() == {"softmax-nightly": 50, "linear-weekly": 7 * 24 + 2}
    (weekly,) = server.post("/deployments/filter", json={"deployments": {"name": {"any_": ["linear-weekly"]}}}).json()
    server.patch(f"/deployments/{weekly['id']}", json={"paused": True}).raise_for_status()
    registered(monkeypatch)
    assert hours() == {"softmax-nightly": 50}, "nothing is due of one that is paused"


def sent(monkeypatch: pytest.MonkeyPatch, slug: str) -> str:
    monkeypatch.setenv("GRADMILL_NOTIFY", slug)
    with api.client() as client:
        alerts.keep(client)
    return notify.notify(test=True)[1]


def test_a_test_word_is_taken_by_a_webhook_or_said_to_be_refused(
    server: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint() as service:
        webhook(service.url)
        assert sent(monkeypatch, "custom-webhook/on-duty") == "custom-webhook/on-duty has accepted a test"
        (request,) = service.received
        assert request.document == {"title": SUBJECT, "text": alerts.BODY}
        service.status[0] = 503
        with pytest.raises(EnvironmentProblem, match=r"custom-webhook/on-duty did not take it.*503"):
            notify.notify(test=True)


def test_slack_is_sent_what_its_incoming_webhooks_take(server: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
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
        with pytest.raises(EnvironmentProblem, match="slack-webhook/on-duty did not take it"):
            notify.notify(test=True)


def test_mail_goes_by_sendgrid_or_by_a_mail_server_of_ones_own(
    server: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = "duty@example.com"
    with endpoint() as service:
        monkeypatch.setattr(NotifySendGrid, "notify_url", service.url)
        SendgridEmail(api_key="SG-key", sender_email="mill@example.com", to_emails=[to]).save("duty", overwrite=True)
        assert "has accepted a test" in sent(monkeypatch, "sendgrid-email/duty")
        (request,) = service.received
        assert request.headers["Authorization"] == "Bearer SG-key"
        assert request.document["personalizations"] == [{"to": [{"email": to}]}]
        assert request.document["subject"] == SUBJECT
        assert alerts.BODY in request.document["content"][0]["value"]
    with mail_server() as mail:
        address = f"mailto://127.0.0.1:{mail.port}?from=mill@example.com&to={to}&mode=insecure&format=text"
        SlackWebhook(url=address).save("by-mail", overwrite=True)
        assert "has accepted a test" in sent(monkeypatch, "slack-webhook/by-mail")
        ((recipient, message),) = mail.delivered
        assert (recipient, message["Subject"]) == (to, SUBJECT)
        assert alerts.BODY in message.get_content()
        mail.unknown.add(to)
        with pytest.raises(EnvironmentProblem, match="slack-webhook/by-mail did not take it"):
            notify.notify(test=True)
