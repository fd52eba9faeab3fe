"""The sections of a name's overview, of the facts alone (tasks/store/state.py)."""

from collections.abc import Iterator

from flows.story import overview_tables as tables
from flows.story import overview_words as words
from flows.story.blocks import Pictures, Section, said
from tasks.judging.gates import format_value
from tasks.store.state import NameState

FEW = 10  # rows of a table
MORE_TIME = "A longer `GRADMILL_TIME_LIMIT` (HH:MM:SS, a job variable of its deployment) gives it more"


def headline(facts: NameState) -> str:
    """What is live since when, how good it is, and what the last run came to, in a line."""
    pointer, live = facts.pointer, facts.live
    parts = ["no version is live"]
    if pointer:
        parts = [f"version {pointer.version} live since {words.day(pointer.promoted_at)}"]
        parts += [words.figure(live)] if live else []
        parts += ["frozen"] if pointer.frozen else []
    return "; ".join(filter(None, (", ".join(parts), _last(facts), _drift(facts))))


def sections(facts: NameState, picture: Pictures | None) -> tuple[Section, ...]:
    """All that is told, the most urgent first; what there is nothing to say of is left out."""
    told = (
        Section("Live", rows=tuple(_live(facts)), head=("", "")),
        Section("Held and frozen", tuple(_holds(facts))),
        _last_runs(facts),
        Section("Trend", picture=picture),
        Section("Predictions", rows=tuple(map(tables.job, facts.jobs)), head=tables.JOBS),
        Section("Versions", rows=tuple(tables.versions(facts)), head=tables.VERSIONS),
        Section("Changes", rows=tuple(map(tables.change, facts.changes[:FEW])), head=tables.CHANGES),
        Section("Disk", rows=tuple(tables.disk(facts)), head=("", "")),
        Section("By command", rows=tuple(_commands(facts)), head=("", "")),
        Section("What could not be read", tuple(_faults(facts))),
    )
    return tuple(each for each in told if each.lines or each.rows or each.picture)


def _last(facts: NameState) -> str:
    if not facts.runs:
        return "no run yet"
    last, judged = facts.runs[0], facts.last_judged
    told = f"last run {last.in_words}"
    if judged and judged is not last and judged.outcome != "published":
        told += f", the one judged before, on {words.day(judged.date)}, {judged.in_words}"
    return told


def _drift(facts: NameState) -> str:
    """Of the last input that somebody gave: each retrain predicts its own test split, too, which hides it otherwise."""
    last = next((job for job in facts.jobs if not words.is_own_test_split(job)), None)
    if last is None or last.drift is None or last.drift.verdict != "drift":
        return ""
    when = "last prediction" if last is facts.jobs[0] else f"prediction of {words.day(last.finished_at or '')}"
    return f"DRIFT in the {when}"


def _live(facts: NameState) -> Iterator[tuple[str, str]]:
    pointer, live = facts.pointer, facts.live
    if pointer:
        yield "version", str(pointer.version)
        yield "since", f"{words.moment(pointer.promoted_at)} UTC, as all times here"
    if live:
        dataset = live.dataset
        yield "figures", words.figures(live)
        yield "data", f"{said(dataset.title or dataset.name)}, {words.rows(live)}, digest {dataset.digest[:8]}"
        yield "trained", f"{words.moment(live.created_at)} by run {live.run}"
    if facts.source:
        yield "source", f"`{said(facts.source)}`"
    if facts.mirror:
        yield "mirror", said(facts.mirror)
    if pointer and pointer.previous:
        yield "back to", f"version {pointer.previous}: `gradmill rollback {facts.name}`"


def _holds(facts: NameState) -> Iterator[str]:
    pointer, name = facts.pointer, facts.name
    if pointer and pointer.frozen:
        yield f"Frozen: retrains are judged and none is published, until `gradmill unfreeze {name}`"
    for number in pointer.held if pointer else ():
        yield f"Version {number} is held: no retrain brings it back, `gradmill promote {name} {number}` does"


def _faults(facts: NameState) -> Iterator[str]:
    yield from (said(fault.found) for fault in facts.faults[:FEW])
    if len(facts.faults) > FEW:
        yield f"and {len(facts.faults) - FEW:,} more"


def _commands(facts: NameState) -> Iterator[tuple[str, str]]:
    """What the person on duty asks that no page has."""
    yield "next and stuck runs, workers, alerts", "`gradmill status`"
    if facts.is_scheduled:
        yield "leave out the next run", f"`gradmill skip {facts.name}`"
        yield "other settings, once", "`gradmill trigger DEPLOYMENT --param training.lr=0.1`"
        yield "other settings, for good", "`gradmill schedule DEPLOYMENT --param training.lr=0.1`"
    else:
        yield "retrain it every night", f"`gradmill schedule {facts.name} --cron '0 3 * * *'`"
    yield "does an alert arrive", "`gradmill notify --test`"
    yield "if this machine dies", "`gradmill backup DIR` here, `gradmill restore DIR` on another"
    yield "figures for Prometheus", "`gradmill metrics`"


def _last_runs(facts: NameState) -> Section:
    """What the last run came to; of the last judged one why it was refused."""
    lines = [f"{words.moment(run.date)}: {run.in_words}" for run in facts.runs[:1]]
    if facts.runs:
        lines += [MORE_TIME] * (facts.runs[0].time_limit is not None)
        lines += [said(each) for each in facts.errors_in_data[:FEW]]
    judged = facts.last_judged
    if judged and judged is not facts.runs[0]:
        lines.append(f"The last run that was judged, {words.moment(judged.date)}: {judged.in_words}")
    refused = [gate for gate in (judged.gates if judged else ()) if not gate.passed]
    lines += [f"{gate.name} {format_value(gate)}: {said(gate.detail)}" for gate in refused]
    lines += [f"Evidence: `{said(judged.path)}`"] if judged and refused else []
    return Section("Last run", tuple(lines))
