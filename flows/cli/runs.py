"""``gradmill retrain`` and ``gradmill predict``: commands that run a flow."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from flows.cli.faults import as_gradmill_error, in_json, validated
from flows.cli.options import Artifacts, Debug, DeviceOption, Json, Name, Verbose, as_typed, print_json, require, use
from tasks.errors import UsageError
from tasks.machine.words import counted
from tasks.parameters import (
    Device,
    Implementation,
    Loss,
    ModelName,
    PredictParameters,
    RetrainParameters,
    Runner,
    Schedule,
)
from tasks.store import attestation, mirroring, reading, regular_files


def retrain(
    model: Annotated[ModelName, typer.Argument(help="What to train.")] = ModelName.SOFTMAX_REGRESSION,
    name: Name = None,
    implementation: Annotated[
        Implementation, typer.Option(help="The book's way of writing it.")
    ] = Implementation.CONCISE,
    epochs: Annotated[int | None, typer.Option(help="\\[default: the book's, 10 softmax, 3 linear]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="\\[default: the book's, 256 softmax, 10 linear]")] = None,
    lr: Annotated[float | None, typer.Option(help="\\[default: the book's, 0.1 softmax, 0.03 linear]")] = None,
    loss: Annotated[Loss | None, typer.Option(help="Linear regression: squared or huber.")] = None,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate, epoch by epoch.")] = Schedule.CONSTANT,
    weight_decay: Annotated[float, typer.Option(help="Pulls the weights (not the bias) towards 0.")] = 0.0,
    dropout: Annotated[float, typer.Option(help="Share of inputs dropped in training; softmax regression only.")] = 0.0,
    validation: Annotated[float, typer.Option(help="Share of the training examples held out to watch.")] = 0.0,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a smaller validation loss.")
    ] = None,
    seed: Annotated[str | None, typer.Option(help="A number, or auto: from the run's scheduled date.")] = None,
    resize: Annotated[
        int | None, typer.Option(help="Side of the images in pixels \\[default: 28 as they are].")
    ] = None,
    device: DeviceOption = Device.AUTO,
    sign_key: Annotated[Path | None, typer.Option(help="Attest the version with this private key (PEM).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Recompute everything.")] = False,
    no_predict: Annotated[bool, typer.Option("--no-predict", help="Publish only.")] = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Download, preprocess, train, evaluate, export, publish and predict.

    A model that passes the gates becomes the champion, the version that consumers should use: the newest that passed
    them, until somebody promotes or rolls back. The test split is then labelled by the champion.
    """
    training = {
        "model": model, "implementation": implementation, "num_epochs": epochs, "batch_size": batch_size, "lr": lr,
        "loss": loss, "seed": _number_or_word(seed), "device": device, "schedule": schedule,
        "weight_decay": weight_decay, "dropout": dropout, "validation": validation, "patience": patience,
    }  # fmt: skip
    document = {
        "name": name or "", "training": training, "data": {"resize": resize}, "predict": not no_predict, "force": force,
        "sign_key": sign_key and sign_key.absolute()
    }  # fmt: skip
    parameters = validated(RetrainParameters, document, "retrain")
    use(artifacts)
    require(parameters.training.device)
    if sign_key is not None:
        attestation.require(sign_key)
    mirroring.destination()
    from flows.cli import display

    with display.compact(verbose):
        from flows.server.engine import prefect_api

        with prefect_api("flows.retrain", "torch._dynamo", "torchmetrics"):
            from flows.retrain import retrain as flow

            result, failure = _outcome(flow, parameters)
    if as_json:
        document = result.model_dump(mode="json")
        if failure and result.outcome != "refused":
            document["error"] = in_json(as_gradmill_error(failure))
        print_json(document)
    elif result.outcome != "refused":
        _summarise(result, failure is not None and not no_predict, artifacts)
    if failure:
        raise failure


def _outcome(flow: Callable[[RetrainParameters], Any], parameters: RetrainParameters) -> tuple[Any, Exception | None]:
    """The run's report and, where it has come to something all the same, what it failed of."""
    try:
        return flow(parameters), None
    except Exception as error:
        if (report := getattr(error, "report", None)) is None:
            raise
        return report, error


def _summarise(result: Any, owed: bool, artifacts: Path | None) -> None:
    """What was trained, how good it is, where it lies, and what to try next; ``owed``: predictions that failed."""
    metrics = result.metrics
    quality = (
        f"test accuracy {metrics['test_accuracy']:.4f}"
        if "test_accuracy" in metrics
        else f"test loss {metrics['test_loss']:.3g}"
    )
    if "weights" in metrics:
        learned = ", ".join(f"{weight:.4f}" for weight in metrics["weights"])
        quality += f", weights {learned}, bias {metrics['bias']:.4f}"
    rows = [
        ("trained", f"{result.model} ({result.implementation}) on {result.device}: {quality}"),
        (result.outcome, f"{result.name} version {result.version}, {_standing(result)}"),
        ("model", result.model_path),
    ]
    if result.mirror:
        rows.append(("mirrored", f"{result.mirror.url}: version {result.mirror.version} ({result.mirror.outcome})"))
    if made := result.prediction:
        by = f"version {made.version}{', the champion' if made.version == result.champion else ''}"
        rows.append(("predictions", f"{made.path} ({counted(made.rows, 'row')} by {by}, {result.provider})"))
    elif owed:
        rows.append(("predictions", "none: the run failed before they were made"))
    rows.append(("evidence", result.run))
    next_commands = (f"predict --name {result.name}", f"models {result.name}", f"verify {result.name}")
    labels = ("try next", "", "")
    rows += [(label, as_typed(command, artifacts)) for label, command in zip(labels, next_commands, strict=True)]
    _print_table(rows)


def _standing(result: Any) -> str:
    """Whether the version of a retrain is the champion; one that was rolled back from, or replaced, is not."""
    same = "which has these very bytes, " if result.outcome == "unchanged" else ""
    if result.version == result.champion:
        return f"{same}the champion"
    champion = f"version {result.champion}" if result.champion else "none"
    return f"{same}not the champion: that is {champion} until gradmill promote {result.name} {result.version}"


def predict(
    input_path: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A file, folder or glob: IDX (.gz too), .npy, .npz, .safetensors, .parquet, .csv, .png, .jpeg "
            "\\[default: the test split].",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Which model.")] = ModelName.SOFTMAX_REGRESSION.value,
    version: Annotated[int | None, typer.Option(help="Which version \\[default: the champion].")] = None,
    output: Annotated[str | None, typer.Option(help="Output folder \\[default: artifacts/predictions/<job>].")] = None,
    device: DeviceOption = Device.AUTO,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows per call of onnxruntime \\[default: 1024, on a GPU 16384].")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a table, by commas, in the model's order \\[default: x1,x2 …].")
    ] = None,
    max_rejects: Annotated[
        int | None,
        typer.Option(help="Stop when more rows cannot be read \\[default: 0 of arrays, 1 % of tables and pictures]."),
    ] = None,
    max_drift: Annotated[float, typer.Option(help="Report a population stability index above this.")] = 0.2,
    full_digest: Annotated[
        bool, typer.Option("--full-digest", help="Tell inputs apart by all their bytes, not by samples.")
    ] = False,
    shard_rows: Annotated[
        int | None, typer.Option(help="Most rows of a part \\[default: a quarter of a second of work].")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Rows are predicted on so many cores \\[default: all].")] = None,
    runner: Annotated[Runner, typer.Option(help="What runs the shards.")] = Runner.THREADS,
    dask_address: Annotated[
        str | None, typer.Option(help="Scheduler of an existing Dask cluster \\[default: a local one].")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Replace what a job left in the output folder.")] = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Label every row of files, however large, with the champion; the same command again resumes a killed job.

    The champion is the newest version that passed the gates, until somebody promotes or rolls back.
    """
    document = {
        "input": _absolute(input_path), "name": name, "version": version, "output": _utf8(output), "device": device,
        "batch_size": batch_size, "columns": tuple(columns.split(",")) if columns else (), "max_rejects": max_rejects,
        "max_drift": max_drift, "full_digest": full_digest, "shard_rows": shard_rows, "workers": workers,
        "runner": runner, "dask_address": dask_address, "restart": restart,
    }  # fmt: skip
    parameters = validated(PredictParameters, document, "predict")
    use(artifacts)
    reading.load(parameters.name, parameters.version)  # what is missing or damaged is said before a server starts
    require(parameters.device)
    from flows.cli import display

    with display.compact(verbose):
        from flows.server.engine import prefect_api

        with prefect_api("flows.predict"):
            from flows.predict import predict as flow

            result = flow(parameters)
    if as_json:
        paths = {"path": str(result.path), "picture": result.picture and str(result.picture)}
        print_json({"schema_version": 1, **result.model_dump(mode="json"), **paths})
    else:
        _summarise_prediction(result)


def _utf8(path: str | None) -> str | None:
    """The path, which goes through JSON to Prefect and to _job.json."""
    if path is not None and path != (shown := os.fsencode(path).decode(errors="replace")):
        raise UsageError(f"the path {shown} is not UTF-8", "a path in UTF-8", "rename the file")
    return path


def _absolute(path: str | None) -> str | None:
    path = _utf8(path)
    return str(regular_files.absolute(path)) if path else path


def _summarise_prediction(result: Any) -> None:
    """How many rows, how fast, how sure, and where they are."""
    version, speed = f"{result.name} version {result.version}", f" in {result.seconds:.2f} s"
    drift = ", ".join(f"{name} {value:.3f}" for name, value in result.drift.index.items())
    rows = [
        ("predicted", f"{counted(result.rows, 'row')} by {version} ({result.provider}){speed}"),
        ("rejected", counted(result.rejects, "row")),
        ("drift", f"{result.drift.verdict}{f' (index: {drift})' if drift else ''}"),
        ("output", f"{result.path} ({counted(result.parts, 'part')})"),
    ]
    if result.accuracy is not None:
        rows.insert(2, ("accuracy", f"{result.accuracy:.4f}"))
    _print_table(rows)


def _print_table(rows: Iterable[tuple[str, object]]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for label, value in rows:
        console.print(f"[bold]{label:<11}[/] {escape(str(value))}")


def _number_or_word(text: str | None) -> int | str | None:
    return int(text) if text and re.fullmatch("-?[0-9]{1,20}", text) else text
