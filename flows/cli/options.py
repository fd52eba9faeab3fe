"""Options that several commands share, and what they do before any work starts."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks import artifact_paths, devices
from tasks.parameters import Device

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


def use(artifacts: Path | None) -> None:
    """Make ``--artifacts`` the setting of this process and its children."""
    if artifacts is not None:
        os.environ["GRADMILL_ARTIFACTS"] = str(artifacts)


def require(device: Device) -> None:
    """Fail before a server is started for nothing: the device is missing, or artifacts/ cannot be written."""
    devices.require(device)
    with tempfile.TemporaryFile(dir=artifact_paths.make_root()):
        pass


def print_json(document: Any) -> None:
    """The one document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
