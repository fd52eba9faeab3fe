"""Options that several commands share, and what they do before any work starts."""

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import streams
from flows.server import environment
from tasks.machine import devices
from tasks.parameters import Device, ModelName
from tasks.store import artifact_paths

print_json = streams.print_json

LAST: Any = {"rich_help_panel": "General"}  # what most commands take stands below what is their own
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, all else on stderr.", **LAST)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log.", **LAST)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what fails.", **LAST)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", **LAST)]
Artifacts = Annotated[
    Path | None,
    typer.Option(
        "--artifacts",
        metavar="DIR",
        help="Where everything is kept \\[env: GRADMILL_ARTIFACTS; default: ./artifacts].",
        **LAST,
    ),
]


def _names(incomplete: str) -> list[str]:
    """Kept names, for the completion of shells."""
    from tasks.store import reading

    return [name for name in reading.names() if name.startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    """What can be trained: the book's models, and kept names."""
    return sorted({*_names(incomplete), *(name for name in ModelName if name.startswith(incomplete))})


COMPLETED = {"name": _names, "model": _models}  # by the field that an option or argument sets
ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="Which model.", autocompletion=_names)]
OnlyModel = Annotated[str | None, typer.Argument(metavar="NAME", help="Only this model.", autocompletion=_names)]
DeviceOption = Annotated[
    Device, typer.Option("--device", metavar="auto|cpu|cuda", help="auto takes the GPU where there is one.")
]


def use(artifacts: Path | None) -> None:
    """Make ``--artifacts`` the setting of this process and its children, and see that the environment can be used.

    Raises:
        UsageError: a variable has a value that cannot be used.
        EnvironmentProblem: there is no working folder.
    """
    choose(artifacts)
    environment.require()


def choose(artifacts: Path | None) -> None:
    """Make ``--artifacts`` the setting of this process and its children."""
    if artifacts is not None:
        os.environ["GRADMILL_ARTIFACTS"] = str(artifacts)


def require(device: Device) -> None:
    """Fail before a server is started for nothing: the device is missing, or artifacts/ cannot be written."""
    devices.require(device)
    with tempfile.TemporaryFile(dir=artifact_paths.make_root()):
        pass


def as_typed(command: str, artifacts: Path | None) -> str:
    """``command`` of this very program as it works when it is typed here, on the same ``--artifacts``."""
    typed, found = sys.argv[0], shutil.which("gradmill")
    program = f"{shlex.quote(sys.executable)} -m flows"
    if found and os.path.realpath(found) == os.path.realpath(typed):
        program = "gradmill"
    elif Path(typed).name == "gradmill":
        program = shlex.quote(typed)
    return f"{program} {command}" + (f" --artifacts {shlex.quote(str(artifacts))}" if artifacts else "")
