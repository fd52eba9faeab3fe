"""``gradmill bench``: speed, measured here and now beside what else there is."""

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Artifacts, Debug, Json, Verbose, print_json, use
from tasks import artifact_paths

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
    _run("predict", quick, artifacts, as_json, verbose)


def _run(name: str, quick: bool, artifacts: Path | None, as_json: bool, verbose: bool) -> None:
    use(artifacts)
    path = artifact_paths.make_root() / f"bench-{name}.json"
    os.environ.setdefault("GRADMILL_ARTIFACTS", str(artifact_paths.root()))
    from flows import display

    with display.compact(verbose, stages=False):
        from flows.engine import prefect_api

        with prefect_api(preload=f"flows.bench.{name}"):
            report = importlib.import_module(f"flows.bench.{name}").bench(quick)
    from flows.bench import measure

    measure.publish(report, path, as_json)
    if as_json:
        print_json(report.model_dump())
