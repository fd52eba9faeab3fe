"""``gradmill retrain`` and ``gradmill predict``: commands that run a flow."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.cli import display, summaries
from flows.cli.checks import check_prediction, check_source, check_training, place, suggested_name, utf8
from flows.cli.faults import as_gradmill_error, in_json
from flows.cli.options import Quiet, Verbose, print_json
from flows.cli.parameters import taking, validated
from flows.server import connection
from tasks.errors import UsageError
from tasks.machine import progress
from tasks.parameters import Learned, ModelName, PredictParameters, RetrainParameters
from tasks.store import mirroring, own_data, tuned, unchanged, verification

# Torch and matplotlib take seconds to import, which the server's start hides; nobody needs them where all is reused.
TO_TRAIN = "tasks.fitting.trainer", "tasks.judging.plots"


@taking(RetrainParameters)
def retrain(
    document: dict[str, Any], artifacts: Path | None, as_json: bool, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Download, preprocess, train, evaluate, export, publish and predict.

    A model that passes the gates becomes the champion, the version that consumers should use: the newest that passed
    them, until somebody promotes or rolls back. The test split is then labelled by the champion.
    """
    sign_key: Path | None = document.get("sign_key")
    given = document
    document = of_kept_name(given, "retrain") | {"sign_key": sign_key and sign_key.absolute()}
    parameters = validated(RetrainParameters, document, "retrain")
    check_training(given, parameters)
    tuned.take_found(parameters)  # what is missing is said now; the run takes the newest
    if sign_key is not None:
        verification.require_attestation(sign_key)
    mirroring.destination(is_kept=False)
    modules = ["flows.retrain", *TO_TRAIN] if unchanged.must_train(parameters) else ["flows.retrain"]
    with on_prefect(verbose, quiet, *modules):
        from flows.retrain import retrain as flow

        report, failure = outcome(flow, parameters, "report")
    if as_json:
        answer = report.model_dump(mode="json")
        if failure and report.outcome != "refused":
            answer["error"] = in_json(as_gradmill_error(failure))
        print_json(answer)
    elif not quiet and report.outcome != "refused":
        summaries.retrained(report, failure is not None and parameters.predict, artifacts)
    elif not quiet:
        summaries.gates(report.gates)
    if report.outcome == "refused" and report.frozen and not as_json:
        print(f"frozen      {summaries.frozen(report)}", file=sys.stderr)
    if failure:
        raise failure


def of_kept_name(given: dict[str, Any], command: str) -> dict[str, Any]:
    """The document, with what stands for a name in the place of a model; paths of data absolute."""
    data, named = given.get("data", {}), given.get("training", {}).get("model")
    if "source" in data:
        given = given | {"data": data | {"source": place(data["source"])}}
        may_be_images = named in (None, ModelName.SOFTMAX_REGRESSION) and "target" not in data
        check_source(data["source"], of_table=not may_be_images)
    if named == ModelName.LINEAR_REGRESSION and "source" in data and "target" not in data:
        wanted = "the column to predict; or images, which softmax-regression learns"
        to_do = f"name it with --target; gradmill inspect {data['source']} shows the columns"
        raise UsageError(f"no --target for {data['source']}", wanted, to_do)
    if named is None or named in [*ModelName]:
        if "source" in data and "name" not in given:
            to_do = f"add --name {suggested_name(data['source'])}"
            raise UsageError(f"no --name for {data['source']}", "a name under which its model is kept", to_do)
        return given
    if given.get("name", named) != named:
        raise UsageError(
            f"{command} {named} --name {given['name']}", "one name", f"gradmill {command} {named} trains {named} again"
        )
    training = {option: value for option, value in given["training"].items() if option != "model"}
    return own_data.again(named, given | {"training": training}, with_found=command == "tune")


@contextmanager
def on_prefect(verbose: bool, quiet: bool, *modules: str) -> Iterator[None]:
    """A server for a flow, whose modules are imported while it starts, and the terminal for its stages."""
    progress.is_watched &= not (quiet or verbose)
    with display.compact(verbose, stages=not quiet), connection.prefect_api(*modules):
        if connection.is_temporary() and not (quiet or display.is_shown()):
            reach = f"events     reach nobody from a run's own temporary Prefect server: {connection.TO_HAVE_ONE}"
            print(reach, file=sys.stderr)
        display.wait("waiting for the run to begin")
        yield
        display.wait("ending what was started for the run")


def outcome(flow: Callable[[Any], Any], parameters: Learned, carried: str) -> tuple[Any, Exception | None]:
    """The run's report and, where it has come to something all the same, what it failed of, which ``carried`` it."""
    try:
        return flow(parameters), None
    except Exception as error:
        if (report := getattr(error, carried, None)) is None:
            raise
        return report, error


@taking(PredictParameters)
def predict(
    document: dict[str, Any], artifacts: Path | None, as_json: bool, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Label every row of files, however large, with the champion; the same command again resumes a killed job.

    The champion is the newest version that passed the gates, until somebody promotes or rolls back.
    """
    places = {"input": place(document.get("input")), "output": utf8(document.get("output"))}
    parameters = validated(PredictParameters, document | places, "predict")
    check_prediction(parameters)
    with on_prefect(verbose, quiet, "flows.predict"):
        from flows.predict import predict as flow

        done = flow(parameters)
    if as_json:
        paths = {
            "path": str(done.path),
            "file": done.file and str(done.file),
            "picture": done.picture and str(done.picture),
        }
        print_json({"schema_version": 1, **done.model_dump(mode="json"), **paths})
    elif not quiet:
        summaries.predicted(done, artifacts)
