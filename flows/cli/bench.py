"""``gradmill bench``: speed, measured here and now beside what else there is, and how often gates are wrong."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Verbose, print_json
from tasks.store import artifact_paths

if TYPE_CHECKING:
    from flows.bench.measure import Report

Quick = Annotated[bool, typer.Option("--quick", help="A short look: less data, fewer rounds.")]


def predict(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Batch prediction over bare onnxruntime, its default options, and the book's way; writes bench-predict.json."""
    from flows.cli import display

    artifact_paths.make_root()
    with display.compact(verbose, stages=False):
        from flows.server.connection import prefect_api

        with prefect_api("flows.bench.predict"):
            from flows.bench import predict as benchmark

            report = benchmark.bench(quick)
    _publish(report, as_json)


def train(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Training over the book's package, Lightning, scikit-learn and the limit; writes bench-train.json and .png."""
    from flows.cli import display

    artifact_paths.make_root()
    with display.compact(verbose, stages=False):
        from flows.bench import train as benchmark

        report = benchmark.bench(quick)
    _publish(report, as_json)


def tables(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Training of an own table over Vowpal Wabbit and scikit-learn; writes bench-tables.json."""
    from flows.cli import display

    artifact_paths.make_root()
    with display.compact(verbose, stages=False):
        from flows.bench import tables as benchmark

        report = benchmark.bench(quick)
    _publish(report, as_json)


def images(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Reading and training of own pictures over Pillow alone and Fashion-MNIST; writes bench-images.json."""
    from flows.cli import display

    artifact_paths.make_root()
    with display.compact(verbose, stages=False):
        from flows.bench import images as benchmark

        report = benchmark.bench(quick)
    _publish(report, as_json)


def tune(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """A search for hyperparameters over plain trainings and scikit-learn's grid search; writes bench-tune.json."""
    from flows.cli import display

    artifact_paths.make_root()
    with display.compact(verbose, stages=False):
        from flows.server.connection import prefect_api

        with prefect_api("flows.bench.tune"):
            from flows.bench import tune as benchmark

            report = benchmark.bench(quick)
    _publish(report, as_json)


def gates(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """How often the gates against kept versions refuse what is as good, and what is worse; writes bench-gates.json."""
    from flows.cli import display

    artifact_paths.make_root()
    with display.compact(verbose, stages=False):
        from flows.bench import gates as benchmark

        report = benchmark.bench(quick)
    _publish(report, as_json)


def start(
    as_json: bool, rounds: Annotated[int, typer.Option(min=1, help="How often each command is run.")] = 5
) -> None:
    """Whole commands from Enter to the prompt, and where the time goes; writes bench-start.json and .png."""
    artifact_paths.make_root()
    from flows.bench import start as benchmark

    _publish(benchmark.bench(rounds), as_json)


def _publish(report: "Report", as_json: bool) -> None:
    from flows.bench import measure

    measure.publish(report, artifact_paths.root() / f"bench-{report.benchmark}.json", as_json)
    if as_json:
        print_json(report.model_dump())
