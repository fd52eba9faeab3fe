"""``gradmill models``, ``history``, ``prune``, ``verify``, ``maintain``, ``mirror``: the store's, without a server."""

import sys
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli import pages
from flows.cli.faults import Answer, conclude
from flows.cli.options import ModelArgument, OnlyModel, print_json
from flows.cli.parameters import taking, validated
from flows.cli.tables import TEST_FIGURES, add_row, figures_of_test, print_line, print_table
from tasks.errors import DataError, UsageError
from tasks.machine.telling import tell
from tasks.machine.words import counted, nearest, readable, short
from tasks.parameters import MaintainParameters
from tasks.store import (
    artifact_paths,
    housekeeping,
    mirroring,
    reading,
    state,
    verification,
)
from tasks.store import history as changes_of_names
from tasks.store.history import Change
from tasks.store.run_folder import RunSummary
from tasks.store.state import Fault, Kind, NameState

CHAMPION = "the newest that passed the gates, until somebody promotes or rolls back"
LISTED = 1000  # runs of a name
FEW = 5  # files of a version


class By(StrEnum):
    """What comes first in a list of runs."""

    DATE = "date"
    ACCURACY = "accuracy"
    LOSS = "loss"
    VALIDATION = "validation"
    SECONDS = "seconds"


FIGURES = {By.ACCURACY: "test_accuracy", By.LOSS: "test_loss", By.VALIDATION: "validation_loss", By.SECONDS: "seconds"}
SHORT = {"num_epochs": "epochs", "batch_size": "batch"}


def tell_faults(faults: Sequence[Fault], *kinds: Kind) -> DataError | None:
    """Say on stderr which documents cannot be read; the first of these ``kinds`` is returned as an error instead.

    Without such a document something is missing in what was asked for.
    """
    first = next((fault for fault in faults if fault.kind in kinds), None)
    for fault in faults:
        if fault is not first:
            tell(f"left out: {fault.found}", file=sys.stderr)
    return DataError(first.found, first.expected, first.action) if first else None


def models(
    as_json: bool,
    name: OnlyModel = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="List the runs that trained, published, refused and unpublished ones.")
    ] = False,
    sort: Annotated[
        By | None,
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
        _list_runs(name, sort or By.DATE, as_json)
        return
    if sort:
        raise UsageError(
            "--sort without --runs", "versions in the order of their numbers", "add --runs, or leave it out"
        )
    found, of_names = _read(name)
    failure = tell_faults(found.faults, "champion", "version")
    listing, place = {each: of_name.rows for each, of_name in of_names.items()}, artifact_paths.models()
    if not as_json and any(listing.values()):
        print_table(_make_table(listing), ("parity", "KiB", "date", "log loss"))
        frozen = [each for each, rows in listing.items() if any(row["frozen"] for row in rows)]
        notes = [f"f frozen: no retrain changes it until gradmill unfreeze {each}" for each in frozen]
        if any(row["held"] for rows in listing.values() for row in rows):
            notes.insert(0, "h held: no retrain publishes it again")
        print_line("; ".join([f"in {place}", f"* the champion: {CHAMPION}", *notes]))
    nothing = None if any(listing.values()) or failure else f"no models in {place}; train one: gradmill retrain"
    conclude({"path": str(place), "models": listing}, nothing, failure, as_json=as_json)


def _read(name: str | None, only: Collection[Kind] = state.KINDS) -> tuple[state.StoreState, dict[str, NameState]]:
    """The state, and of it the names that have a folder, or the one that is asked for."""
    if name is not None:
        reading.require_versions(name)
    found = state.read(name, only=only)
    return found, {each: found.names[each] for each in ([name] if name else reading.names()) if each in found.names}


def _make_table(listing: dict[str, list[dict[str, Any]]]) -> Table:
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


def _list_runs(name: str | None, by: By, as_json: bool) -> None:
    """Print the runs of a name, or of all.

    Raises:
        UsageError: there is no run of this name.
    """
    found, place = state.read(name, LISTED), artifact_paths.runs()
    runs = sorted((run for each in found.names.values() for run in each.runs), key=lambda run: run.run, reverse=True)
    if name and not runs:
        if failure := tell_faults(found.faults, "run"):
            raise failure
        known = [each for each, of_name in state.read().names.items() if of_name.runs]
        to_do = nearest(name, known, "see gradmill models --runs")
        raise UsageError(f"no run of {name}", f"one of: {', '.join(known) or 'none yet'}", to_do)
    if by is not By.DATE:  # else the newest first, as they are

        def rank(run: RunSummary) -> tuple[str, bool, float]:
            figure = getattr(run, FIGURES[by])
            best_first = -(figure or 0.0) if by is By.ACCURACY else figure or 0.0
            return "" if by is By.SECONDS else run.name, figure is None, best_first  # losses of other data say nothing

        runs.sort(key=rank)
    tell_faults(found.faults)
    if as_json:
        print_json({"schema_version": 1, "path": str(place), "runs": [run.model_dump(mode="json") for run in runs]})
    elif not runs:
        typer.echo(f"no runs in {place}; gradmill retrain --no-publish makes one that leaves the store alone")
    else:
        _print_runs(runs)
        print_line(
            f"in {place}: a run's folder ends with its id; only settings that differ from the default are listed"
        )


def _print_runs(runs: list[RunSummary]) -> None:
    is_watched = any(run.validation_loss is not None for run in runs)
    head = ["model", "date", "id", "outcome", *TEST_FIGURES, *(["validation"] * is_watched), "s", "settings"]
    table = Table(*head, box=None, pad_edge=False)
    for run in runs:
        validation = "" if run.validation_loss is None else readable(run.validation_loss)
        figures = [*figures_of_test(run.test_accuracy, run.test_loss), *([validation] * is_watched)]
        date, digits = run.date[5:16].replace("T", " "), run.run.rpartition("-")[2]  # of this year, most of them
        changed = {key: value for key, value in run.changed.items() if key not in ("model", "device")}
        settings = (f"{SHORT.get(key, key.replace('_', ' '))} {short(value)}" for key, value in changed.items())
        add_row(table, run.name, date, digits, run.in_words, *figures, f"{run.seconds:.1f}", ", ".join(settings))
    print_table(table, ("s", "validation", "date", "log loss"))


def history(as_json: bool, name: OnlyModel = None) -> None:
    """Tell who has changed what, when and why: versions published, promoted, rolled back, frozen, unfrozen, pruned.

    Of one model, also which files each version was trained on, if it is of own data.
    """
    only: tuple[Kind, ...] = ("history", "version", "source") if name else ("history",)
    found, of_names = _read(name, only)
    told = {each: of_name.changes[::-1] for each, of_name in of_names.items()}
    failure = tell_faults(found.faults, "history")
    for each in of_names.keys() - {fault.name for fault in found.faults if fault.kind == "history"}:
        changes_of_names.verify(each)  # which says that a last line was never finished
    if not as_json:
        _print_changes(told)
    files = {each: {str(number): [*paths] for number, paths in of_names[each].files.items()} for each in of_names}
    if not as_json:
        for number, paths in files[name].items() if name else ():
            more = f" and {len(paths) - FEW:,} more" if len(paths) > FEW else ""
            print_line(f"version {number} was trained on {', '.join(paths[:FEW])}{more}")
    documents = {each: [change.model_dump(mode="json") for change in changes] for each, changes in told.items()}
    conclude({"history": documents} | ({"files": files} if name else {}), None, failure, as_json=as_json)


def _print_changes(told: dict[str, Sequence[Change]]) -> None:
    table = Table("model", "when", "what", "version", "champion", "by", "why", box=None, pad_edge=False)
    for each, changes in told.items():
        for change in changes:
            what = f"{change.what} (interrupted)" if change.interrupted else change.what
            champion = f"{change.step}{' f' * change.frozen}"
            numbers = ", ".join(map(str, change.versions))
            by = (
                change.by.rpartition("-")[2] if artifact_paths.RUN_NAME.fullmatch(change.by) else change.by
            )  # as in models --runs
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
    pruned, kept = housekeeping.prune(name, keep)
    if pruned:
        pages.update_overviews(name)
    tell_faults([fault for fault in state.read(name).faults if fault.kind != "job"])  # of which pruning has told
    done = [f"pruned {', '.join(map(str, pruned)) or 'nothing'}"]
    done += [f"kept {number}, {reason}" for number, reason in kept.items()]
    return {"name": name, "pruned": pruned, "kept": kept}, "\n".join(f"{name}: {each}" for each in done)


@taking(MaintainParameters)
def maintain(document: dict[str, Any]) -> Answer:
    """Remove old run folders and predictions, old versions of scheduled names, and splits that nothing refers to.

    Unfinished jobs and the evidence of kept versions stay.
    """
    removed, failure = housekeeping.maintain(validated(MaintainParameters, document, "maintain").keep)
    pages.update_overviews(*{pruned.partition("/")[0] for pruned in removed["versions"]})
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
        verification.require_attestation(public_key)
        verification.verify_attestation(artifact_paths.version(name, number), public_key)
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
