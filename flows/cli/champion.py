"""``gradmill promote``, ``rollback``, ``freeze``, ``unfreeze``: the mirror follows, and the Prefect server hears."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import interrupt
from flows.cli.faults import as_gradmill_error, conclude
from flows.cli.options import ModelArgument
from tasks.errors import DataError, EnvironmentProblem, GradmillError, without_credentials
from tasks.machine.telling import Event
from tasks.records import MirroredModel
from tasks.store import artifact_paths, mirroring, pointer, reading
from tasks.store.atomic import file_digest

Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why: gradmill history tells it.")]


def promote(
    name: ModelArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to use from now on.")],
    artifacts: Path | None,
    as_json: bool,
    reason: Reason = None,
) -> None:
    """Make a version the champion, and lift its hold; a frozen name stays frozen."""
    url, before = mirroring.destination(), _champion(name)
    changed = pointer.promote(name, version, reason)
    done = f"{before or 'none'} → {version}" if changed else f"version {version} is the champion already"
    document = {"name": name, "champion": version, "before": before, "changed": changed}
    _finish(f"{name}: {done}", document, Event.PROMOTED if changed else None, url, artifacts, as_json)


def rollback(
    name: ModelArgument,
    artifacts: Path | None,
    as_json: bool,
    reason: Reason = None,
    no_freeze: Annotated[bool, typer.Option("--no-freeze", help="Let the next retrain publish again.")] = False,
) -> None:
    """Go back to the champion before, hold the version left, and freeze the name.

    No retrain brings the version left back, only promote does. And none publishes until gradmill unfreeze: when data
    grow, tonight's model differs in bytes, and what was wrong with the data would come back in it.
    """
    url = mirroring.destination()
    left, champion = pointer.rollback(name, reason, freeze=not no_freeze)
    done = f"{name}: {left} → {champion}, version {left} is held"
    document = {"name": name, "champion": champion, "before": left, "held": left, "frozen": pointer.is_frozen(name)}
    _finish(done, document, Event.ROLLED_BACK, url, artifacts, as_json)


def freeze(name: ModelArgument, artifacts: Path | None, as_json: bool, reason: Reason = None) -> None:
    """Let no retrain change the champion: candidates are trained and judged, and none is published."""
    _freeze(name, True, reason, artifacts, as_json)


def unfreeze(name: ModelArgument, artifacts: Path | None, as_json: bool, reason: Reason = None) -> None:
    """Let retrains publish again."""
    _freeze(name, False, reason, artifacts, as_json)


def _freeze(name: str, frozen: bool, reason: str | None, artifacts: Path | None, as_json: bool) -> None:
    url = mirroring.destination()
    champion, changed = pointer.freeze(name, reason, frozen)
    done = f"{name}: version {champion} {'stays' if changed else 'is'} the champion"
    document = {"name": name, "champion": champion, "frozen": frozen, "changed": changed}
    event = Event.FROZEN if frozen else Event.UNFROZEN
    _finish(done, document, event if changed else None, url, artifacts, as_json)


def _champion(name: str) -> int | None:
    """The champion before, None where there is none that can be told."""
    with suppress(GradmillError):
        return reading.resolve(name, None)
    return None


def _finish(
    done: str,
    document: dict[str, Any],
    event: Event | None,
    url: str | DataError | None,
    artifacts: Path | None,
    as_json: bool,
) -> None:
    """Mirror the champion where retrains do, and say what was done, the mirror's part and whether retrains may undo it.

    Only then is the ``event`` sent, for which a server may keep us waiting.

    Raises:
        EnvironmentProblem: the champion has changed here, and the mirror has not.
    """
    name = document["name"]
    interrupt.achieved(done)
    mirrored, failure = _mirror(done, name, url, artifacts) if url is not None else (None, None)
    if mirrored is not None:
        document["mirror"] = mirrored.model_dump(mode="json")
    mirror = f", mirror: {'done' if mirrored else 'NOT DONE'}" if url is not None else ""
    is_frozen = pointer.is_frozen(name)
    text = f"{done}{mirror}, {'' if is_frozen else 'not '}frozen"
    if held := document.get("held"):
        text += f"\nheld: no retrain publishes version {held} again, only gradmill promote {name} {held} does"
    if is_frozen:
        text += f"\nfrozen: candidates are judged, and nothing is published until gradmill unfreeze {name}"
    try:
        conclude(document, text, failure, as_json=as_json)
    finally:
        if event is not None:
            from flows.server import connection  # which imports Prefect: now that the rest is done

            path = artifact_paths.version(name, document["champion"]) / artifact_paths.ONNX
            payload = {"version": document["champion"], "sha256": file_digest(path), "path": str(path)}
            connection.announce(event, name, payload)


def _mirror(
    done: str, name: str, url: str | DataError, artifacts: Path | None
) -> tuple[MirroredModel | None, EnvironmentProblem | None]:
    """What was mirrored, or why it was not, and the command that makes up for it."""
    if isinstance(url, DataError):
        return None, EnvironmentProblem(f"{done}; no mirror has followed: {url.found}", url.expected, url.action)
    behind = f"{done}; the mirror {url} has not followed"
    again = shlex.join(["gradmill", "mirror", name, url, *(["--artifacts", str(artifacts)] if artifacts else [])])
    action = f"{again}, once it can be"
    interrupt.achieved(without_credentials(f"{behind}; to do: {action}"))
    try:
        mirrored = mirroring.mirror(name, url)
        interrupt.achieved(done)
        return mirrored, None
    except Exception as error:
        reason = as_gradmill_error(error).found
        return None, EnvironmentProblem(f"{behind}: {reason}", "the same champion there", action)
