"""``gradmill demo``: a page on which a person tries a model."""

import sys
from typing import Annotated

import typer

from flows.cli import display
from flows.cli.options import ModelArgument
from flows.cli.streams import print_json
from tasks.machine.telling import tell


def demo(
    as_json: bool,
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="\\[default: the champion]")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=65535, help="Serve there \\[default: a free port].")
    ] = None,
) -> None:
    """Try a model in the browser: draw or drop a picture, or fill in a form, and see its answers change.

    The page is served to this machine alone, until Ctrl-C. The browser computes by the published model.onnx, with
    onnxruntime-web, which npm downloads once (33 MB); without npm this process runs it.
    """
    from flows.server import browser_runtime
    from flows.server.demo import Demo
    from flows.server.demo_model import Tried

    tried = Tried.load(name, version)
    runtime, because = {}, ""
    try:
        runtime = browser_runtime.files()
    except browser_runtime.Missing as missing:
        because = str(missing)
        tell(f"{because}: answers come from this process, by the same file", file=sys.stderr)
    display.end()
    with Demo(tried, runtime, because, port or 0) as server:
        if as_json:
            print_json({"schema_version": 1, "name": name, "version": tried.version, "url": server.address})
        else:
            typer.echo(f"{name} version {tried.version} at {server.address} until Ctrl-C")
        sys.stdout.flush()
        server.serve_forever()
