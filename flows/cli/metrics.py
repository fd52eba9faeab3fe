"""``gradmill metrics``: what a Prometheus server may know."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer

from flows.cli.faults import Answer
from flows.cli.store import tell_faults
from tasks.errors import UsageError
from tasks.store import atomic, state
from tasks.store.state import Kind


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
    from prometheus_client import generate_latest

    from flows.server import metrics as figures

    if port:
        figures.serve(host or "127.0.0.1", port, health or "", _beside_a_worker() if health else lambda: None)
        return None
    found = state.read(newest=figures.RUNS)
    collector = figures.StoreCollector(found)
    collector.measure()
    text = generate_latest(collector).decode()
    if output:
        atomic.write_bytes(output, text.encode())
    told = f"written to {output.absolute()}" if output else text.rstrip("\n")
    failure = tell_faults(found.faults, *get_args(Kind))
    families = [
        {
            "name": family.samples[0].name,
            "type": family.type,
            "help": family.documentation,
            "samples": [{"labels": sample.labels, "value": sample.value} for sample in family.samples],
        }
        for family in collector.collect()
    ]
    return {"metrics": families, "damaged": [fault.found for fault in found.faults]}, told, failure


def _beside_a_worker() -> Callable[[], None]:
    """Rewrites the overviews of runs that die, as ``gradmill up`` does; it marks no run as crashed."""
    from flows.server.up import Watch

    return Watch(is_up=False).look
