"""``gradmill demo``: a page on which a person tries a model."""

import sys
from typing import Annotated

import typer

from flows.cli import display
from flows.cli.options import ModelArgument
from flows.cli.streams import print_json


def demo(
    as_json: bool,
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion]")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=65535, help="Serve there \\[default: a free port].")
    ] = None,
) -> None:
    """Try a model in the browser: draw or drop a picture, or fill in a form, and see its answers change.

    The page is served to this machine alone, until Ctrl-C; this process answers by the published model.onnx.
    """
    from flows.server import prefect_server
    from flows.server.demo import load, make_server

    model, described = load(name, version)
    with prefect_server.listening(port or 0) as listener:
        address = f"{prefect_server.address(listener)}/"
        display.end()
        if as_json:
            print_json({"schema_version": 1, "name": name, "version": described["version"], "url": address})
        else:
            typer.echo(f"{name} version {described['version']} at {address} until Ctrl-C")
        sys.stdout.flush()
        make_server(model, described).run([listener])
