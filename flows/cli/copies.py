"""``gradmill prune``, ``maintain``, ``mirror``, ``backup``, ``restore``: removal of old files, and copies elsewhere."""

import os
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
from tasks.store import artifact_paths, housekeeping, mirror_sync, model_folder, state
from tasks.store import backup as backups

Place = Annotated[str, typer.Argument(metavar="DIR|URL", help="A folder, or s3://BUCKET/FOLDER or the like.")]
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
PG_DUMP = 'pg_dump --format=custom --file=prefect.dump "postgresql://USER@HOST/DATABASE"'


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

    Predictions stay, and so do mirrors and backups. Services that use the model will not find it any more.

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
    """Check that neither ``gradmill schedule`` nor an active schedule of a deployment on a server needs a name.

    Raises:
        UsageError: one does.
    """
    housekeeping.require_unscheduled(name)
    with on_server(is_needed=False) as is_there:
        if not is_there:
            return
        from flows.server import api, deployments
        from flows.tags import MODEL_TAG

        with api.client() as client:
            for each in deployments.list_deployments(client):
                if MODEL_TAG + name in each.tags and deployments.longest_pause(each) is not None:
                    action = f"gradmill pause {each.name}, then remove the name"
                    found = f"{each.name} still runs for {name} on a schedule"
                    raise UsageError(found, "a name that no schedule needs", action)


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


def backup(
    url: Place,
    keep: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Remove all snapshots of this store but the newest N.")
    ] = None,
) -> Answer:
    """Add a dated snapshot of all that cannot be made again: versions, pointers, history, row digests, settings.

    It also has schedules, the runs that explain kept versions, and the database of gradmill up. Runs may go on
    meanwhile. Content that is there already is not copied again, and nothing there is replaced.

    It has neither credentials nor the data themselves. The database holds what was put into blocks, such as the address
    of a webhook, so keep the backup where only you can read it. For PostgreSQL the command prints how to dump it.

    Example: [bold]gradmill backup /mnt/backup --keep 7[/]
    """
    elsewhere = os.environ.get(DATABASE, "")
    made = backups.make(url, keep, with_database=not elsewhere)
    files, champions = made.snapshot.files, _list_champions(made.snapshot)
    total, new = (sum(files[path].bytes for path in paths) for paths in (files, made.copied_files))
    has_database = artifact_paths.relative(artifact_paths.database()) in files
    document = {
        "url": url, "snapshot": made.name, "names": champions, "files": len(files), "bytes": total,
        "copied": len(made.copied_files), "copied_bytes": new, "database": has_database,
        "removed": made.removed_snapshots,
    }  # fmt: skip
    done = [f"{url}: {pluralize(len(champions), 'model')}, {pluralize(len(files), 'file')}, {total / 1e6:.1f} MB"]
    done += [f"snapshot {made.name}; copied {pluralize(len(made.copied_files), 'file')}, {new / 1e6:.1f} MB"]
    if made.removed_snapshots:
        done += [f"removed {pluralize(len(made.removed_snapshots), 'older snapshot')}"]
    if has_database:
        done += ["includes the history of gradmill up, but not its credential"]
    elif elsewhere and not elsewhere.startswith("postgresql"):
        done += [f"the history of runs is in the database of {DATABASE}; back it up there"]
    elif elsewhere or os.environ.get("PREFECT_API_URL"):
        by = "" if elsewhere else "for PostgreSQL, with "
        done += [f"the history of runs is in the server's database; back it up there: {by}{PG_DUMP}"]
    return Answer(document, "\n".join(done))


def restore(
    url: Place,
    snapshot: Annotated[str | None, typer.Option(metavar="NAME", help="\\[default: the newest]")] = None,
) -> Answer:
    """Restore a snapshot into an empty artifacts folder, and check every file.

    After an interruption the same command continues; until it is done no run begins there. A folder that already has
    versions or runs is refused.

    Example: [bold]gradmill restore /mnt/backup --artifacts restored[/]
    """
    name, restored = backups.restore(url, snapshot)
    place, champions, num_files = artifact_paths.root(), _list_champions(restored), len(restored.files)
    document = {"url": url, "snapshot": name, "path": place, "names": champions, "files": num_files}
    moment = restored.at[:19].replace("T", " ")
    done = [f"{place} is restored as of {moment} UTC from {name}: {pluralize(num_files, 'file')}, all verified"]
    done += [f"{each}: version {champion or 'none'} is the champion" for each, champion in champions.items()]
    return Answer(document | {"at": restored.at}, "\n".join(done))


def _list_champions(snapshot: backups.Snapshot) -> dict[str, int | None]:
    """The champion of each name in a snapshot."""
    names = sorted({path.split("/")[1] for path in snapshot.files if path.startswith("models/")})
    return {name: pointer.version if (pointer := model_folder.read_pointer(name)) else None for name in names}
