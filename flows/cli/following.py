"""The commands that are worth trying next, as they work when they are typed here."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.options import as_typed

if TYPE_CHECKING:
    from flows.story.report import RetrainReport
    from tasks.records import Prediction


def retrained(result: "RetrainReport", artifacts: Path | None) -> list[str]:
    """What follows from what a retrain came to: publish, use, look at, compare, promote."""
    name = result.name
    if result.frozen:
        return [as_typed(f"unfreeze {name}", artifacts), as_typed(f"models {name}", artifacts)]
    if result.outcome == "judged":  # --no-publish: the same, for good
        same = (each for each in sys.argv[1:] if each != "--no-publish")
        return [as_typed(shlex.join(same), None)]
    if not result.champion:
        return []
    commands = [] if result.prediction else [f"predict --name {name}"]
    commands.append(f"show {name}")
    if result.outcome == "published" and result.version != result.champion:  # not a worse one that was made again
        commands.append(f"promote {name} {result.version}")
    elif result.outcome == "unchanged" and not result.was_trained:
        commands.append(f"retrain {name} --force")
    else:
        commands.append(f"demo {name}")
    commands.append(f"models {name}" if result.champion > 1 else f"verify {name}")
    return [as_typed(command, artifacts) for command in commands]


def predicted(result: "Prediction", artifacts: Path | None) -> list[str]:
    """A retrain where the input has drifted, else the model's page."""
    drifted = result.drift.verdict == "drift"
    return [as_typed(f"retrain {result.name}" if drifted else f"show {result.name}", artifacts)]
