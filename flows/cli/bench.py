"""``gradmill bench``: speed, measured here and now beside what else there is, and how often gates are wrong."""

import importlib
import os
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from flows.cli.options import Verbose, print_json
from tasks.store import artifact_paths

Quick = Annotated[bool, typer.Option("--quick", help="A short look: less data, fewer rounds.")]


def predict(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Batch prediction over bare onnxruntime, its default options, and the book's way; writes bench-predict.json."""
    _run("predict", quick, as_json, verbose, needs_server=True)


def train(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Training over the book's package, Lightning, scikit-learn and the limit; writes bench-train.json and .png."""
    _run("train", quick, as_json, verbose)


def tables(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Training of an own table over Vowpal Wabbit and scikit-learn; writes bench-tables.json."""
    _run("tables", quick, as_json, verbose)


def images(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """Reading and training of own pictures over Pillow alone and Fashion-MNIST; writes bench-images.json."""
    _run("images", quick, as_json, verbose)


def tune(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """A search for hyperparameters over plain trainings and scikit-learn's grid search; writes bench-tune.json."""
    _run("tune", quick, as_json, verbose, needs_server=True)


def gates(as_json: bool, quick: Quick = False, verbose: Verbose = False) -> None:
    """How often the gates refuse what is as good, and let pass what is worse; writes bench-gates.json."""
    _run("gates", quick, as_json, verbose)


def start(
    as_json: bool, rounds: Annotated[int, typer.Option(metavar="N", min=1, help="How often each command is run.")] = 5
) -> None:
    """Whole commands from Enter to the prompt, and where the time goes; writes bench-start.json and .png."""
    _run("start", rounds, as_json)


def _run(name: str, how: bool | int, as_json: bool, verbose: bool = False, needs_server: bool = False) -> None:
    """Run ``flows.bench.NAME``, as quick or as often as ``how`` says, and tell what it has found."""
    load = os.getloadavg()[0]  # before anything of ours is in it
    from flows.cli import display

    artifact_paths.make_root()
    from flows.bench import measure
    from tasks.machine import cores

    how_long = "many minutes; --quick is a short look" if how is False else "some minutes"
    print(f"{measure.warning(round(load, 1), cores.available())}this takes {how_long}", file=sys.stderr)
    module = f"flows.bench.{name}"
    with display.compact(verbose, stages=False), ExitStack() as entered:
        if needs_server:
            from flows.server.connection import prefect_api

            entered.enter_context(prefect_api(module))
        report = importlib.import_module(module).bench(how)
    path = artifact_paths.root() / f"bench-{report.benchmark}.json"
    measure.write(report, path, load)
    if as_json:
        print_json(report.model_dump())
    else:
        measure.show(report, path)
