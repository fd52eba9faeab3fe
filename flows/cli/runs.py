"""``gradmill retrain`` and ``gradmill predict``: commands that run a flow."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from flows.cli.faults import validated
from flows.cli.options import Artifacts, Debug, DeviceOption, Json, Name, Verbose, print_json, require, use
from tasks.errors import GateFailed
from tasks.model_store import attestation, reading
from tasks.parameters import Device, Implementation, Loss, ModelName, PredictParameters, RetrainParameters


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
    sign_key: Annotated[Path | None, typer.Option(help="Attest the version with this private key (PEM).")] = None,
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
        "name": name or "", "training": training, "data": {"resize": resize}, "predict": not no_predict, "force": force,
        "sign_key": sign_key and sign_key.absolute()
    }  # fmt: skip
    parameters = validated(RetrainParameters, document, "retrain")
    use(artifacts)
    require(parameters.training.device)
    if sign_key is not None:
        attestation.require(sign_key)
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
        print_json(result.model_dump(mode="json"))
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
    parameters = validated(PredictParameters, document, "predict")
    use(artifacts)
    reading.resolve(parameters.name, parameters.version)
    require(parameters.device)
    from flows import display

    with display.compact(verbose):
        from flows.engine import prefect_api

        with prefect_api(preload="flows.predict"):
            from flows.predict import predict as flow

            result = flow(parameters)
    if as_json:
        print_json({"schema_version": 1, **result.model_dump(mode="json")})
    else:
        typer.echo(
            f"{result.rows} rows labelled by {result.name} version {result.version} ({result.provider}): {result.path}"
        )


def _number_or_word(text: str | None) -> int | str | None:
    return int(text) if text and text.lstrip("-").isdecimal() else text
