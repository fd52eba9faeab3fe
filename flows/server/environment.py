"""The environment variables that we and our libraries read: invalid ones are reported before any work starts."""

import io
import os
import sys
from contextlib import redirect_stderr, suppress
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine.settings import Settings
from tasks.store import artifact_paths

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def require() -> None:
    """Check that any command can use its environment.

    Raises:
        UsageError: a variable has a value that cannot be used; the message names it.
        EnvironmentProblem: the working folder was removed.
    """
    try:
        Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"GRADMILL_{'_'.join(map(str, first['loc']))}".upper()
        raise _unusable_setting(variable, first["msg"].removeprefix("Input should be ").split(",")[0]) from error
    _require_artifacts()
    settle_prefect()


def _require_artifacts() -> None:
    try:
        path = str(artifact_paths.root())
        path.encode()
    except RuntimeError as error:
        raise _unusable_setting("GRADMILL_ARTIFACTS", "a folder; there is no such home folder") from error
    except FileNotFoundError as error:
        raise EnvironmentProblem("the working folder is gone", "a folder that exists", "cd to another") from error
    except UnicodeEncodeError as error:  # every document there names paths, and JSON is UTF-8
        found = f"the artifacts folder {os.fsencode(path).decode(errors='replace')} is not UTF-8"
        raise UsageError(found, "a path in UTF-8", "choose another with --artifacts, or rename it") from error


def settle_prefect() -> None:
    """Give Prefect a folder in artifacts/ if it cannot use a home folder, as in many containers."""
    place = artifact_paths.prefect_home() / "home"
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and this user is not in passwd; other libraries also need a home and a name
        os.environ["HOME"] = str(place)
        os.environ.setdefault("USER", f"uid-{os.getuid()}")
    else:
        own = home / ".prefect"
        if os.access(own if os.access(own, os.F_OK) else home, os.W_OK):
            return
    if os.environ.setdefault("PREFECT_HOME", str(place)) == str(place):
        with suppress(OSError):  # code that needs the folder reports it
            place.mkdir(parents=True, exist_ok=True)  # Prefect would create artifacts/ for this user alone


def hush_prefect() -> None:
    """Keep Prefect's own log off the terminal; it reads its settings when it is imported."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def require_prefect() -> None:
    """Check Prefect's settings, of which it would print the invalid ones at every import.

    Raises:
        UsageError: a variable (or a profile) has an invalid value; the message names it.
    """
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            import prefect.settings

            prefect.settings.get_current_settings()
    except ValidationError as error:
        first = error.errors()[0]
        value = str(first["input"]).lower()
        names = (name for name in os.environ if name.startswith("PREFECT_") and os.environ[name].lower() == value)
        setting = ".".join([error.title, *map(str, first["loc"])])
        name = next(names, f"{setting} of your Prefect profile")
        raise _unusable_setting(name, first["msg"].removeprefix("Input should be ")) from error
    sys.stderr.write(told.getvalue())


def spare_this_host() -> None:
    """Exempt servers on this host from proxies, for this process and its children."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [each.strip() for each in named.split(",") if each.strip()]
    if "*" not in known:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*known, *LOOPBACK]))


def _unusable_setting(variable: str, expected: str) -> UsageError:
    value = f"{variable}={os.environ[variable]}" if variable in os.environ else variable
    return UsageError(f"{value} cannot be used", expected, "correct it, or unset it")
