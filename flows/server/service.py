"""The service of an artifacts folder: where its ``gradmill up`` answers, and the credential that it asks for."""

import fcntl
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.server.environment import LOOPBACK
from tasks.errors import DataError
from tasks.store import artifact_paths
from tasks.store.documents import Document

USER = "gradmill"
STARTING_SECONDS = 60.0  # a worker takes a few, and on a loaded machine many
WHAT_TO_DO = "see server.log in artifacts/.prefect/, and whether PREFECT_API_AUTH_STRING is as gradmill up has it"


class Service(Document):
    """What ``gradmill up`` writes for the commands beside it, and removes at its end; a lock tells whether it lives.

    Nobody else can answer at a server of its own: ``up`` itself holds the socket, also while it starts another server.
    """

    schema_version: int = 1
    api_url: str
    host: str | None = None  # of an address that means another machine elsewhere
    joined: bool = False  # the server is not of ``up``'s own
    own_credential: bool = False  # the server asks for the one in ``artifact_paths.credential()``


def make_service(api_url: str, **more: bool) -> Service:
    """The service that answers at ``api_url``, as seen from this machine."""
    host = socket.gethostname() if urlsplit(api_url).hostname in LOOPBACK else None
    return Service(api_url=api_url.rstrip("/"), host=host, **more)


def credential() -> tuple[str, bool]:
    """The credential of these artifacts' server, as ``user:password``, and whether it has just been made.

    It stays the same from one ``up`` to the next, so that browsers stay signed in; one that others could have read is
    made anew.
    """
    path = artifact_paths.credential()
    if path.is_file() and not path.stat().st_mode & 0o077 and ":" in (known := path.read_text().strip()):
        return known, False
    made = new_credential()
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:  # of mode 0600 from the beginning
        file.write(made + "\n")
    Path(file.name).replace(path)
    return made, True


def new_credential() -> str:
    """As ``user:password``, which nobody can guess."""
    return f"{USER}:{secrets.token_hex(24)}"


def find_service(quietly: bool = False) -> Service | None:
    """The service that is at work in these artifacts; says why an address that stands there is not one.

    That is no news, so ``quietly``, where somebody has named an API of their own.

    Raises:
        DataError: the address cannot be read.
    """
    path = artifact_paths.service()
    try:
        content = path.read_bytes()
        if not _is_of_the_dead():
            found = Service.parse(content, path, "start gradmill up again")
            if found.host in (None, socket.gethostname()):
                return found
            reason = f"gradmill up is at work on {found.host}, not on this machine"
        else:
            reason = f"the address in {path} is of a gradmill up that was killed"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        reason = f"{error.filename} is another user's"
    if not quietly:
        print(f"{reason}; going on without it", file=sys.stderr)
    return None


def _is_of_the_dead() -> bool:
    """Whether nobody has the lock; the address is then removed, which nobody can have written anew in the meantime."""
    with artifact_paths.up_lock().open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not meet
        except BlockingIOError:
            return False
        with suppress(OSError):
            artifact_paths.service().unlink()
    return True


def is_configured() -> bool:
    """Whether Prefect's settings point at the service of these artifacts, and it is at work."""
    from prefect.settings import PREFECT_API_URL

    with suppress(DataError):
        found = find_service(quietly=True)
        return found is not None and found.api_url == (PREFECT_API_URL.value() or "").rstrip("/")
    return False


def is_starting() -> bool:
    """Whether the service began so lately that its worker may not have told the server of itself yet."""
    with suppress(OSError):
        return is_configured() and time.time() - artifact_paths.service().stat().st_mtime < STARTING_SECONDS
    return False


@contextmanager
def use_service() -> Iterator[Service | None]:
    """Point Prefect's settings at the service of these artifacts, if one is at work and nobody has named another API.

    Raises:
        DataError: the address of the service, or its credential, cannot be read.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY

    configured = (PREFECT_API_URL.value() or "").rstrip("/")
    found = None if configured and PREFECT_API_AUTH_STRING.value() else find_service(quietly=bool(configured))
    if found is None or configured not in ("", found.api_url):
        yield None
        return
    # A run waits up to a second for the thread of its heartbeats to end. Of a command's run ``up`` looks at the lock on
    # its folder instead; runs of the worker have settings of their own.
    with use_api(found.api_url, _key(found), {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield found


def _key(service: Service) -> str | None:
    """The credential to send: of ``up``'s own making, or as the user has set it.

    Raises:
        DataError: somebody has removed the former.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_SERVER_API_AUTH_STRING

    if service.own_credential:
        try:
            return artifact_paths.credential().read_text().strip()
        except OSError as error:
            found = f"the credential of gradmill up cannot be read: {error}"
            raise DataError(found, "the file that it has made", "start gradmill up again") from error
    given_to_up: str | None = None if service.joined else PREFECT_SERVER_API_AUTH_STRING.value()
    return given_to_up or PREFECT_API_AUTH_STRING.value() or None


@contextmanager
def use_api(api_url: str, key: str | None, more: dict[Any, Any] | None = None) -> Iterator[None]:
    """Point Prefect's settings at an API, with the credential that it asks for if there is one, and ``more`` settings.

    They are all made anew, which takes a tenth of a second.
    """
    from prefect import settings

    known = {settings.PREFECT_API_URL: api_url, settings.PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True}
    known[settings.PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED] = False  # we do so ourselves (api.py), and once
    with settings.temporary_settings(known | ({settings.PREFECT_API_AUTH_STRING: key} if key else {}) | (more or {})):
        yield
