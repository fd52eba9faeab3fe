"""``gradmill prune``, ``remove``, ``maintain``, ``mirror``: removal of old files, and copies elsewhere."""

import sys
from typing import Annotated

import typer

from flows.cli import display
from flows.cli.errors import Answer, report_faults
from flows.cli.operate import on_server
from flows.cli.options import Given, ModelArgument, validate_document
from tasks.errors import UsageError
from tasks.machine.words import pluralize
from tasks.parameters import MaintainParameters
from tasks.store import housekeeping, mirror_sync, model_folder, state


def prune(
    name: ModelArgument,
    keep: Annotated[int, typer.Option(metavar="N", help="How many of the newest versions stay in any case.")],
) -> Answer:
    """Delete old versions, but never one that somebody may still need.

    Example: [bold]gradmill prune houses --keep 5[/]
    """
    pruned, kept = housekeeping.prune(name, keep)
    report_faults([fault for fault in state.read(name).faults if fault.kind != "job"])  # pruning has reported those
    done = [f"pruned {', '.join(map(str, pruned)) or 'nothing'}"]
    done += [f"kept {number}, {reason}" for number, reason in kept.items()]
    return Answer({"name": name, "pruned": pruned, "kept": kept}, "\n".join(f"{name}: {each}" for each in done))


def remove(
    name: ModelArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> Answer:
    """Delete a name with all its versions and their history, its data and its runs, unless a schedule needs it.

    Predictions stay, and so does the mirror. Services that use the model will not find it any more.

    Example: [bold]gradmill remove houses[/]
    """
    housekeeping.require_known(name)
    known = model_folder.list_versions(name)
    what = f"{name}: history, data, runs and {pluralize(len(known), 'version')}"
    if not yes and not sys.stdin.isatty():
        raise UsageError(f"cannot ask whether to delete {what}", "a terminal, or --yes", "add --yes to delete it")
    require_idle(name)
    display.end()  # the spinner would overwrite the question
    if not yes and not typer.confirm(f"Delete {what}?", err=True):
        return Answer({"name": name, "versions": [], "runs": []}, "nothing was deleted")
    runs = housekeeping.remove_name(name)
    return Answer({"name": name, "versions": known, "runs": runs}, f"deleted {what}")


def require_idle(name: str) -> None:
    """Check that no deployment on the server of this store needs a name.

    Raises:
        UsageError: one does: that of its own retrains, or another with an active schedule.
    """
    from flows.server import api, connection, deployments, registration
    from flows.tags import MODEL_TAG

    has_database = connection.has_database()
    with on_server("database" if has_database else "nothing") as is_running:
        if not (is_running or has_database):
            return
        with api.client() as client:
            registration.require_own(client)
            for each in deployments.list_deployments(client):
                is_own = each.name in (f"retrain-{name}", f"search-{name}")
                is_named = MODEL_TAG + name in each.tags or deployments.own_parameters(each).get("name") == name
                if is_own or (is_named and deployments.is_on_schedule(each)):
                    end = f"gradmill {'unschedule' if is_own else 'pause'} {each.name}"
                    found = f"{each.name} runs for {name} on a schedule"
                    raise UsageError(found, "a name that no schedule needs", f"{end}, then remove the name")


def maintain(given: Annotated[Given, MaintainParameters]) -> Answer:
    """Remove old run folders and predictions, old versions of scheduled names, and splits that nothing refers to.

    Unfinished jobs, the evidence of kept versions and whatever is younger than a day stay.

    Example: [bold]gradmill maintain --keep 20[/]
    """
    removed, failure = housekeeping.maintain(validate_document(MaintainParameters, given, "maintain").keep)
    what = {"runs": "run folder", "predictions": "prediction", "versions": "version", "datasets": "prepared file"}
    counts = [pluralize(len(removed[each]), noun) for each, noun in what.items()]
    return Answer(removed, f"removed {', '.join(counts)}", failure)


def mirror(
    name: ModelArgument,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="s3://BUCKET/FOLDER or the like, or a path on a mounted share.")
    ],
) -> Answer:
    """Copy the champion to an object store or share: its files, each read back, then the pointer to them.

    The same command again writes only what is missing or damaged there. Credentials come from the environment.

    Example: [bold]gradmill mirror houses s3://bucket/models[/]
    """
    mirrored = mirror_sync.copy_champion(name, url)
    written = ", ".join(mirrored.written) or "nothing, everything is up to date"
    done = f"{name} version {mirrored.version} is the champion at {mirrored.url}; copied: {written}"
    return Answer(mirrored, done)
