"""``gradmill bench``: speed, measured here and now beside what else there is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import Artifacts, Debug, Json, Verbose, print_json, use
from tasks.store import artifact_paths

bench = typer.Typer(help="Measure speed as ratios, side by side.", no_args_is_help=True)

Quick = Annotated[bool, typer.Option("--quick", help="A short look: less data, fewer rounds.")]


@bench.command()
def predict(
    quick: Quick = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Batch prediction over bare onnxruntime, its default options, and the book's way; writes bench-predict.json."""
    with _set_up(artifacts, verbose):
        from flows.server.engine import prefect_api

        with prefect_api("flows.bench.predict"):
            from flows.bench.predict import bench as measure_all

            report = measure_all(quick)
    _publish(report, as_json)


@bench.command()
def train(
    quick: Quick = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Training over the book's package, Lightning, scikit-learn and the limit; writes bench-train.json and .png."""
    with _set_up(artifacts, verbose):
        from flows.bench.train import bench as measure_all

        report = measure_all(quick)
    _publish(report, as_json)


@contextmanager
def _set_up(artifacts: Path | None, verbose: bool) -> Iterator[None]:
    use(artifacts)
    artifact_paths.make_root()
    from flows.cli import display

    with display.compact(verbose, stages=False):
        yield


def _publish(report: Any, as_json: bool) -> None:
    from flows.bench import measure

    measure.publish(report, artifact_paths.root() / f"bench-{report.benchmark}.json", as_json)
    if as_json:
        print_json(report.model_dump())
