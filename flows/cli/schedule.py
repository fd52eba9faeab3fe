"""``gradmill schedule``, ``unschedule``, ``pause``, ``resume``, ``skip``: times and parameters of deployments.

All of it is on the server: that of ``up`` or PREFECT_API_URL, or else one of ``up`` that is started for the command.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flows.cli.errors import Answer
from flows.cli.operate import on_server
from flows.cli.options import Param, nest_assignments
from tasks.errors import UsageError
from tasks.parameters import is_name
from tasks.store import artifact_paths, housekeeping, model_folder, own_data

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    from flows.server.registration import DeclaredDeployment

Argument = Annotated[str, typer.Argument(metavar="NAME|DEPLOYMENT", help="A model (its retrains) or a deployment.")]
Arguments = Annotated[
    list[str], typer.Argument(metavar="NAME|DEPLOYMENT…", help="Models (their retrains) or deployments.")
]
OWN = ("retrain-", "search-")  # how deployments of names begin; those that search settings were made by 82fab8f3


class Target(NamedTuple):
    """The deployment that an argument means: the retrains of a ``model``, or one that ``prefect.yaml`` declares."""

    deployment: str
    model: str | None
    declared: "DeclaredDeployment | None" = None


class Server(NamedTuple):
    """A server to change deployments on; ``is_running`` if it stays, and will start their runs."""

    client: "SyncPrefectClient"
    is_running: bool
    deployed: "dict[str, DeploymentResponse]"  # our deployments, by name

    @property
    def consequence(self) -> str:
        """When a change takes effect, in words."""
        return "the server has been updated" if self.is_running else "no run begins until gradmill up is started"


def schedule(
    names: Arguments,
    cron: Annotated[str | None, typer.Option(metavar="CRON", help="When, such as '0 3 * * *'.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="The time zone of these hours, such as Europe/Berlin \\[default: UTC]."),
    ] = None,
    on_drift: Annotated[
        bool | None, typer.Option("--on-drift/--no-on-drift", help="Whenever its predictions or its data drift.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many of the newest versions stay \\[default: 30]."),
    ] = None,
    param: Param = None,
) -> Answer:
    """Retrain kept names on a schedule, on drift, or both, with their champions' models, data and options.

    Options that are given replace earlier ones; everything else stays as it is set on the server, by a command or in
    its UI. Without a running server the change is made in the database of gradmill up, which takes some seconds.

    The command also changes a deployment's time and parameters for good, as in gradmill schedule predict-daily --param
    input=/data/today. gradmill register --reset predict-daily undoes this.

    Example: [bold]gradmill schedule houses --cron '0 3 * * *' --timezone Europe/Berlin[/]
    """
    if "" in (cron, timezone):
        found = "--cron or --timezone is empty"
        raise UsageError(found, "a value such as '0 3 * * *' or Europe/Berlin", "name one, or leave it out")
    change: dict[str, Any] = {"cron": cron, "timezone": timezone, "parameters": nest_assignments(param or [])}
    if cron or timezone:
        from flows.server.deployments import require_time

        require_time(cron or "0 3 * * *", timezone or "UTC")
    targets = [find_target(name) for name in names]
    defaults = [_check_change(target, change, on_drift, keep) for target in targets]
    with _reach() as server:
        from flows.server import registration

        for target in targets:
            if target.deployment not in server.deployed:
                if target.model is None:
                    raise _unknown(target)
                if not (cron or on_drift):
                    found = f"nothing that would start a retrain of {target.model}"
                    raise UsageError(found, "--cron, --on-drift or both", "give one")
        answers = []
        for target, own in zip(targets, defaults, strict=True):
            if (there := server.deployed.get(target.deployment)) is None:
                spec = registration.spec_for_name("retrain", str(target.model), own, cron, timezone or "UTC")
                there = registration.create_deployment(server.client, spec)
            else:
                there = registration.change_deployment(server.client, there, **change)
            facts = _set_own(server, target, there, on_drift, keep) if target.model else {}
            answers.append(_describe(server, target, there, facts))
    return _merge(answers)


def _check_change(target: Target, change: dict[str, Any], on_drift: bool | None, keep: int | None) -> dict[str, Any]:
    """Check what can be checked without a server; return the parameters of a new deployment, or of the declared one.

    Raises:
        UsageError: there is no such model, an option is not for this deployment, or its form refuses a parameter.
        DataError: nothing says where the data of the model are.
    """
    from flows.server import deployments

    if target.model:
        own = own_data.repeat_parameters(target.model, {})
        own_data.leave_split_open(own["data"])
        return deployments.merge_parameters(target.deployment, "flows.retrain.retrain", own, change["parameters"])
    options = {"--on-drift": on_drift, "--keep": keep}
    if wrong := [option for option, value in options.items() if value is not None]:
        raise UsageError(f"{wrong[0]} of deployment {target.deployment}", "the retrains of a name", "leave it out")
    if not any(change.values()):
        raise UsageError(f"nothing to change of {target.deployment}", "--cron, --timezone or --param", "give one")
    if (spec := target.declared) is None:
        return {}
    own = spec.parameters.get("parameters", {})
    return deployments.merge_parameters(spec.name, spec.entrypoint, own, change["parameters"])


def _set_own(
    server: Server, target: Target, deployment: "DeploymentResponse", on_drift: bool | None, keep: int | None
) -> dict[str, Any]:
    """Set what only the retrains of a name have, and return it."""
    from flows.server import alerts

    model, path = str(target.model), artifact_paths.retention(str(target.model))
    automation = alerts.load("retrain_on_drift", NAME=model, DEPLOYMENT_ID=deployment.id)
    if on_drift is not None:
        alerts.delete_on_drift(server.client, model)
    if on_drift:
        alerts.save(server.client, automation)
    retention = housekeeping.Retention.find(path)
    if keep or retention is None:
        retention = housekeeping.Retention(keep=keep or 30)
        retention.write(path)
    is_on_drift = any(each.enabled for each in server.client.read_automations_by_name(automation.name))
    return {"name": model, "on_drift": is_on_drift, "keep": retention.keep}


def _describe(server: Server, target: Target, deployment: "DeploymentResponse", own: dict[str, Any]) -> Answer:
    """The settings of a deployment as a document and in words."""
    from flows.server.deployments import own_parameters

    times, parameters = _list_times(deployment), own_parameters(deployment)
    document = {"deployment": target.deployment, "registered": server.is_running} | own
    document |= {"schedules": times, "parameters": parameters, "paused": deployment.paused}
    is_on_drift = own.get("on_drift", False)
    when = [_describe_times(times)] if times or not is_on_drift else []
    when += ["when it drifts"] if is_on_drift else []
    runs = f"is paused; after gradmill resume {target.deployment} it runs" if deployment.paused else "runs"
    given = "" if target.model else f" with {json.dumps(parameters)}"
    return Answer(document, f"{target.deployment} {runs} {' and '.join(when)}{given}: {server.consequence}")


def _merge(answers: list[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    return Answer({"schedules": [each.document for each in answers]}, "\n".join(str(each.text) for each in answers))


def unschedule(names: Arguments) -> Answer:
    """End the schedules of names; their versions and the results of their runs stay.

    Example: [bold]gradmill unschedule houses[/]
    """
    targets = [find_target(name) for name in names]
    for target in targets:
        if not target.deployment.startswith(OWN):
            to_do = (
                f"gradmill pause {target.deployment}, or gradmill register --reset {target.deployment} for its defaults"
            )
            found = f"prefect.yaml declares {target.deployment}"
            raise UsageError(found, "a name scheduled with gradmill schedule", to_do)
    with _reach(is_new=False) as server:
        from flows.server import registration

        known = [_require(server, target) for target in targets]
        for target, deployment in zip(targets, known, strict=True):
            registration.delete(server.client, deployment)
            if target.model:
                artifact_paths.retention(target.model).unlink(missing_ok=True)
    ends = [{"name": target.model, "deployment": target.deployment} for target in targets]
    return _merge([Answer(end, f"{end['deployment']} is deleted") for end in ends])


def pause(name: Argument) -> Answer:
    """Pause the schedule of a deployment until gradmill resume; trigger still starts runs.

    Example: [bold]gradmill pause houses[/]
    """
    target = find_target(name)
    with _reach(is_new=False) as server:
        _set_paused(server, target, True)
    text = f"{target.deployment} is paused until gradmill resume {target.deployment}: {server.consequence}"
    return Answer({"deployment": target.deployment, "paused": True}, text)


def resume(name: Argument) -> Answer:
    """Let the schedule of a paused deployment start runs again.

    Example: [bold]gradmill resume houses[/]
    """
    target = find_target(name)
    with _reach(is_new=False) as server:
        times = _list_times(_set_paused(server, target, False))
    document = {"deployment": target.deployment, "paused": False, "schedules": times}
    runs = f"runs {_describe_times(times)} again" if times else "is no longer paused, but has no active schedule"
    hint = "" if times else f"\ngradmill schedule {target.deployment} --cron sets one"
    return Answer(document, f"{target.deployment} {runs}: {server.consequence}{hint}")


def _set_paused(server: Server, target: Target, paused: bool) -> "DeploymentResponse":
    from flows.server import registration

    return registration.change_deployment(server.client, _require(server, target), paused=paused)


def skip(name: Argument) -> Answer:
    """Skip the next scheduled run of a deployment; the others run as planned.

    Example: [bold]gradmill skip houses[/]
    """
    deployment = find_target(name).deployment
    with _reach(is_new=False) as server:
        from flows.server import deployments

        due, later = deployments.skip(server.client, deployment)
    then = f"the next is at {later:%Y-%m-%d %H:%M} UTC" if later else "no other is planned"
    document = {"deployment": deployment, "skipped": due.isoformat(), "next": later.isoformat() if later else None}
    return Answer(document, f"{deployment}: the run at {due:%Y-%m-%d %H:%M} UTC is left out; {then}")


def find_target(word: str) -> Target:
    """The target that a word means: a deployment, the one that retrains a model of the book, or that of an own name.

    Raises:
        UsageError: it is not a name, or more than one deployment retrains that model.
    """
    from flows.server import registration
    from flows.tags import MODEL_TAG

    if not is_name(word):
        raise UsageError(
            f"{word} is not the name of a model", "lower-case letters a to z, digits and hyphens", "see gradmill models"
        )
    declared = registration.read_declared()
    retraining = [each for each in declared if each.flow == "retrain" and MODEL_TAG + word in each.tags]
    meant = [each for each in declared if each.name == word] or retraining
    if len(meant) > 1:
        names = ", ".join(each.name for each in meant)
        raise UsageError(f"{word} is retrained by more than one deployment", f"one of: {names}", "name it")
    if meant:
        return Target(meant[0].name, None, meant[0])
    if word.startswith(OWN) and not model_folder.list_versions(word):
        return Target(word, word.removeprefix(OWN[0]) if word.startswith(OWN[0]) else None)
    return Target(OWN[0] + word, word)


def _require(server: Server, target: Target) -> "DeploymentResponse":
    if target.deployment not in server.deployed:
        raise _unknown(target)
    return server.deployed[target.deployment]


def _unknown(target: Target) -> UsageError:
    to_do = (
        f"gradmill schedule {target.model} --cron" if target.model else f"gradmill register --reset {target.deployment}"
    )
    return UsageError(f"no schedule of {target.model or target.deployment}", "one that is on the server", to_do)


def _list_times(deployment: "DeploymentResponse") -> list[dict[str, str]]:
    """The times at which active schedules of a deployment start runs."""
    active = (each.schedule for each in deployment.schedules if each.active)
    times = [
        {"cron": getattr(each, "cron", str(each)), "timezone": getattr(each, "timezone", None) or "UTC"}
        for each in active
    ]
    return sorted(times, key=lambda time: time["cron"])


def _describe_times(times: list[dict[str, str]]) -> str:
    return ", ".join(f"at {each['cron']!r} ({each['timezone']})" for each in times) or "at no time"


@contextmanager
def _reach(is_new: bool = True) -> Iterator[Server]:
    """Connect to the server of PREFECT_API_URL or of ``gradmill up``, or start the latter's for seconds.

    Without a database it is started only for what ``is_new``. Alerts are updated afterwards: the allowed time without
    success depends on schedules, and is unlimited during a pause.
    """
    from flows.server import alerts, api, connection, deployments, registration

    with on_server("database" if is_new or connection.has_database() else "server") as is_running:
        with api.client() as client:
            record = registration.require_own(client)
        if record is None or artifact_paths.schedules_of_before().is_dir():
            registration.register()
        with api.client() as client:
            deployed = {each.name: each for each in deployments.list_deployments(client)}
            yield Server(client, is_running, deployed)
            alerts.update_alerts(client)
