"""What a retrain and a batch prediction say when they are done."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from flows.cli.options import as_typed
from flows.cli.tables import print_fact
from tasks.machine import progress
from tasks.machine.words import counted, duration, printable, readable
from tasks.records import QUESTIONS
from tasks.serving import task
from tasks.store import reading
from tasks.store.artifact_paths import REJECTS

if TYPE_CHECKING:
    from flows.pages.report import RetrainReport, TuneReport
    from tasks.records import GateVerdict, Prediction

FEW = 5  # rows whose answers are told
DROPS = "champion_accuracy", "champion_recall"  # gates that find by how much less a share is
AGAINST_ONE = " of version "  # in the reason of a bound: it is that version's
MARKS = {"passed": "[green]✓[/]", "refused": "[red]✗[/]", "recorded": " "}
ASCII_MARKS = {"passed": "[green]+[/]", "refused": "[red]x[/]", "recorded": " "}


def gates(verdicts: "Sequence[GateVerdict]") -> None:
    """What was judged, by what bound, for who watches; in a log each verdict has its line already."""
    if not verdicts or not progress.is_watched:
        return
    from tasks.judging import gates as judged

    console = progress.CONSOLE
    marks = MARKS if console.encoding.startswith("utf") else ASCII_MARKS
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title, justify in (("", "left"), ("gate", "left"), ("found", "right"), ("bound", "left")):
        table.add_column(title, justify=justify, no_wrap=title in ("gate", "found"))  # type: ignore[arg-type]
    for each in verdicts:
        found = judged.format_value(each)
        if each.name in DROPS:
            found = f"{readable(abs(each.value))} {'less' if each.value >= 0 else 'more'}"
        table.add_row(marks[each.verdict], each.name, found, escape(printable(_bound(each))))
    console.print()
    console.print(table)
    refused = [each.name for each in verdicts if each.verdict == "refused" and each.name in QUESTIONS]
    if refused:
        console.print("\n".join(["", *(f"{name} asks: {QUESTIONS[name]}" for name in refused)]), markup=False)
    console.print()


def _bound(verdict: "GateVerdict") -> str:
    """What was required; where nothing was, against which version, and why that decides nothing."""
    if verdict.verdict != "recorded":
        required, _, why = verdict.detail.partition(" required")
        return f"{required}{why}" if AGAINST_ONE in why else required
    if not verdict.name.startswith("champion"):
        return "recorded"
    _, opened, why = verdict.detail.partition("no bound (")
    return f"recorded: {why.removesuffix(')') if opened else verdict.detail}"


def retrained(result: "RetrainReport", owed: bool, artifacts: Path | None) -> None:
    """What was trained, how good it is, where it lies, and what to try next; ``owed``: predictions that failed."""
    quality = task.find_task(result.model).summary(result.metrics)
    rows = [
        (
            "trained" if result.was_trained else "kept",
            f"{result.model} ({result.implementation}) on {result.device}: {quality}",
        ),
        (result.outcome, _standing(result)),
        *([("model", result.model_path)] if result.model_path else []),
    ]
    if result.frozen:
        rows.append(("frozen", frozen(result)))
    if result.mirror:
        rows.append(("mirrored", f"{result.mirror.url}: version {result.mirror.version} ({result.mirror.outcome})"))
    if made := result.prediction:
        by = f"version {made.version}{', the champion' if made.version == result.champion else ''}"
        rows.append(("predictions", f"{made.path} ({counted(made.rows, 'row')} by {by}, {result.provider})"))
    elif owed:
        rows.append(("predictions", "none: the run failed before they were made"))
    rows.append(("evidence", result.run))
    if result.was_trained:
        gates(result.gates)
    _print(rows, list_next_steps(result, artifacts))


def frozen(result: "RetrainReport") -> str:
    """That no retrain changes the champion, and what to do about it."""
    return f"version {result.champion} stays the champion of {result.name} until gradmill unfreeze {result.name}"


def _standing(result: "RetrainReport") -> str:
    """What became of the candidate, and whether it is the champion; one rolled back from, or replaced, is not."""
    if result.version is None:
        return f"{result.name}: it {result.describe()}"
    same = f"{result.detail}, " if result.detail else ""
    version = f"{result.name} version {result.version}, {same}"
    if result.version == result.champion:
        return f"{version}the champion{_replaced(result)}"
    champion = f"version {result.champion}" if result.champion else "none"
    until = "" if result.outcome == "unchanged" else f" until gradmill promote {result.name} {result.version}"
    return f"{version}not the champion: that is {champion}{until}"


def _replaced(result: "RetrainReport") -> str:
    """The champion that this run has replaced, which may be a better one within what the gates allow."""
    from flows.pages.overview import figure

    pointer = reading.pointer(result.name) if result.outcome == "published" else None
    if pointer is None or pointer.version != result.version or pointer.previous is None:
        return ""
    now, before = (figure(reading.manifest(result.name, each)) for each in (pointer.version, pointer.previous))
    return f" in place of version {pointer.previous} ({now}, before {before})"


def list_next_steps(result: "RetrainReport", artifacts: Path | None) -> list[str]:
    """The commands that follow from what a retrain came to, as they are typed: publish, use, look at, promote."""
    name = result.name
    if result.frozen:
        return [as_typed(f"unfreeze {name}", artifacts), as_typed(f"models {name}", artifacts)]
    if result.outcome == "judged":  # --no-publish: the same, for good
        return [as_typed(shlex.join(each for each in sys.argv[1:] if each != "--no-publish"), None)]
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


def predicted(result: "Prediction", artifacts: Path | None) -> None:
    """How many rows, how fast, how sure, and where they are."""
    from flows.pages.run_pages import describe_truth

    version, speed = f"{result.name} version {result.version}", f" in {duration(result.seconds)}"
    drift = result.drift.describe()
    rows = [
        ("predicted", f"{counted(result.rows, 'row')} by {version} ({result.provider}){speed}"),
        ("rejected", counted(result.rejects, "row") + (f": see {result.path}/{REJECTS}" if result.rejects else "")),
        ("drift", f"{result.drift.verdict}{f' (index: {drift})' if drift else ''}"),
        ("output", str(result.file or f"{result.path} ({counted(result.parts, 'part')})")),
    ]
    if truth := describe_truth(result):
        rows.insert(2, ("truth", truth))
    if result.picture:
        rows.append(("picture", str(result.picture)))
    rows += [("" if number else "answers", each) for number, each in enumerate(_answers(result))]
    following = "retrain" if result.drift.verdict == "drift" else "show"
    _print(rows, [as_typed(f"{following} {result.name}", artifacts)])


def _answers(result: "Prediction") -> Iterator[str]:
    """What was said of each row, where they are few."""
    if not 0 < result.rows <= FEW:
        return
    import pyarrow.parquet as pq

    from tasks.batch.results import ID

    found = [row for part in sorted(result.path.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    are_files = len({row["source"] for row in found}) == len(found) > 1 or result.picture is not None
    for row in found:
        ids = ", ".join(f"{name.removeprefix(ID)} {value}" for name, value in row.items() if name.startswith(ID))
        of = Path(row["source"]).name if are_files else ids or f"row {row['row']}"
        sure = max((value for name, value in row.items() if name.startswith("probability_")), default=None)
        answer = readable(row["prediction"]) if "prediction" in row else printable(row["label_name"])
        yield f"{printable(of)}: {answer}{'' if sure is None else f' ({sure:.1%})'}"


def tuned(result: "TuneReport", following_it: str, artifacts: Path | None) -> None:
    """What was found, how much better it is than the settings of before, and the command that uses it."""
    from tasks.fitting.search_space import describe_settings

    losses = result.validation_losses, result.default_losses
    found, before = (
        (readable(fmean(each)) if each else "none") + (f" ± {stdev(each):.1g}" if len({*each}) > 1 else "")
        for each in losses
    )
    rows = [
        (result.outcome, f"{result.name}: the best of {counted(len(result.trials), 'trial')}"),
        ("settings", describe_settings(result.settings)),
        ("loss", f"{found} on {counted(result.num_validation, 'validation example')}; without the search {before}"),
        ("kept", result.path or "nothing: the settings of before are as good, or better"),
        ("evidence", result.run),
    ]
    _print(rows, () if result.retrained or not result.path else [following_it])
    if result.retrained and result.retrained.outcome == "refused":
        gates(result.retrained.gates)
    elif result.retrained:
        retrained(result.retrained, False, artifacts)


def _print(rows: Iterable[tuple[str, object]], commands: Iterable[str]) -> None:
    for label, value in rows:
        print_fact(label, str(value))
    for number, command in enumerate(commands):
        print_fact("" if number else "try next", command, is_command=True)
