"""``gradmill schedule``, ``unschedule``, ``pause``, ``resume`` and ``skip``: when deployments run, and with what."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flows.cli import board
from flows.cli.faults import Answer
from flows.cli.operate import NO_SERVER, nested, on_server, starting
from tasks.errors import EnvironmentProblem, UsageError
from tasks.parameters import TuneParameters, is_name
from tasks.store import artifact_paths, locks, own_data, schedules
from tasks.store.schedules import DEPLOYMENTS, Schedule, Schedules

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

MONTHLY = "0 2 1 * *"  # of a search: an hour before the nightly retrains
Argument = Annotated[str, typer.Argument(metavar="NAME|DEPLOYMENT", help="A model, for its retrains, or a deployment.")]
Arguments = Annotated[
    list[str], typer.Argument(metavar="NAME|DEPLOYMENT…", help="Models, for their retrains, or deployments.")
]
Tune = Annotated[bool, typer.Option("--tune", help="The search for its settings, a schedule of its own: monthly.")]


class Target(NamedTuple):
    """What a word on the command line means: a declared deployment, or the schedule of an own name."""

    deployment: str
    flow: str
    name: str | None  # of the model that has the schedule; None of a deployment that prefect.yaml declares


def schedule(
    names: Arguments,
    cron: Annotated[str | None, typer.Option("--cron", metavar="CRON", help="When, as '0 3 * * *'.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option("--timezone", metavar="ZONE", help="Whose hours these are, as Europe/Berlin \\[default: UTC]."),
    ] = None,
    on_drift: Annotated[
        bool | None, typer.Option("--on-drift/--no-on-drift", help="Whenever its predictions or its data drift.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="How many of the newest versions stay \\[default: 30]."),
    ] = None,
    tune: Tune = False,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="As training.lr=0.3; may be given again."),
    ] = None,
) -> Answer:
    """Retrain kept names by a schedule, on drift, or both, with their champions' models, data and options.

    What is given again is changed, all else stays. A new server is told of every schedule; what you change or delete
    in its UI stays so. With --tune settings are searched by a schedule: retrains use them if the champion was retrained
    with --tuned when they were scheduled.

    Or change a deployment's time and parameters for good: gradmill schedule predict-daily --param input=/data/today.
    gradmill register --reset predict-daily takes back what was set.
    """
    given = {"cron": cron, "timezone": timezone, "on_drift": on_drift, "keep": keep}
    if "" in (cron, timezone):
        raise UsageError(
            "--cron or --timezone is empty", "as '0 3 * * *' and Europe/Berlin", "name one, or leave it out"
        )
    parameters = nested(param or [])
    targets = [find_target(name, tune) for name in names]
    change = {option: value for option, value in given.items() if value is not None}
    for target in targets if len(targets) > 1 else ():  # what is wrong with one is said before another is changed
        if target.name is not None:
            ask_for(target, schedules.read().schedules.get(target.deployment), change, parameters)
    with reach() as client:
        answers = [_schedule(client, target, given, parameters) for target in targets]
        _keep_alerts(client)
    return _merge(answers)


def _merge(answers: list[tuple[dict[str, Any], str]]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    return {"schedules": [document for document, _ in answers]}, "\n".join(text for _, text in answers)


def _keep_alerts(client: "SyncPrefectClient | None") -> None:
    """Let alerts follow: how long a schedule may go without success depends on its time; none is due while paused."""
    from flows.server import alerts

    if client:
        alerts.keep(client)


def _schedule(
    client: "SyncPrefectClient | None", target: Target, given: dict[str, Any], parameters: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    own_only = [name for name in ("on_drift", "keep") if given[name] is not None]
    if own_only and (target.name is None or target.flow != "retrain"):
        flag = f"--{own_only[0].replace('_', '-')}"
        raise UsageError(f"{flag} of deployment {target.deployment}", "the retrains of a name", "leave it out")
    if target.name is None:
        return _change_declared(client, target, given, parameters)
    change = {option: value for option, value in given.items() if value is not None}
    kept = _change_own(client, target, lambda before: ask_for(target, before, change, parameters))
    document = kept.model_dump(include={"name", "cron", "timezone"})
    document |= {"deployment": kept.deployment, "registered": client is not None}
    paused = f", which is paused until gradmill resume {kept.deployment}" if kept.paused else ""
    active: list[tuple[str | None, str]] = [(kept.cron, kept.timezone)] if kept.cron and kept.active else []
    when = [words(active)] if active or not kept.on_drift else []
    when += ["when it drifts"] if kept.on_drift else []
    told = f"{' and '.join(when)} by deployment {kept.deployment}{paused}: {who_knows(client, starts_runs=True)}"
    if target.flow == "retrain":
        return document | {"on_drift": kept.on_drift, "keep": kept.keep}, f"{kept.name} is retrained {told}"
    retrains = schedules.read().of_flow("retrain").get(kept.name)
    is_tuned = retrains is None or bool(retrains.parameters.get("tuned"))
    document |= {"retrains_are_tuned": is_tuned}
    again = f"gradmill retrain {kept.name} --tuned, then gradmill schedule {kept.name}"
    hint = "" if is_tuned else f"\nits scheduled retrains take no notice: {again}"
    return document, f"settings are searched for {kept.name} {told}{hint}"


def ask_for(target: Target, before: Schedule | None, given: dict[str, Any], parameters: dict[str, Any]) -> Schedule:
    """The schedule of a name as it is asked for; what is not given stays as it was before.

    Raises:
        UsageError: there is no such name, no such time, nothing that would start a run, or no such parameter.
        DataError: it is not known where its data are.
    """
    from prefect.utilities.collections import deep_merge

    from flows.server import deployments

    name, old = str(target.name), before.model_dump() if before else {}
    facts = old | ({"cron": MONTHLY} if target.flow == "tune" and not before else {}) | given
    facts["given"] = deep_merge(old.get("given", {}), parameters)
    if target.flow == "tune":
        again = own_data.again(name, {"tuned": False}, with_found=True)
        again = {field: again[field] for field in ("name", "training", "data")}
        TuneParameters.model_validate(again)
    else:
        again = own_data.again(name, {})
    own_data.leave_split_open(again["data"])
    form = deployments.FORMS[f"flows.{target.flow}.{target.flow}"]
    facts["parameters"] = deployments.merge_parameters(target.deployment, form, again, facts["given"])
    pending = {"parameters", *(before.pending if before else ()), *({"on_drift"} & given.keys())}
    pending |= {"time"} if before is None or {"cron", "timezone"} & given.keys() else set()
    facts |= {"active": True} if "cron" in given else {}
    asked = Schedule.model_validate(facts | {"name": name, "flow": target.flow, "pending": sorted(pending)})
    if asked.cron:
        deployments.require_time(asked.cron, asked.timezone)
    elif not asked.on_drift:
        found = f"nothing that would start a {target.flow} of {name}"
        raise UsageError(found, "--cron, --on-drift or both", "give one")
    return asked


def _change_own(
    client: "SyncPrefectClient | None", target: Target, change: Callable[[Schedule | None], Schedule]
) -> Schedule:
    """Change what was told of an own name, and tell the server, if there is one, which first says what is set there."""
    from flows.server import registration

    with schedules.locked():
        told = schedules.read()
        before = told.schedules.get(target.deployment)
        server = registration.read_server_id(client) if client else None
        if client and before and before.server == server:
            there = registration.find(client, registration.specs(told)[target.deployment])
            before = registration.read_back(before, there) if there else None  # somebody has deleted it
        changed = change(before)
        schedules.write(told.having(changed))
        if client:
            changed = registration.tell(client, changed, server or "")
            schedules.write(told.having(changed))
    return changed


def _change_declared(
    client: "SyncPrefectClient | None", target: Target, given: dict[str, Any], parameters: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    from flows.server import deployments, registration

    cron, timezone = given["cron"], given["timezone"]
    if not (cron or timezone or parameters):
        raise UsageError(f"nothing to change of {target.deployment}", "--cron, --timezone or --param", "give one")
    spec = registration.specs(Schedules())[target.deployment]
    own = spec.settings.get("parameters", {}).get("parameters", {})
    deployments.merge_parameters(target.deployment, deployments.FORMS[spec.code["entrypoint"]], own, parameters)
    there = _change_on_server(client, target, cron=cron, timezone=timezone, parameters=parameters)
    now = (there.parameters or {}).get("parameters", {})
    document = {
        "deployment": there.name,
        "schedules": [_as_document(each) for each in times_of(there)],
        "parameters": now,
        "paused": there.paused,
    }
    runs = f"is paused; after gradmill resume {there.name} it runs" if there.paused else "runs"
    told = f"{there.name} {runs} {words(times_of(there))} with {json.dumps(now)}: {who_knows(client)}"
    return document | {"registered": True}, told


def _change_on_server(client: "SyncPrefectClient | None", target: Target, **change: Any) -> "DeploymentResponse":
    """Change a declared deployment, which is a server's alone.

    Raises:
        EnvironmentProblem: there is no server.
        UsageError: it does not know the deployment, or does not take the change.
    """
    from flows.server import deployments, registration

    if client is None:
        raise EnvironmentProblem(f"{target.deployment} is set on a server, and none is running", *NO_SERVER)
    spec = registration.specs(Schedules())[target.deployment]
    return deployments.change(client, spec, deployments.named(client, target.deployment), **change)


def unschedule(names: Arguments, tune: Tune = False) -> Answer:
    """Stop retraining names by their schedules; their versions, and what their runs have done, stay."""
    targets = [find_target(name, tune) for name in names]
    with reach() as client:
        answers = [_unschedule(client, target, tune) for target in targets]
        _keep_alerts(client)
    return _merge(answers)


def _unschedule(client: "SyncPrefectClient | None", target: Target, tune: bool) -> tuple[dict[str, Any], str]:
    from flows.server import registration

    if target.name is None:
        to_do = f"gradmill pause {target.deployment}, or gradmill register --reset {target.deployment} for its defaults"
        raise UsageError(f"prefect.yaml declares {target.deployment}", "a name that gradmill schedule was told", to_do)
    with schedules.locked():
        told = schedules.read()
        search = DEPLOYMENTS["tune"].format(target.name)
        also = f"gradmill unschedule {target.name} --tune" if search in told.schedules and target.flow != "tune" else ""
        if target.deployment not in told.schedules:
            if also:
                found = f"no schedule of {target.name}, but one that searches settings for it"
                raise UsageError(found, "--tune", also)
            known = ", ".join(sorted(told.of_flow(target.flow))) or "none"
            what = "that searches settings for" if tune else "of"
            raise UsageError(f"no schedule {what} {target.name}", f"one of: {known}", "see gradmill status")
        schedules.write(told.without(target.deployment, is_told=False))
        if client:
            registration.delete(client, target.deployment, target.flow)
            schedules.write(told.without(target.deployment, is_told=True))
    is_search = target.flow == "tune"
    done = (
        f"settings are no longer searched for {target.name}"
        if is_search
        else f"{target.name} is no longer retrained by a schedule"
    )
    hint = f"\nsettings are searched for it as before: {also} ends that" if also else ""
    knows = "the server knows it" if client else "no server is running, and the next gradmill up starts without it"
    return {"name": target.name, "removed_from_server": client is not None}, f"{done}: {knows}{hint}"


def pause(name: Argument) -> Answer:
    """Start no run of a deployment by its schedule until gradmill resume; trigger still does."""
    target, _, told = _set_paused(name, is_paused=True)
    document = {"deployment": target.deployment, "paused": True}
    return document, f"{target.deployment} is paused until gradmill resume {target.deployment}: {told}"


def resume(name: Argument) -> Answer:
    """Let the schedule of a paused deployment start runs again."""
    target, active, told = _set_paused(name, is_paused=False)
    document = {"deployment": target.deployment, "paused": False, "schedules": [_as_document(each) for each in active]}
    if not active:
        hint = f"gradmill schedule {target.deployment} --cron sets one"
        return document, f"{target.deployment} is paused no longer, but no schedule of it is on: {told}\n{hint}"
    return document, f"{target.deployment} runs {words(active)} again: {told}"


def _set_paused(name: str, is_paused: bool) -> tuple[Target, list[tuple[str | None, str]], str]:
    """Pause or resume; return what is meant, its times, and who knows of it."""
    target = find_target(name)
    with reach() as client:
        if target.name is None:
            active = times_of(_change_on_server(client, target, paused=is_paused))
        else:
            kept = _change_own(client, target, lambda before: _as_paused(target, before, is_paused))
            active = [(kept.cron, kept.timezone)] if kept.cron and kept.active else []
        _keep_alerts(client)
    return target, active, who_knows(client)


def _as_paused(target: Target, before: Schedule | None, is_paused: bool) -> Schedule:
    if before is None:
        raise UsageError(f"no schedule of {target.name}", "a scheduled name", f"gradmill schedule {target.name} --cron")
    return before.model_copy(update={"paused": is_paused, "pending": tuple({*before.pending, "paused"})})


def skip(name: Argument) -> Answer:
    """Leave out the next run of a deployment by its schedule; the others run as planned."""
    with on_server():
        from flows.server import deployments

        deployment = find_target(name).deployment
        due, later = deployments.skip(deployment)
    then = f"the next is at {later:%Y-%m-%d %H:%M} UTC" if later else "no other is planned"
    document = {"deployment": deployment, "skipped": due.isoformat(), "next": later.isoformat() if later else None}
    return document, f"{deployment}: the run at {due:%Y-%m-%d %H:%M} UTC is left out; {then}"


def find_target(word: str, tune: bool = False) -> Target:
    """What is meant by a word: a deployment, the deployment that retrains a model, or an own name's schedule.

    Raises:
        UsageError: it is no name, or more than one deployment retrains that model.
    """
    from flows.server import registration

    if not is_name(word):
        raise UsageError(
            f"{word} is no name of a model", "lower-case letters a to z, digits and hyphens", "see gradmill models"
        )
    flow, told = "tune" if tune else "retrain", schedules.read()
    if own := told.schedules.get(word):  # the deployment of a schedule
        return Target(word, own.flow, own.name)
    deployment = DEPLOYMENTS[flow].format(word)
    if tune or deployment in told.schedules:
        return Target(deployment, flow, word)
    declared = registration.specs(Schedules()).values()
    retraining = [each for each in declared if each.flow == flow and f"model:{word}" in each.settings["tags"]]
    found = [each for each in declared if each.name == word] or retraining
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise UsageError(f"{word} is retrained by more than one deployment", f"one of: {names}", "name it")
    return Target(found[0].name, found[0].flow, None) if found else Target(deployment, flow, word)


def times_of(deployment: "DeploymentResponse") -> list[tuple[str | None, str]]:
    """When the schedules of a deployment that are on start runs."""
    active = (each.schedule for each in deployment.schedules if each.active)
    return [(getattr(each, "cron", str(each)), getattr(each, "timezone", None) or "UTC") for each in active]


def _as_document(time: tuple[str | None, str]) -> dict[str, str | None]:
    cron, timezone = time
    return {"cron": cron, "timezone": timezone}


def words(active: list[tuple[str | None, str]]) -> str:
    """The times of schedules."""
    return ", ".join(f"at {cron!r} ({zone})" for cron, zone in active) or "at no time"


def who_knows(client: "SyncPrefectClient | None", starts_runs: bool = False) -> str:
    """Of what is kept in artifacts/, in words; of what ``starts_runs`` also that none begins without a server."""
    alone = "gradmill up will tell its server" + ", which starts its runs: none begins before" * starts_runs
    return "the server knows it" if client else alone


@contextmanager
def reach() -> "Iterator[SyncPrefectClient | None]":
    """Talk to the server of PREFECT_API_URL or of ``gradmill up``; None where there is neither."""
    board.wait("telling the server, if there is one")
    from prefect.settings import PREFECT_API_URL

    from flows.server import api, service

    with service.in_use():
        if not PREFECT_API_URL.value():
            if locks.is_held(artifact_paths.up_lock()):
                raise EnvironmentProblem(*starting())
            yield None
            return
        with api.client() as client:
            yield client
