"""``gradmill models``, ``promote``, ``rollback``, ``prune``, ``verify``: the model store's commands need no server."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows import interrupt
from flows.cli.faults import as_gradmill_error, in_json
from flows.cli.options import Artifacts, Debug, Json, print_json
from flows.cli.parameters import taking, validated
from tasks.errors import DataError, EnvironmentProblem, GradmillError, without_credentials
from tasks.machine.words import counted
from tasks.parameters import MaintainParameters
from tasks.records import MirroredModel
from tasks.store import (
    artifact_paths,
    attestation,
    folders,
    housekeeping,
    mirroring,
    pointer,
    reading,
    retention,
    verification,
)
from tasks.store.atomic import file_digest

CHAMPION = "the newest that passed the gates, until somebody promotes or rolls back"
WIDE = 160  # characters: a pipe has no width, and its reader wants whole names
ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="Which model.")]


def models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List every version with its figures; * marks the champion, h a held version.

    The champion is the newest version that passed the gates, until somebody promotes or rolls back.
    """
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
        console = Console()
        if not console.is_terminal:
            console.width = WIDE
        console.print(_table(listing))
        typer.echo(f"in {place}; * the champion: {CHAMPION}; h held")


def _table(listing: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table("model", "version", "accuracy", "loss", "parity", "KiB", "date", "data", box=None, pad_edge=False)
    for name, rows in listing.items():
        for row in rows:
            accuracy = row["test_accuracy"]
            marks = " *" * row["champion"] + " h" * row["held"]
            table.add_row(
                name,
                f"{row['version']}{marks}",
                "" if accuracy is None else f"{accuracy:.4f}",
                f"{row['test_loss']:.4g}",
                f"{row['parity']:.1e}",
                f"{row['bytes'] / 1024:.1f}",
                row["created_at"][:10],
                f"{row['dataset']} {row['dataset_digest'][:8]}",
            )
    return table


def promote(
    name: ModelArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to use from now on.")],
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a version the champion, and lift its hold."""
    url = mirroring.destination()
    changed = pointer.promote(name, version)
    done = f"{name} version {version} is the champion" + ("" if changed else " already")
    event = "gradmill.model.promoted" if changed else None
    _finish(done, {"name": name, "champion": version, "changed": changed}, event, url, artifacts, as_json)


def rollback(name: ModelArgument, artifacts: Artifacts = None, as_json: Json = False, debug: Debug = False) -> None:
    """Go back to the champion before, and hold the version left: no retrain brings it back, only promote does."""
    url = mirroring.destination()
    left, champion = pointer.rollback(name)
    done, event = f"{name} version {champion} is the champion; version {left} is held", "gradmill.model.rolled-back"
    _finish(done, {"name": name, "champion": champion, "held": left}, event, url, artifacts, as_json)


def _finish(
    done: str, document: dict[str, Any], event: str | None, url: str | None, artifacts: Path | None, as_json: bool
) -> None:
    """Say what was done, and mirror it where retrains do; a mirror that is not written is said beside it.

    Only then is the ``event`` sent, for which a server may keep us waiting.

    Raises:
        EnvironmentProblem: the champion has changed here, and the mirror has not.
    """
    interrupt.achieved(done)
    if not as_json:
        typer.echo(done)
    mirrored, failure = _mirror(done, document["name"], url, artifacts) if url is not None else (None, None)
    if mirrored is not None:
        document["mirror"] = mirrored.model_dump(mode="json")
    try:
        _end(document, f"mirrored to {mirrored.url} ({mirrored.outcome})" if mirrored else None, failure, as_json)
    finally:
        if event is not None:
            _announce(event, document["name"], document["champion"])


def _end(document: dict[str, Any], done: str | None, failure: GradmillError | None, as_json: bool) -> None:
    """Say what was done, then what failed: in one document, or as text and an error.

    Raises:
        GradmillError: ``failure``, unless it was said in the document.
    """
    if as_json:
        print_json({"schema_version": 1, **document} | ({"error": in_json(failure)} if failure else {}))
    elif done is not None:
        typer.echo(done)
    if failure is not None:
        raise typer.Exit(failure.exit_code) if as_json else failure


def _mirror(
    done: str, name: str, url: str, artifacts: Path | None
) -> tuple[MirroredModel | None, EnvironmentProblem | None]:
    """What was mirrored, or why it was not, and the command that makes up for it."""
    behind = f"{done}; the mirror {url} has not followed"
    action = shlex.join(["gradmill", "mirror", name, url, *(["--artifacts", str(artifacts)] if artifacts else [])])
    interrupt.achieved(without_credentials(f"{behind}; to do: {action}"))
    try:
        mirrored = mirroring.mirror(name, url)
        interrupt.achieved(done)
        return mirrored, None
    except Exception as error:
        reason = as_gradmill_error(error).found
        return None, EnvironmentProblem(f"{behind}: {reason}", "the same champion there", f"{action}, once it can be")


def _announce(event: str, name: str, version: int) -> None:
    """Tell the Prefect server of a new champion."""
    from flows.server import engine

    path = artifact_paths.version(name, version) / artifact_paths.ONNX
    engine.announce(event, name, {"version": version, "sha256": file_digest(path), "path": str(path)})


def prune(
    name: ModelArgument,
    keep: Annotated[int, typer.Option("--keep", help="How many of the newest versions stay in any case.")],
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Delete old versions, but never one that somebody may still need."""
    pruned, kept = retention.prune(name, keep)
    if as_json:
        reasons = {str(number): reason for number, reason in kept.items()}
        print_json({"schema_version": 1, "name": name, "pruned": pruned, "kept": reasons})
        return
    typer.echo(f"{name}: pruned " + (", ".join(map(str, pruned)) or "nothing"))
    for number, reason in kept.items():
        typer.echo(f"{name}: kept {number}, {reason}")


@taking(MaintainParameters)
def maintain(
    document: dict[str, Any], artifacts: Artifacts = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Remove old run folders and predictions; unfinished jobs and the evidence of kept versions stay."""
    keep = validated(MaintainParameters, document, "maintain").keep
    predictions = housekeeping.prune_predictions(keep)  # first: no damaged manifest is in their way
    runs: list[str] = []
    failure = None
    try:
        runs = housekeeping.prune_runs(keep)
    except DataError as error:
        failure = error
    done = f"removed {counted(len(runs), 'run folder')} and {counted(len(predictions), 'prediction')}"
    _end({"runs": runs, "predictions": predictions}, done, failure, as_json)


def verify(
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion]")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Check the attestation too, by this key (PEM).")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check every checksum, the pointer, the signature and the stored sample through onnxruntime."""
    number = reading.resolve(name, version)
    checked = verification.verify(name, number)
    if public_key is not None:
        attestation.require(public_key)
        attestation.verify(artifact_paths.version(name, number), public_key)
        checked.append("attestation")
    if as_json:
        print_json({"schema_version": 1, "name": name, "version": number, "checked": checked})
    else:
        typer.echo(f"{name} version {number} is whole: {', '.join(checked)}")
