"""``gradmill models``, ``history``, ``prune``, ``verify``, ``maintain``, ``mirror``: the store's, without a server."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli import pages, tried
from flows.cli.faults import Answer
from flows.cli.options import ModelArgument, OnlyModel, print_json
from flows.cli.parameters import taking, validated
from flows.cli.tables import TEST_FIGURES, add_row, figures_of_test, print_line, print_table
from tasks.errors import DataError, UsageError
from tasks.machine.words import counted, readable
from tasks.parameters import MaintainParameters
from tasks.store import (
    artifact_paths,
    attestation,
    folders,
    housekeeping,
    mirroring,
    names,
    reading,
    retention,
    unreferenced,
    verification,
)
from tasks.store import history as noted

CHAMPION = "the newest that passed the gates, until somebody promotes or rolls back"


def models(
    as_json: bool,
    name: OnlyModel = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="List the runs that trained, published, refused and unpublished ones.")
    ] = False,
    sort: Annotated[
        tried.By | None,
        typer.Option(
            metavar="WORD",
            help="By date, accuracy, loss, validation or seconds, the best of each model first \\[default: date].",
        ),
    ] = None,
) -> None:
    """List every version with its figures; * marks the champion, f a frozen one, h a held version.

    The champion is the newest version that passed the gates, until somebody promotes or rolls back. A frozen one no
    retrain changes until gradmill unfreeze.
    """
    if runs:
        tried.show(name, sort or tried.By.DATE, as_json)
        return
    if sort:
        raise UsageError(
            "--sort without --runs", "versions in the order of their numbers", "add --runs, or leave it out"
        )
    if name is not None:
        reading.resolve(name, None)
    listing = {each: reading.table(each) for each in ([name] if name else reading.names())}
    for each in listing:
        folders.tell_of_strangers(artifact_paths.model(each))
    place = artifact_paths.models()
    if as_json:
        print_json({"schema_version": 1, "path": str(place), "models": listing})
    elif not any(listing.values()):
        typer.echo(f"no models in {place}; train one: gradmill retrain")
    else:
        print_table(_table(listing), ("parity", "KiB", "date", "log loss"))
        frozen = [each for each, rows in listing.items() if any(row["frozen"] for row in rows)]
        notes = [f"f frozen: no retrain changes it until gradmill unfreeze {each}" for each in frozen]
        if any(row["held"] for rows in listing.values() for row in rows):
            notes.insert(0, "h held: no retrain publishes it again")
        print_line("; ".join([f"in {place}", f"* the champion: {CHAMPION}", *notes]))


def _table(listing: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table("model", "version", *TEST_FIGURES, "parity", "KiB", "date", "data", box=None, pad_edge=False)
    for name, rows in listing.items():
        for row in rows:
            marks = " *" * row["champion"] + " f" * row["frozen"] + " h" * row["held"]
            add_row(
                table,
                name,
                f"{row['version']}{marks}",
                *figures_of_test(row["test_accuracy"], row["test_loss"]),
                readable(row["parity"], 2),
                f"{row['bytes'] / 1024:.1f}",
                row["created_at"][:10],
                f"{row['dataset']} {row['dataset_digest'][:8]}",
            )
    return table


def history(as_json: bool, name: OnlyModel = None) -> None:
    """Tell who has changed what, when and why: versions published, promoted, rolled back, frozen, unfrozen, pruned."""
    if name is not None:
        reading.resolve(name, None)
    told = {each: noted.changes(each) for each in ([name] if name else reading.names())}
    if as_json:
        documents = {each: [change.model_dump(mode="json") for change in changes] for each, changes in told.items()}
        print_json({"schema_version": 1, "history": documents})
        return
    table = Table("model", "when", "what", "version", "champion", "by", "why", box=None, pad_edge=False)
    for each, changes in told.items():
        for change in changes:
            what = f"{change.what} (interrupted)" if change.interrupted else change.what
            champion = f"{change.step}{' f' * change.frozen}"
            numbers = ", ".join(map(str, change.versions))
            by = change.by.rpartition("-")[2] if names.RUN.fullmatch(change.by) else change.by  # as in models --runs
            cells = (each, change.at[:19].replace("T", " "), what, numbers, champion, by, change.reason)
            add_row(table, *cells)
    print_table(table)
    typer.echo("champion: as of then; f frozen; by: a person, or the run that ends with its id")
    typer.echo("changes from before Gradmill kept a history are not listed")


def prune(
    name: ModelArgument,
    keep: Annotated[int, typer.Option("--keep", metavar="N", help="How many of the newest versions stay in any case.")],
) -> Answer:
    """Delete old versions, but never one that somebody may still need."""
    pruned, kept = retention.prune(name, keep)
    if pruned:
        pages.update_overview(name)
    done = [f"pruned {', '.join(map(str, pruned)) or 'nothing'}"]
    done += [f"kept {number}, {reason}" for number, reason in kept.items()]
    return {"name": name, "pruned": pruned, "kept": kept}, "\n".join(f"{name}: {each}" for each in done)


@taking(MaintainParameters)
def maintain(document: dict[str, Any]) -> Answer:
    """Remove old run folders and predictions, old versions of scheduled names, and splits that nothing refers to.

    Unfinished jobs and the evidence of kept versions stay.
    """
    keep = validated(MaintainParameters, document, "maintain").keep
    predictions = housekeeping.prune_predictions(keep)  # first: no damaged manifest is in their way
    removed: dict[str, list[str]] = {"runs": [], "predictions": predictions, "versions": [], "datasets": []}
    failure = None
    try:
        removed["versions"] = retention.prune_scheduled()
        removed["runs"] = housekeeping.prune_runs(keep)
        removed["datasets"] = unreferenced.prune_datasets()
    except DataError as error:
        failure = error
    what = {"runs": "run folder", "predictions": "prediction", "versions": "version", "datasets": "prepared file"}
    counts = [counted(len(removed[each]), noun) for each, noun in what.items()]
    return removed, f"removed {', '.join(counts)}", failure


def verify(
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion]")] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Check the attestation too, by this key (PEM).")
    ] = None,
) -> Answer:
    """Check every checksum, the pointer, the signature and the stored sample through onnxruntime."""
    number = reading.resolve(name, version)
    checked = verification.verify(name, number)
    if public_key is not None:
        attestation.require(public_key)
        attestation.verify(artifact_paths.version(name, number), public_key)
        checked.append("attestation")
    document = {"name": name, "version": number, "checked": checked}
    return document, f"{name} version {number} is whole: {', '.join(checked)}"


def mirror(
    name: ModelArgument,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="s3://BUCKET/FOLDER or the like, or a path on a mounted share.")
    ],
) -> Answer:
    """Copy the champion to an object store or share: its files, each read back, then the pointer to them.

    The same command again writes only what is missing or damaged there. Credentials come from the environment.
    """
    mirrored = mirroring.mirror(name, url)
    written = ", ".join(mirrored.written) or "nothing, all is there as it should be"
    done = f"{name} version {mirrored.version} is the champion at {mirrored.url}; copied: {written}"
    return mirrored.model_dump(mode="json"), done
