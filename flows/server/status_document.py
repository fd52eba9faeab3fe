"""The document that ``gradmill status --json`` prints. Moments are in UTC."""

from datetime import datetime

from pydantic import BaseModel


class Champion(BaseModel):
    """A champion; no retrain changes one that is ``frozen``, nor brings back the versions that are ``held``."""

    name: str
    version: int
    frozen: bool
    held: list[int] = []
    promoted_at: str
    test_accuracy: float | None
    test_loss: float
    overview: str | None = None  # the address of its page
    is_mirrored: bool | None = None  # whether the mirror is known to have it; None of a store that has no mirror


class Judged(BaseModel):
    """The last run of a deployment in which gates have judged a candidate, or a version was evaluated."""

    run: str
    start: datetime | None
    verdict: str
    message: str | None  # of a refusal


class Deployment(BaseModel):
    """A deployment with its last run that has begun (``verdict`` of a prediction: on drift), and when it runs next.

    ``judged`` may be an earlier run: newer ones were cancelled, crashed or found nothing new. ``on_drift``: an
    automation starts it when a model's input drifts.
    """

    name: str
    paused: bool
    last_run: str | None
    last_start: datetime | None
    state: str | None
    verdict: str | None
    message: str | None
    next_start: datetime | None
    on_drift: bool
    judged: Judged | None = None
    ended_badly: bool = False  # the last run


class StuckRun(BaseModel):
    """A run that should go on and does not, and why one thinks so; or one that waits for its turn."""

    name: str
    id: str
    state: str
    reason: str


class Worker(BaseModel):
    """A worker of the work pool."""

    name: str
    status: str
    last_heartbeat: datetime | None


class Status(BaseModel):
    """The document that ``gradmill status --json`` prints: fields are added, never renamed or removed.

    Without a server there are ``models`` and what the store says alone. ``attention``: what needs a person.
    """

    schema_version: int = 1
    api_url: str | None = None
    artifacts: str
    timezone: str = "UTC"  # of every moment here
    free: int  # bytes
    total: int
    models: list[Champion]
    mirror: str | None = None  # where champions are copied to
    deployments: list[Deployment] = []
    stuck: list[StuckRun] = []
    queued: list[StuckRun] = []
    workers: list[Worker] = []
    pool_paused: bool = False
    alerts: str | None = None  # the block that they go to
    attention: list[str] = []
