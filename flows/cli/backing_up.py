"""``gradmill backup`` and ``restore``: what this machine keeps, on another, without a server."""

import os
from typing import Annotated

import typer

from flows.cli.faults import Answer
from tasks.machine.words import counted
from tasks.store import artifact_paths, backup_restore
from tasks.store import backup as backups

Place = Annotated[str, typer.Argument(metavar="DIR|URL", help="A folder, or s3://BUCKET/FOLDER or the like.")]
Replace = Annotated[bool, typer.Option("--replace", help="In the place of another store's, or of one with more names.")]
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
PG_DUMP = 'pg_dump --format=custom --file=prefect.dump "postgresql://USER@HOST/DATABASE"'


def backup(url: Place, replace: Replace = False) -> Answer:
    """Copy all that cannot be made again: versions, pointers, history, row digests, settings, schedules.

    With them go the runs that explain kept versions, and the database of gradmill up. Runs may go on meanwhile, and
    the same command again copies only what is new. What was backed up and is here no more goes there, too.

    Credentials are not in it, nor the data themselves. The database has what was put into blocks, as the address of a
    webhook: keep the backup where only you can read it. Of a PostgreSQL the command to dump it is said.

    A backup of another store, or one with a model that is here no more, is left as it is unless --replace is given.
    """
    elsewhere = os.environ.get(DATABASE, "")
    made = backups.make(url, with_database=not elsewhere, replace=replace)
    files, copied = made.backup.files, made.copied
    has_database = artifact_paths.relative(artifact_paths.database()) in files
    document = {
        "url": url, "names": made.backup.champions, "files": len(files), "bytes": made.bytes(),
        "copied": len(copied), "copied_bytes": made.bytes(copied), "database": has_database,
    }  # fmt: skip
    size, fresh = (f"{count / 1e6:.1f} MB" for count in (made.bytes(), made.bytes(copied)))
    done = [f"{url}: {counted(len(made.backup.champions), 'model')}, {counted(len(files), 'file')}, {size}"]
    done += [f"copied {counted(len(copied), 'file')}, {fresh}; the others were there"]
    if has_database:
        done += ["with the history of gradmill up; its credential is not in it"]
    elif elsewhere and not elsewhere.startswith("postgresql"):
        done += [f"the history of runs is in the database of {DATABASE}, to be backed up there"]
    elif elsewhere or os.environ.get("PREFECT_API_URL"):
        of = "" if elsewhere else "of PostgreSQL by "
        done += [f"the history of runs is in the server's database, to be backed up there: {of}{PG_DUMP}"]
    return document, "\n".join(done)


def restore(url: Place) -> Answer:
    """Make an empty artifacts folder what it was when the backup was made; every file is checked.

    Interrupted, the same command goes on; until then no run begins there. A folder that has versions, runs or the like
    is refused.
    """
    made = backup_restore.restore(url)
    place = artifact_paths.root()
    document = {"url": url, "path": str(place), "names": made.champions, "files": len(made.files), "at": made.at}
    done = [f"{place} is as it was at {made.at[:19].replace('T', ' ')} UTC: {counted(len(made.files), 'file')}, whole"]
    done += [f"{name}: version {champion or 'none'} is the champion" for name, champion in made.champions.items()]
    return document, "\n".join(done)
