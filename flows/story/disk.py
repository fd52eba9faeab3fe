"""A disk that is nearly full, told by runs when they end: they are what fills it."""

import socket

from prefect.events import emit_event

from tasks.machine.telling import Event, tell
from tasks.store import artifact_paths, room


def told_if_full() -> None:
    """Say that the disk of artifacts/ is nearly full, if it is, in the log and by an event for the alerts."""
    left, host = room.left(), socket.gethostname()
    if not left.is_little:
        return
    message = f"the disk of {artifact_paths.root()} on {host} is nearly full: {left}"
    tell(message)
    resource = {"prefect.resource.id": f"gradmill.disk.{host}", "prefect.resource.name": host}
    emit_event(Event.DISK, resource, payload={"message": message, "free": left.free, "total": left.total})
