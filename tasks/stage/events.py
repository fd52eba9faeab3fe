"""Events about models, for automations and for services that follow one (README, "Events")."""

from typing import Any

from prefect.events import emit_event

PUBLISHED = "gradmill.model.published"
REFUSED = "gradmill.model.refused"
PROMOTED = "gradmill.model.promoted"
ROLLED_BACK = "gradmill.model.rolled-back"
PREDICTIONS_WRITTEN = "gradmill.predictions.written"
DRIFT = "gradmill.drift"


def resource(name: str) -> str:
    """How Prefect knows the model ``name``: automations match it."""
    return f"gradmill.model.{name}"


def emit(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name``; its payload names the model too."""
    described = {"prefect.resource.id": resource(name), "prefect.resource.name": name}
    emit_event(event=event, resource=described, payload={"name": name} | payload)
