"""``gradmill notify``: where alerts go, and whether they arrive."""

from typing import Annotated

import typer

from flows.cli.faults import Answer
from flows.cli.operate import on_server


def notify(
    test: Annotated[bool, typer.Option("--test", help="Send one now, and say whether it was accepted.")] = False,
) -> Answer:
    """Say where alerts go and of what; set GRADMILL_NOTIFY=TYPE/NAME and run gradmill register to have some."""
    with on_server():
        from flows.server import alerts, api

        with api.client() as client:
            block, found = alerts.where(client), alerts.existing(client)
            sent = alerts.send_test(client) if test else None
    told = [{"name": each.name, "on": each.enabled} for each in found]
    if sent:
        text = f"{sent} has accepted a test"
    else:
        lines = [f"alerts go to {block}" if block else f"no alerts: {alerts.MAKE_ONE}"]
        text = "\n".join([*lines, *(f"{'on ' if each['on'] else 'off'} {each['name']}" for each in told)])
    return {"block": block, "accepted": sent is not None if test else None, "alerts": told}, text
