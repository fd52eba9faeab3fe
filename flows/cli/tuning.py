"""``gradmill tune``: better settings than those of the book, or of the rules."""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flows.cli import summaries
from flows.cli.checks import check_training
from flows.cli.faults import as_gradmill_error, in_json
from flows.cli.options import Quiet, Verbose, as_typed, print_json
from flows.cli.parameters import given_options, taking, validated
from flows.cli.runs import of_kept_name, on_prefect, outcome
from tasks.errors import UsageError
from tasks.parameters import TuneParameters
from tasks.store import reading


@taking(TuneParameters)
def tune(
    document: dict[str, Any], artifacts: Path | None, as_json: bool, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Search for better settings by the loss of a validation part; the test split is not looked at.

    Nothing is published: gradmill retrain --tuned uses what was found, through the gates. The same command again goes
    on from where it was interrupted; options of training that are given stay as they are.
    """
    from tasks.fitting.search_space import narrow_space

    given = document
    document = of_kept_name(given | {"tuned": False}, "tune")
    document |= {"search": document.get("search", {}) | {"space": _with_what_is_fixed(given)}}
    parameters = validated(TuneParameters, {name: document[name] for name in document if name != "tuned"}, "tune")
    check_training(given, parameters)
    narrow_space(parameters.training, parameters.search.space)  # its faults are said now
    with on_prefect(verbose, quiet, "flows.tune"):
        from flows.tune import tune as flow

        report, failure = outcome(flow, parameters, "searched")
    if failure:  # of the retrain, which may have come to something, too
        report = report.model_copy(update={"retrained": getattr(failure, "report", None)})
    if as_json:
        error = {"error": in_json(as_gradmill_error(failure))} if failure else {}
        print_json(report.model_dump(mode="json") | error)
    elif not quiet:
        summaries.tuned(report, as_typed(_retrain(parameters, report.settings), artifacts), artifacts)
    if failure:
        raise failure


def _retrain(parameters: TuneParameters, settings: Collection[str]) -> str:
    """The command that trains with what was found, on the same data."""
    if reading.versions(parameters.name):
        return shlex.join(["retrain", parameters.name, "--tuned"])
    training = parameters.training
    said = training.given.keys() - {"model", "defaults", *settings}
    options = given_options(parameters.data, set()) + given_options(training, set(type(training).model_fields) - said)
    return shlex.join(["retrain", training.model, "--name", parameters.name, *options, "--tuned"])


def _with_what_is_fixed(given: dict[str, Any]) -> list[str]:
    """``--space``, and the options of training that are given: these are not searched."""
    from tasks.fitting.search_space import OPTIONS

    items = list(given.get("search", {}).get("space", []))
    named = {item.partition("=")[0].strip() for item in items}
    for option, field in OPTIONS.items():
        value = given.get("training", {}).get(field)
        if value is not None and value != "auto":  # which is a search, too
            if option in named:
                raise UsageError(f"--{option} {value}, and {option} in --space", "one of the two", "leave one out")
            items.append(f"{option}={value}")
    return items
