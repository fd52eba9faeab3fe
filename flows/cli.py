"""``gradmill …``: thin commands over the flows and the store. Imports neither torch nor prefect until it must."""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks import artifact_paths, devices, model_store
from tasks.errors import EnvironmentProblem, GateFailed, GradmillError, UsageError
from tasks.parameters import Device, Implementation, Loss, ModelName, PredictParameters, RetrainParameters

app = typer.Typer(
    name="gradmill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)

Parameters = TypeVar("Parameters", bound=BaseModel)

CommandLineFault: type[Exception] = typer.BadParameter.__bases__[0]  # every fault in what was typed, old typer or new

# The option that sets each parameter, and what it takes where pydantic's own words would not help.
OPTIONS = {
    "num_epochs": "epochs", "batch_size": "batch-size", "lr": "lr", "loss": "loss", "seed": "seed", "name": "name",
    "version": "version", "resize": "resize",
}  # fmt: skip
EXPECTED = {
    "--name": "1 to 63 lower-case letters, digits and hyphens, no hyphen first",
    "--seed": "a whole number from 0 to 2**63 - 1, or auto",
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, all else on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Artifacts = Annotated[
    Path | None,
    typer.Option("--artifacts", help="Where everything is kept [env: GRADMILL_ARTIFACTS; default: ./artifacts]."),
]
Name = Annotated[
    str | None, typer.Option("--name", help="The model is kept under this name [default: the model's own].")
]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto takes the GPU where there is one.")]


@app.callback()
def _gradmill() -> None:
    """Retrain the linear networks of Dive into Deep Learning and ship them as ONNX models.

    Start with [bold]gradmill retrain[/]: it downloads Fashion-MNIST, trains softmax regression, lets the gates judge
    it, publishes model.onnx under artifacts/models/ and labels the test images with it.

    Exit codes: 0 done · 2 wrong command or parameter · 3 refused by a gate, or diverged · 4 data broken or not to be
    had · 5 no such device · 130 interrupted · 1 anything else.
    """


@app.command()
def retrain(
    model: Annotated[ModelName, typer.Argument(help="What to train.")] = ModelName.SOFTMAX_REGRESSION,
    name: Name = None,
    implementation: Annotated[
        Implementation, typer.Option(help="The book's way of writing it.")
    ] = Implementation.CONCISE,
    epochs: Annotated[int | None, typer.Option(help="[default: the book's, 10 softmax, 3 linear]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="[default: the book's, 256 softmax, 10 linear]")] = None,
    lr: Annotated[float | None, typer.Option(help="[default: the book's, 0.1 softmax, 0.03 linear]")] = None,
    loss: Annotated[Loss | None, typer.Option(help="Linear regression: squared or huber.")] = None,
    seed: Annotated[str | None, typer.Option(help="A number, or auto: from the run's scheduled date.")] = None,
    resize: Annotated[int | None, typer.Option(help="Side of the images in pixels [default: 28 as they are].")] = None,
    device: DeviceOption = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Recompute everything.")] = False,
    no_predict: Annotated[bool, typer.Option("--no-predict", help="Publish only.")] = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Download, preprocess, train, evaluate, export, publish and predict."""
    training = {
        "model": model, "implementation": implementation, "num_epochs": epochs, "batch_size": batch_size, "lr": lr,
        "loss": loss, "seed": _number_or_word(seed), "device": device,
    }  # fmt: skip
    document = {
        "name": name or "", "training": training, "data": {"resize": resize}, "predict": not no_predict, "force": force
    }  # fmt: skip
    parameters = _validated(RetrainParameters, document, "retrain")
    _use(artifacts)
    _require(parameters.training.device)
    from flows import display

    with display.compact(verbose):
        from flows.engine import prefect_api

        with prefect_api(preload="flows.retrain"):
            from flows.report import report
            from flows.retrain import retrain as flow

            try:
                result = flow(parameters)
            except GateFailed as refused:
                if refused.run is None:
                    raise
                result = report(refused.run)
                if not as_json:
                    raise
    if as_json:
        _print_json(result.model_dump(mode="json"))
    else:
        _summarise(result)
    if result.outcome == "refused":
        raise typer.Exit(GateFailed.exit_code)


def _summarise(result: Any) -> None:
    """What was trained, how good it is, where it lies, and what to try next."""
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
        (result.outcome, f"{result.name} version {result.version}"),
        ("model", result.model_path),
    ]
    if result.prediction:
        rows.append(("predictions", f"{result.prediction.path} ({result.prediction.rows} rows, {result.provider})"))
    rows.append(("evidence", result.run))
    rows.append(
        (
            "try next",
            f"gradmill models; gradmill predict --name {result.name}; gradmill retrain linear-regression",
        )
    )
    console = Console(soft_wrap=True, highlight=False)
    for label, value in rows:
        console.print(f"[bold]{label:<11}[/] {escape(str(value))}")


@app.command()
def predict(
    input_path: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT]", help="IDX (.gz too), .npy or .safetensors [default: the test split]."),
    ] = None,
    name: Annotated[str, typer.Option(help="Which model.")] = ModelName.SOFTMAX_REGRESSION.value,
    version: Annotated[int | None, typer.Option(help="Which version [default: the champion].")] = None,
    output: Annotated[str | None, typer.Option(help="Output folder [default: artifacts/predictions/<job>].")] = None,
    device: DeviceOption = Device.AUTO,
    batch_size: Annotated[int, typer.Option(help="Rows per call of onnxruntime.")] = 1024,
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace what another job left in the output folder.")
    ] = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Label every row of a file with the champion, through onnxruntime."""
    document = {
        "input": str(Path(input_path).absolute()) if input_path else None, "name": name, "version": version,
        "output": output, "device": device, "batch_size": batch_size, "restart": restart,
    }  # fmt: skip
    parameters = _validated(PredictParameters, document, "predict")
    _use(artifacts)
    model_store.resolve(parameters.name, parameters.version)
    _require(parameters.device)
    from flows import display

    with display.compact(verbose):
        from flows.engine import prefect_api

        with prefect_api(preload="flows.predict"):
            from flows.predict import predict as flow

            result = flow(parameters)
    if as_json:
        _print_json({"schema_version": 1, **result.model_dump(mode="json")})
    else:
        typer.echo(
            f"{result.rows} rows labelled by {result.name} version {result.version} ({result.provider}): {result.path}"
        )


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List every version with its figures; * marks the champion."""
    _use(artifacts)
    if name is not None:
        model_store.resolve(name, None)
    listing = {each: _versions(each) for each in ([name] if name else model_store.names())}
    if as_json:
        _print_json({"schema_version": 1, "models": listing})
        return
    if not listing:
        typer.echo("no models yet; train one: gradmill retrain")
        return
    table = Table("model", "version", "test accuracy", "test loss", "published", "model.onnx")
    for each, rows in listing.items():
        for row in rows:
            accuracy = row["metrics"].get("test_accuracy")
            table.add_row(
                each,
                f"{row['version']}{' *' if row['champion'] else ''}",
                "" if accuracy is None else f"{accuracy:.4f}",
                f"{row['metrics']['test_loss']:.4g}",
                row["created_at"],
                row["path"],
            )
    Console(soft_wrap=True).print(table)


def _versions(name: str) -> list[dict[str, Any]]:
    pointer = model_store.champion(name) or {"version": None, "held": []}
    rows = []
    for number in model_store.versions(name):
        manifest = model_store.manifest(name, number)
        rows.append({
            "version": number,
            "champion": number == pointer["version"],
            "held": number in pointer["held"],
            "created_at": manifest["created_at"],
            "model_sha256": manifest["files"][artifact_paths.ONNX],
            "metrics": manifest["metrics"],
            "path": str(artifact_paths.version(name, number) / artifact_paths.ONNX),
        })  # fmt: skip
    return rows


def _number_or_word(text: str | None) -> int | str | None:
    return int(text) if text and text.lstrip("-").isdecimal() else text


def _use(artifacts: Path | None) -> None:
    if artifacts is not None:
        os.environ["GRADMILL_ARTIFACTS"] = str(artifacts)


def _require(device: Device) -> None:
    """Fail before a server is started for nothing: the device is missing, or artifacts/ cannot be written."""
    devices.require(device)
    with tempfile.TemporaryFile(dir=artifact_paths.make_root()):
        pass


def _validated(kind: type[Parameters], document: dict[str, Any], command: str) -> Parameters:
    """The parameters, or the first fault in them in the words of the command line."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        option = next((f"--{OPTIONS.get(part, part)}" for part in reversed(first["loc"]) if part in OPTIONS), None)
        expected = EXPECTED.get(
            option or "", first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        )
        found = f"{option} {first['input']}" if option else "options that do not go together"
        raise UsageError(found, expected, f"see gradmill {command} --help") from error


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is one to three lines on stderr."""
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="gradmill", standalone_mode=False)
    except Exception as error:
        if isinstance(error, CommandLineFault) and not str(error):  # no command at all: the help has been shown
            return UsageError.exit_code
        if "--debug" in arguments:
            traceback.print_exc()
        return _report_fault(_as_gradmill_error(error), as_json="--json" in arguments)
    return code if isinstance(code, int) else 0


def _as_gradmill_error(error: Exception) -> GradmillError:
    if isinstance(error, GradmillError):
        return error
    if isinstance(error, CommandLineFault):
        found = getattr(error, "format_message", error.__str__)().replace("Value error, ", "")
        return UsageError(found, "a command as gradmill --help describes it", "run it again with --help")
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return EnvironmentProblem(
            f"{error.strerror or error}{where}",
            f"space and write access in {artifact_paths.root()}",
            "free space or fix permissions, or choose another folder with --artifacts; nothing was half-written",
        )
    name = type(error).__name__
    return EnvironmentProblem(f"{name}: {error}", "no such error", "run again with --debug and report the traceback")


def _report_fault(error: GradmillError, as_json: bool) -> int:
    if as_json:
        fields = {
            "exit_code": error.exit_code,
            "found": error.found,
            "expected": error.expected,
            "action": error.action,
        }
        _print_json({"error": fields})
    else:
        print(f"gradmill: {error}", file=sys.stderr)
    return error.exit_code
