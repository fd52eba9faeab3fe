"""What a check found, and how a check is run so that nothing in it can end the examination."""

import io
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from tasks.errors import EnvironmentProblem, without_credentials
from tasks.parameters import Device


class Status(StrEnum):
    """``note``: works, but somebody may want to know. ``problem``: something that is required does not work."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the page. ``exit_code`` is not 0 for a problem only; ``facts`` are the same in numbers."""

    status: Status
    found: str
    action: str = ""
    exit_code: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    name: str = ""


Check = Callable[[Device], Finding]


def ok(found: str, **facts: Any) -> Finding:
    """What is asked for is there."""
    return Finding(Status.OK, found, facts=facts)


def note(found: str, action: str = "", **facts: Any) -> Finding:
    """Nothing that is required is missing."""
    return Finding(Status.NOTE, found, action, facts=facts)


def problem(found: str, action: str, exit_code: int = EnvironmentProblem.exit_code, **facts: Any) -> Finding:
    """Something that is required does not work; ``exit_code`` is the one a run would end with."""
    return Finding(Status.PROBLEM, found, action, exit_code, facts)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none; of a wrong setting no value, only why."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return next(iter(str(error).splitlines()), type(error).__name__)


def run(name: str, check: Check, device: Device, debug: bool) -> Finding:
    """What ``check`` finds; that it failed, where it raises."""
    dropped = io.StringIO()  # what libraries print and warn of
    try:
        with redirect_stdout(dropped), redirect_stderr(dropped), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            finding = check(device)
    except Exception as error:
        if debug:
            print(without_credentials(traceback.format_exc()), file=sys.stderr)
        found = f"this check itself failed: {type(error).__name__}: {first_line(error)}"
        setting = isinstance(error, ValidationError)
        finding = problem(found, "correct this setting in the environment" if setting else "run again with --debug")
    found, action = without_credentials(finding.found), without_credentials(finding.action)
    return replace(finding, name=name, found=found, action=action)
