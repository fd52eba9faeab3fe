"""Alerts: the automations that send word to a notification block, and a word to try it.

GRADMILL_NOTIFY names the block, ``none`` takes the alerts away, and without it they stay where they are: nobody loses
them by an ``up`` in another shell.
"""

import asyncio
import re
import sys
from contextlib import suppress
from uuid import UUID

from httpx import HTTPStatusError, TimeoutException
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound

from flows.server import automations, deployments
from flows.server.automations import NOTIFY, RUNS, automate
from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine.settings import Settings

NONE = "none"
TRY_SECONDS = 20.0
BODY = "This is gradmill notify --test: alerts arrive here."
MAKE_ONE = (
    "make a notification block in the UI, then run GRADMILL_NOTIFY=TYPE/NAME gradmill register, as slack-webhook/duty"
)


def keep(client: SyncPrefectClient, strictly: bool = False) -> None:
    """Bring the alerts up to date: sent to what GRADMILL_NOTIFY names, else to where they are sent already.

    A name that no block has, any more or yet, is said: it is no reason not to retrain at night.

    Raises:
        UsageError: what it names is a block of another kind, or ``strictly`` none while there are others.
    """
    slug, ours = Settings().notify, existing(client)
    if slug == NONE:
        _remove(client, ours)
        return
    try:
        block = _named(client, slug).id if slug else _block(ours)
    except ObjectNotFound as error:
        missing, others = f"GRADMILL_NOTIFY={slug}: no such block", _notifying(client)
        expected = f"one of: {', '.join(others)}; or {NONE}"
        if others and strictly:
            raise UsageError(missing, expected, "name one of these") from error
        print(f"{missing}; {f'expected {expected}' if others else MAKE_ONE}", file=sys.stderr)
        block = _block(ours)
    if block is None:
        return
    wanted = list(automations.alerts_to(block, deployments.ours(client), ours))
    _remove(client, [each for each in ours if each.name not in {alert.name for alert in wanted}])
    for alert in wanted:
        automate(client, alert)


def existing(client: SyncPrefectClient) -> list[Automation]:
    """The alerts on the server, those that are off too, that of failed runs first."""
    ours = (each for each in client.read_automations() if each.name.startswith(NOTIFY))
    return sorted(ours, key=lambda each: (each.name != RUNS, each.name))


def goal(client: SyncPrefectClient) -> BlockDocument:
    """The block that alerts go to, with its secrets.

    Raises:
        UsageError: there are no alerts that are on.
    """
    return _document(client, _block(_on(client)))


def try_it(document: BlockDocument) -> str:
    """Send a word through a block, which may take its time; return the block's type and name.

    Raises:
        UsageError: it is no notification block.
        EnvironmentProblem: it was not accepted, or not within ``TRY_SECONDS``.
    """
    slug = _slug(document)
    block = Block._from_block_document(document)
    if not isinstance(block, NotificationBlock):
        raise _no_notification(slug)
    try:
        asyncio.run(asyncio.wait_for(_accepted(block), TRY_SECONDS))
    except Exception as error:
        found = f"{slug} did not take it: {_reason(error)}"
        raise EnvironmentProblem(
            found, "an answer that says that it is accepted", "correct the block in the UI"
        ) from error
    return slug


def _reason(error: Exception) -> str:
    """Without addresses: that of a webhook is a secret."""
    if isinstance(error, HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, TimeoutError | TimeoutException):
        return "no answer in time"
    told = getattr(error, "log", "") or f"{type(error).__name__}: {error}"
    return re.sub(r"https?://\S+", "its address", told)


async def _accepted(block: NotificationBlock) -> None:
    with block.raise_on_failure():
        await block.notify(subject="gradmill: a test", body=BODY)


def where(client: SyncPrefectClient) -> str | None:
    """Type and name of the block that alerts go to; None without any that is on."""
    block = _block(_on(client))
    with suppress(ObjectNotFound):  # somebody has removed it: nothing would arrive
        return _slug(client.read_block_document(block, include_secrets=False)) if block else None
    return None


def _on(client: SyncPrefectClient) -> list[Automation]:
    return [each for each in existing(client) if each.enabled]


def _slug(block: BlockDocument) -> str:
    """As GRADMILL_NOTIFY has it: ``slack-webhook/on-duty``."""
    return f"{block.block_type.slug if block.block_type else 'block'}/{block.name}"


def _named(client: SyncPrefectClient, slug: str) -> BlockDocument:
    kind, _, name = slug.partition("/")
    document = client.read_block_document_by_name(name, kind, include_secrets=False)
    if not _notifies(document):
        raise _no_notification(slug)
    return document


def _notifying(client: SyncPrefectClient) -> list[str]:
    """The blocks that alerts could go to."""
    return sorted(_slug(each) for each in client.read_block_documents(include_secrets=False) if _notifies(each))


def _notifies(document: BlockDocument) -> bool:
    return document.block_schema is not None and "notify" in document.block_schema.capabilities


def _no_notification(slug: str) -> UsageError:
    return UsageError(f"{slug} is a block that notifies nobody", "a notification block, as a Slack webhook", MAKE_ONE)


def _document(client: SyncPrefectClient, block: UUID | None) -> BlockDocument:
    if block is None:
        raise UsageError("there are no alerts that are on", "a notification block", MAKE_ONE)
    try:
        return client.read_block_document(block)
    except ObjectNotFound as error:
        raise UsageError("the block that alerts go to is gone", "a notification block", MAKE_ONE) from error


def _block(alerts: list[Automation]) -> UUID | None:
    """Where the first of them is sent."""
    actions = (action for each in alerts for action in each.actions if isinstance(action, SendNotification))
    return next((action.block_document_id for action in actions), None)


def _remove(client: SyncPrefectClient, alerts: list[Automation]) -> None:
    for each in alerts:
        client.delete_automation(each.id)
        print(f"{each.name}: removed", file=sys.stderr)
