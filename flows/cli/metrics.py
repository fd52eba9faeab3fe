"""``gradmill metrics``: what a Prometheus server may know."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.faults import Answer
from tasks.errors import DataError, UsageError
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.store import atomic

if TYPE_CHECKING:
    from flows.server.metrics import Figures


def metrics(
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Write them to this file, as *.prom for the node exporter's textfile collector."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=65535, help="Answer at /metrics on this port until Ctrl-C.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With --port: the address to listen at \\[default: 127.0.0.1]."),
    ] = None,
    health: Annotated[
        str | None, typer.Option(metavar="URL", help="With --port: what /health asks in turn, as a worker's own.")
    ] = None,
) -> Answer | None:
    """Print figures for Prometheus: champions, runs, predictions, drift, disk, read from the artifacts folder alone.

    A document that cannot be read is named on stderr, the rest is printed, and the exit code is 4.
    """
    if output and not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: no such folder", "a folder that is there", "make it, or name another")
    if output and port:
        raise UsageError("--output and --port", "one of them", "run a command for each")
    if not port and (host or health):
        raise UsageError("--host or --health without --port", "the port to answer at", "give --port, or leave them out")
    if port:
        from flows.server import scraped

        scraped.serve(host or "127.0.0.1", port, health or "", _beside_a_worker() if health else lambda: None)
        return None
    from flows.server import figures

    found = figures.gather()
    text = found.text()
    if output:
        atomic.write_bytes(output, text.encode())
    told = f"written to {output.absolute()}" if output else text.rstrip("\n")
    return _document(found), told, _failure(found)


def _beside_a_worker() -> Callable[[], None]:
    """Writes the overviews of runs that die, as ``gradmill up`` does where there is one."""
    from flows.server.overviews import Watch

    return Watch(marks=False).look


def _document(found: "Figures") -> dict[str, Any]:
    families = [
        {
            "name": family.samples[0].name,
            "type": family.type,
            "help": family.documentation,
            "samples": [{"labels": sample.labels, "value": sample.value} for sample in family.samples],
        }
        for family in found.collect()
    ]
    return {"metrics": families, "damaged": found.damaged}


def _failure(found: "Figures") -> DataError | None:
    """Each document in a line, then the error."""
    if not found.damaged:
        return None
    for damaged in found.damaged:
        tell(f"left out: {damaged}", file=sys.stderr)
    documents = counted(len(found.damaged), "document")
    return DataError(
        f"{documents} cannot be read", "documents as they were written", "restore from a copy what is named above"
    )
