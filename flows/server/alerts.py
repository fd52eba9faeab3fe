"""The automations of a Prefect server: dead runs, retrains on drift, and alerts, which go to a notification block.

They are declared in ``automations.yaml``. Each is created once and has a tag with a digest of what we wrote: one that
somebody has edited no longer matches it, and is never changed again. GRADMILL_NOTIFY names the block of the alerts, and
``none`` removes them; without it they are kept, so that nobody loses them by an ``up`` in another shell.
"""

import hashlib
import json
import re
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from flows.server import api, deployments
from flows.tags import LOST_SLOT
from tasks.errors import UsageError
from tasks.machine.settings import Settings
from tasks.store import identity

FILE = Path(__file__).with_name("automations.yaml")
PREFIX = "gradmill: "  # of the names of automations
MARK = "as-registered:"  # of the tag with the digest
NOTIFY = f"{PREFIX}notify of "  # the prefix of each alert's name
RUNS = f"{NOTIFY}runs that fail or crash"
GRACE = timedelta(hours=2)  # after the longest interval of a schedule
HOURS = 26.0  # the default of GRADMILL_NOTIFY_AFTER
AFTER = re.compile(r"notify-after:([\d.e+]+)$")  # a tag with the last value of GRADMILL_NOTIFY_AFTER
GENERAL_ALERTS = ("notify_of_runs", "notify_of_lost_runs", "notify_of_drift", "notify_of_disk")
RETRAINED_BY = {"softmax-regression": "softmax-nightly", "linear-regression": "linear-weekly"}
NONE = "none"
MAKE_ONE = (
    "make a notification block in the UI, then run GRADMILL_NOTIFY=TYPE/NAME gradmill register, with TYPE/NAME such as "
    "slack-webhook/duty"
)


def load(kind: str, **words: object) -> AutomationCore:
    """An automation of ``automations.yaml``, with ``words`` and the id of the store substituted, and our tags."""
    store = identity.require()
    text = json.dumps(yaml.safe_load(FILE.read_text(encoding="utf-8"))[kind])
    as_json = {name: json.dumps(str(each))[1:-1] for name, each in (words | {"STORE": store.id}).items()}
    automation = AutomationCore.model_validate_json(Template(text).substitute(as_json))
    return automation.model_copy(update={"tags": [*automation.tags, store.tag, _mark(automation)]})


def create_automations(client: SyncPrefectClient, deployed: dict[str, UUID]) -> None:
    """Create all automations except alerts, for ``deployed`` deployments by name; see ``save`` for those that exist."""
    save(client, load("crash"))
    for name, deployment in RETRAINED_BY.items():
        if deployment in deployed:
            save(client, load("retrain_the_book", NAME=name, DEPLOYMENT_ID=deployed[deployment]))
    for deployment, deployment_id in deployed.items():
        on_drift = load("retrain_on_drift", NAME=deployment.removeprefix("retrain-"), DEPLOYMENT_ID=deployment_id)
        if deployment.startswith("retrain-") and client.read_automations_by_name(on_drift.name):
            save(client, on_drift)


def save(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or update it if its declaration has changed and nobody has edited it; leave it on or off.

    An unchanged one is not touched, because an update makes the server forget what it waits for, such as the next
    heartbeat of a run that died with the last ``up``.
    """
    there = client.read_automations_by_name(automation.name)
    if not there:
        client.create_automation(automation)
        print(f"{automation.name}: created", file=sys.stderr)
    elif not set(automation.tags) <= set(there[0].tags):
        if _mark(there[0]) in there[0].tags:
            client.update_automation(there[0].id, automation.model_copy(update={"enabled": there[0].enabled}))
            print(f"{automation.name}: changed", file=sys.stderr)
        else:
            print(f"{automation.name}: edited on the server, left unchanged", file=sys.stderr)


def delete_on_drift(client: SyncPrefectClient, name: str) -> None:
    """Delete the automation that retrains an own name on drift, if there is one."""
    for each in client.read_automations_by_name(load("retrain_on_drift", NAME=name, DEPLOYMENT_ID=UUID(int=0)).name):
        client.delete_automation(each.id)


def _mark(automation: AutomationCore) -> str:
    """The tag with the digest of what an automation does, regardless of whether it is on."""
    content = automation.model_dump(mode="json", include={"name", "description", "trigger", "actions"})
    text = json.dumps(_simplify(content), sort_keys=True)
    return f"{MARK}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _simplify(document: Any) -> Any:
    """``document`` without the ids that each trigger gets anew, and with sets in a fixed order."""
    if isinstance(document, dict):
        return {key: _simplify(value) for key, value in document.items() if key != "id"}
    if isinstance(document, list):
        return sorted((_simplify(each) for each in document), key=str)
    return document


# Alerts


def update_alerts(client: SyncPrefectClient, strictly: bool = False) -> None:
    """Update the alerts: send them to the block that GRADMILL_NOTIFY names, else to their present one.

    A name without a block is reported, but is no reason to stop nightly retrains. Without GRADMILL_NOTIFY_AFTER the
    hours without success are those of the existing alerts.

    Raises:
        UsageError: the named block is of another kind or, if ``strictly``, missing while others exist.
    """
    slug, there, wanted = Settings().notify, list_alerts(list_automations(client)), list[AutomationCore]()
    if slug != NONE:
        block = _find_block(client, slug, strictly) if slug else None
        if (block := block or _goal(there)) is None:
            return
        known = (AFTER.match(tag) for each in there for tag in each.tags)
        hours = Settings().notify_after or next((float(text[1]) for text in known if text), HOURS)
        wanted = [load(kind, BLOCK=block, LOST_SLOT=LOST_SLOT) for kind in GENERAL_ALERTS]
        for each in deployments.list_deployments(client):
            if "retrain" in each.tags and (pause := deployments.longest_pause(each)):
                within = max(timedelta(hours=hours), pause + GRACE)
                wanted.append(alert_of_no_success(block, each.name, each.id, hours, within))
    for automation in there:
        if automation.name not in {each.name for each in wanted}:
            client.delete_automation(automation.id)
            print(f"{automation.name}: removed", file=sys.stderr)
    for alert in wanted:
        save(client, alert)


def alert_of_no_success(block: UUID, name: str, deployment: UUID, hours: float, within: timedelta) -> AutomationCore:
    """The alert for a deployment without a completed run ``within`` a time, ``hours`` if its schedule is dense."""
    seconds = within.total_seconds()
    words = {"BLOCK": block, "NAME": name, "DEPLOYMENT_ID": deployment, "HOURS": f"{hours:g}"}
    return load("notify_of_no_success", SECONDS=seconds, WITHIN=f"{seconds / 3600:g}", **words)


def list_automations(client: SyncPrefectClient) -> list[Automation]:
    """Our automations on the server, including those that are off."""
    return [each for each in api.read_pages(client.read_automations) if each.name.startswith(PREFIX)]


def list_alerts(automations: list[Automation]) -> list[Automation]:
    """Those that are alerts, with that of failed runs first."""
    alerts = (each for each in automations if each.name.startswith(NOTIFY))
    return sorted(alerts, key=lambda each: (each.name != RUNS, each.name))


def find_receiver(client: SyncPrefectClient, alerts: list[Automation]) -> str | None:
    """Type and name of the block that these alerts go to; None if there is no alert, or the block was removed."""
    block = _goal(alerts)
    with suppress(ObjectNotFound):
        return _slug(client.read_block_document(block, include_secrets=False)) if block else None
    return None


def _find_block(client: SyncPrefectClient, slug: str, strictly: bool) -> UUID | None:
    """The block that GRADMILL_NOTIFY names; None, after a message, if there is none."""
    kind, _, name = slug.partition("/")
    try:
        document = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        blocks = client.read_block_documents(include_secrets=False)
        others = sorted(_slug(each) for each in blocks if _notifies(each))
        missing, expected = f"GRADMILL_NOTIFY={slug}: no such block", f"one of: {', '.join(others)}; or {NONE}"
        if others and strictly:
            raise UsageError(missing, expected, "name one of these") from error
        print(f"{missing}; {f'expected {expected}' if others else MAKE_ONE}", file=sys.stderr)
        return None
    if not _notifies(document):
        found = f"{slug} is not a notification block"
        raise UsageError(found, "a notification block, such as a Slack webhook", MAKE_ONE)
    return document.id


def _goal(alerts: list[Automation]) -> UUID | None:
    """The block that the first of the alerts is sent to."""
    actions = (action for each in alerts for action in each.actions if isinstance(action, SendNotification))
    return next((action.block_document_id for action in actions), None)


def _slug(block: BlockDocument) -> str:
    """The name of a block as in GRADMILL_NOTIFY: ``slack-webhook/on-duty``."""
    return f"{block.block_type.slug if block.block_type else 'block'}/{block.name}"


def _notifies(document: BlockDocument) -> bool:
    return document.block_schema is not None and "notify" in document.block_schema.capabilities
