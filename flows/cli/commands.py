"""Every command, in the order and under the headings in which ``gradmill --help`` shows them."""

from collections.abc import Callable
from typing import Any

from flows.cli import (
    backing_up,
    bench,
    champion,
    demo,
    evaluating,
    inspecting,
    metrics,
    notify,
    operate,
    pausing,
    reporting,
    runs,
    schedule,
    showing,
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
        store.models, showing.show, store.verify, store.history, reporting.report, champion.rollback, champion.promote,
        champion.freeze, champion.unfreeze, store.prune,
    ),
    "Schedule and watch": (
        operate.up, status.status, schedule.schedule, schedule.unschedule, trigger.trigger, pausing.skip, pausing.pause,
        pausing.resume, notify.notify, metrics.metrics, operate.register,
    ),
    "Machine, disk and copies": (doctor, store.maintain, store.mirror, backing_up.backup, backing_up.restore),
}  # fmt: skip
BENCHMARKS: tuple[Command, ...] = (
    bench.start, bench.train, bench.predict, bench.tables, bench.images, bench.tune, bench.gates,
)  # fmt: skip
ON_PREFECT = (
    champion.promote, champion.rollback, champion.freeze, champion.unfreeze, operate.register, operate.up,
    trigger.trigger, status.status, reporting.report, schedule.schedule, schedule.unschedule,
    notify.notify, pausing.skip, pausing.pause, pausing.resume,
)  # fmt: skip
