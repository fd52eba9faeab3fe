"""A name's overview: what is live and its history, only from the state of the store (tasks/store/state.py)."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.pages.run_pages import FEW, describe_drift, tabulate_jobs
from tasks.judging.gates import format_value
from tasks.machine.words import format_number, pluralize
from tasks.store import artifact_paths, atomic, folders, state
from tasks.store.history import Change
from tasks.store.model_folder import Manifest
from tasks.store.page_rendering import Code, Link, Page, PagePicture, PageTable, Section, Text, render_html
from tasks.store.run_folder import list_changed
from tasks.store.state import NameState

SHOWN = 20  # versions, besides marked ones
# Settings that are shown elsewhere, or do not matter.
BY_ITSELF = ("model", "device", "seed", "implementation", "shape")


def draw_overview(facts: NameState) -> Page:
    """The page, with a picture of the trend if matplotlib is installed (extra ``train``)."""
    drawn, picture = state.find_trend(facts), None
    if drawn and drawn.points:
        try:
            from tasks.judging import plots  # takes half a second
        except ModuleNotFoundError:
            pass
        else:
            picture = PagePicture(f"{drawn.figure} of the last runs", plots.draw_trend(drawn), "trend.png")
    return Page(facts.name, format_headline(facts), list_sections(facts, picture))


def write_report(facts: NameState, path: Path) -> None:
    """Write the page as one HTML file that needs no other."""
    atomic.write_bytes(path, render_html(draw_overview(facts)).encode())


def format_headline(facts: NameState) -> str:
    """One line: what is live since when, how good it is, and the outcome of the last run."""
    pointer, live = facts.pointer, facts.live
    parts = ["the live version is unknown: champion.json cannot be read" if facts.numbers else "no version is live"]
    if pointer:
        parts = [f"version {pointer.version} live since {_day(pointer.promoted_at)}"]
        parts += [find_headline_figure(live)] if live else []
        parts += ["frozen"] if pointer.frozen else []
    return "; ".join(filter(None, (", ".join(parts), _describe_last_run(facts), _describe_drift(facts))))


def list_sections(facts: NameState, picture: PagePicture | None) -> tuple[Section, ...]:
    """All sections, the most urgent first; some may be empty."""
    return (
        Section("Live", (PageTable(tuple(_list_live_facts(facts))),)),
        Section("Held and frozen", tuple(_describe_holds(facts))),
        Section("Last run", tuple(_describe_last_runs(facts))),
        Section("Trend", (picture,)),
        Section("Predictions", (tabulate_jobs(facts.jobs),)),
        Section("Versions", (tabulate_versions(facts),)),
        Section("Files", (tabulate_files(facts),)),
        Section("Changes", (tabulate_changes(facts.changes[:FEW]),)),
        Section("Disk", (PageTable(tuple(_list_disk_facts(facts))),)),
        Section("By command", (PageTable(tuple(_list_commands(facts))),)),
        Section("What could not be read", tuple(_list_faults(facts))),
    )


def tabulate_names(names: Iterable[NameState], url: str) -> PageTable:
    """One row per name: what is live, how good it is, the outcome of its last run, and what is unusual.

    Rows link to the name's overview and the champion's page below ``url``.
    """
    rows = []
    for facts in names:
        pointer, here = facts.pointer, f"{url}/{facts.name}"
        without_champion = "unknown" if facts.numbers else "none"
        unusual = ["frozen"] if pointer and pointer.frozen else []
        unusual += [f"version {number} held" for number in (pointer.held if pointer else ())]
        last = f"{_minute(facts.runs[0].date)} " if facts.runs else ""
        rows.append(
            (
                Link(facts.name, here),
                Link(f"version {pointer.version}", f"{here}/{pointer.version}") if pointer else without_champion,
                _minute(pointer.promoted_at) if pointer else "",
                ", ".join(list_figures(facts.live)) if facts.live else "",
                f"{last}{_describe_last_run(facts).removeprefix('last run ')}",
                "; ".join(filter(None, (*unusual, _describe_drift(facts)))),
            )
        )
    return PageTable(rows, ("model", "champion", "since", "figures", "last run", "note"))


def find_headline_figure(manifest: Manifest) -> str:
    """The single figure that fits into a headline."""
    return list_figures(manifest)[0]


def list_figures(manifest: Manifest) -> list[str]:
    """The figures of a version on its test split."""
    found: dict[str, Any] = manifest.metrics.model_dump()
    told = []
    if found.get("test_accuracy") is not None:
        told.append(f"accuracy {found['test_accuracy']:.3f}")
    told += [
        f"{word} {format_number(found[key])}"
        for key, word in {"rmse": "RMSE", "r2": "R²"}.items()
        if isinstance(found.get(key), int | float)  # the schema of a manifest leaves these open
    ]
    return [*told, f"loss {format_number(found['test_loss'])}"]


def tabulate_versions(facts: NameState) -> PageTable:
    """The newest versions and the marked ones, one row each."""
    head = ("version", "published", "figures", "settings", "seed", "rows", "data", "size", "")
    rows, newest = [], facts.numbers[-SHOWN:]
    for number, _, size, manifest in facts.versions[::-1]:
        mark = _mark(facts, number)
        if number not in newest and not mark:
            continue
        training = manifest.parameters.training.model_dump(mode="json")
        settings = list_changed(training, manifest.dataset.defaults)
        told = (f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if key not in BY_ITSELF)
        rows.append(
            (
                str(number),
                _minute(manifest.created_at),
                ", ".join(list_figures(manifest)),
                ", ".join([manifest.kind, *told]),
                str(training.get("seed", "")),
                f"{manifest.dataset.num_train + manifest.dataset.num_test:,}",
                manifest.dataset.digest[:8],
                _size(size),
                mark,
            )
        )
    return PageTable(rows, head)


def _describe_last_run(facts: NameState) -> str:
    if not facts.runs:
        return "no run yet"
    last, judged = facts.runs[0], facts.last_judged
    told = f"last run {last.in_words}"
    if judged and judged is not last and judged.outcome != "published":
        told += f", the one judged before, on {_day(judged.date)}, {judged.in_words}"
    return told


def _describe_drift(facts: NameState) -> str:
    """The drift of the last input of a user."""
    last = facts.last_job
    drift = describe_drift(last) if last else ""
    if last is None or not drift:
        return ""
    when = "last prediction" if last is facts.jobs[0] else f"prediction of {_day(last.finished_at or '')}"
    word, *moved = drift.split(": ", 1)
    return ": ".join([f"{word} in the {when}", *moved])


def _list_live_facts(facts: NameState) -> Iterator[tuple[str, Text]]:
    pointer, live = facts.pointer, facts.live
    if pointer:
        yield "version", str(pointer.version)
        yield "since", f"{_minute(pointer.promoted_at)} UTC, as all times here"
    if live:
        data = live.dataset
        rows = f"{pluralize(data.num_train, 'training row')} and {pluralize(data.num_test, 'test row')}"
        yield "figures", ", ".join(list_figures(live))
        yield "data", f"{data.title or data.name}, {rows}, digest {data.digest[:8]}"
        yield "trained", f"{_minute(live.created_at)} by run {live.run}"
    if facts.source:
        yield "source", Code(facts.source)
    if facts.mirror:
        yield "mirror", facts.mirror
    if pointer and pointer.previous:
        yield "back to", (f"version {pointer.previous}: ", Code(f"gradmill rollback {facts.name}"))


def _describe_holds(facts: NameState) -> Iterator[Text]:
    pointer, name = facts.pointer, facts.name
    if pointer and pointer.frozen:
        yield "Frozen: retrains are judged and none is published, until ", Code(f"gradmill unfreeze {name}")
    for number in pointer.held if pointer else ():
        yield (
            f"Version {number} is held: no retrain brings it back, ",
            Code(f"gradmill promote {name} {number}"),
            " does",
        )


def _describe_last_runs(facts: NameState) -> Iterator[Text]:
    """The outcome of the last run; for the last judged one also why it was refused."""
    last, judged = facts.runs[0] if facts.runs else None, facts.last_judged
    if last:
        yield f"{_minute(last.date)}: {last.in_words}"
        if last.time_limit is not None:
            limit = Code("GRADMILL_TIME_LIMIT")
            yield "A longer ", limit, " (HH:MM:SS, a job variable of its deployment) gives it more time"
        yield from facts.errors_in_data[:FEW]
    if judged and judged is not last:
        yield f"The last run that was judged, {_minute(judged.date)}: {judged.in_words}"
    refused = [gate for gate in (judged.gates if judged else ()) if not gate.passed]
    yield from (f"{gate.name} {format_value(gate)}: {gate.detail}" for gate in refused)
    if judged and refused:
        yield "Evidence: ", Code(judged.path)


def tabulate_changes(changes: Iterable[Change]) -> PageTable:
    """Who changed what, when and why, one row each."""
    rows = [
        (
            _minute(change.at),
            f"{change.what} (interrupted)" if change.interrupted else change.what,
            ", ".join(map(str, change.versions)),
            f"{change.step}{', frozen' * change.frozen}",
            change.by.rpartition("-")[2] if artifact_paths.RUN_NAME.fullmatch(change.by) else change.by,
            change.reason,
        )
        for change in changes
    ]
    return PageTable(rows, ("when", "what", "version", "champion", "by", "why"))


def tabulate_files(facts: NameState) -> PageTable:
    """The files of own data that the newest versions were trained on."""
    rows = []
    for number, paths in [*facts.files.items()][: -FEW - 1 : -1]:
        more = f"and {len(paths) - FEW:,} more" if len(paths) > FEW else ""
        rows.append((str(number), ", ".join(filter(None, (*paths[:FEW], more)))))
    return PageTable(rows, ("version", "trained on"))


def _list_disk_facts(facts: NameState) -> Iterator[tuple[str, str]]:
    free, total = folders.read_disk_space()
    told = ", ".join(f"{part} {_size(number)}" for part, number in facts.disk.items())
    yield facts.name, f"{_size(sum(facts.disk.values()))} ({told})"
    yield "free", f"{_size(free)} of {_size(total)}, {free / total:.0%}"


def _list_commands(facts: NameState) -> Iterator[tuple[str, Text]]:
    """Commands for questions of an engineer on duty that no page answers."""
    yield "next and stuck runs, workers, alerts", Code("gradmill status")
    if facts.is_scheduled:
        yield "leave out the next run", Code(f"gradmill skip {facts.name}")
        yield "other settings, once", Code("gradmill trigger DEPLOYMENT --param training.lr=0.1")
        yield "other settings, for good", Code("gradmill schedule DEPLOYMENT --param training.lr=0.1")
    else:
        yield "retrain it every night", Code(f"gradmill schedule {facts.name} --cron '0 3 * * *'")
    yield "if this machine dies", ("docs/backup.md: copy every night, restore, then ", Code("gradmill verify --all"))
    yield "figures for Prometheus", Code("gradmill metrics")


def _list_faults(facts: NameState) -> Iterator[str]:
    yield from (fault.found for fault in facts.faults[:FEW])
    if len(facts.faults) > FEW:
        yield f"and {len(facts.faults) - FEW:,} more"


def _mark(facts: NameState, number: int) -> str:
    pointer = facts.pointer
    if pointer is None:
        return ""
    return "champion" if pointer.version == number else "held" if number in pointer.held else ""


def _day(moment: str) -> str:
    """A day, with the year unless it is the current one."""
    when = datetime.fromisoformat(moment)
    return f"{when:%-d %b}" if when.year == datetime.now(when.tzinfo).year else f"{when:%-d %b %Y}"


def _minute(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}"


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
