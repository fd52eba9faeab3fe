"""Every error as one to three lines (or one JSON document) and an exit code."""

import sys
from typing import Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from flows.cli.options import print_json
from tasks import artifact_paths
from tasks.errors import EnvironmentProblem, GradmillError, UsageError

Parameters = TypeVar("Parameters", bound=BaseModel)

CommandLineFault: type[Exception] = typer.BadParameter.__bases__[0]  # every fault in what was typed, old typer or new

# The option that sets each parameter, and what it takes where pydantic's own words would not help.
OPTIONS = {
    "num_epochs": "epochs", "weight_decay": "weight-decay", "dropout": "dropout", "validation": "validation",
    "patience": "patience", "batch_size": "batch-size", "lr": "lr", "loss": "loss", "seed": "seed", "name": "name",
    "version": "version", "resize": "resize", "columns": "columns", "max_rejects": "max-rejects",
    "max_drift": "max-drift", "shard_rows": "shard-rows", "workers": "workers",
}  # fmt: skip
EXPECTED = {
    "--name": "1 to 63 lower-case letters, digits and hyphens, no hyphen first",
    "--seed": "a whole number from 0 to 2**63 - 1, or auto",
}


def validated(kind: type[Parameters], document: dict[str, Any], command: str) -> Parameters:
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


def as_gradmill_error(error: Exception) -> GradmillError:
    """What went wrong, in words for a user."""
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


def in_json(error: GradmillError) -> dict[str, Any]:
    """The error as it stands in a document."""
    return {
        "exit_code": error.exit_code,
        "found": error.found,
        "expected": error.expected,
        "action": error.action,
    }


def report_fault(error: GradmillError, as_json: bool) -> int:
    """Print an error where the user looks for it; return its exit code."""
    if as_json:
        print_json({"error": in_json(error)})
    else:
        print(f"gradmill: {error}", file=sys.stderr)
    return error.exit_code
