"""``gradmill models``, ``promote``, ``rollback``, ``prune``, ``verify``: the model store's commands need no server."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import Artifacts, Debug, Json, print_json, use
from tasks import artifact_paths, housekeeping
from tasks.atomic import file_digest
from tasks.model_store import attestation, pointer, reading, retention, verification

WIDE = 160  # characters: a pipe has no width, and its reader wants whole names
ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="Which model.")]


def models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List every version with its figures; * marks the champion, h a held version."""
    use(artifacts)
    if name is not None:
        reading.resolve(name, None)
    listing = {each: reading.table(each) for each in ([name] if name else reading.names())}
    if as_json:
        print_json({"schema_version": 1, "models": listing})
    elif not any(listing.values()):
        typer.echo("no models yet; train one: gradmill retrain")
    else:
        console = Console()
        if not console.is_terminal:
            console.width = WIDE
        console.print(_table(listing))


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
    use(artifacts)
    changed = pointer.promote(name, version)
    if changed:
        _announce("gradmill.model.promoted", name, version)
    if as_json:
        print_json({"schema_version": 1, "name": name, "champion": version, "changed": changed})
    else:
        typer.echo(f"{name} version {version} is the champion" + ("" if changed else " already"))


def rollback(name: ModelArgument, artifacts: Artifacts = None, as_json: Json = False, debug: Debug = False) -> None:
    """Go back to the champion before, and hold the version left: no retrain brings it back, only promote does."""
    use(artifacts)
    left, champion = pointer.rollback(name)
    _announce("gradmill.model.rolled-back", name, champion)
    if as_json:
        print_json({"schema_version": 1, "name": name, "champion": champion, "held": left})
    else:
        typer.echo(f"{name} version {champion} is the champion; version {left} is held")


def _announce(event: str, name: str, version: int) -> None:
    """Tell the Prefect server of a new champion."""
    from flows import engine

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
    use(artifacts)
    pruned, kept = retention.prune(name, keep)
    if as_json:
        reasons = {str(number): reason for number, reason in kept.items()}
        print_json({"schema_version": 1, "name": name, "pruned": pruned, "kept": reasons})
        return
    typer.echo(f"{name}: pruned " + (", ".join(map(str, pruned)) or "nothing"))
    for number, reason in kept.items():
        typer.echo(f"{name}: kept {number}, {reason}")


def maintain(
    keep: Annotated[int, typer.Option(min=1, help="The newest of each model that stay.")] = 30,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove old run folders and predictions; unfinished jobs and the evidence of kept versions stay."""
    use(artifacts)
    runs, predictions = housekeeping.prune_runs(keep), housekeeping.prune_predictions(keep)
    if as_json:
        print_json({"schema_version": 1, "runs": runs, "predictions": predictions})
    else:
        typer.echo(f"removed {len(runs)} run folders and {len(predictions)} predictions")


def verify(
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="[default: the champion]")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Check the attestation too, by this key (PEM).")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check every checksum, the pointer, the signature and the stored sample through onnxruntime."""
    use(artifacts)
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
