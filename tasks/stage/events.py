"""Events about models, for automations and for services that follow one (docs/on-duty.md, "Events")."""

from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

REFUSED_STATE = "Refused"  # the name of the state, of type FAILED, in which a run ends whose candidate was refused
FLOW = "gradmill.flow"  # a label: the flow that tells of the model, so that a retrain need not start a retrain


def resource(name: str) -> str:
    """How Prefect knows the model ``name``: automations match it."""
    return f"gradmill.model.{name}"


def emit(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name``; its payload names the model too."""
    described = {
        "prefect.resource.id": resource(name),
        "prefect.resource.name": name,
        FLOW: flow_run.flow_name or "none",
    }
    emit_event(event=event, resource=described, payload={"name": name} | payload)
