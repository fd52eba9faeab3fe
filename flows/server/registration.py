"""What a Prefect server must know before scheduled runs: pool, GPU limit, deployments, automations. All idempotent."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

import flows
from flows.server import alerts, api, automations, deployments
from flows.server.declared import Declared, declared
from flows.server.deploying import automate, deploy
from flows.server.registered import digest
from flows.server.retrains import Retrains
from flows.server.searches import Searches
from tasks.errors import UsageError
from tasks.stage.gpu_lock import LIMIT
from tasks.store import artifact_paths

POOL = "gradmill"


def home() -> Path:
    """The folder with ``prefect.yaml``: the checkout or, in an image, the one that GRADMILL_HOME names.

    Raises:
        UsageError: there is none.
    """
    named = os.environ.get("GRADMILL_HOME")
    for folder in (Path(flows.__file__).parents[1], *([Path(named)] if named else [])):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise UsageError("no prefect.yaml here", "a checkout of Gradmill, or its image", "install it from a checkout")


def worker() -> str:
    """What the worker is called of the ``gradmill up`` of these artifacts; the next one takes its place."""
    return f"{socket.gethostname()} {digest(str(artifact_paths.root()))[:6]}"


def declarations() -> list[Declared]:
    """The deployments of ``prefect.yaml``, and those that ``gradmill schedule`` was told of."""
    fixed = declared(home())
    return fixed + Retrains.declared(fixed) + Searches.declared(fixed)


def register(strictly: bool = False) -> list[str]:
    """Tell the configured server of what it lacks, and say what is changed; return the names of the deployments.

    What somebody has set there (schedules, parameters, a pool's template, the limit, what is paused, automations)
    stays as it is.

    Raises:
        UsageError: there is no ``prefect.yaml``, or it is not as it should be; ``strictly`` also where GRADMILL_NOTIFY
            names no block.
        EnvironmentProblem: no server answers, or it does not accept a deployment.
    """
    wanted = declarations()
    with api.client() as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        for deployment in wanted:
            deploy(client, deployment)
        for kind in (Retrains, Searches):
            kind.remove_the_removed(client)
        deployed = {each.name: each.id for each in deployments.ours(client)}
        own = Retrains.kept()
        of_own = (each.automation(deployed) for each in own)
        for automation in (automations.zombies(), *automations.of_the_book(deployed), *filter(None, of_own)):
            automate(client, automation)
        for each in own:
            if not each.on_drift:
                each.delete_automation(client, each.name)
        alerts.keep(client, strictly)
    return sorted(each.name for each in wanted)
