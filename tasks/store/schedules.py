"""What ``gradmill schedule`` was told of own names: one document beside the store, which every new server is told of.

A server that knows our deployments is right about them: it is only told what was changed while no server was there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from tasks.store import artifact_paths, locks
from tasks.store.documents import Document, RootDocument
from tasks.store.record_base import Lasting

DEPLOYMENTS = {"retrain": "retrain-{}", "tune": "search-{}"}  # by flow; a name may be "monthly", as in tune-monthly


class Schedule(Lasting):
    """When a flow runs for an own name, and with which parameters: those of its champion when it was scheduled."""

    flow: Literal["retrain", "tune"]
    name: str
    cron: str | None = None
    timezone: str = "UTC"
    active: bool = True  # whether the time starts runs
    on_drift: bool = False
    keep: int = Field(30, ge=1)  # how many of the newest versions maintenance leaves in any case
    paused: bool = False
    parameters: dict[str, Any]
    given: dict[str, Any] = Field(default_factory=dict)  # of these what was asked for by --param
    sent: dict[str, Any] | None = None  # the parameters that a server was told of last
    server: str = ""  # which server that was
    pending: tuple[Literal["time", "paused", "parameters", "on_drift"], ...] = ()  # what it has still to be told

    @property
    def deployment(self) -> str:
        """Its deployment's name."""
        return DEPLOYMENTS[self.flow].format(self.name)


class Schedules(RootDocument):
    """``_schedules.json``: schedules by deployment, and the flows of ended ones that no server knows of yet."""

    schedules: dict[str, Schedule] = Field(default_factory=dict)
    ended: dict[str, Literal["retrain", "tune"]] = Field(default_factory=dict)

    def of_flow(self, flow: str) -> dict[str, Schedule]:
        """Those of a flow, by the name that they are for."""
        return {each.name: each for each in self.schedules.values() if each.flow == flow}

    def with_schedule(self, schedule: Schedule) -> "Schedules":
        """The same with one schedule more, or changed."""
        ended = self.remove(schedule.deployment, is_told=True).ended
        return Schedules(schedules=self.schedules | {schedule.deployment: schedule}, ended=ended)

    def remove(self, deployment: str, is_told: bool) -> "Schedules":
        """The same without one, whose end a server has still to be told unless it ``is_told``."""
        left = {name: each for name, each in self.schedules.items() if name != deployment}
        ended = {name: flow for name, flow in self.ended.items() if name != deployment}
        if not is_told and deployment in self.schedules:
            ended[deployment] = self.schedules[deployment].flow
        return Schedules(schedules=left, ended=ended)


def read() -> Schedules:
    """What was told so far.

    Raises:
        DataError: the document is damaged.
    """
    return Schedules.find(artifact_paths.schedules()) or _of_before()


def write(changed: Schedules) -> None:
    """Replace what was told, by whoever holds the lock."""
    if changed != read():
        changed.write(artifact_paths.schedules())


@contextmanager
def hold_lock() -> Iterator[None]:
    """Held over every change of the document, and while a server is told of it."""
    with locks.hold_lock(artifact_paths.locks() / "schedules", "another process changes schedules; waiting for it"):
        yield


def _of_before() -> Schedules:
    """Files of one schedule each, as versions of Gradmill before this document left them."""
    folder, found = artifact_paths.schedules().parent, Schedules()
    for flow, places in (("retrain", folder), ("tune", folder / "searches")):
        for path in sorted(places.glob("*.json")):
            before = _Before.read(path)
            facts = before.model_dump() | {"flow": flow, "keep": max(1, before.keep), "sent": before.parameters}
            found = found.with_schedule(Schedule.model_validate(facts))
    ended: dict[str, Literal["retrain", "tune"]] = {
        path.stem: "retrain" if path.stem.startswith("retrain-") else "tune"
        for path in (folder / "removed").glob("*.json")
        if path.stem not in found.schedules
    }
    return Schedules(schedules=found.schedules, ended=ended)


class _Before(Document):
    name: str
    cron: str | None = None
    timezone: str = "UTC"
    on_drift: bool = False
    keep: int = 30
    parameters: dict[str, Any]
