"""``gradmill schedule``, ``unschedule``, ``pause``, ``resume``, ``skip``: times and parameters of deployments."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flows.cli.errors import Answer
from flows.cli.operate import NO_SERVER, on_server
from flows.cli.options import Param, nest_assignments
from tasks.errors import EnvironmentProblem, UsageError
from tasks.parameters import is_name
from tasks.store import own_data, schedules
from tasks.store.schedules import DEPLOYMENTS, Schedule, Schedules

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

PENDING = {"cron": "time", "timezone": "time", "on_drift": "on_drift"}  # for each option, what a server must be told
MONTHLY = "0 2 1 * *"  # of a search: an hour before the nightly retrains
Argument = Annotated[str, typer.Argument(metavar="NAME|DEPLOYMENT", help="A model (its retrains) or a deployment.")]
Arguments = Annotated[
    list[str], typer.Argument(metavar="NAME|DEPLOYMENT…", help="Models (their retrains) or deployments.")
]
Tune = Annotated[
    bool, typer.Option("--tune", help="The monthly search for its settings, which has a schedule of its own.")
]


class ScheduleTarget(NamedTuple):
    """The meaning of a command-line argument: a declared deployment, or the schedule of an own name."""

    deployment: str
    flow: str
    name: str | None  # the model of the schedule; None for a deployment that prefect.yaml declares


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
    tune: Tune = False,
    param: Param = None,
) -> Answer:
    """Retrain kept names on a schedule, on drift, or both, with their champions' models, data and options.

    Options that are given replace earlier ones; everything else stays. A new server gets every schedule, and what you
    change or delete in its UI stays so. --tune schedules a search for settings; retrains use them if the champion was
    retrained with --tuned when they were scheduled.

    The command also changes a deployment's time and parameters for good, as in gradmill schedule predict-daily --param
    input=/data/today. gradmill register --reset predict-daily undoes this.

    Example: [bold]gradmill schedule houses --cron '0 3 * * *' --timezone Europe/Berlin[/]
    """
    options = {"cron": cron, "timezone": timezone, "on_drift": on_drift, "keep": keep}
    change = {option: value for option, value in options.items() if value is not None}
    if "" in (cron, timezone):
        found = "--cron or --timezone is empty"
        raise UsageError(found, "a value such as '0 3 * * *' or Europe/Berlin", "name one, or leave it out")
    parameters = nest_assignments(param or [])
    targets = [find_target(name, tune) for name in names]
    for target in targets:
        _check_change(target, change, parameters)
    with _reach() as client:
        return _merge([_describe(client, target, _change(client, target, change, parameters)) for target in targets])


def _check_change(target: ScheduleTarget, change: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Check the change of one target before any is made."""
    own_only = [f"--{option.replace('_', '-')}" for option in ("on_drift", "keep") if option in change]
    if own_only and (target.name is None or target.flow != "retrain"):
        found = f"{own_only[0]} of deployment {target.deployment}"
        raise UsageError(found, "the retrains of a name", "leave it out")
    if target.name is None and not (change or parameters):
        raise UsageError(f"nothing to change of {target.deployment}", "--cron, --timezone or --param", "give one")
    if target.name is not None:
        ask_for(target, schedules.read().schedules.get(target.deployment), change, parameters)


def _merge(answers: list[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    return Answer({"schedules": [each.document for each in answers]}, "\n".join(str(each.text) for each in answers))


def _change(
    client: "SyncPrefectClient | None", target: ScheduleTarget, change: dict[str, Any], parameters: dict[str, Any]
) -> "Schedule | DeploymentResponse":
    """Change a deployment for good and return it afterwards: on the server, or in the document for the next ``up``.

    A declared deployment exists only on the server. For an own name the document in artifacts/ is changed, after it was
    updated with what is set on the server, if there is one.

    Raises:
        UsageError: there is no such name, deployment, time or parameter.
        EnvironmentProblem: a declared deployment without a server; or the server does not accept the change.
    """
    from flows.server import deployments, registration

    if target.name is None:
        spec = registration.list_specs(Schedules())[target.deployment]
        own = spec.parameters.get("parameters", {})
        deployments.merge_parameters(target.deployment, spec.entrypoint, own, parameters)
        if client is None:
            raise EnvironmentProblem(f"{target.deployment} is set on a server, and none is running", *NO_SERVER)
        there = deployments.find_deployment(client, target.deployment)
        return registration.change_deployment(client, spec, there, parameters=parameters, **change)
    with schedules.hold_lock():
        told = schedules.read()
        before = told.schedules.get(target.deployment)
        server = registration.read_server_id(client) if client else None
        if client and before and before.server == server:
            found = registration.find(client, target.deployment, target.flow)
            before = registration.read_back(before, found) if found else None  # it was deleted on the server
        if "paused" not in change:
            changed = ask_for(target, before, change, parameters)
        elif before is not None:
            changed = before.model_copy(update=change | {"pending": tuple({*before.pending, "paused"})})
        else:
            to_do = f"gradmill schedule {target.name} --cron"
            raise UsageError(f"no schedule of {target.name}", "a scheduled name", to_do)
        schedules.write(told.with_schedule(changed))
        if client:
            changed = registration.send_schedule(client, changed, server or "")
            schedules.write(told.with_schedule(changed))
    return changed


def ask_for(
    target: ScheduleTarget, before: Schedule | None, given: dict[str, Any], parameters: dict[str, Any]
) -> Schedule:
    """The requested schedule of a name; values that are not given stay as before.

    Raises:
        UsageError: there is no such name, time or parameter, or nothing would start a run.
        DataError: nothing says where its data are.
    """
    from prefect.utilities.collections import deep_merge

    from flows.server import deployments

    name, is_search = str(target.name), target.flow == "tune"
    facts: dict[str, Any] = before.model_dump() if before else {"given": {}, "pending": ["time"]}
    if is_search and not before:
        facts["cron"] = MONTHLY
    facts |= given | {"given": deep_merge(facts["given"], parameters)}
    again = own_data.repeat_parameters(name, {"tuned": False} if is_search else {}, with_found=is_search)
    if is_search:
        again = {field: again[field] for field in ("name", "training", "data")}
    own_data.leave_split_open(again["data"])
    entrypoint = f"flows.{target.flow}.{target.flow}"
    facts["parameters"] = deployments.merge_parameters(target.deployment, entrypoint, again, facts["given"])
    pending = {*facts["pending"], "parameters", *(PENDING[option] for option in given.keys() & PENDING)}
    facts |= {"active": True} if "cron" in given else {}
    asked = Schedule.model_validate(facts | {"name": name, "flow": target.flow, "pending": sorted(pending)})
    if asked.cron:
        deployments.require_time(asked.cron, asked.timezone)
    elif not asked.on_drift:
        found = f"nothing that would start a {target.flow} of {name}"
        raise UsageError(found, "--cron, --on-drift or both", "give one")
    return asked


def _describe(
    client: "SyncPrefectClient | None", target: ScheduleTarget, schedule: "Schedule | DeploymentResponse"
) -> Answer:
    """The result of ``schedule`` as a document and in words."""
    from flows.server.deployments import own_parameters

    times, document = _list_times(schedule), {"deployment": target.deployment, "registered": client is not None}
    resume_it = f"gradmill resume {target.deployment}"
    if not isinstance(schedule, Schedule):
        now = own_parameters(schedule)
        runs = f"is paused; after {resume_it} it runs" if schedule.paused else "runs"
        text = f"{target.deployment} {runs} {_describe_times(times)} with {json.dumps(now)}: {_who_knows(client)}"
        return Answer(document | {"schedules": times, "parameters": now, "paused": schedule.paused}, text)
    document |= schedule.model_dump(include={"name", "cron", "timezone"})
    when = [_describe_times(times)] if times or not schedule.on_drift else []
    when += ["when it drifts"] if schedule.on_drift else []
    paused = f", which is paused until {resume_it}" if schedule.paused else ""
    knows = _who_knows(client) if client else "no run begins until gradmill up is started"
    told = f"{' and '.join(when)} by deployment {target.deployment}{paused}: {knows}"
    if target.flow == "retrain":
        return Answer(
            document | schedule.model_dump(include={"on_drift", "keep"}), f"{target.name} is retrained {told}"
        )
    retrains = schedules.read().of_flow("retrain").get(schedule.name)
    is_tuned = retrains is None or bool(retrains.parameters.get("tuned"))
    if not is_tuned:
        again = f"gradmill retrain {target.name} --tuned, then gradmill schedule {target.name}"
        told += f"\nits scheduled retrains do not use what is found: {again}"
    return Answer(document | {"retrains_are_tuned": is_tuned}, f"settings are searched for {target.name} {told}")


def unschedule(names: Arguments, tune: Tune = False) -> Answer:
    """End the schedules of names; their versions and the results of their runs stay.

    Example: [bold]gradmill unschedule houses[/]
    """
    targets = [find_target(name, tune) for name in names]
    with _reach() as client:
        return _merge([_unschedule(client, target) for target in targets])


def _unschedule(client: "SyncPrefectClient | None", target: ScheduleTarget) -> Answer:
    from flows.server import registration

    name, deployment, is_search = target.name, target.deployment, target.flow == "tune"
    if name is None:
        to_do = f"gradmill pause {deployment}, or gradmill register --reset {deployment} for its defaults"
        raise UsageError(f"prefect.yaml declares {deployment}", "a name scheduled with gradmill schedule", to_do)
    with schedules.hold_lock():
        told = schedules.read()
        goes_on = not is_search and DEPLOYMENTS["tune"].format(name) in told.schedules
        hint = f"gradmill unschedule {name} --tune ends the search for its settings"
        if deployment not in told.schedules:
            known = sorted(told.of_flow(target.flow))
            expected = f"one of: {', '.join(known)}" if known else "a scheduled name, and none is scheduled"
            found = f"no schedule {'that searches settings for' if is_search else 'of'} {name}"
            raise UsageError(found, expected, hint if goes_on else "see gradmill status")
        schedules.write(told.remove(deployment, is_told=False))
        if client:
            registration.delete(client, deployment, target.flow)
            schedules.write(told.remove(deployment, is_told=True))
    done = (
        f"settings are no longer searched for {name}" if is_search else f"{name} is no longer retrained on a schedule"
    )
    knows = (
        "the server has been updated" if client else "no server is running, and the next gradmill up starts without it"
    )
    document = {"name": name, "removed_from_server": client is not None}
    return Answer(document, f"{done}: {knows}" + (f"\n{hint}" if goes_on else ""))


def pause(name: Argument) -> Answer:
    """Pause the schedule of a deployment until gradmill resume; trigger still starts runs.

    Example: [bold]gradmill pause houses[/]
    """
    target = find_target(name)
    with _reach() as client:
        _change(client, target, {"paused": True}, {})
    document = {"deployment": target.deployment, "paused": True}
    return Answer(
        document, f"{target.deployment} is paused until gradmill resume {target.deployment}: {_who_knows(client)}"
    )


def resume(name: Argument) -> Answer:
    """Let the schedule of a paused deployment start runs again.

    Example: [bold]gradmill resume houses[/]
    """
    target = find_target(name)
    with _reach() as client:
        times = _list_times(_change(client, target, {"paused": False}, {}))
    document = {"deployment": target.deployment, "paused": False, "schedules": times}
    runs = f"runs {_describe_times(times)} again" if times else "is no longer paused, but has no active schedule"
    hint = "" if times else f"\ngradmill schedule {target.deployment} --cron sets one"
    return Answer(document, f"{target.deployment} {runs}: {_who_knows(client)}{hint}")


def skip(name: Argument) -> Answer:
    """Skip the next scheduled run of a deployment; the others run as planned.

    Example: [bold]gradmill skip houses[/]
    """
    with on_server():
        from flows.server import deployments

        deployment = find_target(name).deployment
        due, later = deployments.skip(deployment)
    then = f"the next is at {later:%Y-%m-%d %H:%M} UTC" if later else "no other is planned"
    document = {"deployment": deployment, "skipped": due.isoformat(), "next": later.isoformat() if later else None}
    return Answer(document, f"{deployment}: the run at {due:%Y-%m-%d %H:%M} UTC is left out; {then}")


def find_target(word: str, tune: bool = False) -> ScheduleTarget:
    """The target that a word means: a deployment, the deployment that retrains a model, or an own name's schedule.

    Raises:
        UsageError: it is not a name, or more than one deployment retrains that model.
    """
    from flows.server import registration
    from flows.tags import MODEL_TAG

    if not is_name(word):
        raise UsageError(
            f"{word} is not the name of a model", "lower-case letters a to z, digits and hyphens", "see gradmill models"
        )
    flow, told = "tune" if tune else "retrain", schedules.read()
    if own := told.schedules.get(word):  # the deployment of a schedule
        if tune and own.flow != flow:
            raise UsageError(f"{word} with --tune", "the name of a model", f"name {own.name}, or leave --tune out")
        return ScheduleTarget(word, own.flow, own.name)
    deployment = DEPLOYMENTS[flow].format(word)
    if tune or deployment in told.schedules:
        return ScheduleTarget(deployment, flow, word)
    declared = registration.list_specs(Schedules()).values()
    retraining = [each for each in declared if each.flow == flow and MODEL_TAG + word in each.tags]
    found = [each for each in declared if each.name == word] or retraining
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise UsageError(f"{word} is retrained by more than one deployment", f"one of: {names}", "name it")
    return ScheduleTarget(found[0].name, found[0].flow, None) if found else ScheduleTarget(deployment, flow, word)


def _list_times(schedule: "Schedule | DeploymentResponse") -> list[dict[str, str]]:
    """The times at which active schedules of a deployment start runs."""
    if isinstance(schedule, Schedule):
        return [{"cron": schedule.cron, "timezone": schedule.timezone}] if schedule.cron and schedule.active else []
    active = (each.schedule for each in schedule.schedules if each.active)
    return [
        {"cron": getattr(each, "cron", str(each)), "timezone": getattr(each, "timezone", None) or "UTC"}
        for each in active
    ]


def _describe_times(times: list[dict[str, str]]) -> str:
    return ", ".join(f"at {each['cron']!r} ({each['timezone']})" for each in times) or "at no time"


def _who_knows(client: "SyncPrefectClient | None") -> str:
    """Whether the server has the document's changes, in words."""
    return "the server has been updated" if client else "gradmill up will pass it on to its server"


@contextmanager
def _reach() -> "Iterator[SyncPrefectClient | None]":
    """Connect to the server of PREFECT_API_URL or of ``gradmill up``; yield None without either.

    Alerts are updated afterwards: the allowed time without success depends on schedules, and is unlimited during a
    pause.
    """
    with on_server(is_needed=False) as is_there:
        if not is_there:
            yield None
            return
        from flows.server import alerts, api

        with api.client() as client:
            yield client
            alerts.update_alerts(client)
