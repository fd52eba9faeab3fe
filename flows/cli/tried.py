"""``gradmill models --runs``: what retrains came to, published or not."""

from collections.abc import Callable
from enum import StrEnum

import typer
from rich.table import Table

from flows.cli.options import print_json
from flows.cli.tables import TEST_FIGURES, add_row, figures_of_test, print_line, print_table
from tasks.errors import UsageError
from tasks.machine.words import nearest, readable, short
from tasks.store import artifact_paths, tried
from tasks.store.tried import Tried


class By(StrEnum):
    """What comes first."""

    DATE = "date"
    ACCURACY = "accuracy"
    LOSS = "loss"
    VALIDATION = "validation"
    SECONDS = "seconds"


BEST_FIRST: dict[By, Callable[[Tried], float | None]] = {
    By.ACCURACY: lambda run: None if run.test_accuracy is None else -run.test_accuracy,
    By.LOSS: lambda run: run.test_loss,
    By.VALIDATION: lambda run: run.validation_loss,
    By.SECONDS: lambda run: run.seconds,
}
SHORT = {"num_epochs": "epochs", "batch_size": "batch"}


def show(name: str | None, by: By, as_json: bool) -> None:
    """Print the runs of a name, or of all.

    Raises:
        UsageError: there is no run of this name.
    """
    found = tried.runs(name)
    if name and not found:
        known = sorted({run.name for run in tried.runs()})
        to_do = nearest(name, known, "see gradmill models --runs")
        raise UsageError(f"no run of {name}", f"one of: {', '.join(known) or 'none yet'}", to_do)
    if key := BEST_FIRST.get(by):  # else the newest first, as they are
        among = (lambda run: "") if by is By.SECONDS else (lambda run: run.name)  # losses of other data say nothing
        found = sorted(found, key=lambda run: (among(run), key(run) is None, key(run) or 0.0))
    place = artifact_paths.runs()
    if as_json:
        print_json({"schema_version": 1, "path": str(place), "runs": [run.model_dump(mode="json") for run in found]})
    elif not found:
        typer.echo(f"no runs in {place}; gradmill retrain --no-publish makes one that leaves the store alone")
    else:
        _print(found)
        print_line(
            f"in {place}: a run's folder ends with its id; only settings that differ from the default are listed"
        )


def _print(found: list[Tried]) -> None:
    is_watched = any(run.validation_loss is not None for run in found)
    head = ["model", "date", "id", "outcome", *TEST_FIGURES, *(["validation"] * is_watched), "s", "settings"]
    table = Table(*head, box=None, pad_edge=False)
    for run in found:
        validation = "" if run.validation_loss is None else readable(run.validation_loss)
        figures = [*figures_of_test(run.test_accuracy, run.test_loss), *([validation] * is_watched)]
        date, digits = run.date[5:16].replace("T", " "), run.run.rpartition("-")[2]  # of this year, most of them
        cells = (run.name, date, digits, _outcome(run), *figures, f"{run.seconds:.1f}", _settings(run))
        add_row(table, *cells)
    print_table(table, ("s", "validation", "date", "log loss"))


def _outcome(run: Tried) -> str:
    words = {
        "published": f"published as {run.version}",
        "unchanged": f"unchanged: {run.version}",
        "refused": f"refused by {run.detail}",
    }
    if run.time_limit is not None:
        return f"time limit: {run.detail}"
    has_stage = run.outcome in ("failed", "unfinished") and run.detail
    return words.get(run.outcome, f"{run.outcome}: {run.detail}" if has_stage else run.outcome)


def _settings(run: Tried) -> str:
    changed = {name: value for name, value in run.changed.items() if name not in ("model", "device")}
    return ", ".join(f"{SHORT.get(name, name.replace('_', ' '))} {short(value)}" for name, value in changed.items())
