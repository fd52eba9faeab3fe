"""The schedules of own names that ``gradmill schedule`` set, in one document, from which every new server is updated.

A server that knows our deployments takes precedence: it is sent only what was changed while no server was reachable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from tasks.store import artifact_paths, locks
from tasks.store.documents import Document, RootDocument
from tasks.store.record_base import PersistedRecord

DEPLOYMENTS = {"retrain": "retrain-{}", "tune": "search-{}"}  # by flow; a name may be "monthly", as in tune-monthly


class Schedule(PersistedRecord):
    """When a flow runs for an own name, and with which parameters: its champion's at the time of scheduling."""

    flow: Literal["retrain", "tune"]
    name: str
    cron: str | None = None
    timezone: str = "UTC"
    active: bool = True  # whether the schedule starts runs
    on_drift: bool = False
    keep: int = Field(30, ge=1)  # how many of the newest versions maintenance keeps in any case
    paused: bool = False
    parameters: dict[str, Any]
    given: dict[str, Any] = Field(default_factory=dict)  # the parameters that were set by --param
    sent: dict[str, Any] | None = None  # the parameters that were last sent to a server
    server: str = ""  # the server that they were sent to
    pending: tuple[Literal["time", "paused", "parameters", "on_drift"], ...] = ()  # what has yet to be sent

    @property
    def deployment(self) -> str:
        """Its deployment's name."""
        return DEPLOYMENTS[self.flow].format(self.name)


class Schedules(RootDocument):
    """``_schedules.json``: schedules by deployment, and the flows of ended ones that no server knows of yet."""

    schedules: dict[str, Schedule] = Field(default_factory=dict)
    ended: dict[str, Literal["retrain", "tune"]] = Field(default_factory=dict)

    def of_flow(self, flow: str) -> dict[str, Schedule]:
        """The schedules of a flow, by name of the model."""
        return {each.name: each for each in self.schedules.values() if each.flow == flow}

    def with_schedule(self, schedule: Schedule) -> "Schedules":
        """A copy with one schedule added or changed."""
        ended = self.remove(schedule.deployment, is_told=True).ended
        return Schedules(schedules=self.schedules | {schedule.deployment: schedule}, ended=ended)

    def remove(self, deployment: str, is_told: bool) -> "Schedules":
        """A copy without one schedule; a server must still be told of its end unless it ``is_told``."""
        left = {name: each for name, each in self.schedules.items() if name != deployment}
        ended = {name: flow for name, flow in self.ended.items() if name != deployment}
        if not is_told and deployment in self.schedules:
            ended[deployment] = self.schedules[deployment].flow
        return Schedules(schedules=left, ended=ended)


def read() -> Schedules:
    """The current schedules.

    Raises:
        DataError: the document is damaged.
    """
    return Schedules.find(artifact_paths.schedules()) or _of_before()


def write(schedules: Schedules) -> None:
    """Replace the document; the caller holds the lock."""
    if schedules != read():
        schedules.write(artifact_paths.schedules())


@contextmanager
def hold_lock() -> Iterator[None]:
    """Hold the lock for changes of the document and for sending them to a server."""
    with locks.hold_lock(artifact_paths.locks() / "schedules", "another process is changing schedules; waiting for it"):
        yield


def _of_before() -> Schedules:
    """The schedules in the older format of one file each."""
    folder, found = artifact_paths.schedules().parent, Schedules()
    for flow, places in (("retrain", folder), ("tune", folder / "searches")):
        for path in sorted(places.glob("*.json")):
            before = _OldSchedule.read(path)
            facts = before.model_dump() | {"flow": flow, "keep": max(1, before.keep), "sent": before.parameters}
            found = found.with_schedule(Schedule.model_validate(facts))
    ended: dict[str, Literal["retrain", "tune"]] = {
        path.stem: "retrain" if path.stem.startswith("retrain-") else "tune"
        for path in (folder / "removed").glob("*.json")
        if path.stem not in found.schedules
    }
    return Schedules(schedules=found.schedules, ended=ended)


class _OldSchedule(Document):
    name: str
    cron: str | None = None
    timezone: str = "UTC"
    on_drift: bool = False
    keep: int = 30
    parameters: dict[str, Any]
