"""``gradmill backup`` and ``restore``: what this machine keeps, on another, without a server."""

import os
from typing import Annotated

import typer

from flows.cli.faults import Answer
from tasks.machine.words import counted
from tasks.store import artifact_paths, reading
from tasks.store import backup as backups

Place = Annotated[str, typer.Argument(metavar="DIR|URL", help="A folder, or s3://BUCKET/FOLDER or the like.")]
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
PG_DUMP = 'pg_dump --format=custom --file=prefect.dump "postgresql://USER@HOST/DATABASE"'


def backup(
    url: Place,
    keep: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Remove this store's snapshots but the newest N.")
    ] = None,
) -> Answer:
    """Add a dated snapshot of all that cannot be made again: versions, pointers, history, row digests, settings.

    With them go schedules, the runs that explain kept versions, and the database of gradmill up. Runs may go on
    meanwhile. Content that is there already is not copied again, and nothing there is replaced.

    Credentials are not in it, nor the data themselves. The database has what was put into blocks, as the address of a
    webhook: keep the backup where only you can read it. Of a PostgreSQL the command to dump it is said.
    """
    elsewhere = os.environ.get(DATABASE, "")
    made = backups.make(url, keep, with_database=not elsewhere)
    files, champions = made.snapshot.files, _champions(made.snapshot)
    total, new = (sum(files[path].bytes for path in paths) for paths in (files, made.copied))
    has_database = artifact_paths.relative(artifact_paths.database()) in files
    document = {
        "url": url, "snapshot": made.name, "names": champions, "files": len(files), "bytes": total,
        "copied": len(made.copied), "copied_bytes": new, "database": has_database, "removed": made.removed,
    }  # fmt: skip
    done = [f"{url}: {counted(len(champions), 'model')}, {counted(len(files), 'file')}, {total / 1e6:.1f} MB"]
    done += [f"snapshot {made.name}; copied {counted(len(made.copied), 'file')}, {new / 1e6:.1f} MB"]
    if made.removed:
        done += [f"removed {counted(len(made.removed), 'older snapshot')}"]
    if has_database:
        done += ["with the history of gradmill up; its credential is not in it"]
    elif elsewhere and not elsewhere.startswith("postgresql"):
        done += [f"the history of runs is in the database of {DATABASE}, to be backed up there"]
    elif elsewhere or os.environ.get("PREFECT_API_URL"):
        of = "" if elsewhere else "of PostgreSQL by "
        done += [f"the history of runs is in the server's database, to be backed up there: {of}{PG_DUMP}"]
    return document, "\n".join(done)


def restore(
    url: Place,
    snapshot: Annotated[str | None, typer.Option(metavar="NAME", help="\\[default: the newest]")] = None,
) -> Answer:
    """Make an empty artifacts folder what it was when a snapshot was made; every file is checked.

    Interrupted, the same command goes on; until then no run begins there. A folder that has versions, runs or the like
    is refused.
    """
    name, restored = backups.restore(url, snapshot)
    place, champions = artifact_paths.root(), _champions(restored)
    document = {
        "url": url, "snapshot": name, "path": str(place), "names": champions, "files": len(restored.files),
        "at": restored.at,
    }  # fmt: skip
    moment = restored.at[:19].replace("T", " ")
    done = [f"{place} is as it was at {moment} UTC, by {name}: {counted(len(restored.files), 'file')}, whole"]
    done += [f"{each}: version {champion or 'none'} is the champion" for each, champion in champions.items()]
    return document, "\n".join(done)


def _champions(snapshot: backups.Snapshot) -> dict[str, int | None]:
    """The champion of each name in a snapshot."""
    names = sorted({path.split("/")[1] for path in snapshot.files if path.startswith("models/")})
    return {name: pointer.version if (pointer := reading.pointer(name)) else None for name in names}
