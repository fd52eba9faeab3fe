"""Every command, in the order and under the headings in which ``gradmill --help`` shows them."""

from collections.abc import Callable
from typing import Any

from flows.cli import (
    backing_up,
    champion,
    demo,
    evaluating,
    inspecting,
    metrics,
    notify,
    operate,
    pages,
    runs,
    schedule,
    status,
    store,
    trigger,
    tuning,
)
from flows.cli.doctor import doctor

Command = Callable[..., Any]

PANELS: dict[str, tuple[Command, ...]] = {
    "Train": (runs.retrain, inspecting.inspect, tuning.tune),
    "Predict": (runs.predict, evaluating.evaluate, demo.demo),
    "Models": (
        store.models, pages.show, store.verify, store.history, pages.report, champion.rollback, champion.promote,
        champion.freeze, champion.unfreeze, store.prune,
    ),
    "Schedule and watch": (
        operate.up, status.status, schedule.schedule, schedule.unschedule, trigger.trigger, schedule.skip,
        schedule.pause, schedule.resume, notify.notify, metrics.metrics, operate.register,
    ),
    "Machine, disk and copies": (doctor, store.maintain, store.mirror, backing_up.backup, backing_up.restore),
}  # fmt: skip
ON_PREFECT = (
    champion.promote, champion.rollback, champion.freeze, champion.unfreeze, operate.register, operate.up,
    trigger.trigger, status.status, schedule.schedule, schedule.unschedule,
    notify.notify, schedule.skip, schedule.pause, schedule.resume,
)  # fmt: skip
